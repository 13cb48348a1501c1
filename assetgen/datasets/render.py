"""Pictures of triangle meshes with an alpha channel, drawn on the processor: the same everywhere; numpy only.

A z-buffer at several samples a pixel edge, flat normals, both sides of every triangle, a sky and a ground that light
from above and below, and one key light. Light is added and averaged in linear space; colours in and out are sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assetgen.errors import DataInvalid
from assetgen.types import FloatArray

SAMPLES = 3  # a pixel edge
FRONT = 30.0  # degrees: the middle of all views shows the front and a side
MARGIN = 0.06  # of the picture's edge, empty on the tighter axis
DISTANCE = 4.0  # of the camera from the origin, for a model whose longest side is 1
SKY, GROUND = 0.62, 0.30
MAX_SAMPLES = 1 << 21  # tested at once
INDEX_BITS = 24  # of a z-buffer entry; the others hold the depth


@dataclass(frozen=True)
class View:
    """Where the camera and the key light stand, in degrees; Y is up.

    Attributes:
        azimuth, elevation: of the camera round the model.
        light_azimuth, light_elevation: of the key light, the azimuth counted from the camera's; negative is left.
        key: strength of the key light; sky and ground are fixed.
    """

    azimuth: float
    elevation: float
    light_azimuth: float = -45.0
    light_elevation: float = 45.0
    key: float = 0.65


def draw_view(rng: np.random.Generator, number: int, views: int, arc: float = 360.0) -> View:
    """View ``number`` of ``views`` spread over ``arc`` degrees round a model; ``rng`` strays all angles a little."""
    strayed = rng.uniform(-1, 1, size=5)
    return View(
        azimuth=FRONT + arc * ((number + 0.5 + 0.35 * float(strayed[0])) / views - 0.5),
        elevation=24.0 + 12.0 * float(strayed[1]),
        light_azimuth=-45.0 + 25.0 * float(strayed[2]),
        light_elevation=48.0 + 12.0 * float(strayed[3]),
        key=0.65 + 0.15 * float(strayed[4]),
    )


def render(
    vertices: FloatArray, faces: NDArray[np.int64], colors: NDArray[np.uint8], view: View, edge_px: int
) -> NDArray[np.uint8]:
    """Draw one picture ``[edge, edge, 4] uint8`` with straight alpha, as PNG has it; the model fills the picture.

    Args:
        vertices: ``[v, 3]``, any unit, Y up.
        faces: ``[f, 3]`` numbers of vertices.
        colors: ``[f, 3]`` sRGB, of the faces.

    Raises:
        DataInvalid: there is no triangle, a number of a vertex is wrong, or a vertex is not finite.
    """
    if not len(faces) or not np.isfinite(vertices).all() or faces.min() < 0 or faces.max() >= len(vertices):
        raise DataInvalid("the mesh has no triangles, or numbers of vertices that do not exist")
    points = _seen(vertices, view)
    edge = edge_px * SAMPLES
    screen, depth = _projected(points, edge)
    nearest = _z_buffer(screen[faces], depth[faces], edge)
    hit = nearest != np.iinfo(np.int64).max
    lit = _lit(points[faces], colors, view)
    samples = np.zeros((edge * edge, 4))
    samples[hit, :3] = lit[nearest[hit] & ((1 << INDEX_BITS) - 1)]
    samples[hit, 3] = 1.0
    mean = samples.reshape(edge_px, SAMPLES, edge_px, SAMPLES, 4).mean(axis=(1, 3))
    alpha = mean[:, :, 3:]
    straight = np.concatenate([_to_srgb(mean[:, :, :3] / np.maximum(alpha, 1e-9)), alpha], axis=2)
    return np.where(alpha > 0, np.rint(straight * 255), 0).astype(np.uint8)


def _seen(vertices: FloatArray, view: View) -> NDArray[np.float64]:
    """Vertices in the camera's axes (right, up, towards it), centred and with the longest side 1."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    centred = (vertices.astype(np.float64) - (low + high) / 2) / max(float((high - low).max()), 1e-9)
    turn, tilt = np.radians(view.azimuth), np.radians(view.elevation)
    yaw = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
    pitch = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return np.asarray(centred @ (pitch @ yaw).T)


