"""What a step is fed: real crops and the generator's inputs, each a pure function of (seed, step); numpy and torch.

Nothing here has state, so a resumed run draws exactly what the unbroken one would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assetgen import latents
from assetgen.datasets.tiles import ByteArray, Item, at_density
from assetgen.training.recipe import TextureRecipe

# Streams of the counter-based generator, far above any asset index.
REAL_STREAM = 1 << 40
FAKE_STREAM = 1 << 48


@dataclass(frozen=True)
class Reals:
    """The training pictures in memory, by class."""

    classes: tuple[str, ...]
    pictures: tuple[tuple[ByteArray, ...], ...]
    groups: tuple[tuple[str, ...], ...]
    class_chances: NDArray[np.float64]

    @property
    def count(self) -> int:
        return sum(len(pictures) for pictures in self.pictures)


def reals_from_items(items: Sequence[Item], recipe: TextureRecipe, split: str = "train") -> Reals:
    """Collect trimmed base colours at the recipe's texel density; classes come up in proportion to sqrt(count)."""
    names = recipe.classes or tuple(sorted({item.class_name for item in items}))
    pictures: list[list[ByteArray]] = [[] for _ in names]
    groups: list[list[str]] = [[] for _ in names]
    for item in items:
        if item.split != split or item.class_name not in names:
            continue
        trim = recipe.trim_px
        pixels = at_density(item, recipe.scan_px)
        pixels = pixels[trim : pixels.shape[0] - trim, trim : pixels.shape[1] - trim]
        if min(pixels.shape[:2]) < recipe.crop_px:
            continue
        pictures[names.index(item.class_name)].append(pixels)
        groups[names.index(item.class_name)].append(item.group)
    chances = np.sqrt([len(entry) for entry in pictures])
    return Reals(
        classes=tuple(names),
        pictures=tuple(tuple(entry) for entry in pictures),
        groups=tuple(tuple(entry) for entry in groups),
        class_chances=chances / max(chances.sum(), 1),
    )


def real_batch(reals: Reals, recipe: TextureRecipe, step: int, stream: int = 0) -> tuple[Tensor, Tensor]:
    """Random crops ``[batch, 3, crop, crop]`` in [-1, 1] and labels ``[batch]``, flipped and, where allowed, turned."""
    rng = latents.generator(recipe.seed, REAL_STREAM + (stream << 36) + step)
    edge = recipe.crop_px
    crops = np.empty((recipe.batch, edge, edge, 3), dtype=np.uint8)
    labels = rng.choice(len(reals.classes), size=recipe.batch, p=reals.class_chances)
    for n, label in enumerate(labels):
        pictures = reals.pictures[label]
        pixels = pictures[rng.integers(len(pictures))]
        top = rng.integers(pixels.shape[0] - edge + 1)
        left = rng.integers(pixels.shape[1] - edge + 1)
        crop = pixels[top : top + edge, left : left + edge]
        turns = rng.integers(4)
        flips = rng.integers(2, size=2)
        if reals.classes[label] not in recipe.directed_classes:
            crop = np.rot90(crop, int(turns))
        crop = crop[::-1] if flips[0] else crop
        crops[n] = crop[:, ::-1] if flips[1] else crop
    pictures_t = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures_t.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels.astype(np.int64))


@dataclass(frozen=True)
class FakeInputs:
    """Inputs of the generator for one batch."""

    z: Tensor
    labels: Tensor
    class_weights: Tensor
    grid: Tensor
    noises: list[Tensor]
    rolls: NDArray[np.int64]


def fake_batch(reals: Reals, recipe: TextureRecipe, step: int, stream: int = 0, device: str = "cpu") -> FakeInputs:
    """Latents, labels from the reals' distribution, toroidal grids and noise for one batch."""
    rng = latents.generator(recipe.seed, FAKE_STREAM + (stream << 36) + step)
    labels = rng.choice(len(reals.classes), size=recipe.batch, p=reals.class_chances)
    return fake_inputs(rng, labels, len(reals.classes), recipe, recipe.crop_px, device)


def fake_inputs(
    rng: np.random.Generator,
    labels: NDArray[np.int64],
    classes: int,
    recipe: TextureRecipe,
    edge_px: int,
    device: str = "cpu",
) -> FakeInputs:
    """Draw generator inputs for square pictures of ``edge_px``: what a server would feed, made on the device.

    Only the lattices are drawn on the host; a GPU would wait for the noise of whole batches.
    """
    n = len(labels)
    stride = 2 ** (len(recipe.widths) - 1)
    cells = edge_px // stride
    drawn = [
        latents.draw_lattices(
            rng,
            lattices=recipe.lattices,
            max_columns=recipe.lattice_columns,
            max_half_rows=recipe.lattice_half_rows,
            cells=(cells, cells),
            base_cells=recipe.crop_px // stride,
        )
        for _ in range(n)
    ]
    z = torch.from_numpy(rng.standard_normal((n, recipe.latent), dtype=np.float32)).to(device)
    rolls = rng.integers(edge_px, size=(n, 2))
    noise_rng = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    noise = torch.randn(n, recipe.grid_noise_channels, cells, cells, generator=noise_rng, device=device)
    vectors, shifts = (np.stack(part) for part in zip(*drawn, strict=True))
    waves = lattice_waves(vectors, shifts, cells, device)
    index = torch.from_numpy(labels.astype(np.int64)).to(device)
    return FakeInputs(
        z=z,
        labels=index,
        class_weights=torch.nn.functional.one_hot(index, classes).float(),
        grid=torch.cat([noise, waves], dim=1).contiguous(memory_format=torch.channels_last),
        noises=[
            torch.randn(n, 1, cells << i, cells << i, generator=noise_rng, device=device)
            for i in range(len(recipe.widths))
        ],
        rolls=rolls,
    )


def lattice_waves(vectors: NDArray[np.int64], shifts: NDArray[np.float64], cells: int, device: str) -> Tensor:
    """The waves of ``latents.toroidal_grid`` for a batch.

    Args:
        vectors, shifts: ``[n, lattices, 4, 2]`` and ``[n, lattices, 2]``, stacked from ``latents.draw_lattices``.

    Returns:
        ``[n, 8 lattices, cells, cells]``.
    """
    places = np.arange(cells) / cells
    # Angles in double precision on the host: few numbers, and a GPU would be slow at it.
    angle = 2 * np.pi * vectors[:, :, :, :, None] * (places + shifts[:, :, None, :, None])
    rows, columns = torch.from_numpy(angle.astype(np.float32)).to(device).unbind(dim=3)
    total = rows[:, :, :, :, None] + columns[:, :, :, None, :]
    waves = torch.cat([total.cos(), total.sin()], dim=2) * math.sqrt(2)
    return waves.flatten(1, 2)
