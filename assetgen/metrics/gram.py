"""Distance of Gram matrices of fixed random filters: which structures come together, without a trained network; torch.

After the style loss of Gatys et al. 2015; random filters do for textures (Ustyuzhaninov et al. 2016).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from assetgen.metrics.pictures import ByteArray, check_pair, tensor_of

SCALES = 3
KERNELS_PX = (7, 11)
FILTERS = 32
FILTER_SEED = 20_181_130


def gram_distance(fakes: ByteArray, reals: ByteArray) -> float:
    """Frobenius norm of the difference of the mean Gram matrices, by that of the reals: 0 for equal sets.

    Args:
        fakes, reals: of one size; the numbers may differ. Colours are normalised by mean and deviation of the reals.

    Raises:
        ValueError: sizes differ, or are below 22 px. Below 44 px the coarsest scale is left out: no filter fits it.
    """
    check_pair(fakes, reals)
    smallest = max(KERNELS_PX) * 2 ** (SCALES - 2)
    if min(fakes.shape[1:3]) < smallest:
        raise ValueError(f"pictures of {min(fakes.shape[1:3])} px; {smallest} at least are needed")
    fake, real = tensor_of(fakes), tensor_of(reals)
    mean = real.mean(dim=(0, 2, 3), keepdim=True)
    deviation = real.std(dim=(0, 2, 3), keepdim=True) + 1e-8
    pairs = zip(_grams((fake - mean) / deviation), _grams((real - mean) / deviation), strict=True)
    found = [float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in pairs]
    return sum(found) / len(found)


def _grams(x: Tensor) -> list[Tensor]:
    """Mean Gram matrix of each scale and kernel, ``[filters, filters]`` each."""
    rng = torch.Generator().manual_seed(FILTER_SEED)
    found = []
    for scale in range(SCALES):
        if scale:
            x = F.avg_pool2d(x, 2)
        if min(x.shape[2:]) < max(KERNELS_PX):
            break
        for kernel in KERNELS_PX:
            filters = torch.randn(FILTERS, x.shape[1], kernel, kernel, generator=rng)
            # With all of their mean they only say how bright a picture is; a tenth stays, since colour counts too.
            filters = filters - filters.mean(dim=(2, 3), keepdim=True) * 0.9
            total = torch.zeros(FILTERS, FILTERS, dtype=torch.float64)
            for start in range(0, len(x), 64):
                part = x[start : start + 64]
                response = F.conv2d(part, filters).abs() / math.sqrt(x.shape[1] * kernel * kernel)
                flat = response.permute(1, 0, 2, 3).flatten(1).double()
                total += flat @ flat.t() / (response.shape[2] * response.shape[3])
            found.append(total / len(x))
    return found
