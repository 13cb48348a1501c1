"""How much pictures of one class differ: MS-SSIM over pairs and mean distance of pairs; numpy and torch.

Both look for collapse within a class: MS-SSIM rises and the distance falls as pictures become alike (Odena et al.
2017).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from assetgen import check
from assetgen.metrics.pictures import ByteArray, tensor_of

Pairs: TypeAlias = NDArray[np.int64]

WINDOW_PX = 11
WINDOW_SIGMA_PX = 1.5
LEVEL_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1, _C2 = 0.01**2, 0.03**2


def random_pairs(n: int, count: int, seed: int = 0) -> Pairs:
    """``count`` pairs ``[count, 2]`` of different indices below ``n``, drawn with replacement; raises ValueError."""
    if n < 2:
        raise ValueError(f"{n} pictures make no pair")
    rng = np.random.default_rng([n, count, seed])
    first = rng.integers(n, size=count)
    return np.stack([first, (first + rng.integers(1, n, size=count)) % n], axis=1)


def mean_ms_ssim(pictures: ByteArray, pairs: Pairs) -> float:
    """Mean MS-SSIM of pairs of ``pictures``."""
    return float(ms_ssim(pictures[pairs[:, 0]], pictures[pairs[:, 1]]).mean())


def mean_pairwise_distance(pictures: ByteArray, pairs: Pairs) -> float:
    """Mean absolute difference of pairs of ``pictures``, 0 to 1."""
    a, b = (pictures[side].astype(np.int16) for side in (pairs[:, 0], pairs[:, 1]))
    return float(np.abs(a - b).mean() / 255)


def ms_ssim(a: ByteArray, b: ByteArray) -> NDArray[np.float32]:
    """Multi-scale structural similarity ``[n]`` of pictures of one size, 1 for equal ones (Wang et al. 2003).

    Differs from the paper: as many of the five levels as the window of 11 px fits into, their weights scaled to add up
    to 1 (3 levels at 64 px); negative contrast terms count as 0; mean over colours.

    Raises:
        ValueError: shapes differ, or pictures are smaller than the window.
    """
    check.shape(b, f"{len(a)} {a.shape[1]} {a.shape[2]} 3", "b")
    if min(a.shape[1:3]) < WINDOW_PX:
        raise ValueError(f"pictures of {min(a.shape[1:3])} px; {WINDOW_PX} at least are needed")
    parts = [
        _ms_ssim((tensor_of(a[n : n + 64]) + 1) / 2, (tensor_of(b[n : n + 64]) + 1) / 2) for n in range(0, len(a), 64)
    ]
    found: NDArray[np.float32] = torch.cat(parts).numpy()
    return found


def _ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    levels = 1
    while levels < len(LEVEL_WEIGHTS) and min(x.shape[2:]) >> levels >= WINDOW_PX:
        levels += 1
    weights = torch.tensor(LEVEL_WEIGHTS[:levels])
    weights = weights / weights.sum()
    product = torch.ones(x.shape[:2])
    for level in range(levels):
        similarity, contrast = _ssim(x, y)
        term = similarity if level == levels - 1 else contrast
        product = product * term.clamp_min(0) ** weights[level]
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.mean(dim=1)


def _ssim(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean similarity, and its factor of contrast and structure, each ``[n, c]`` (Wang et al. 2004)."""
    mean_x, mean_y = _window(x), _window(y)
    var_x, var_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    contrast = (2 * covariance + _C2) / (var_x + var_y + _C2)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return (luminance * contrast).mean(dim=(2, 3)), contrast.mean(dim=(2, 3))


def _window(x: Tensor) -> Tensor:
    channels = x.shape[1]
    at = torch.arange(WINDOW_PX, dtype=torch.float32) - WINDOW_PX // 2
    taps = torch.exp(-(at**2) / (2 * WINDOW_SIGMA_PX**2))
    taps = taps / taps.sum()
    x = F.conv2d(x, taps.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, taps.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
