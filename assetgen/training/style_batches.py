"""Crops of the domains of style transfer, each a pure function of (seed, step); numpy and torch.

Small pictures are enlarged by whole factors without smoothing, and crops begin at whole pixels of theirs, so that the
grid of pixel art always falls on the same places of the generator. Those that tile may be repeated instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assetgen import latents
from assetgen.datasets.tiles import ByteArray, Item, at_density
from assetgen.errors import DataInvalid
from assetgen.training.batches import REAL_STREAM, Reals
from assetgen.training.style_recipe import StyleRecipe

DITHER = 1 / 127.5
SPREAD_STREAM = 1 << 58  # of the counter-based generator, apart from those of training


def domains_from_items(items: Sequence[Item], recipe: StyleRecipe, split: str = "train") -> Reals:
    """Collect the pictures of the recipe's domains, in their order; every domain comes up as often.

    Raises:
        DataInvalid: a domain has no picture to train on, or the data holds one domain only.
    """
    names = recipe.domains or tuple(sorted({item.class_name for item in items}))
    if strange := [name for name in recipe.tiled if name not in names]:
        raise DataInvalid(f"tiled: {', '.join(strange)} is none of the domains", hint=f"these are {', '.join(names)}")
    if len(names) < 2:
        raise DataInvalid(f"the data holds {', '.join(names) or 'no domain'}; style transfer needs two classes or more")
    pictures: list[list[ByteArray]] = [[] for _ in names]
    groups: list[list[str]] = [[] for _ in names]
    for item in items:
        if item.split == split and item.class_name in names:
            pixels = at_density(item, recipe.scan_px)
            if item.class_name in recipe.tiled:
                pixels = _repeated(pixels, recipe.crop_px)
            pictures[names.index(item.class_name)].append(pixels)
            groups[names.index(item.class_name)].append(item.group)
    empty = [name for name, entry in zip(names, pictures, strict=True) if not entry]
    if empty and split == "train":
        raise DataInvalid(
            f"no picture to train on for {', '.join(empty)}", hint="lower min_contrast, or pack more pictures"
        )
    return Reals(
        classes=names,
        pictures=tuple(tuple(entry) for entry in pictures),
        groups=tuple(tuple(entry) for entry in groups),
        class_chances=np.full(len(names), 1 / len(names)),
    )


def domain_batch(reals: Reals, label: int, recipe: StyleRecipe, step: int, times: int = 1) -> Tensor:
    """Random crops of one domain ``[times * batch, 3, crop, crop]`` in [-1, 1], half of them flipped left to right.

    Args:
        times: another number draws other crops.
    """
    stream = label + (len(reals.classes) + 1) * (times - 1)
    return _crops(reals, np.full(times * recipe.batch, label), recipe.crop_px, _generator(recipe, step, stream))


def mixed_batch(reals: Reals, recipe: StyleRecipe, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random crops of all domains; their labels ``[batch]``, and others drawn for where they shall lead.

    Where they come from goes by the root of how many pictures a domain has, as a domain of ten tells little of what it
    will be given; where they lead is every domain as often.
    """
    rng = _generator(recipe, step, len(reals.classes))
    shares = np.sqrt([len(pictures) for pictures in reals.pictures])
    labels = rng.choice(len(reals.classes), size=recipe.batch, p=shares / shares.sum())
    targets = rng.choice(len(reals.classes), size=recipe.batch, p=reals.class_chances)
    pictures = _crops(reals, labels, recipe.crop_px, rng)
    return pictures, torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(targets.astype(np.int64))


def fixed_crops(reals: Reals, label: int, count: int, crop_px: int) -> Tensor:
    """The same ``count`` crops of a domain at every call, from the middle of pictures spread over it."""
    pictures = reals.pictures[label]
    chosen = (
        pictures[n * len(pictures) // count if len(pictures) >= count else n % len(pictures)] for n in range(count)
    )
    return _tensor(np.stack([_crop(pixels, crop_px, 0.5, 0.5) for pixels in chosen]))


def spread_crops(reals: Reals, label: int, count: int, crop_px: int, seed: int) -> Tensor:
    """Crops of a domain ``[count, 3, crop, crop]``: every picture about as often, places at random, none flipped."""
    pictures = reals.pictures[label]
    rng = latents.generator(seed, SPREAD_STREAM + label)
    order = np.concatenate([rng.permutation(len(pictures)) for _ in range(-(-count // len(pictures)))])[:count]
    return _tensor(np.stack([_crop(pictures[n], crop_px, *rng.random(2)) for n in order]))


def dither(x: Tensor, rng: torch.Generator) -> Tensor:
    """Add noise of one of 255 levels to what a generator is fed in training.

    Instance norms multiply the gradients of a flat picture by hundreds each, and Adam would remember it for thousands
    of steps. Noise also drowns what a generator hides in its result to find the way back (Chu et al. 2017).

    Args:
        rng: on the CPU.
    """
    return x + torch.randn(x.shape, generator=rng).to(x.device) * DITHER


def _generator(recipe: StyleRecipe, step: int, stream: int) -> np.random.Generator:
    return latents.generator(recipe.seed, REAL_STREAM + (stream << 36) + step)


def _crops(reals: Reals, labels: NDArray[np.int64], crop_px: int, rng: np.random.Generator) -> Tensor:
    crops = np.empty((len(labels), crop_px, crop_px, 3), dtype=np.uint8)
    for n, label in enumerate(labels):
        pictures = reals.pictures[label]
        pixels = pictures[rng.integers(len(pictures))]
        crop = _crop(pixels, crop_px, *rng.random(2))
        crops[n] = crop[:, ::-1] if rng.integers(2) else crop
    return _tensor(crops)


def _repeated(pixels: ByteArray, crop_px: int) -> ByteArray:
    """A tile so often that crops can begin anywhere in it; pictures that hold a crop stay as they are."""
    height, width = pixels.shape[:2]
    if min(height, width) >= crop_px:
        return pixels
    return np.tile(pixels, (-(-crop_px // height) + 1, -(-crop_px // width) + 1, 1))


def _crop(pixels: ByteArray, crop_px: int, row: float, column: float) -> ByteArray:
    """A crop whose place is given by shares of what there is, enlarged if the picture is smaller than the crop."""
    factor = -(-crop_px // min(pixels.shape[:2]))
    edge = -(-crop_px // factor)
    top, left = (int(share * (size - edge + 1)) for share, size in zip((row, column), pixels.shape[:2], strict=True))
    crop = pixels[top : top + edge, left : left + edge]
    return crop.repeat(factor, axis=0).repeat(factor, axis=1)[:crop_px, :crop_px]


def _tensor(crops: ByteArray) -> Tensor:
    pictures = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures.contiguous(memory_format=torch.channels_last)
