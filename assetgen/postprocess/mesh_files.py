"""Meshes as files: binary glTF 2.0 (GLB) and Wavefront OBJ, the same bytes for the same mesh; numpy only."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assetgen.postprocess.mesh import Mesh
from assetgen.types import FloatArray

GLB_MEDIA_TYPE = "model/gltf-binary"
OBJ_MEDIA_TYPE = "model/obj"
ROUGHNESS = 0.9
_MAGIC, _VERSION = 0x46546C67, 2
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_UNSIGNED_SHORT, _UNSIGNED_INT, _FLOAT = 5123, 5125, 5126
_RESTART = 65535  # an index of this value would restart a primitive


@dataclass(frozen=True)
class _Corners:
    """What is drawn: numbers of vertices ``[f, 3]``, and for each vertex place, unit normal and sRGB colour."""

    faces: NDArray[np.uint32]
    places: FloatArray
    normals: FloatArray
    colors: FloatArray


def glb_bytes(mesh: Mesh, name: str, *, flat: bool, facts: Mapping[str, str]) -> bytes:
    """One mesh with normals and vertex colours, no textures, as GLB.

    ``COLOR_0`` is linear, as glTF has it, in 16 bits: 8 would show steps in the dark.

    Args:
        name: of node and mesh.
        flat: every triangle has vertices and a normal of its own; else normals are smooth and vertices are shared.
        facts: kept as ``asset.extras``.
    """
    corners = _corners(mesh, flat)
    index_type = np.uint16 if len(corners.places) < _RESTART else np.uint32
    rgba = np.concatenate([_to_linear(corners.colors), np.ones((len(corners.colors), 1))], axis=1)
    parts: list[tuple[NDArray[Any], dict[str, Any], int]] = [
        (corners.places, {"componentType": _FLOAT, "type": "VEC3", **_bounds(corners.places)}, _ARRAY_BUFFER),
        (corners.normals, {"componentType": _FLOAT, "type": "VEC3"}, _ARRAY_BUFFER),
        (
            np.rint(rgba * 65535).astype(np.uint16),
            {"componentType": _UNSIGNED_SHORT, "normalized": True, "type": "VEC4"},
            _ARRAY_BUFFER,
        ),
        (
            corners.faces.astype(index_type).reshape(-1),
            {"componentType": _UNSIGNED_SHORT if index_type is np.uint16 else _UNSIGNED_INT, "type": "SCALAR"},
            _ELEMENT_ARRAY_BUFFER,
        ),
    ]
    binary, views, accessors = b"", [], []
    for number, (values, told, target) in enumerate(parts):
        data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data), "target": target})
        accessors.append({"bufferView": number, "count": len(values), **told})
        binary += data + bytes(-len(data) % 4)
    attributes = {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}
    document = {
        "asset": {"version": "2.0", "generator": "assetgen", "extras": dict(facts)},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": 3, "material": 0}]}],
        "materials": [{"name": name, "pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": ROUGHNESS}}],
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), _JSON_CHUNK) + text + struct.pack("<II", len(binary), _BINARY_CHUNK) + binary
    return struct.pack("<III", _MAGIC, _VERSION, 12 + len(chunks)) + chunks


def obj_bytes(mesh: Mesh, name: str, *, flat: bool, facts: Mapping[str, str]) -> bytes:
    """The same as OBJ; colours stand behind the places, sRGB, where Blender, MeshLab and others look for them."""
    normals = _face_normals(mesh) if flat else _vertex_normals(mesh)
    lines = [f"# {key}: {value}" for key, value in sorted(facts.items())]
    lines.append(f"o {name}")
    places = np.concatenate([mesh.vertices, mesh.colors], axis=1)
    lines += ["v " + " ".join(f"{value:.6f}" for value in row) for row in places.tolist()]
    lines += ["vn " + " ".join(f"{value:.6f}" for value in row) for row in normals.tolist()]
    which = np.repeat(np.arange(len(mesh.faces))[:, None], 3, axis=1) if flat else mesh.faces
    lines += [
        "f " + " ".join(f"{place + 1}//{normal + 1}" for place, normal in zip(*row, strict=True))
        for row in zip(mesh.faces.tolist(), which.tolist(), strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


def _corners(mesh: Mesh, flat: bool) -> _Corners:
    if flat:
        numbers = np.arange(3 * len(mesh.faces), dtype=np.uint32).reshape(-1, 3)
        normals = np.repeat(_face_normals(mesh), 3, axis=0)
        return _Corners(numbers, mesh.vertices[mesh.faces].reshape(-1, 3), normals, _face_colors(mesh))
    return _Corners(mesh.faces.astype(np.uint32), mesh.vertices, _vertex_normals(mesh), mesh.colors)


def _face_colors(mesh: Mesh) -> FloatArray:
    """One colour a triangle, the mean of its corners, given three times: a flat triangle looks cut from one piece."""
    return np.repeat(mesh.colors[mesh.faces].mean(axis=1, dtype=np.float64), 3, axis=0).astype(np.float32)


def _face_normals(mesh: Mesh) -> FloatArray:
    return _unit(_areas(mesh))


def _vertex_normals(mesh: Mesh) -> FloatArray:
    """Means of the normals around, by area."""
    areas = _areas(mesh)
    sums = [np.bincount(mesh.faces.ravel(), np.repeat(areas[:, i], 3), len(mesh.vertices)) for i in range(3)]
    return _unit(np.stack(sums, axis=1))


def _areas(mesh: Mesh) -> NDArray[np.float64]:
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    return np.cross(b - a, c - a)


def _unit(vectors: NDArray[np.float64]) -> FloatArray:
    """Unit vectors; up for what has no direction, since glTF allows no other length than 1."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > 1e-30, vectors / np.maximum(length, 1e-30), [0.0, 1.0, 0.0]).astype(np.float32)


def _bounds(places: FloatArray) -> dict[str, list[float]]:
    return {"min": places.min(axis=0).tolist(), "max": places.max(axis=0).tolist()}


def _to_linear(colors: FloatArray) -> NDArray[np.float64]:
    x = colors.astype(np.float64)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
