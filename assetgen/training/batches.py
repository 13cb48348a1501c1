"""What a step is fed: real crops and the generator's inputs, each a pure function of (seed, step); numpy and torch.

Nothing here has state, so a resumed run draws exactly what the unbroken one would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assetgen import latents, layouts
from assetgen.datasets.tiles import ByteArray, Item, at_density, on_ground
from assetgen.manifest import LayoutSpec
from assetgen.training.recipe import PictureRecipe, TextureRecipe
from assetgen.types import FloatArray

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


def reals_from_items(items: Sequence[Item], recipe: TextureRecipe | PictureRecipe, split: str = "train") -> Reals:
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


def grounded(reals: Reals) -> Reals:
    """The same pictures without alpha, on grey."""
    return replace(reals, pictures=tuple(tuple(map(on_ground, pictures)) for pictures in reals.pictures))


def real_batch(
    reals: Reals, recipe: TextureRecipe | PictureRecipe, step: int, stream: int = 0, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Random crops ``[batch, c, crop, crop]`` in [-1, 1] and labels ``[batch]``, flipped and turned where allowed.

    c is 3, or 4 for colours times alpha and alpha, where transparent is -1 in all. Labels stay on the host.
    """
    rng = latents.generator(recipe.seed, REAL_STREAM + (stream << 36) + step)
    edge = recipe.crop_px
    channels = next(pictures[0].shape[2] for pictures in reals.pictures if pictures)
    crops = np.empty((recipe.batch, edge, edge, channels), dtype=np.uint8)
    labels = rng.choice(len(reals.classes), size=recipe.batch, p=reals.class_chances)
    for n, label in enumerate(labels):
        pictures = reals.pictures[label]
        pixels = pictures[rng.integers(len(pictures))]
        top = rng.integers(pixels.shape[0] - edge + 1)
        left = rng.integers(pixels.shape[1] - edge + 1)
        crop = pixels[top : top + edge, left : left + edge]
        turns = rng.integers(4)
        flips = rng.integers(2, size=2)
        if recipe.flips == "all":
            if reals.classes[label] not in recipe.directed_classes:
                crop = np.rot90(crop, int(turns))
            crop = crop[::-1] if flips[0] else crop
        crops[n] = crop[:, ::-1] if flips[1] and recipe.flips != "none" else crop
    # Bytes travel to the device, not four times as many.
    pictures_t = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures_t.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels.astype(np.int64))


