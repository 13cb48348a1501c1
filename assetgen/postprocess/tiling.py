"""Pictures of users on the torus and off it: whether they tile, and how they go on; check and types of ours, numpy."""

from __future__ import annotations

import numpy as np
from PIL import Image

from assetgen import check
from assetgen.postprocess.resize import linear_from_srgb, srgb_from_linear
from assetgen.types import FloatArray

# A border shows where it is sharper than the mean line inside by the first factor, and than the sharpest by the second:
# in bricks it often lies at a joint. Measured on 512 px albedos of scans, on halves, quarters and eighths of their
# size: 1 of 208 that tile is taken for a crop, and 31 % of 600 crops for a tile.
MEAN_LIMIT, SHARPEST_LIMIT = 1.45, 1.05
_HALF_LEVEL = np.float32(0.5 / 255)
_MARGIN_CELLS = 4  # a Lanczos filter reaches three source pixels, or three target pixels where it shrinks


def repeats(color: FloatArray) -> tuple[bool, bool]:
    """Whether the last row seems to go on as the first, and the last column so.

    Half a grey level is added to all differences, so that a picture of one colour repeats itself.

    Args:
        color: [H, W, 3] in [0, 1], two pixels or more on each side.
    """
    check.shape(color, "h w 3", "color")
    found = []
    for axis in (0, 1):
        lines = np.abs(color - np.roll(color, 1, axis=axis)).mean(axis=(1 - axis, 2)) + _HALF_LEVEL
        border, inside = lines[0], lines[1:]
        found.append(bool(border <= MEAN_LIMIT * inside.mean() or border <= SHARPEST_LIMIT * inside.max()))
    return found[0], found[1]


def continued(
    color: FloatArray, rows: tuple[int, int], columns: tuple[int, int], wraps: tuple[bool, bool]
) -> FloatArray:
    """Continue a picture [H, W, C] beyond its border.

    Args:
        rows, columns: how far before and behind, in pixels.
        wraps: for rows and columns, whether it repeats itself; it is mirrored otherwise, at the edge of the last pixel,
            so that pixels of a grid keep their size.
    """
    for axis, widths, wrap in zip((0, 1), (rows, columns), wraps, strict=True):
        if any(widths):
            padding = [(0, 0), (0, 0), (0, 0)]
            padding[axis] = widths
            color = np.pad(color, padding, mode="wrap" if wrap else "symmetric")
    return color


def resized(
    color: FloatArray, alpha: FloatArray, size_px: tuple[int, int], wraps: tuple[bool, bool]
) -> tuple[FloatArray, FloatArray]:
    """A picture at another size by Lanczos's filter, in linear light; one that repeats itself still does.

    Args:
        color: [H, W, 3] in [0, 1], sRGB-coded; alpha: [H, W] in [0, 1].
        size_px: width and height wanted.
        wraps: as in ``continued``.

    Returns:
        Colour and alpha, in [0, 1].
    """
    height_px, width_px = alpha.shape
    scales = height_px / size_px[1], width_px / size_px[0]
    rows, columns = (int(np.ceil(_MARGIN_CELLS * max(scale, 1.0))) for scale in scales)
    # Colours count by how much of them is seen.
    planes = np.dstack([linear_from_srgb(color) * alpha[:, :, np.newaxis], alpha])
    planes = continued(planes, (rows, rows), (columns, columns), wraps)
    box = (columns, rows, columns + width_px, rows + height_px)
    found = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(planes[:, :, n])).resize(size_px, Image.Resampling.LANCZOS, box)
        )
        for n in range(4)
    ]
    seen = np.clip(found[3], 0, 1)
    linear = np.dstack(found[:3]) / np.maximum(found[3], np.float32(1e-4))[:, :, np.newaxis]
    return srgb_from_linear(np.clip(linear, 0, 1)), seen
