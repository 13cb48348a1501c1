"""GLB and OBJ files, read back by trimesh, pygltflib and by hand."""

import io
import json
import struct

import numpy as np
import pygltflib
import pytest
import trimesh

from assetgen.postprocess.mesh import Mesh, mesh_within, placed
from assetgen.postprocess.mesh_files import glb_bytes, obj_bytes

FACTS = {"model": "tiny", "seed": "7"}


@pytest.fixture(scope="module")
def mesh():
    axis = np.arange(16) + 0.5
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt((z - 8) ** 2 + (y - 8) ** 2 + ((x - 8) / 1.3) ** 2) - 5
    colors = np.stack([x / 16, y / 16, z / 16])
    grid = np.concatenate([np.clip(distance / 6 + 0.5, 0, 1)[None], colors]).astype(np.float32)
    return placed(mesh_within(grid, 200), 2.0)


def chunks(data):
    """JSON and binary of a GLB file, with the rules of its frame checked (glTF 2.0, section 4)."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON"
    assert size % 4 == 0
    document = json.loads(data[20 : 20 + size])
    binary_size, binary_kind = struct.unpack_from("<I4s", data, 20 + size)
    assert binary_kind == b"BIN\0"
    assert binary_size % 4 == 0
    assert 28 + size + binary_size == len(data)
    return document, data[28 + size :]


def accessor(document, binary, number):
    told = document["accessors"][number]
    view = document["bufferViews"][told["bufferView"]]
    dtype = {5123: "<u2", 5125: "<u4", 5126: "<f4"}[told["componentType"]]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[told["type"]]
    assert view["byteOffset"] % 4 == 0
    assert view["byteLength"] == told["count"] * width * np.dtype(dtype).itemsize
    return np.frombuffer(binary, dtype, told["count"] * width, view["byteOffset"]).reshape(-1, width), told, view


@pytest.mark.parametrize("flat", [True, False])
def test_a_glb_file_keeps_the_rules_of_gltf(mesh, flat):
    document, binary = chunks(glb_bytes(mesh, "ball", flat=flat, facts=FACTS))
    assert document["asset"] == {"version": "2.0", "generator": "assetgen", "extras": FACTS}
    assert document["buffers"] == [{"byteLength": len(binary)}]
    (primitive,) = document["meshes"][0]["primitives"]
    attributes = {name: accessor(document, binary, n) for name, n in primitive["attributes"].items()}
    indices, told, view = accessor(document, binary, primitive["indices"])
    places, place_told, _ = attributes["POSITION"]
    assert told["componentType"] == 5123
    assert indices.max() == len(places) - 1
    assert place_told["min"] == places.min(axis=0).tolist()
    assert place_told["max"] == places.max(axis=0).tolist()
    assert np.linalg.norm(attributes["NORMAL"][0], axis=1) == pytest.approx(np.ones(len(places)), abs=1e-5)
    assert attributes["COLOR_0"][1]["normalized"] is True
    assert {view["target"], *(a[2]["target"] for a in attributes.values())} == {34962, 34963}
    assert len({a[1]["count"] for a in attributes.values()}) == 1
    assert len(indices) == 3 * len(mesh.faces)
    assert len(places) == (3 * len(mesh.faces) if flat else len(mesh.vertices))


def test_colours_of_a_glb_file_are_linear(mesh):
    document, binary = chunks(glb_bytes(mesh, "ball", flat=False, facts={}))
    colors, _, _ = accessor(document, binary, document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"])
    linear = np.where(mesh.colors <= 0.04045, mesh.colors / 12.92, ((mesh.colors + 0.055) / 1.055) ** 2.4)
    assert colors[:, :3] / 65535 == pytest.approx(linear, abs=1e-5)
    assert (colors[:, 3] == 65535).all()


@pytest.mark.parametrize("flat", [True, False])
def test_two_readers_see_the_same_closed_mesh(mesh, flat):
    data = glb_bytes(mesh, "ball", flat=flat, facts=FACTS)
    first = trimesh.load(io.BytesIO(data), file_type="glb", force="mesh")
    first.merge_vertices(merge_norm=True, merge_tex=True)
    assert first.is_watertight
    assert first.volume > 0
    assert first.extents.max() == pytest.approx(2.0, abs=1e-5)
    assert len(first.faces) == len(mesh.faces)
    second = pygltflib.GLTF2.load_from_bytes(data)
    told = second.accessors[second.meshes[0].primitives[0].attributes.POSITION]
    assert told.max[1] == pytest.approx(first.bounds[1][1])
    assert told.min[1] == pytest.approx(0, abs=1e-6)
    assert second.nodes[0].name == "ball"
    assert second.accessors[second.meshes[0].primitives[0].indices].count == 3 * len(mesh.faces)


def test_flat_normals_stand_on_their_triangles(mesh):
    document, binary = chunks(glb_bytes(mesh, "ball", flat=True, facts={}))
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    places, normals = (accessor(document, binary, attributes[name])[0] for name in ("POSITION", "NORMAL"))
    a, b, c = places.reshape(-1, 3, 3).transpose(1, 0, 2)
    for side in (b - a, c - a):
        assert np.abs((side * normals[::3]).sum(axis=1)).max() < 1e-5
    assert (normals[::3] == normals[1::3]).all()


def test_many_vertices_get_wide_indices():
    count = 22_000
    rng = np.random.default_rng(0)
    vertices = rng.random((3 * count, 3)).astype(np.float32)
    large = Mesh(vertices, np.arange(3 * count, dtype=np.int32).reshape(-1, 3), vertices)
    document, binary = chunks(glb_bytes(large, "x", flat=False, facts={}))
    indices, told, _ = accessor(document, binary, 3)
    assert told["componentType"] == 5125
    assert indices.max() == 3 * count - 1


@pytest.mark.parametrize("flat", [True, False])
def test_an_obj_file_is_read_back(mesh, flat):
    data = obj_bytes(mesh, "ball", flat=flat, facts=FACTS)
    assert data.startswith(b"# model: tiny\n# seed: 7\no ball\nv ")
    read = trimesh.load(io.BytesIO(data), file_type="obj", force="mesh")
    read.merge_vertices(merge_norm=True, merge_tex=True)
    assert read.is_watertight
    assert len(read.faces) == len(mesh.faces)
    rows = [line.split() for line in data.decode().splitlines()]
    places = np.array([row[1:] for row in rows if row[0] == "v"], dtype=float)
    normals = np.array([row[1:] for row in rows if row[0] == "vn"], dtype=float)
    corners = np.array([[part.split("//") for part in row[1:]] for row in rows if row[0] == "f"], dtype=int) - 1
    assert places[:, :3] == pytest.approx(mesh.vertices, abs=1e-6)
    assert places[:, 3:] == pytest.approx(mesh.colors, abs=1e-6)
    assert (corners[:, :, 0] == mesh.faces).all()
    assert len(normals) == (len(mesh.faces) if flat else len(mesh.vertices)) == corners[:, :, 1].max() + 1


def test_the_same_mesh_gives_the_same_bytes(mesh):
    for write in (glb_bytes, obj_bytes):
        assert write(mesh, "ball", flat=True, facts=FACTS) == write(mesh, "ball", flat=True, facts=FACTS)