def all_crops(reals: Reals, label: int, edge: int, count: int, crop_px: int) -> Tensor:
    """The same ``count`` crops of a class at every call, spread over its pictures: ``[count, c, edge, edge]``.

    Args:
        edge: crops of ``crop_px`` are shrunk to this, for networks that have not grown yet.
    """
    rng = latents.generator(0, REAL_STREAM + label)
    pictures = reals.pictures[label]
    crops = np.empty((count, crop_px, crop_px, pictures[0].shape[2]), dtype=np.uint8)
    for n in range(count):
        pixels = pictures[n * len(pictures) // count if len(pictures) >= count else n % len(pictures)]
        top, left = (int(rng.integers(size - crop_px + 1)) for size in pixels.shape[:2])
        crops[n] = pixels[top : top + crop_px, left : left + crop_px]
    made = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.nn.functional.avg_pool2d(made, crop_px // edge)


@dataclass(frozen=True)
class HostInputs:
    """What the host makes of the generator's inputs: all but the noise, which the device draws from ``noise_seed``."""

    z: Tensor
    labels: Tensor
    layouts: list[Tensor]
    rolls: NDArray[np.int64]
    noise_seed: int


@dataclass(frozen=True)
class FakeInputs:
    """Inputs of the generator for one batch."""

    z: Tensor
    labels: Tensor
    class_weights: Tensor
    grid: Tensor
    layouts: list[Tensor]
    noises: list[Tensor]
    rolls: NDArray[np.int64]


def host_batch(
    reals: Reals, recipe: TextureRecipe, step: int, stream: int = 0, labels: NDArray[np.int64] | None = None
) -> HostInputs:
    """Latents and layouts for one batch; without ``labels`` they are drawn as those of reals are."""
    rng = latents.generator(recipe.seed, FAKE_STREAM + (stream << 36) + step)
    drawn = rng.choice(len(reals.classes), size=recipe.batch, p=reals.class_chances)
    labels = drawn if labels is None else labels
    return host_inputs(rng, labels, reals.classes, recipe, recipe.crop_px)


def fake_batch(
    reals: Reals,
    recipe: TextureRecipe,
    step: int,
    stream: int = 0,
    device: str = "cpu",
    labels: NDArray[np.int64] | None = None,
) -> FakeInputs:
    """Latents, layouts and noise for one batch; see ``host_batch``."""
    return on_device(host_batch(reals, recipe, step, stream, labels), recipe, len(reals.classes), device)


def fake_inputs(
    rng: np.random.Generator,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    recipe: TextureRecipe,
    edge_px: int,
    device: str = "cpu",
) -> FakeInputs:
    """Draw generator inputs for square pictures of ``edge_px``: what a server would feed, noise made on the device."""
    return on_device(host_inputs(rng, labels, classes, recipe, edge_px), recipe, len(classes), device)


def host_inputs(
    rng: np.random.Generator,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    recipe: TextureRecipe,
    edge_px: int,
) -> HostInputs:
    """What ``fake_inputs`` needs no device for."""
    levels = len(recipe.widths)
    specs = (recipe.layouts.get(classes[label], LayoutSpec()) for label in labels)
    pyramids = [_layout(rng, spec, edge_px, levels) for spec in specs]
    z = torch.from_numpy(rng.standard_normal((len(labels), recipe.latent), dtype=np.float32))
    return HostInputs(
        z=z,
        labels=torch.from_numpy(labels.astype(np.int64)),
        layouts=[
            torch.from_numpy(np.stack(level)).contiguous(memory_format=torch.channels_last)
            for level in zip(*pyramids, strict=True)
        ],
        rolls=rng.integers(edge_px, size=(len(labels), 2)),
        noise_seed=int(rng.integers(2**62)),
    )


def on_device(host: HostInputs, recipe: TextureRecipe, classes: int, device: str) -> FakeInputs:
    """Move what the host made to the device, and draw the noise there: a GPU would wait for that of whole batches."""
    n = len(host.labels)
    cells = host.layouts[0].shape[2]
    rng = torch.Generator(device).manual_seed(host.noise_seed)
    labels = host.labels.to(device)
    return FakeInputs(
        z=host.z.to(device),
        labels=labels,
        class_weights=torch.nn.functional.one_hot(labels, classes).float(),
        grid=_noise(rng, n, recipe.grid_noise_channels, cells, device),
        layouts=[level.to(device) for level in host.layouts],
        noises=[_noise(rng, n, 1, cells << i, device) for i in range(len(host.layouts))],
        rolls=host.rolls,
    )


def rolled(pictures: Tensor, rolls: NDArray[np.int64]) -> Tensor:
    """Roll each picture ``[n, c, h, w]`` down and right by its own ``rolls`` ``[n, 2]``.

    All at once: a roll for every picture by itself would be hundreds of kernels to start.
    """
    n, c, h, w = pictures.shape
    down, right = torch.from_numpy(rolls).to(pictures.device).t()
    rows = (torch.arange(h, device=pictures.device) - down[:, None]) % h
    columns = (torch.arange(w, device=pictures.device) - right[:, None]) % w
    places = (rows[:, :, None] * w + columns[:, None, :]).reshape(n, 1, h * w).expand(n, c, h * w)
    moved = pictures.flatten(2).gather(2, places).reshape(n, c, h, w)
    return moved.contiguous(memory_format=torch.channels_last)


def _layout(rng: np.random.Generator, spec: LayoutSpec, edge_px: int, levels: int) -> list[FloatArray]:
    return layouts.pyramid(layouts.raster(rng, layouts.draw_layout(rng, spec), (edge_px, edge_px)), levels)


def _noise(rng: torch.Generator, n: int, channels: int, cells: int, device: str) -> Tensor:
    noise = torch.randn(n, channels, cells, cells, generator=rng, device=device)
    return noise.contiguous(memory_format=torch.channels_last)
