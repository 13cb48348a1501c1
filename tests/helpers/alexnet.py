"""A file of weights and a library that stand for AlexNet and lpips, neither of which may be shipped."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import torch


class _Distance(torch.nn.Module):
    """Mean difference of two pictures, and the weight of its trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.ModuleDict({"slice1": torch.nn.ParameterDict({"0": torch.zeros(1)})})

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first - second).abs().mean() + self.net["slice1"]["0"]


def lpips_of_mean_differences() -> SimpleNamespace:
    """What ``import lpips`` gives."""

    def make(net: str, pnet_rand: bool, verbose: bool) -> _Distance:
        assert (net, pnet_rand, verbose) == ("alex", True, False), "nothing may be fetched"
        return _Distance()

    return SimpleNamespace(LPIPS=make)


def write_alexnet(folder: Path) -> Path:
    """A state in which the only weight of the trunk is 3."""
    path = folder / "alexnet.pth"
    torch.save({"features.0": torch.full((1,), 3.0)}, path)
    return path


def digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
