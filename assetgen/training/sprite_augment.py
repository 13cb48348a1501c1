"""Differentiable augmentation for pictures with alpha, transparent being -1 in all four channels; torch only.

As in ``augment``, every transform is applied with probability p a sample (Zhao et al. 2020). Colours change as far as
a place is covered, so what is transparent stays so; what is shifted in or cut out is transparent. There is no hue: the
few colours of pixel art are what it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

BRIGHTNESS = 0.15
CONTRAST = 0.3
SATURATION = 0.5
SHIFT = 0.125  # of the edge
CUTOUT = 0.5
FLATTENED = 0.5  # share of pictures that are shown on a ground


def augment_sprites(x: Tensor, probability: float, rng: torch.Generator, step_px: int = 1) -> Tensor:
    """Change ``[n, 4, h, w]`` in [-1, 1], colours times alpha and alpha, by colour, place and a hole.

    Args:
        probability: of each transform for each sample, 0 to 1.
        rng: on the CPU; the same numbers are taken whatever the probability.
        step_px: pictures move by multiples of it. A discriminator that takes pixels in groups of this edge would
            otherwise see a faint grid at every phase, and find it at none.
    """
    n, _, h, w = x.shape
    chance, amount = torch.rand(2, 5, n, generator=rng)
    place = torch.rand(4, n, generator=rng)
    if probability <= 0:
        return x
    active = (chance < probability).to(x.dtype)
    signed = ((2 * amount - 1).to(x.dtype) * active).to(x.device)
    covered = (x + 1) * 0.5
    color, alpha = covered[:, :3], covered[:, 3:]
    color = color + _column(signed[0] * BRIGHTNESS) * alpha
    share = alpha.mean(dim=(2, 3), keepdim=True).clamp(min=1e-3)
    mean = color.mean(dim=(1, 2, 3), keepdim=True) / share * alpha
    color = mean + (color - mean) * torch.exp2(_column(signed[1] * CONTRAST * 2))
    grey = color.mean(dim=1, keepdim=True)
    color = grey + (color - grey) * (1 + _column(signed[2] * SATURATION))
    x = torch.cat([color, alpha], dim=1)
    reach = torch.tensor([h, w]) * SHIFT
    steps = torch.round((2 * place[:2].t() - 1) * reach / step_px * active[3][:, None].cpu()).long() * step_px
    x = _shifted(x, steps.to(x.device))
    return x * _hole(place[2:].to(x.device), active[4].to(x.device), h, w) * 2 - 1


def over_ground(x: Tensor, rng: torch.Generator) -> Tensor:
    """Show a random half of ``[n, 4, h, w]`` on one opaque colour, so that edges must suit any ground.

    Call it for reals and fakes with generators in one state: they shall stand on the same ground.
    """
    ground = torch.rand(3, generator=rng).to(x)[None, :, None, None] * 2 - 1
    flattened = (torch.rand(len(x), generator=rng) < FLATTENED).to(x.device)[:, None, None, None]
    alpha = (x[:, 3:] + 1) * 0.5
    color = x[:, :3] + (1 - alpha) * (ground + 1)
    return torch.where(flattened, torch.cat([color, torch.ones_like(alpha)], dim=1), x)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _shifted(x: Tensor, steps: Tensor) -> Tensor:
    """Move each picture down and right by its ``steps`` ``[n, 2]``; 0 comes in."""
    n, _, h, w = x.shape
    rows = torch.arange(h, device=x.device)[None] - steps[:, :1]
    columns = torch.arange(w, device=x.device)[None] - steps[:, 1:]
    # One row and one column of nothing, which all that comes from outside is taken from.
    padded = F.pad(x, [0, 1, 0, 1]).permute(0, 2, 3, 1)
    rows = torch.where((rows >= 0) & (rows < h), rows, h)
    columns = torch.where((columns >= 0) & (columns < w), columns, w)
    number = torch.arange(n, device=x.device)[:, None, None]
    return padded[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _hole(place: Tensor, active: Tensor, h: int, w: int) -> Tensor:
    """Mask with a rectangle of half the edges, centred anywhere, set to 0 where active."""
    rows = torch.arange(h, device=place.device)[None, :] + 0.5
    columns = torch.arange(w, device=place.device)[None, :] + 0.5
    in_rows = (rows - place[0][:, None] * h).abs() < h * CUTOUT / 2
    in_columns = (columns - place[1][:, None] * w).abs() < w * CUTOUT / 2
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return 1 - hole.to(active.dtype) * _column(active)
