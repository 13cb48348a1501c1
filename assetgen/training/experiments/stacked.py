"""Perceptrons of many runs side by side, as batched matrix products over a leading run dimension; torch only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.models.layers import LEAK


class Draws:
    """Random numbers of several runs: run k draws from its own generator, so it does not matter who runs beside it."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def stack(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """``draw`` once a run, stacked to ``[runs, ...]``."""
        return torch.stack([draw(rng) for rng in self.generators])

    def normal(self, *shape: int) -> Tensor:
        """Standard normal ``[runs, *shape]``."""
        return self.stack(lambda rng: torch.randn(shape, generator=rng))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), ``[runs, *shape]``."""
        return self.stack(lambda rng: torch.rand(shape, generator=rng))


class Perceptrons(nn.Module):
    """One perceptron a run: ``[runs, n, widths[0]]`` to ``[runs, n, widths[-1]]``, leaky rectifiers between layers.

    Args:
        group: append to the last hidden layer the mean deviation over groups of so many neighbours (Karras et al.
            2018), one number for all of a group; 0 for none.
    """

    def __init__(self, widths: Sequence[int], draws: Draws, *, group: int = 0) -> None:
        super().__init__()
        inputs = [*widths[:-2], widths[-2] + bool(group)]
        gain = math.sqrt(2 / (1 + LEAK**2))
        self.weights = nn.ParameterList(
            draws.normal(a, b) * (gain / math.sqrt(a)) for a, b in zip(inputs, widths[1:], strict=True)
        )
        self.biases = nn.ParameterList(torch.zeros(len(draws.generators), 1, b) for b in widths[1:])
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = F.leaky_relu(torch.baddbmm(bias, x, weight), LEAK)
        if self.group:
            x = torch.cat([x, _deviation(x, self.group)], dim=2)
        return torch.baddbmm(self.biases[-1], x, self.weights[-1])


def _deviation(x: Tensor, group: int) -> Tensor:
    runs, n, width = x.shape
    groups = x.reshape(runs, n // group, group, width)
    deviation = (groups.var(dim=2, unbiased=False) + 1e-8).sqrt().mean(dim=2)
    return deviation.repeat_interleave(group, dim=1)[:, :, None]