def _projected(points: NDArray[np.float64], edge: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows ``[v, 2]`` in samples, fitted to the picture, and depths, smaller is nearer."""
    flat = points[:, :2] * [1, -1] / (DISTANCE - points[:, 2:])
    low, high = flat.min(axis=0), flat.max(axis=0)
    scale = edge * (1 - 2 * MARGIN) / max(float((high - low).max()), 1e-9)
    return (flat - (low + high) / 2) * scale + edge / 2, -1 / (DISTANCE - points[:, 2])


def _z_buffer(screen: NDArray[np.float64], depth: NDArray[np.float64], edge: int) -> NDArray[np.int64]:
    """For every sample depth and number of the nearest triangle in one integer; ties go to the lower number."""
    buffer = np.full(edge * edge, np.iinfo(np.int64).max)
    low = np.clip(np.floor(screen.min(axis=1)), 0, edge - 1).astype(np.int64)
    high = np.clip(np.ceil(screen.max(axis=1)), 1, edge).astype(np.int64)
    spans = (high - low).max(axis=1)
    for size in sorted({1 << max(int(span) - 1, 0).bit_length() for span in np.unique(spans)}):
        chosen = np.flatnonzero((spans <= size) & (spans > size // 2 if size > 1 else spans <= 1))
        step = max(MAX_SAMPLES // (size * size), 1)
        for first in range(0, len(chosen), step):
            part = chosen[first : first + step]
            _cover(buffer, screen[part], depth[part], low[part], part, size, edge)
    return buffer


def _cover(
    buffer: NDArray[np.int64],
    screen: NDArray[np.float64],
    depth: NDArray[np.float64],
    low: NDArray[np.int64],
    numbers: NDArray[np.int64],
    size: int,
    edge: int,
) -> None:
    """Enter triangles whose boxes, from ``low``, are at most ``size`` samples wide and high."""
    steps = np.arange(size)
    columns, rows = low[:, :1] + steps, low[:, 1:] + steps
    x, y = columns[:, None, :] + 0.5, rows[:, :, None] + 0.5
    a, b, c = (screen[:, i, :, None, None] for i in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        u = ((b[:, 0] - x) * (c[:, 1] - y) - (b[:, 1] - y) * (c[:, 0] - x)) / area
        v = ((c[:, 0] - x) * (a[:, 1] - y) - (c[:, 1] - y) * (a[:, 0] - x)) / area
        w = 1 - u - v
        inside = (u >= 0) & (v >= 0) & (w >= 0) & (columns < edge)[:, None, :] & (rows < edge)[:, :, None]
    which, down, right = np.nonzero(inside)
    # 1/distance is linear on the screen; the depths lie in about -1/3 to -1/5, so 2**32 steps tell all apart.
    shares = (share[which, down, right] for share in (u, v, w))
    z = sum(share * depth[which, i] for i, share in enumerate(shares))
    key = (np.rint((z + 1) * 2**32).astype(np.int64) << INDEX_BITS) | numbers[which]
    np.minimum.at(buffer, rows[which, down] * edge + columns[which, right], key)


def _lit(corners: NDArray[np.float64], colors: NDArray[np.uint8], view: View) -> NDArray[np.float64]:
    """Linear colours ``[f, 3]`` of faces whose corners ``[f, 3, 3]`` are in the camera's axes."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    to_camera = np.array([0, 0, DISTANCE]) - corners.mean(axis=1)
    normal *= np.where((normal * to_camera).sum(axis=1, keepdims=True) < 0, -1, 1)
    tilt = np.radians(view.elevation)
    up = np.array([0, np.cos(tilt), np.sin(tilt)])
    side, height = np.radians(view.light_azimuth), np.radians(view.light_elevation)
    level = np.array([np.sin(side), -np.sin(tilt) * np.cos(side), np.cos(tilt) * np.cos(side)])
    light = np.cos(height) * level + np.sin(height) * up
    ambient = GROUND + (SKY - GROUND) * (0.5 + 0.5 * normal @ up)
    shade = ambient + view.key * np.maximum(normal @ light, 0)
    return np.asarray(np.clip(_to_linear(colors / 255.0) * shade[:, None], 0, 1))


def _to_linear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _to_srgb(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x <= 0.0031308, x * 12.92, 1.055 * np.maximum(x, 0) ** (1 / 2.4) - 0.055)
