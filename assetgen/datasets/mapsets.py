"""Map sets as arrays for learning maps from base colours; numpy and Pillow only.

Scales of height differ between items and are unknown, and how high a far part of a surface lies cannot be seen in its
colour. So height is standardised per item after its slow changes are taken out; slopes come from normal maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assetgen.datasets.tiles import Item, at_density
from assetgen.types import FloatArray, MapKind

SCALE = 4
# Maps of one number a place.
SCALARS = ("height", "roughness", "metallic")
HEIGHT_DEVIATIONS = 6.0  # standardised height covers mean +- 3 deviations
SLOW_CELLS = 8.0  # input pixels; the deviation of the Gaussian that counts as slow


@dataclass(frozen=True)
class MapSet:
    """One item ready to be cropped.

    Attributes:
        label: class number, or -1 for a class the network is not told of.
        small: base colour ``[h, w, 3] uint8`` at the input's texel density.
        large: base colour ``[4h, 4w, 3] uint8``, or ``None`` when the item is no larger than the input.
        targets: ``height`` (standardised), ``roughness``, ``metallic`` ``[H, W, 1] float32`` in [0, 1] and ``slopes``
            ``[H, W, 2]`` (along rows and columns), H being 4h where ``large`` is there, else h; absent where unknown.
    """

    id: str
    label: int
    small: NDArray[np.uint8]
    large: NDArray[np.uint8] | None
    targets: dict[str, FloatArray]


def map_sets(items: Sequence[Item], classes: Sequence[str], scan_px: int, trim_px: int, split: str) -> list[MapSet]:
    """Prepare the items of ``split`` that teach detail or maps: large pictures and small ones with maps."""
    sets: list[MapSet] = []
    for item in items:
        width = item.maps[MapKind.BASE_COLOR].shape[1]
        detailed = width >= SCALE * scan_px
        if item.split != split or not (detailed or len(item.maps) > 1):
            continue
        sets.append(_map_set(item, classes, scan_px, trim_px, detailed))
    return sets


def as_photo(entry: MapSet) -> MapSet:
    """The item as a picture that is there in full, at its own density; ``small`` is a quarter of it."""
    if entry.large is not None:
        return entry
    return replace(entry, small=_halved_twice(entry.small), large=entry.small)


def _map_set(item: Item, classes: Sequence[str], scan_px: int, trim_px: int, detailed: bool) -> MapSet:
    density = scan_px * (SCALE if detailed else 1)
    trim = trim_px * (SCALE if detailed else 1)
    color = _trimmed(at_density(item, density), trim)
    targets: dict[str, FloatArray] = {}
    for kind in (MapKind.ROUGHNESS, MapKind.METALLIC):
        if kind in item.maps:
            targets[kind.value] = _trimmed(at_density(item, density, kind), trim).astype(np.float32) / np.float32(255)
    if MapKind.HEIGHT in item.maps:
        height = _trimmed(at_density(item, density, MapKind.HEIGHT), trim).astype(np.float32)
        targets["height"] = standard_height(height, SLOW_CELLS * (SCALE if detailed else 1))
    if MapKind.NORMAL in item.maps and detailed:
        targets["slopes"] = slopes(_trimmed(at_density(item, density, MapKind.NORMAL), trim))
    return MapSet(
        id=item.id,
        label=list(classes).index(item.class_name) if item.class_name in classes else -1,
        small=_halved_twice(color) if detailed else color,
        large=color if detailed else None,
        targets=targets,
    )


def standard_height(height: FloatArray, slow_px: float) -> FloatArray:
    """Height ``[H, W, 1]`` in any unit without its slow changes, mean 0.5 and deviation 1/6, clipped to [0, 1]."""
    rows, columns = np.fft.fftfreq(height.shape[0]), np.fft.fftfreq(height.shape[1])
    slow = np.exp(-2 * (np.pi * slow_px) ** 2 * (rows[:, None] ** 2 + columns[None] ** 2))
    fast = np.fft.ifft2(np.fft.fft2(height[:, :, 0]) * (1 - slow)).real
    standard = fast / max(float(fast.std()), 1e-3)
    return np.clip(0.5 + standard / HEIGHT_DEVIATIONS, 0, 1).astype(np.float32)[:, :, None]


def slopes(normal: NDArray[np.uint8]) -> FloatArray:
    """Slopes dh/drow, dh/dcolumn ``[H, W, 2]`` in pixels a pixel of a Y-up normal map ``[H, W, 3]``."""
    n = normal.astype(np.float32) / 127.5 - 1
    z = np.maximum(n[:, :, 2], 0.1)
    return np.stack([n[:, :, 1] / z, -n[:, :, 0] / z], axis=2).astype(np.float32)


def _trimmed(pixels: NDArray[np.uint8], trim: int) -> NDArray[np.uint8]:
    """Cut the noisy border off, down to a multiple of the scale."""
    height, width = ((edge - 2 * trim) // SCALE * SCALE for edge in pixels.shape[:2])
    return pixels[trim : trim + height, trim : trim + width]


def _halved_twice(color: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (color.shape[1] // SCALE, color.shape[0] // SCALE)
    return np.asarray(Image.fromarray(color).resize(size, Image.Resampling.BOX))
