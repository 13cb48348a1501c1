"""How near the texels that a material has beyond its texture network come to those of scans in full; needs torch.

The figures of ``assetgen eval`` compare at the density that the texture network works at, where data is plentiful. What
the detail network adds is finer than that, and is seen here alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from assetgen import latents
from assetgen.datasets.tiles import ByteArray, Item, at_density
from assetgen.metrics.swd import sliced_wasserstein
from assetgen.training.recipe import TextureRecipe
from assetgen.types import MapKind

CROP_STREAM = 1 << 41


def texels(
    pictures: Mapping[str, ByteArray], items: Sequence[Item], recipe: TextureRecipe, scale: int, seed: int
) -> dict[str, dict[str, float]]:
    """Sliced Wasserstein distance of what lies beyond the texture network, by its size in pixels: 1, 2 and so on.

    Means over the classes that have at least two scans in full; one half of the scans is compared with, the other half
    with it, too, which is what real pictures reach.

    Args:
        pictures: of each class, ``[n, edge, edge, 3] uint8``.
        items: scans of all splits, for there are few.
        recipe: of the texture network.
        scale: how many pixels a texel of the texture network has.

    Returns:
        ``classes``: of each that counts, how many scans it has; ``fake`` and ``real``: distances by size. Empty without
        scans in full.
    """
    edge = next(iter(pictures.values())).shape[1]
    scans = {name: _scans(items, name, recipe, scale, edge) for name in pictures}
    scans = {name: found for name, found in scans.items() if len(found) > 1}
    if not scans:
        return {}
    sums: dict[str, dict[str, list[float]]] = {"fake": {}, "real": {}}
    for number, (name, found) in enumerate(scans.items()):
        rng = latents.generator(seed, CROP_STREAM + number)
        count = len(pictures[name])
        own, other = (_crops(rng, half, count, edge) for half in (found[::2], found[1::2]))
        for side, shown in (("fake", pictures[name]), ("real", other)):
            for level, distance in sliced_wasserstein(shown, own, seed=seed).items():
                if level * scale > edge:
                    sums[side].setdefault(str(edge // level), []).append(distance)
    means = {
        side: {size: float(f"{np.mean(each):.5g}") for size, each in by_size.items()} for side, by_size in sums.items()
    }
    return {"classes": {name: float(len(found)) for name, found in scans.items()}, **means}


def _scans(items: Sequence[Item], name: str, recipe: TextureRecipe, scale: int, edge_px: int) -> list[ByteArray]:
    """Base colours of a class at full density, those that a crop fits into."""
    density, trim = scale * recipe.scan_px, scale * recipe.trim_px
    wide = [item for item in items if item.class_name == name and item.maps[MapKind.BASE_COLOR].shape[1] >= density]
    trimmed = [at_density(item, density)[trim : -trim or None, trim : -trim or None] for item in wide]
    return [pixels for pixels in trimmed if min(pixels.shape[:2]) >= edge_px]


def _crops(rng: np.random.Generator, scans: Sequence[ByteArray], count: int, edge_px: int) -> ByteArray:
    """Crops ``[count, edge, edge, 3]``, every scan equally often."""
    crops = []
    for n in range(count):
        pixels = scans[n % len(scans)]
        top, left = (int(rng.integers(size - edge_px + 1)) for size in pixels.shape[:2])
        crops.append(pixels[top : top + edge_px, left : left + edge_px])
    return np.stack(crops)
