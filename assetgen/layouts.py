"""Patterns of cells that close on a torus: courses of bricks, tiles, boards, cobbles; pure, numpy only.

A generator of a few thousand pictures learns what a brick looks like, hardly how bricks are laid. So the host lays the
cells and the network paints them: a layout is drawn from a handful of numbers, then rastered into channels that say
where the joints are, where in its cell a texel lies, and what is special to that cell.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from assetgen import latents
from assetgen.manifest import LAYOUT_CHANNELS, PATTERNS, LayoutSpec
from assetgen.types import FloatArray

# What the LAYOUT_CHANNELS hold: closeness to a joint within about 1 and 4 texels; place in the cell across and down, -1
# to 1; three normal numbers a cell; streaks along the rows that end with their cell. Without cells only streaks remain.
STREAK_TEXELS = 24

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """How cells are laid, whatever the size of the torus.

    Attributes:
        pattern: ``plain`` without cells, ``stacked`` rows, ``running`` bond (every other row shifted by half a cell),
            ``scattered`` (each row shifted at random) or ``cells`` (the places nearest to scattered points).
        pitch: height of a row in texels; ``aspect``: width of a cell by its height.
        jitter: how far boundaries stray, as a share of a cell.
        turned: rows run down instead of across.
    """

    pattern: str
    pitch: float
    aspect: float
    jitter: float
    turned: bool


def draw_layout(rng: np.random.Generator, spec: LayoutSpec, pattern: str = "", scale: float = 1.0) -> Layout:
    """Draw a layout of a class: always five numbers, so that nothing drawn later depends on the outcome.

    Args:
        pattern: one of ``manifest.PATTERNS`` to have that one instead of a random one of the class.
        scale: multiplies the size of the cells.
    """
    chance, pitch, aspect, jitter, turn = rng.random(5).tolist()
    ends = list(itertools.accumulate(spec.shares))
    drawn = next(name for name, end in zip(PATTERNS, ends, strict=True) if chance * ends[-1] < end)
    return Layout(
        pattern=pattern or drawn,
        pitch=_between(spec.pitch, pitch) * scale,
        aspect=_between(spec.aspect, aspect),
        jitter=spec.jitter[0] + (spec.jitter[1] - spec.jitter[0]) * jitter,
        turned=turn < spec.turned,
    )


def raster(rng: np.random.Generator, layout: Layout, texels: tuple[int, int]) -> FloatArray:
    """Lay the cells on a torus of ``texels`` (rows, columns) at a random place.

    Returns:
        ``[LAYOUT_CHANNELS, rows, columns] float32``. The number of rows and of cells in a row is rounded so that they
        close, at least one, at most one a texel; in running bond and for cells to an even number of rows.
    """
    height, width = texels[::-1] if layout.turned else texels
    if layout.pattern == "plain":
        channels = np.zeros((LAYOUT_CHANNELS, height, width), dtype=np.float32)
        channels[7] = _streaks(rng, height, width)
        return _turned(channels) if layout.turned else channels
    # Cells smaller than a texel would be noise, and their number has no bound but this.
    rows = max(min(round(height / layout.pitch), height), 1)
    if layout.pattern in ("running", "cells"):
        rows = max(2 * min(round(height / layout.pitch / 2), height // 2), 2)
    columns = max(min(round(width / (layout.pitch * layout.aspect)), width), 1)
    lay = _cells if layout.pattern == "cells" else _courses
    laid = lay(rng, layout.jitter, layout.pattern, (rows, columns), (height, width))
    values = rng.standard_normal((3, rows * columns), dtype=np.float32)
    # Every cell reads another row of the streaks, so that they end at its joints.
    lines = rng.integers(height, size=rows * columns)[laid.number] + np.arange(height)[:, None]
    streaks = _streaks(rng, height, width).ravel()
    channels = np.empty((LAYOUT_CHANNELS, height, width), dtype=np.float32)
    near = np.exp(laid.joint * np.float32(-0.25))
    channels[0] = np.square(np.square(near))
    channels[1] = near
    channels[2] = laid.across
    channels[3] = laid.down
    np.take(values, laid.number, axis=1, out=channels[4:7], mode="wrap")
    np.take(streaks, lines % height * width + np.arange(width), out=channels[7], mode="wrap")
    return _turned(channels) if layout.turned else channels


def _turned(channels: FloatArray) -> FloatArray:
    return np.ascontiguousarray(channels.transpose(0, 2, 1))


def pyramid(channels: FloatArray, levels: int) -> list[FloatArray]:
    """The same layout at ``levels`` resolutions, coarsest first, each the mean of 2 x 2 texels of the next.

    Rolling the finest by ``2**(levels - 1)`` texels rolls every level by whole texels.
    """
    made = [channels]
    for _ in range(levels - 1):
        finer = made[0]
        made.insert(
            0,
            (finer[:, ::2, ::2] + finer[:, 1::2, ::2] + finer[:, ::2, 1::2] + finer[:, 1::2, 1::2]) * np.float32(0.25),
        )
    return made


def _between(span: tuple[float, float], share: float) -> float:
    """A size between two sizes, small ones as likely by ratio as large ones."""
    size: float = span[0] * (span[1] / span[0]) ** share
    return size


@dataclass(frozen=True)
class _Laid:
    """Of every texel: number of its cell, distance to the nearest joint in texels, place in the cell from -1 to 1."""

    number: NDArray[np.int64]
    joint: Floats
    across: Floats
    down: Floats


def _courses(
    rng: np.random.Generator, jitter: float, pattern: str, cells: tuple[int, int], texels: tuple[int, int]
) -> _Laid:
    """Rows of rectangles. All that does not depend on the row of texels is computed once a row of cells."""
    (rows, columns), (height, width) = cells, texels
    breadth = np.float32(width / columns)
    stray = np.float32(2 * jitter)
    shift = rng.random(2, dtype=np.float32) * np.array([height, width], dtype=np.float32)
    edges = (np.arange(rows, dtype=np.float32) + (rng.random(rows, dtype=np.float32) - np.float32(0.5)) * stray) * (
        np.float32(height / rows)
    )
    strays = (rng.random((rows, columns), dtype=np.float32) - np.float32(0.5)) * stray
    starts = rng.random(rows, dtype=np.float32) * np.float32(columns)
    if pattern != "scattered":
        starts = np.arange(rows, dtype=np.float32) % 2 / 2 if pattern == "running" else np.zeros_like(starts)

    x = (np.arange(width, dtype=np.float32) + np.float32(0.5) + shift[1]) / breadth
    place = (x - starts[:, None]) % np.float32(columns)
    column = place.astype(np.int64) % columns
    every = np.arange(rows)[:, None]
    inside = place - np.floor(place)
    # A stray edge may lie on either side of the texel.
    column -= inside < strays[every, column]
    column += inside >= 1 + strays[every, (column + 1) % columns]
    column %= columns
    left = (place - column - strays[every, column]) % np.float32(columns)
    breadths = 1 + strays[every, (column + 1) % columns] - strays[every, column]
    across = 2 * left / breadths - 1
    aside = np.minimum(left, breadths - left) * breadth

    # Counted from the first edge, so that no row of cells begins before the torus does.
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5) + shift[0] - edges[0]) % np.float32(height)
    edges = np.append(edges - edges[0], np.float32(height))
    row = np.minimum(np.searchsorted(edges, y, side="right") - 1, rows - 1)
    above, below = y - edges[row], edges[row + 1] - y
    return _Laid(
        number=(every * columns + column)[row],
        joint=np.minimum(aside[row], np.minimum(above, below)[:, None]),
        across=across[row],
        down=((above - below) / (above + below))[:, None],
    )


def _cells(
    rng: np.random.Generator, jitter: float, _pattern: str, cells: tuple[int, int], texels: tuple[int, int]
) -> _Laid:
    """Places nearest to one point of a staggered lattice that strays; without jitter, hexagons.

    A texel's nearest points are sought among the nine of the lattice cells around it, which stray too little to miss
    them visibly.
    """
    (rows, columns), (height, width) = cells, texels
    pitch, breadth = np.float32(height / rows), np.float32(width / columns)
    strays = (rng.random((2, rows, columns), dtype=np.float32) - np.float32(0.5)) * np.float32(2 * jitter)
    shift = rng.random(2, dtype=np.float32) * np.array([height, width], dtype=np.float32)
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5) + shift[1]) / breadth
    every = np.arange(rows)[:, None]
    staggered = x - np.arange(rows, dtype=np.float32)[:, None] % 2 / 2
    beside = np.floor(staggered).astype(np.int64) + np.array([-1, 0, 1])[:, None, None]  # [side, row, x]
    column = beside % columns
    dx = ((staggered - beside - np.float32(0.5)).astype(np.float32) - strays[1][every, column]) * breadth
    dx_squared = np.square(dx)
    stray_y = strays[0][every, column]

    y = (np.arange(height, dtype=np.float32) + np.float32(0.5) + shift[0]) / pitch
    line = np.floor(y).astype(np.int64) + np.array([-1, 0, 1])[:, None]  # [step, y]
    row = line % rows
    inside = (y - line - np.float32(0.5)).astype(np.float32)
    squares = np.empty((3, 3, height, width), dtype=np.float32)
    for step in range(3):
        dy = (inside[step][:, None] - stray_y[:, row[step]]) * pitch
        np.add(np.square(dy), dx_squared[:, row[step]], out=squares[step])
    squared = squares.reshape(9, height, width)
    winner = squared.argmin(axis=0)
    nearest = np.sqrt(np.take_along_axis(squared, winner[None], axis=0)[0])
    np.put_along_axis(squared, winner[None], np.inf, axis=0)
    second = np.sqrt(squared.min(axis=0))
    step, side = winner // 3, winner % 3
    texel_row = row[step, np.arange(height)[:, None]]
    at = (side * rows + texel_row) * width + np.arange(width)
    dy = (inside[step, np.arange(height)[:, None]] - stray_y.ravel()[at]) * pitch
    return _Laid(
        number=texel_row * columns + column.ravel()[at],
        joint=(second - nearest) * np.float32(0.5),
        across=np.clip(dx.ravel()[at] * (2 / breadth), -1, 1),
        down=np.clip(dy * (2 / pitch), -1, 1),
    )


def _streaks(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Noise of unit variance that is alike along a row for some ``STREAK_TEXELS``."""
    length = min(STREAK_TEXELS, width)
    (noise,) = latents.noises(rng, [(height, width)])
    total = np.cumsum(np.concatenate([noise, noise[:, :length]], axis=1), axis=1)
    streaks: Floats = (total[:, length:] - total[:, :width]) * np.float32(1 / np.sqrt(length))
    return streaks
