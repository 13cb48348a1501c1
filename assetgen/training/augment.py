"""Differentiable augmentation for texture crops, drawn once a step; torch only.

Every transform is applied with probability p a sample, so that up to about 0.8 it does not leak into the generator
(Karras et al. 2020, Zhao et al. 2020). Nothing is filled with a constant and nothing is translated: borders would leak,
and crops are shifted by being crops.
"""

from __future__ import annotations

import torch
from torch import Tensor

BRIGHTNESS = 0.2
CONTRAST = 0.35
SATURATION = 0.5
# A tint goes as far in every direction of hue. Wider, and further to green and magenta than to other hues, it came back
# as joints of lilac and green, though reals and fakes were tinted alike (docs/families.md).
HUE = 0.06
TINTS = ((0.707, -0.707, 0.0), (0.408, 0.408, -0.816))
CUTOUT = 0.5


def augment(x: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """Change ``[n, 3, h, w]`` in about [-1, 1] by colour and cutout.

    Args:
        probability: of each transform for each sample, 0 to 1.
        rng: on the CPU; four draws of n numbers and more are taken, whatever the probability.
    """
    n, _, h, w = x.shape
    chance, amount = torch.rand(2, 6, n, generator=rng)
    place = torch.rand(2, n, generator=rng)
    if probability <= 0:  # as it is when a run begins
        return x
    active = (chance < probability).to(x.dtype).to(x.device)
    signed = ((2 * amount - 1).to(x.dtype).to(x.device)) * active

    def column(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    x = x + column(signed[0] * BRIGHTNESS)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * torch.exp2(column(signed[1] * CONTRAST * 2))
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * (1 + column(signed[2] * SATURATION))
    tint = (active[3] * (2 * amount[3:5].to(x) - 1)).T @ torch.tensor(TINTS, dtype=x.dtype, device=x.device)
    x = x + HUE * tint[:, :, None, None]
    return x * _cutout(place.to(x.device), active[5], h, w).to(x.dtype)


def _cutout(place: Tensor, active: Tensor, h: int, w: int) -> Tensor:
    """Mask with a wrapped rectangle of half the edges set to 0 where active."""
    rows = torch.arange(h, device=place.device)[None, :]
    columns = torch.arange(w, device=place.device)[None, :]
    in_rows = (rows - (place[0] * h).long()[:, None]) % h < h * CUTOUT
    in_columns = (columns - (place[1] * w).long()[:, None]) % w < w * CUTOUT
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return 1 - hole.to(active.dtype) * active[:, None, None, None]
