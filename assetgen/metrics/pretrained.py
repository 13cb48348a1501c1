"""Figures of the usual pretrained networks, FID, KID and LPIPS, from weights files that the user supplies; torch."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assetgen.errors import ConfigInvalid, RuntimeMissing
from assetgen.metrics.pictures import ByteArray, check_pair


def inception_distances(fakes: ByteArray, reals: ByteArray, weights: Path, sha256: str) -> dict[str, float]:
    """``fid`` (Heusel et al. 2017) and ``kid`` (Binkowski et al. 2018) of pictures of one size.

    FID depends on the number of pictures and is far too high below some thousand: compare equal numbers only.

    Args:
        weights: Inception weights in torch-fidelity's form; nothing is fetched.
        sha256: hex digest that the file must have, from whoever made it.

    Raises:
        ConfigInvalid: the file is missing, or another. RuntimeMissing: torch-fidelity is not installed.
    """
    check_pair(fakes, reals)
    verify(weights, sha256)
    library = _torch_fidelity()
    found = library.calculate_metrics(
        input1=_Pictures(fakes),
        input2=_Pictures(reals),
        cuda=False,
        fid=True,
        kid=True,
        kid_subset_size=min(1000, len(fakes), len(reals)),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        cache=False,
        verbose=False,
    )
    return {
        "fid": float(found["frechet_inception_distance"]),
        "kid": float(found["kernel_inception_distance_mean"]),
    }


def lpips_diversity(groups: Sequence[ByteArray], weights: Path, sha256: str) -> float:
    """Mean LPIPS (Zhang et al. 2018, AlexNet) of two pictures of the same group: the higher, the more varied.

    The first half of every group is compared with the second, picture by picture.

    Args:
        groups: pictures of one size ``[n, h, w, 3]`` by class, two or more of each.
        weights: torchvision's state of AlexNet; the linear heads come with the library ``lpips``. Nothing is fetched.
        sha256: hex digest that the file must have, from whoever made it.

    Raises:
        ConfigInvalid: the file is missing, another, or no AlexNet. RuntimeMissing: lpips is not installed.
    """
    verify(weights, sha256)
    network = _lpips(weights)
    found = []
    for pictures in groups:
        half = len(pictures) // 2
        first, second = (
            torch.from_numpy(np.ascontiguousarray(side.transpose(0, 3, 1, 2))).float() / 127.5 - 1
            for side in (pictures[:half], pictures[half : 2 * half])
        )
        with torch.no_grad():
            found.append(float(network(first, second).mean()))
    return float(np.mean(found))


def verify(weights: Path, sha256: str) -> None:
    """Raise ConfigInvalid unless the file exists and has this digest."""
    try:
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigInvalid(f"{weights} cannot be read: {error.strerror}") from error
    if found != sha256.lower():
        raise ConfigInvalid(
            f"{weights} has the SHA-256 {found}, not {sha256}",
            hint="give the file whose digest you know from its maker",
        )


class _Pictures(torch.utils.data.Dataset[Tensor]):
    """Pictures as the library wants them: ``[3, h, w]`` uint8 tensors."""

    def __init__(self, pictures: ByteArray) -> None:
        self.pictures = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.pictures[index])


def _torch_fidelity() -> Any:
    try:
        import torch_fidelity  # type: ignore[import-not-found]
    except ImportError as error:
        raise RuntimeMissing(
            "figures of pretrained networks need torch-fidelity, which is not installed",
            hint="pip install torch-fidelity",
        ) from error
    return torch_fidelity


def _lpips(weights: Path) -> Any:
    """The library's network with the trunk from ``weights``."""
    try:
        import lpips  # type: ignore[import-not-found]
    except ImportError as error:
        raise RuntimeMissing("LPIPS needs lpips, which is not installed", hint="pip install lpips") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it calls torchvision by names that are going
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    try:
        # Digest checked, and tensors only: no code of the pickle runs.
        state = torch.load(weights, map_location="cpu", weights_only=True)  # noqa: TID251
        trunk = {name: state[f"features.{name.partition('.')[2]}"] for name in network.net.state_dict()}
        network.net.load_state_dict(trunk)
    except Exception as error:
        raise ConfigInvalid(
            f"{weights} holds no AlexNet: {type(error).__name__}: {error}".splitlines()[0][:300],
            hint="give torchvision's alexnet-owt-7be5be79.pth",
        ) from error
    return network
