"""From a triangle mesh that need not be closed to a coloured distance grid; numpy, SciPy and trimesh.

A grid is ``[4, d, h, w] uint8``, axes z, y (up) and x: a truncated signed distance, 0 deep inside and 255 far outside,
and sRGB colours of the nearest surface where it is near, else 0. Models stand on a ground below the first cells of y,
centred in x and z, and fill the cube but for a margin.

Models for games are rarely closed: bottoms are open, parts stick into each other, leaves are single sheets. So a place
is inside if nearly all of 26 directions meet a surface, the ground counted as one; and everything is thickened a
little, so that a sheet has an inside.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assetgen.errors import DataInvalid, RuntimeMissing
from assetgen.types import FloatArray

TRUNCATION = 3.0  # cells: the distance at which values end
MARGIN = 2.25  # cells free on all sides: the planes that bound a model lie in the middle of fine cells
THICKNESS = 0.7  # cells added all round; above 0.5, or a sheet half-way between two layers of cells would vanish
FINE = 2  # cells of the grid that tells inside from outside, to one cell
SEALED = 24  # of 26 directions must be blocked inside: two may leak through a window or between two triangles
MAX_POINTS = 4_000_000
DIRECTIONS = tuple((i, j, k) for i, j, k in product((-1, 0, 1), repeat=3) if i or j or k)

BoolArray = NDArray[np.bool_]


def voxelize(vertices: FloatArray, faces: NDArray[np.int64], colors: NDArray[np.uint8], edge: int) -> NDArray[np.uint8]:
    """Return the grid ``[4, edge, edge, edge]`` of a mesh; the same mesh gives the same bytes.

    Args:
        vertices: ``[v, 3]``, any unit, y up.
        faces: ``[f, 3]`` numbers of vertices, wound as it happens.
        colors: ``[f, 3]`` sRGB, of the faces.

    Raises:
        DataInvalid: the mesh has no extent, no triangles, or too large a surface.
        RuntimeMissing: SciPy or trimesh is not installed.
    """
    try:
        from scipy.spatial import cKDTree
        from trimesh.triangles import closest_point
    except ImportError as error:
        raise RuntimeMissing(f"voxelizing needs {error.name}", hint="pip install 'assetgen[props]'") from error
    triangles = _placed(vertices, faces, edge)
    points, owners = _sampled(triangles, spacing=0.5 / FINE)
    outside, known = _told_apart(points, edge)
    axis = np.arange(edge) + 0.5
    centres = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)[..., ::-1].reshape(-1, 3)  # x, y, z
    reach = TRUNCATION + THICKNESS + 0.5
    distance, nearest = cKDTree(points, compact_nodes=False, balanced_tree=False).query(
        centres, distance_upper_bound=reach
    )
    near = np.flatnonzero(np.isfinite(distance))
    owner = owners[nearest[near]]
    closest = closest_point(triangles[owner], centres[near])  # type: ignore[no-untyped-call]
    exact = np.linalg.norm(closest - centres[near], axis=1)
    signed = np.where(_look_up(outside, centres, edge), reach, -reach)
    signed[near] = exact * _signs(centres[near], closest, exact, outside, known, edge)
    values = np.clip((signed - THICKNESS) / TRUNCATION, -1, 1)
    grid = np.zeros((4, edge**3), dtype=np.uint8)
    grid[0] = np.rint((values + 1) * 127.5)
    grid[1:, near] = colors[owner].T
    grid[1:, (grid[0] == 0) | (grid[0] == 255)] = 0
    return grid.reshape(4, edge, edge, edge)


def _placed(vertices: FloatArray, faces: NDArray[np.int64], edge: int) -> NDArray[np.float64]:
    """Triangles ``[f, 3, 3]`` in cells: on the ground, centred, the longest side as long as the margin lets it be."""
    if not len(faces) or not np.isfinite(vertices).all() or faces.min() < 0 or faces.max() >= len(vertices):
        raise DataInvalid("the mesh has no triangles, or numbers of vertices that do not exist")
    corners = vertices.astype(np.float64)[faces]
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    longest = float((high - low).max())
    if not longest > 0:
        raise DataInvalid("the mesh has no extent")
    base = (low + high) / 2
    base[1] = low[1]
    return np.asarray((corners - base) * ((edge - 2 * MARGIN) / longest) + [edge / 2, MARGIN, edge / 2])


def _sampled(triangles: NDArray[np.float64], spacing: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points ``[p, 3]`` on all triangles, at most ``spacing`` apart, and the number of the triangle of each."""
    sides = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).max(axis=1)
    parts = np.maximum(np.ceil(sides / spacing), 1).astype(np.int64)
    if int(((parts + 1) * (parts + 2) // 2).sum()) > MAX_POINTS:
        raise DataInvalid("the mesh has too large a surface: it is folded many times over")
    points, owners = [], []
    for count in np.unique(parts):
        chosen = np.flatnonzero(parts == count)
        i, j = (axis.ravel() for axis in np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij"))
        kept = i + j <= count
        weights = np.stack([i, j, count - i - j], axis=1)[kept] / count
        points.append((weights @ triangles[chosen]).reshape(-1, 3))
        owners.append(np.repeat(chosen, len(weights)))
    return np.concatenate(points), np.concatenate(owners)


def _told_apart(points: NDArray[np.float64], edge: int) -> tuple[BoolArray, BoolArray]:
    """Two fine grids, axes z, y, x: what is not inside, and where that is known: not on the surface itself."""
    from scipy.ndimage import binary_dilation

    fine = edge * FINE
    index = np.clip((points * FINE).astype(np.int64), 0, fine - 1)
    surface = np.zeros((fine, fine, fine), dtype=bool)
    surface[index[:, 2], index[:, 1], index[:, 0]] = True
    blocking = binary_dilation(surface)  # or diagonals would slip between two cells that touch at an edge
    ground = slice(0, int(MARGIN * FINE))
    blocking[:, ground, :] = True
    blocked = np.zeros(surface.shape, dtype=np.uint8)
    for step in DIRECTIONS:
        blocked += _shadow(blocking, step)
    outside = blocked < SEALED
    outside[:, ground, :] = True
    return outside, ~surface


def _shadow(blocking: BoolArray, step: tuple[int, int, int]) -> BoolArray:
    """Where going on by ``step`` again and again meets something that blocks."""
    axis = next(i for i, move in enumerate(step) if move)
    solid = np.moveaxis(blocking, axis, 0)
    shadow = np.zeros_like(solid)
    moves = [move for i, move in enumerate(step) if i != axis]
    layers = range(len(solid) - 2, -1, -1) if step[axis] > 0 else range(1, len(solid))
    to = tuple(slice(max(-move, 0), len(solid) - max(move, 0)) for move in moves)
    since = tuple(slice(max(move, 0), len(solid) - max(-move, 0)) for move in moves)
    for layer in layers:
        following = layer + step[axis]
        shadow[layer][to] = (solid[following] | shadow[following])[since]
    return np.moveaxis(shadow, 0, axis)


def _look_up(grid: BoolArray, places: NDArray[np.float64], edge: int) -> BoolArray:
    """Values of a fine grid at places ``[p, 3]`` (x, y, z in cells)."""
    index = np.clip((places * FINE).astype(np.int64), 0, edge * FINE - 1)
    found: BoolArray = grid[index[:, 2], index[:, 1], index[:, 0]]
    return found


def _signs(
    centres: NDArray[np.float64],
    closest: NDArray[np.float64],
    distance: NDArray[np.float64],
    outside: BoolArray,
    known: BoolArray,
    edge: int,
) -> NDArray[Any]:
    """1 outside, -1 inside.

    Too close to the surface it is asked for a little farther off on the same side; where other surfaces are there, as
    along an edge, on the other side, which is the opposite.
    """
    away = (centres - closest) / np.maximum(distance, 1e-9)[:, None]
    inside = np.zeros(len(centres), dtype=bool)
    open_ = np.ones(len(centres), dtype=bool)
    tries = ((centres, 0.0, False), (centres, 0.5, False), (centres, 1.0, False), (closest, -0.75, True))
    for start, step, other in tries:
        places = start + away * step
        told = open_ & _look_up(known, places, edge)
        inside[told] = _look_up(outside, places[told], edge) == other
        open_ &= ~told
    return np.where(inside, -1.0, 1.0)
