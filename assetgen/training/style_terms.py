"""What a generator of style transfer lowers beside the game: distances of patches, and bounds on change; torch only."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from assetgen.training.style_recipe import StyleRecipe
from assetgen.training.sums import Sums

# Edges of patches at full, half and quarter size, the steps between them, and random directions they are projected on.
PATCHES_PX = (7, 5, 5)
STEPS_PX = (2, 1, 1)  # sorting is what takes the time, and neighbouring patches tell the same
DIRECTIONS = 32
COLOR_CELLS_PX = 4  # smaller ones tell of grain, which patches do
BRIGHTNESS_CELL_PX = 8
DARK = 0.1  # added to brightnesses above black before they are compared: what is black has no hue
FAINT = 0.02  # deviation of patches that counts half: what is flatter, as snow, must not outweigh all else
FLAT = 1e-6  # of squares: below it a picture counts as having no edges
GREY = (0.299, 0.587, 0.114)  # Rec. 601


def correlation(before: Tensor, after: Tensor) -> Tensor:
    """Correlation ``[n]`` of slopes of luminance, pictures ``[n, 3, h, w]``: 1 where every edge stands as it was."""
    first, second = (_slopes(pictures) for pictures in (before, after))
    # The root of their product, and not of nothing: a result may become one flat colour, and its gradient none.
    size = (first.square().sum(dim=1) * second.square().sum(dim=1) + FLAT).sqrt()
    return (first * second).sum(dim=1) / size


def patch_distance(fakes: Tensor, reals: Tensor, rng: torch.Generator) -> Tensor:
    """Sliced Wasserstein distance of the patches of two batches at three scales, in deviations of the reals'.

    Unlike the game it tells a generator from the first step on how far contrast and grain are from what they shall be
    (Elnekave and Weiss 2022, GPDM). Differs from the paper: patches without their mean colour, since a batch holds too
    few pictures to tell which colours a look has.

    Args:
        fakes, reals: ``[n, 3, h, w]`` and ``[m, 3, h, w]``, of 20 px or more.
        rng: on the CPU; draws the directions.
    """
    total = fakes.new_zeros(())
    for edge, step in zip(PATCHES_PX, STEPS_PX, strict=True):
        filters = torch.randn(DIRECTIONS, fakes.shape[1], edge, edge, generator=rng).to(fakes)
        filters = filters - filters.mean(dim=(2, 3), keepdim=True)
        filters = F.normalize(filters.flatten(1)).view_as(filters)
        drawn, wanted = (F.conv2d(side, filters, stride=step).transpose(0, 1).flatten(1) for side in (fakes, reals))
        drawn, wanted = _sorted(drawn, wanted)
        total = total + ((drawn - wanted).abs().mean(dim=1) / (wanted.std(dim=1) + FAINT)).mean()
        fakes, reals = F.avg_pool2d(fakes, 2), F.avg_pool2d(reals, 2)
    return total / len(PATCHES_PX)


def color_distance(fakes: Tensor, reals: Tensor, rng: torch.Generator) -> Tensor:
    """Sliced Wasserstein distance of the mean colours of cells of 4 px of two batches, in units of their values.

    For looks that have colours of their own, as moss and rust have: patches are compared without theirs.

    Args:
        fakes, reals: ``[n, 3, h, w]`` and ``[m, 3, h, w]``, of 4 px or more.
        rng: on the CPU; draws the directions.
    """
    directions = F.normalize(torch.randn(DIRECTIONS, fakes.shape[1], generator=rng), dim=1).to(fakes)
    drawn, wanted = _sorted(
        *(directions @ F.avg_pool2d(side, COLOR_CELLS_PX).transpose(0, 1).flatten(1) for side in (fakes, reals))
    )
    return (drawn - wanted).abs().mean()


def color_excess(before: Tensor, after: Tensor, color_room: float, brightness_room: float) -> Tensor:
    """How far colours change beyond what is allowed, mean, pictures ``[n, 3, h, w]``.

    Args:
        color_room: for each pixel's distance from its own colour in the light that it has got.
        brightness_room: for the mean brightness of cells of 8 px.
    """
    first, second = _grey(before)[:, None], _grey(after)[:, None]
    hues = (after - second) - (before - first) * _lit(before - first, first, second.detach())
    brightness = F.avg_pool2d(second - first, BRIGHTNESS_CELL_PX)
    return F.relu(hues.abs() - color_room).mean() + F.relu(brightness.abs() - brightness_room).mean()


def _lit(color: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """How much of its distance from grey a colour has in another light: as that is more, or as there is room for.

    If distances stayed as they are, dark joints of red bricks would be red, or have to be no colour at all: grain that
    may not be had in brightness then comes as specks of hue.
    """
    room = (1 - second).clamp(min=0) / color.amax(dim=1, keepdim=True).clamp(min=FLAT)
    return ((1 + second + DARK).clamp(min=0) / (1 + first + DARK)).minimum(room)


def seen(recipe: StyleRecipe, pictures: Tensor) -> Tensor:
    """What of pictures without their borders is compared with the target's."""
    return pictures if recipe.hues else _grey(pictures)[:, None].expand_as(pictures)


def beside(
    recipe: StyleRecipe, before: Tensor, after: Tensor, reals: Tensor | None, rng: torch.Generator, sums: Sums
) -> Tensor:
    """All terms of the recipe beside the game, weighted: patches, and what goes beyond the bounds on change.

    Args:
        before, after: pictures without their borders.
        reals: of the domain that ``after`` shall look like; None where the recipe has no use for them.
    """
    total = after.new_zeros(())
    if recipe.patches and reals is not None:
        distance = patch_distance(seen(recipe, after), seen(recipe, reals), rng)
        sums.add("patches", distance)
        total = total + recipe.patches * distance
    if recipe.colors and reals is not None:
        distance = color_distance(after, reals, rng)
        sums.add("colors", distance)
        total = total + recipe.colors * distance
    if recipe.structure:
        kept = correlation(before, after)
        sums.add("kept_structure", kept.mean())
        total = total + recipe.structure * F.relu(recipe.structure_aim - kept).mean()
    if recipe.color:
        excess = color_excess(before, after, recipe.color_room, recipe.brightness_room)
        sums.add("color_excess", excess)
        total = total + recipe.color * excess
    return total


def _sorted(drawn: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Both ``[directions, n]`` in order along each direction, the second stretched to the length of the first."""
    drawn, wanted = drawn.sort(dim=1).values, wanted.sort(dim=1).values
    if wanted.shape != drawn.shape:
        wanted = F.interpolate(wanted[None], size=drawn.shape[1], mode="linear", align_corners=True)[0]
    return drawn, wanted


def _slopes(pictures: Tensor) -> Tensor:
    grey = _grey(pictures)
    return torch.cat([grey.diff(dim=1).flatten(1), grey.diff(dim=2).flatten(1)], dim=1)


def _grey(pictures: Tensor) -> Tensor:
    return (pictures.float() * torch.tensor(GREY, device=pictures.device)[:, None, None]).sum(dim=1)
