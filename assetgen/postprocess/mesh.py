"""From a coloured distance grid to a closed mesh of few triangles; numpy, scikit-image, fast-simplification.

The same grid gives the same mesh. Coordinates are those of glTF: x right, y up, z towards the viewer.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from assetgen.errors import InternalError, RuntimeMissing
from assetgen.types import FloatArray

SURFACE = 0.5  # the value of a grid at the surface; below it is inside
LIBRARIES = ("fast_simplification", "skimage", "scipy")
HINT = "pip install 'assetgen[mesh]'"
LEAST_DEPTH = 1e-3  # of a value from SURFACE: nearer ones would put vertices onto each other
COARSER = (1, 2, 4, 8)  # cells that become one, in turn, where a surface with many holes takes too many triangles
STEP = 0.93  # of the target, from one try to the next
LOWEST_SHARE = 0.5  # of the triangles asked for, before a coarser grid is tried

IntArray = NDArray[np.int32]


@dataclass(frozen=True)
class Mesh:
    """A closed mesh: every edge belongs to two triangles, wound counter-clockwise seen from outside.

    Attributes:
        vertices: ``[v, 3]``.
        faces: ``[f, 3]`` numbers of vertices.
        colors: ``[v, 3]`` sRGB in [0, 1].
    """

    vertices: FloatArray
    faces: IntArray
    colors: FloatArray


def check_libraries() -> None:
    """Raise RuntimeMissing, naming the extra, unless all that meshes need is installed.

    Nothing is imported: that takes most of a second, which a server that is asked for other models has no use for.
    """
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise RuntimeMissing(f"meshes need {name}, which is not installed", hint=HINT)


def mesh_within(volume: FloatArray, triangles: int) -> Mesh | None:
    """The surface of the largest part of a grid, closed and of at most ``triangles``, in cells.

    Args:
        volume: ``[4, d, h, w]`` in [0, 1]: distance and sRGB, axes z, y, x.

    Returns:
        ``None`` where nothing is inside.

    Raises:
        InternalError: so few triangles cannot close the surface.
    """
    for cells in COARSER:
        mesh = surface(_coarser(volume, cells))
        if mesh is None:
            return None
        made = simplified(mesh, triangles)
        if made is not None:
            return replace(made, vertices=made.vertices * np.float32(cells))
    raise InternalError(f"no closed mesh of {triangles} triangles was found", hint="ask for more triangles")


def surface(volume: FloatArray) -> Mesh | None:
    """The surface of the largest part of a grid, as fine as its cells; see ``mesh_within``.

    Parts are compared by volume; bubbles inside a part go.
    """
    from scipy.ndimage import map_coordinates
    from skimage.measure import marching_cubes

    depth = volume[0].astype(np.float32) - np.float32(SURFACE)
    depth = np.where(depth < 0, np.minimum(depth, -LEAST_DEPTH), np.maximum(depth, LEAST_DEPTH))
    if not depth.min() < 0:
        return None
    # A border of outside closes what reaches the edge of the grid.
    places, faces, _, _ = marching_cubes(np.pad(depth, 1, constant_values=SURFACE), 0.0)  # type: ignore[no-untyped-call]
    places, faces = _largest_part(places.astype(np.float64) - 1, faces.astype(np.int32))
    if _volume(places[:, ::-1], faces) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    colors = np.stack([map_coordinates(channel, places.T, order=1, mode="nearest") for channel in volume[1:]], axis=1)
    vertices = places[:, ::-1].astype(np.float32)
    return Mesh(np.ascontiguousarray(vertices), faces, np.clip(colors, 0, 1).astype(np.float32))


def simplified(mesh: Mesh, triangles: int) -> Mesh | None:
    """The mesh with at most ``triangles``, still closed, by quadric error (Garland and Heckbert 1997).

    ``None`` if that fails down to half as many: what the library returns is not always closed.
    """
    import fast_simplification
    from scipy.spatial import cKDTree

    if len(mesh.faces) <= triangles:
        return mesh
    target = float(triangles)
    while target >= LOWEST_SHARE * triangles:
        vertices, faces = fast_simplification.simplify(mesh.vertices, mesh.faces, target_count=int(target))
        kept, renumbered = np.unique(faces, return_inverse=True)
        vertices, faces = np.asarray(vertices, dtype=np.float32)[kept], renumbered.reshape(-1, 3).astype(np.int32)
        if len(faces) <= triangles and is_closed(vertices, faces):
            _, nearest = cKDTree(mesh.vertices).query(vertices)
            return Mesh(vertices, faces, mesh.colors[nearest])
        target *= STEP
    return None


def placed(mesh: Mesh, size_m: float) -> Mesh:
    """The mesh in metres: the longest side is ``size_m``, the origin in the middle of the base."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    base = (low + high) / 2
    base[1] = low[1]
    return replace(mesh, vertices=(mesh.vertices - base) * np.float32(size_m / float((high - low).max())))


def is_closed(vertices: FloatArray, faces: IntArray) -> bool:
    """Whether every edge belongs to two triangles that pass it in opposite directions, once equal vertices are one."""
    if not len(faces):
        return False
    _, same = np.unique(vertices, axis=0, return_inverse=True)
    welded = same.reshape(-1)[faces].astype(np.int64)
    following = np.roll(welded, -1, axis=1)
    count = len(vertices)
    there, back = np.sort((welded * count + following).ravel()), np.sort((following * count + welded).ravel())
    whole = (welded != following).all() and (there[1:] != there[:-1]).all() and (there == back).all()
    return bool(whole)


def _coarser(volume: FloatArray, cells: int) -> FloatArray:
    """Means over cubes of ``cells``; what is left over at the far ends is outside."""
    if cells == 1:
        return volume
    gap = [(0, 0), *((0, -edge % cells) for edge in volume.shape[1:])]
    padded = np.pad(volume, gap, constant_values=1.0)
    c, d, h, w = padded.shape
    parts = padded.reshape(c, d // cells, cells, h // cells, cells, w // cells, cells)
    return np.asarray(parts.mean(axis=(2, 4, 6), dtype=np.float64), dtype=np.float32)


def _largest_part(places: NDArray[np.float64], faces: IntArray) -> tuple[NDArray[np.float64], IntArray]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_array((np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), shape=(len(places),) * 2)
    count, part = connected_components(graph, directed=False)
    if count > 1:
        owner = part[faces[:, 0]]
        signed = np.einsum("ij,ij->i", places[faces[:, 0]], np.cross(places[faces[:, 1]], places[faces[:, 2]]))
        faces = faces[owner == np.argmax(np.abs(np.bincount(owner, weights=signed, minlength=count)))]
    kept, renumbered = np.unique(faces, return_inverse=True)
    return places[kept], renumbered.reshape(-1, 3).astype(np.int32)


def _volume(vertices: NDArray[np.float64], faces: IntArray) -> float:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6
