"""Pixel art from pictures: a small grid, few colours; check and types of ours, numpy and Pillow.

No dithering: what becomes of a pixel hangs on its own colour and on how often each colour occurs, never on its place,
so a tile stays a tile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assetgen import check
from assetgen.postprocess.resize import linear_from_srgb, srgb_from_linear
from assetgen.types import FloatArray

MAX_COLORS = 256
MOST_KNOWN = 1 << 15
SAMPLES = 1 << 16


def shrunk(color: FloatArray, alpha: FloatArray, pixel_px: int) -> tuple[FloatArray, FloatArray]:
    """Make one pixel of every square of ``pixel_px``: the mean of its light, and the mean of its alpha.

    Args:
        color: [H, W, 3] in [0, 1], sRGB-coded; alpha: [H, W] in [0, 1].
        pixel_px: must divide H and W.
    """
    height_px, width_px = alpha.shape
    if pixel_px < 1 or height_px % pixel_px or width_px % pixel_px:
        raise ValueError(f"pixel_px: got {pixel_px}, expected a divisor of {width_px} x {height_px}")
    if pixel_px == 1:
        return color, alpha
    planes = np.dstack([linear_from_srgb(color) * alpha[:, :, np.newaxis], alpha, linear_from_srgb(color)])
    cells = planes.reshape(height_px // pixel_px, pixel_px, width_px // pixel_px, pixel_px, 7).mean(axis=(1, 3))
    seen = cells[:, :, 3:4]
    # Where nothing is seen, the colour that is hidden there stays.
    linear = np.where(seen > 0, cells[:, :, :3] / np.maximum(seen, np.float32(1e-6)), cells[:, :, 4:])
    return srgb_from_linear(np.clip(linear, 0, 1)).astype(np.float32), seen[:, :, 0].astype(np.float32)


def with_palette(color: FloatArray, visible: NDArray[np.bool_], colors: int) -> FloatArray:
    """Reduce a picture to a palette of its own, made by Pillow's median cut and k-means.

    Args:
        color: [H, W, 3] in [0, 1], sRGB-coded; visible: [H, W], the pixels that choose the palette. Others take the
            colour that most have.
        colors: 2 to 256.

    Returns:
        The picture, with at most ``colors`` different colours of 8 bits.
    """
    check.shape(color, "h w 3", "color")
    if not 2 <= colors <= MAX_COLORS:
        raise ValueError(f"colors: got {colors}, expected 2 to {MAX_COLORS}")
    pixels = (color[visible] * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    known, members, counts = np.unique(codes, return_inverse=True, return_counts=True)
    own = known if len(known) <= colors else _palette(known, counts, colors)
    made = np.empty(color.shape, dtype=np.uint8)
    made[visible] = _channels(own)[members]
    made[~visible] = _channels(own)[counts.argmax()]
    return made.astype(np.float32) / np.float32(255)


def _palette(known: NDArray[np.uint32], counts: NDArray[np.int64], colors: int) -> NDArray[np.uint32]:
    """For every known colour, as 0xRRGGBB in rising order, that of a palette.

    Pillow takes as long as there are different colours, minutes for noise: neighbouring ones are put together until
    they are few, and come up as often as their share says.
    """
    shift = 0
    while len(rough := _different(_rough(known, shift))) > MOST_KNOWN:
        shift += 1
    cells = np.searchsorted(rough, _rough(known, shift))
    share = np.bincount(cells, weights=counts) / counts.sum()
    often = np.maximum(np.round(share * min(SAMPLES, counts.sum())), 1).astype(np.int64)
    row = Image.fromarray(_channels(rough).repeat(often, axis=0)[np.newaxis])
    reduced = row.quantize(colors, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    first = np.cumsum(often) - often
    indices = np.asarray(reduced)[0][first][cells]
    weight = np.maximum(np.bincount(indices, weights=counts, minlength=colors), 1)
    means = [np.bincount(indices, weights=counts * plane, minlength=colors) / weight for plane in _channels(known).T]
    palette = np.round(np.stack(means, axis=1)).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    chosen: NDArray[np.uint32] = palette[indices]
    return chosen


def _different(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The colours that there are, rising; many times as fast as numpy's own for millions of them."""
    there = np.zeros(1 << 24, dtype=np.bool_)
    there[codes] = True
    return np.flatnonzero(there).astype(np.uint32)


def _rough(codes: NDArray[np.uint32], shift: int) -> NDArray[np.uint32]:
    """The middle of the cell of ``2**shift`` levels a channel that a colour lies in."""
    mask = np.uint32(0xFF >> shift << shift) * np.uint32(0x010101)
    return codes & mask | np.uint32((1 << shift) >> 1) * np.uint32(0x010101)


def _channels(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    return np.stack([codes >> shift & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)
