"""Sprites from premultiplied pictures: straight alpha, colours under it, palette, cut, size; imports pixelart.

All functions are pure. Sprites are ``[h, w, 4] uint8``, straight alpha, colours sRGB-coded; a pixel is visible where
its alpha is above 0. Premultiplied means coded colours times alpha, as networks learn and make them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from assetgen import check
from assetgen.postprocess import pixelart
from assetgen.types import FloatArray

Sprite: TypeAlias = NDArray[np.uint8]

# A tanh reaches neither 0 nor 1: alpha this near to them is meant to be them.
FAINT = 4 / 255
OPAQUE_FROM = 128
LIGHT_SQUARE, DARK_SQUARE = 224, 176
# Rows whose distances to all columns are held at once; bounds memory at 16 M numbers for 1024 px.
_ROWS = 16


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels, from the upper left corner of a picture."""

    left_px: int
    top_px: int
    width_px: int
    height_px: int


PIVOTS = {
    "center": (0.5, 0.5),
    "bottom": (0.5, 1.0),
    "top": (0.5, 0.0),
    "left": (0.0, 0.5),
    "right": (1.0, 0.5),
    "bottom_left": (0.0, 1.0),
    "bottom_right": (1.0, 1.0),
    "top_left": (0.0, 0.0),
    "top_right": (1.0, 0.0),
}


