"""Sliced Wasserstein distance of patches on a Laplacian pyramid (Karras et al. 2018); numpy and torch."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from assetgen.metrics.pictures import ByteArray, check_pair, tensor_of

PATCH_PX = 7
SMALLEST_PX = 16
SCALE = 1000.0
_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def sliced_wasserstein(
    fakes: ByteArray, reals: ByteArray, *, patches: int = 64, directions: int = 256, wrap: bool = False, seed: int = 0
) -> dict[int, float]:
    """Distance at each level of the pyramid, by its edge in pixels, times 1000; 0 for equal sets.

    Differs from the paper: both sides are normalised by mean and deviation of the *reals*, since each by its own hides
    a shift of colours; with ``wrap`` pyramid and patches continue over the border, for sets of tiles on both sides.

    Args:
        fakes, reals: as many on both sides, of one size.
        patches: 7x7 patches a picture and level.
        directions: random directions that patches are projected on.

    Raises:
        ValueError: sides differ in number or size, or pictures are smaller than a patch.
    """
    check_pair(fakes, reals)
    if len(fakes) != len(reals):
        raise ValueError(f"{len(fakes)} fakes and {len(reals)} reals: the same number is needed on both sides")
    if min(fakes.shape[1:3]) < PATCH_PX:
        raise ValueError(f"pictures of {min(fakes.shape[1:3])} px; {PATCH_PX} at least are needed")
    found = {}
    pyramids = zip(laplacian_pyramid(tensor_of(fakes), wrap), laplacian_pyramid(tensor_of(reals), wrap), strict=True)
    for number, (fake, real) in enumerate(pyramids):
        # Both sides are cut at the same places: what differs is the pictures, not the draw.
        rng = torch.Generator().manual_seed(seed * 1_000_003 + number)
        state = rng.get_state()
        drawn = _patches(fake, patches, wrap, rng)
        wanted = _patches(real, patches, wrap, rng.set_state(state))
        mean = wanted.mean(dim=(0, 2, 3), keepdim=True)
        deviation = wanted.std(dim=(0, 2, 3), keepdim=True) + 1e-8
        a, b = (((side - mean) / deviation).flatten(1) for side in (drawn, wanted))
        axes = F.normalize(torch.randn(a.shape[1], directions, generator=rng), dim=0)
        found[int(min(fake.shape[2:]))] = SCALE * float(_distance(a @ axes, b @ axes))
    return found


def laplacian_pyramid(x: Tensor, wrap: bool = False) -> list[Tensor]:
    """Bands of ``[n, c, h, w]``, finest first, each half the size of the one before; the last is what remains.

    It goes down to an edge of 16 px, or as far as sizes stay even (Burt and Adelson 1983).
    """
    bands = []
    while min(x.shape[2:]) >= 2 * SMALLEST_PX and not (x.shape[2] % 2 or x.shape[3] % 2):
        smaller = _blur(x, wrap)[:, :, ::2, ::2]
        bands.append(x - _enlarge(smaller, wrap))
        x = smaller
    return [*bands, x]


def _pad(x: Tensor, margin: int, wrap: bool) -> Tensor:
    return F.pad(x, (margin,) * 4, mode="circular" if wrap else "reflect")


def _blur(x: Tensor, wrap: bool, gain: float = 1.0) -> Tensor:
    channels = x.shape[1]
    taps = x.new_tensor(_TAPS)
    kernel = (gain * taps[:, None] * taps).expand(channels, 1, 5, 5)
    return F.conv2d(_pad(x, 2, wrap), kernel, groups=channels)


def _enlarge(x: Tensor, wrap: bool) -> Tensor:
    n, channels, h, w = x.shape
    spread = x.new_zeros(n, channels, 2 * h, 2 * w)
    spread[:, :, ::2, ::2] = x
    return _blur(spread, wrap, gain=4.0)


def _patches(x: Tensor, count: int, wrap: bool, rng: torch.Generator) -> Tensor:
    """``[n * count, c, 7, 7]``, cut at random places."""
    n, _, h, w = x.shape
    if wrap:
        x = F.pad(x, (0, PATCH_PX - 1, 0, PATCH_PX - 1), mode="circular")
    last = 0 if wrap else PATCH_PX - 1
    top = torch.randint(h - last, (n, count, 1, 1), generator=rng)
    left = torch.randint(w - last, (n, count, 1, 1), generator=rng)
    steps = torch.arange(PATCH_PX)
    picture = torch.arange(n)[:, None, None, None]
    cut = x[picture, :, top + steps[:, None], left + steps]
    return cut.permute(0, 1, 4, 2, 3).flatten(0, 1)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean over directions of the 1-Wasserstein distance of equally many points on a line."""
    return (a.sort(dim=0).values - b.sort(dim=0).values).abs().mean()


def mean_distance(by_level: dict[int, float]) -> float:
    """One figure for all levels; NaN where there is none."""
    return float(np.mean(list(by_level.values()))) if by_level else math.nan
