"""Volumes as pictures of their slices, side by side: what a graph of pictures can hand over; numpy only.

Slice z of ``[c, d, h, w]`` lies in row ``z // columns`` and column ``z % columns`` of a square of slices, as engines
lay out volume textures; places left over are 1, which is outside.
"""

from __future__ import annotations

import math

import numpy as np

from assetgen.types import FloatArray


def columns_of(edge: int) -> int:
    """Slices in a row for a volume of ``edge`` cubed."""
    return math.isqrt(edge - 1) + 1


def atlas_edge(edge: int) -> int:
    """Pixels along an edge of the picture of a volume of ``edge`` cubed."""
    return columns_of(edge) * edge


def volume_edge(atlas_px: int) -> int:
    """Cells along an edge of the volume whose picture has ``atlas_px``; 0 if there is none."""
    return next((edge for edge in range(2, 257) if atlas_edge(edge) == atlas_px), 0)


def volume_from_atlas(atlas: FloatArray) -> FloatArray:
    """``[c, atlas, atlas]`` to ``[c, edge, edge, edge]``."""
    edge = volume_edge(atlas.shape[1])
    columns = columns_of(edge)
    tiles = atlas.reshape(len(atlas), columns, edge, columns, edge).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(tiles.reshape(len(atlas), columns**2, edge, edge)[:, :edge])
