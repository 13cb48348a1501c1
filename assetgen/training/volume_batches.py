"""Volumes of a training file in memory, and batches of them, each a pure function of (seed, step); numpy and torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assetgen import latents
from assetgen.datasets.volumes import VolumeItem
from assetgen.errors import DataInvalid
from assetgen.training.batches import FAKE_STREAM, REAL_STREAM
from assetgen.training.volume_recipe import VolumeRecipe

BRIGHTNESS, TINT = 0.2, 0.15


@dataclass(frozen=True)
class Volumes:
    """The training volumes, by class; ``grids`` are ``[4, edge, edge, edge] uint8``."""

    classes: tuple[str, ...]
    grids: tuple[tuple[NDArray[np.uint8], ...], ...]
    class_chances: NDArray[np.float64]


@dataclass(frozen=True)
class Latents:
    """Inputs of the generator for one batch."""

    z: Tensor
    labels: Tensor
    class_weights: Tensor


def volumes_from_items(items: Sequence[VolumeItem], recipe: VolumeRecipe, split: str = "train") -> Volumes:
    """Collect the volumes of the recipe's classes; classes come up in proportion to sqrt(count).

    Raises:
        DataInvalid: volumes of another edge, or a class without any to train on.
    """
    names = recipe.classes or tuple(sorted({item.class_name for item in items}))
    grids: list[list[NDArray[np.uint8]]] = [[] for _ in names]
    for item in items:
        if item.grid.shape[1] != recipe.volume_edge:
            raise DataInvalid(
                f"the data has {item.grid.shape[1]} cells along an edge, the recipe {recipe.volume_edge}",
                hint="set volume_edge, or voxelize with another --edge",
            )
        if item.split == split and item.class_name in names:
            grids[names.index(item.class_name)].append(item.grid)
    empty = [name for name, entry in zip(names, grids, strict=True) if not entry]
    if empty and split == "train":
        raise DataInvalid(f"no volume to train on for {', '.join(empty)}", hint="leave the class out, or add models")
    chances = np.sqrt([len(entry) for entry in grids])
    return Volumes(tuple(names), tuple(tuple(entry) for entry in grids), chances / max(chances.sum(), 1))


def real_volumes(volumes: Volumes, recipe: VolumeRecipe, step: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Volumes ``[batch, 4, d, h, w]`` in [-1, 1], mirrored and turned where allowed, and labels ``[batch]``."""
    rng = latents.generator(recipe.seed, REAL_STREAM + step)
    labels = rng.choice(len(volumes.classes), size=recipe.batch, p=volumes.class_chances)
    made = np.empty((recipe.batch, 4, *(recipe.volume_edge,) * 3), dtype=np.uint8)
    for n, label in enumerate(labels):
        grids = volumes.grids[label]
        grid = grids[rng.integers(len(grids))]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        if volumes.classes[label] in recipe.turned_classes:
            grid = np.rot90(grid, turns, axes=(1, 3))
        made[n] = grid[..., ::-1] if mirrored else grid
    # Bytes travel to the device, not four times as many.
    return as_values(torch.from_numpy(made).to(device)), torch.from_numpy(labels.astype(np.int64)).to(device)


def fake_latents(volumes: Volumes, recipe: VolumeRecipe, step: int, stream: int = 0, device: str = "cpu") -> Latents:
    """Latents and classes for one batch, classes drawn as those of reals are."""
    rng = latents.generator(recipe.seed, FAKE_STREAM + (stream << 36) + step)
    count = len(volumes.classes)
    index = rng.choice(count, size=recipe.batch, p=volumes.class_chances)
    labels = torch.from_numpy(index.astype(np.int64)).to(device)
    z = torch.from_numpy(rng.standard_normal((recipe.batch, recipe.latent), dtype=np.float32)).to(device)
    return Latents(z, labels, torch.nn.functional.one_hot(labels, count).float())


def as_values(grids: Tensor) -> Tensor:
    """Grids of bytes as values in [-1, 1]."""
    return grids.float() / 127.5 - 1


def augment_volumes(x: Tensor, probability: float, shift: int, rng: torch.Generator) -> Tensor:
    """Move ``[n, 4, d, h, w]`` by whole cells and change its colours; differentiable.

    Args:
        probability: of each change for each sample, 0 to 1; what comes in from beyond the border is outside.
        rng: on the CPU; the same number of draws whatever the probability.
    """
    n, edge = x.shape[0], x.shape[2]
    active = (torch.rand(3, n, generator=rng) < probability).float()
    moves = torch.randint(-shift, shift + 1, (n, 3), generator=rng) * active[0, :, None].long()
    light = (2 * torch.rand(n, 1, generator=rng) - 1) * BRIGHTNESS * active[1, :, None]
    tint = (2 * torch.rand(n, 3, generator=rng) - 1) * TINT * active[2, :, None]
    if moves.any():
        padded = torch.nn.functional.pad(x, (shift,) * 6, value=1.0)
        x = torch.stack(
            [
                entry[:, a : a + edge, b : b + edge, c : c + edge]
                for entry, (a, b, c) in zip(padded, (moves + shift).tolist(), strict=True)
            ]
        )
    change = (light + tint).to(x.device, x.dtype)[:, :, None, None, None]
    return torch.cat([x[:, :1], x[:, 1:] + change], dim=1)
