"""A picture of a mesh, for people: triangles painted from back to front, lit from above; numpy and Pillow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from assetgen.postprocess.mesh import Mesh

AZIMUTH, ELEVATION = 30.0, 22.0  # of the camera, degrees
MARGIN = 0.05  # of the edge
SAMPLES = 3  # a pixel edge
LIGHT = (-0.45, 0.75, 0.5)  # towards the key light, in the camera's axes
SKY, GROUND, KEY = 0.55, 0.25, 0.6


def picture_of_mesh(mesh: Mesh, edge_px: int) -> NDArray[np.uint8]:
    """Draw ``[edge, edge, 4] uint8`` with straight alpha; the mesh fills the picture."""
    turn, tilt = np.radians(AZIMUTH), np.radians(ELEVATION)
    yaw = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
    pitch = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    points = mesh.vertices.astype(np.float64) @ (pitch @ yaw).T
    low, high = points.min(axis=0), points.max(axis=0)
    edge = edge_px * SAMPLES
    scale = edge * (1 - 2 * MARGIN) / max(float((high - low)[:2].max()), 1e-9)
    flat = (points[:, :2] - (low + high)[:2] / 2) * [scale, -scale] + edge / 2
    corners = points[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    front = np.flatnonzero(normals[:, 2] > 0)
    colors = _lit(normals[front], mesh.colors[mesh.faces[front]].mean(axis=1), pitch @ [0, 1, 0])
    canvas = Image.new("RGBA", (edge, edge))
    pen = ImageDraw.Draw(canvas)
    for number in np.argsort(corners[front, :, 2].mean(axis=1), kind="stable"):
        outline = [tuple(place) for place in flat[mesh.faces[front[number]]].tolist()]
        fill = (*colors[number].tolist(), 255)
        pen.polygon(outline, fill=fill, outline=fill)  # with its outline, or hairlines show between triangles
    # Pillow averages premultiplied, so that no black comes in from where nothing is.
    return np.asarray(canvas.convert("RGBa").reduce(SAMPLES).convert("RGBA"))


def _lit(normals: NDArray[np.float64], colors: NDArray[np.float32], up: NDArray[np.float64]) -> NDArray[np.uint8]:
    unit = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    light = np.array(LIGHT) / np.linalg.norm(LIGHT)
    shade = GROUND + (SKY - GROUND) * (0.5 + 0.5 * unit @ up) + KEY * np.maximum(unit @ light, 0)
    # Light is linear, colours are about a power of 2.2 of it: good enough for people.
    return np.asarray(np.rint(255 * np.clip(colors * (shade**0.45)[:, None], 0, 1)), dtype=np.uint8)