def unpremultiply(values: FloatArray) -> Sprite:
    """Straight alpha from premultiplied ``[h, w, 4]`` in [0, 1].

    Alpha within 4/255 of 0 or 1 becomes 0 or 1, what lies between is stretched. Invisible pixels are black: see
    ``bleed``.

    Raises:
        ValueError: not of that shape or range, or not finite.
    """
    check.shape(values, "h w 4", "sprite")
    check.in_range(values, 0.0, 1.0, "sprite")
    alpha = values[:, :, 3:]
    visible = alpha > np.float32(FAINT)
    straight = np.divide(values[:, :, :3], alpha, out=np.zeros_like(values[:, :, :3]), where=visible)
    stretched = (alpha - np.float32(FAINT)) / np.float32(1 - 2 * FAINT)
    whole = np.concatenate([straight, np.where(visible, stretched, np.float32(0))], axis=2).clip(0, 1)
    sprite: Sprite = (whole * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    sprite[sprite[:, :, 3] == 0] = 0
    return sprite


def harden(sprite: Sprite, threshold: float = 0.5) -> Sprite:
    """Alpha 255 where it was ``threshold`` (0 to 1) at least, 0 elsewhere and where nothing was visible."""
    alpha = sprite[:, :, 3]
    hard = sprite.copy()
    hard[:, :, 3] = np.where((alpha > 0) & (alpha >= threshold * 255), 255, 0)
    return hard


def reduce_colors(sprite: Sprite, colors: int) -> Sprite:
    """At most ``colors`` (2 to 256) different colours among the visible pixels; alpha stays as it is.

    The palette is that of the pixels that are more opaque than not; fainter ones take the nearest of its colours. See
    ``pixelart.with_palette``: what has few colours keeps them, and equal colours stay equal wherever they lie.
    """
    visible = sprite[:, :, 3] > 0
    solid = sprite[:, :, 3] >= OPAQUE_FROM
    solid = solid if solid.any() else visible
    reduced = sprite.copy()
    if not solid.any():
        return reduced
    color = pixelart.with_palette(sprite[:, :, :3].astype(np.float32) / np.float32(255), solid, colors)
    reduced[solid, :3] = (color[solid] * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    palette = np.unique(reduced[solid][:, :3], axis=0).astype(np.float32)
    faint, places = np.unique(sprite[visible & ~solid][:, :3], axis=0, return_inverse=True)
    distances = (palette * palette).sum(axis=1) - 2 * faint.astype(np.float32) @ palette.T  # below 2**24: exact
    reduced[visible & ~solid, :3] = palette[distances.argmin(axis=1)][places.ravel()]
    return reduced


def bleed(sprite: Sprite) -> Sprite:
    """Give every invisible pixel the colour of a visible one nearest to it: filters and mipmaps mix both.

    Exact distances, separable (Felzenszwalb and Huttenlocher 2012): first along columns, then along rows.
    """
    visible = sprite[:, :, 3] > 0
    if visible.all() or not visible.any():
        return sprite.copy()
    height, width = visible.shape
    source = _nearest_in_column(visible)
    reach = source - np.arange(height)[:, None]
    far = 2 * (height + width)
    squared = np.where(source < 0, far**2, reach**2).astype(np.int32)
    columns = np.arange(width, dtype=np.int32)
    apart = (columns[:, None] - columns[None]) ** 2
    filled = sprite.copy()
    for top in range(0, height, _ROWS):
        rows = slice(top, min(top + _ROWS, height))
        nearest = (apart[None] + squared[rows, None, :]).argmin(axis=2)
        from_row = np.take_along_axis(source[rows], nearest, axis=1)
        colors = sprite[from_row, nearest, :3]
        filled[rows, :, :3] = np.where(visible[rows, :, None], sprite[rows, :, :3], colors)
    return filled


def _nearest_in_column(visible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each pixel the row of the nearest visible pixel in its column, the upper of two; -1 where there is none."""
    height = len(visible)
    rows = np.arange(height)[:, None]
    far = 4 * height
    above = np.maximum.accumulate(np.where(visible, rows, -far), axis=0)
    below = np.minimum.accumulate(np.where(visible, rows, far)[::-1], axis=0)[::-1]
    nearest = np.where(rows - above <= below - rows, above, below)
    return np.where((nearest < 0) | (nearest >= height), -1, nearest)


def opaque_box(sprite: Sprite) -> Box:
    """The smallest box around all visible pixels; the whole picture if there are none."""
    visible = sprite[:, :, 3] > 0
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if not len(rows):
        return Box(0, 0, visible.shape[1], visible.shape[0])
    left, top = int(columns[0]), int(rows[0])
    return Box(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)


def widen(box: Box, margin_px: int, width_px: int, height_px: int) -> Box:
    """``box`` with a margin on all sides, as far as the picture of that size goes."""
    left, top = max(box.left_px - margin_px, 0), max(box.top_px - margin_px, 0)
    right = min(box.left_px + box.width_px + margin_px, width_px)
    bottom = min(box.top_px + box.height_px + margin_px, height_px)
    return Box(left, top, right - left, bottom - top)


def cut(sprite: Sprite, box: Box) -> Sprite:
    """What lies in ``box``."""
    rows = slice(box.top_px, box.top_px + box.height_px)
    return sprite[rows, box.left_px : box.left_px + box.width_px].copy()


def enlarge(sprite: Sprite, factor: int) -> Sprite:
    """Every pixel as a square of ``factor`` x ``factor`` pixels."""
    if factor < 1:
        raise ValueError(f"factor: got {factor}, expected a whole number of at least 1")
    return sprite.repeat(factor, axis=0).repeat(factor, axis=1)


def pivot_of(box: Box, name: str) -> tuple[float, float]:
    """The point of ``box`` that one of ``PIVOTS`` names: x and y in pixels from the picture's upper left corner."""
    across, down = PIVOTS[name]
    return box.left_px + across * box.width_px, box.top_px + down * box.height_px


def on_squares(sprite: Sprite, square_px: int = 8) -> NDArray[np.uint8]:
    """The sprite on a ground of light and dark squares, ``[h, w, 3]``, for people to look at."""
    y, x = np.indices(sprite.shape[:2]) // square_px
    ground = np.where((x + y) % 2, DARK_SQUARE, LIGHT_SQUARE)[:, :, None]
    alpha = sprite[:, :, 3:] / 255
    shown: NDArray[np.uint8] = (sprite[:, :, :3] * alpha + ground * (1 - alpha) + 0.5).astype(np.uint8)
    return shown
