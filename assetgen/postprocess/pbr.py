"""Normal map and ambient occlusion from height, on a torus; imports types and check of ours, and numpy.

Everything is slices of a wrapped copy and element-wise float32 arithmetic in a fixed order, so rolling the height rolls
the result bit for bit: a tileable height gives derived maps that tile.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from assetgen import check
from assetgen.types import FloatArray

# Horizon samples lie at these distances in pixels, each on a height blurred to about that width (an à-trous pyramid).
OCCLUSION_RADII_PX = (1, 2, 4, 8, 16)
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
# Rows are worked on in bands of about this many values, so that the scratch arrays stay in the processor's cache.
_BAND_VALUES = 32768


def normal_from_height(height: FloatArray, relief_px: float) -> FloatArray:
    """Return unit tangent-space normals, Y up, by wrapped central differences.

    Args:
        height: [H, W, 1] in [0, 1].
        relief_px: how many pixels (texels of this map) tall the step from height 0 to height 1 is; 0 is flat. It
            belongs to the resolution: the same surface sampled at twice the pixels has twice the relief_px. A larger
            map of the same texel density (more surface, not finer) keeps it.

    Returns:
        [H, W, 3] in [-1, 1], z > 0. Row 0 is the top of the picture, so the upper slope of a bump has y > 0.
    """
    check.shape(height, "h w 1", "height")
    check.in_range(height, 0.0, 1.0, "height")
    _check_relief(relief_px)
    padded = _wrap(np.asarray(height[:, :, 0], dtype=np.float32), 1)
    half = np.float32(0.5 * relief_px)
    normal = np.empty((*height.shape[:2], 3), dtype=np.float32)
    x, y = normal[:, :, 0], normal[:, :, 1]
    np.subtract(padded[1:-1, :-2], padded[1:-1, 2:], out=x)  # -dh/dx
    np.subtract(padded[2:, 1:-1], padded[:-2, 1:-1], out=y)  # -dh/dY = +dh/drow
    x *= half
    y *= half
    length = x * x
    length += y * y
    length += np.float32(1)
    np.sqrt(length, out=length)
    x /= length  # division, not a reciprocal: no component can round above 1
    y /= length
    np.divide(np.float32(1), length, out=normal[:, :, 2])
    return normal


def ambient_occlusion_from_height(
    height: FloatArray, relief_px: float, radii_px: tuple[int, ...] = OCCLUSION_RADII_PX
) -> FloatArray:
    """Return the share of the cosine-weighted sky that each point of the height field sees, wrapped.

    In each of eight directions the steepest slope to a sample is the horizon; a point then sees
    ``cos^2(horizon) = 1 / (1 + slope^2)`` of that slice. Samples further away are taken from a height blurred to their
    distance, so that one noisy pixel casts no far occlusion.

    Args:
        height: [H, W, 1] in [0, 1].
        relief_px: as in ``normal_from_height``.
        radii_px: distances of the samples, rising; each is also the step of one blur.

    Returns:
        [H, W, 1] in [0, 1]; exactly 1 where the height is flat.
    """
    check.shape(height, "h w 1", "height")
    check.in_range(height, 0.0, 1.0, "height")
    _check_relief(relief_px)
    if not radii_px or radii_px[0] < 1 or any(far <= near for near, far in pairwise(radii_px)):
        raise ValueError(f"radii_px: got {radii_px}, expected rising distances of at least 1")
    ground = np.asarray(height[:, :, 0], dtype=np.float32) * np.float32(relief_px)
    levels = _blurred_levels(ground, radii_px)
    for level, radius in zip(levels, radii_px, strict=True):
        np.multiply(level, np.float32(1 / radius), out=level)
    sky = np.empty_like(ground)
    rows, columns = ground.shape
    band = max(1, _BAND_VALUES // columns)
    for top in range(0, rows, band):
        bottom = min(rows, top + band)
        _sky_of_band(ground[top:bottom], levels, radii_px, top, sky[top:bottom])
    return sky[:, :, np.newaxis]


def _check_relief(relief_px: float) -> None:
    if not (math.isfinite(relief_px) and relief_px >= 0):
        raise ValueError(f"relief_px: got {relief_px}, expected a finite number of at least 0")


def _wrap(plane: FloatArray, margin_px: int) -> FloatArray:
    """Surround an [H, W] plane with its own continuation on the torus."""
    return np.pad(plane, margin_px, mode="wrap")


def _blurred_levels(ground: FloatArray, radii_px: tuple[int, ...]) -> list[FloatArray]:
    """Return one wrapped plane a radius: the first sharp, each next blurred by (1 2 1)/4 at the previous radius."""
    levels = [_wrap(ground, radii_px[0])]
    plane = ground
    for near, far in pairwise(radii_px):
        wide = _wrap(plane, near)
        inner = slice(near, -near)
        down = wide[: -2 * near] + wide[2 * near :]
        down += wide[inner]
        down += wide[inner]
        plane = down[:, : -2 * near] + down[:, 2 * near :]
        plane += down[:, inner]
        plane += down[:, inner]
        plane *= np.float32(1 / 16)
        levels.append(_wrap(plane, far))
    return levels


def _sky_of_band(
    ground: FloatArray, levels: list[FloatArray], radii_px: tuple[int, ...], top: int, sky: FloatArray
) -> None:
    """Fill ``sky`` for the rows of ``ground``, which start at row ``top`` of the whole.

    Levels are divided by their radii already, which is exact where those are powers of two: slopes along rows and
    columns then take no product, those along diagonals one for all radii, the steepest.
    """
    rows, columns = ground.shape
    slope, rise = np.empty_like(ground), np.empty_like(ground)
    near = [ground * np.float32(1 / radius) for radius in radii_px]
    sky[:] = 0
    for down, right in DIRECTIONS:
        slope[:] = 0
        for level, here, radius in zip(levels, near, radii_px, strict=True):
            first_row, first_column = top + radius + down * radius, radius + right * radius
            np.subtract(level[first_row : first_row + rows, first_column : first_column + columns], here, out=rise)
            np.maximum(slope, rise, out=slope)
        if down and right:
            slope *= np.float32(1 / math.sqrt(2))
        slope *= slope
        slope += np.float32(1)
        np.divide(np.float32(1 / len(DIRECTIONS)), slope, out=slope)
        sky += slope
