"""What a request means to a mesh model."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from assetgen.errors import AssetgenError, FieldInvalid, InternalError, PackageInvalid, RuntimeMissing
from assetgen.kinds import KINDS, mesh
from assetgen.manifest import ClassSpec, InputSpec, Manifest, OutputMap, ParameterSpec, SizeSpec
from assetgen.package import VerifiedPackage
from assetgen.postprocess.slices import atlas_edge, columns_of
from assetgen.types import Encoding, MapKind, NormalConvention, OutputSpec, Request
from export.package_from_volume import parameters_of_meshes

EDGE = 16
ATLAS = atlas_edge(EDGE)
CLASSES = ("ball", "crate", "tree")
MANIFEST = Manifest(
    schema=1,
    id="tiny",
    version="1.0.0",
    kind="mesh",
    display_name="Tiny",
    description="",
    license="Apache-2.0",
    graph="g.onnx",
    inputs=(
        InputSpec("z", "latent", ("n", 5)),
        InputSpec("class_weights", "class_weights", ("n", 3)),
        InputSpec("truncation", "truncation", ("n", 1)),
        InputSpec("width", "slider", ("n", 1)),
    ),
    outputs=(OutputMap("volume", "volume", 4),),
    latent_dimension=5,
    classes=tuple(ClassSpec(name, name) for name in CLASSES),
    parameters=(
        *parameters_of_meshes(CLASSES),
        ParameterSpec("width", "Width", "", "float", minimum=-1.0, maximum=1.0, default=0.0),
    ),
    size=SizeSpec(ATLAS, ATLAS, ATLAS, ATLAS),
    files=(),
)


def package(**changes):
    return VerifiedPackage(Path("tiny"), replace(MANIFEST, **changes), "0" * 64)


def request(**changes):
    return Request(**{"model_id": "tiny", "seed": 7} | changes)


def outputs(radius=5.0):
    """The slices of a ball, red on top."""
    axis = np.arange(EDGE) + 0.5
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt((z - 8) ** 2 + (y - 8) ** 2 + (x - 8) ** 2) - radius
    volume = np.stack([np.clip(distance / 6 + 0.5, 0, 1), y / 16, 0 * y + 0.1, 0 * y + 0.2])
    columns = columns_of(EDGE)
    tiles = volume.reshape(4, columns, columns, EDGE, EDGE).transpose(0, 1, 3, 2, 4)
    return {"volume": tiles.reshape(1, 4, ATLAS, ATLAS).astype(np.float32)}


def files(made=None, index=0, output=None, **parameters):
    plan = mesh.resolve(MANIFEST, request(parameters=parameters, output=output or OutputSpec()))
    return list(mesh.finish(MANIFEST, plan, index, made or outputs()))


def read(artifact):
    found = trimesh.load(io.BytesIO(artifact.data), file_type=artifact.name.rsplit(".", 1)[1], force="mesh")
    found.merge_vertices(merge_norm=True, merge_tex=True)
    return found


def test_the_kind_is_known_and_makes_no_maps():
    assert KINDS["mesh"] is mesh
    assert mesh.made_maps(MANIFEST) == ()


def test_a_model_as_it_is_exported_is_taken():
    mesh.check(package())


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"outputs": (OutputMap("volume", "volume", 3),)}, "one output"),
        ({"size": SizeSpec(64, 64, 128, 64)}, "slices of one cube"),
        ({"size": SizeSpec(100 + 1, 101, 101, 101)}, "slices of one cube"),
        ({"inputs": (InputSpec("n", "noise", ("n", 1, "h", "w"), 1),)}, "role 'noise'"),
        ({"inputs": (InputSpec("size", "slider", ("n", 1)),)}, "name of another parameter"),
        ({"parameters": (ParameterSpec("class", "", "", "choice", default="boat", values=("boat",)),)}, "boat"),
        ({"parameters": (ParameterSpec("format", "", "", "choice", default="fbx", values=("fbx",)),)}, "fbx"),
        ({"parameters": (ParameterSpec("triangles", "", "", "int", minimum=3, maximum=9, default=5),)}, "from 100"),
        ({"parameters": (ParameterSpec("glow", "", "", "float", minimum=0, maximum=1, default=0),)}, "not one that"),
    ],
)
def test_a_model_that_asks_for_what_would_not_act_is_refused(changes, what):
    with pytest.raises(PackageInvalid, match=what):
        mesh.check(package(**changes))


def test_missing_libraries_are_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fast_simplification", None)
    with pytest.raises(RuntimeMissing, match="fast_simplification") as caught:
        mesh.check(package())
    assert "assetgen[mesh]" in caught.value.hint


BAD = [
    ({"parameters": {"class": "boat"}}, "parameters[class]"),
    ({"parameters": {"triangles": 99}}, "parameters[triangles]"),
    ({"parameters": {"triangles": 300, "levels": 3}}, "parameters[levels]"),
    ({"parameters": {"preview": 8}}, "parameters[preview]"),
    ({"parameters": {"size": 0.0}}, "parameters[size]"),
    ({"parameters": {"format": "fbx"}}, "parameters[format]"),
    ({"parameters": {"truncation": 1.1}}, "parameters[truncation]"),
    ({"seed": -1}, "seed"),
    ({"width_px": 128}, "width_px"),
    ({"output": OutputSpec(maps=(MapKind.HEIGHT,))}, "output.maps"),
    ({"output": OutputSpec(normal_convention=NormalConvention.Y_UP)}, "output.normal_convention"),
    ({"output": OutputSpec(name="a/b")}, "output.name"),
]


@pytest.mark.parametrize(("changes", "field"), BAD)
def test_what_is_not_allowed_is_refused_by_name(changes, field):
    with pytest.raises(FieldInvalid) as caught:
        mesh.resolve(MANIFEST, request(**changes))
    assert caught.value.field == field


def test_inputs_depend_on_seed_and_index_alone():
    one, two = (mesh.resolve(MANIFEST, request(count=count)) for count in (1, 5))
    first, same, other = (mesh.prepare(MANIFEST, plan, index) for plan, index in ((one, 3), (two, 3), (two, 4)))
    assert (first["z"] == same["z"]).all()
    assert (first["z"] != other["z"]).any()
    assert {name: values.shape for name, values in first.items()} == {
        "z": (1, 5),
        "class_weights": (1, 3),
        "truncation": (1, 1),
        "width": (1, 1),
    }


def test_classes_blend():
    given = {"class": "crate", "blend_class": "tree", "blend": 0.25, "truncation": 0.5, "width": -0.5}
    made = mesh.prepare(MANIFEST, mesh.resolve(MANIFEST, request(parameters=given)), 0)
    assert made["class_weights"].tolist() == [[0.0, 0.75, 0.25]]
    assert (made["truncation"].item(), made["width"].item()) == (0.5, -0.5)


def test_a_glb_file_is_the_default():
    (artifact,) = files()
    assert (artifact.role, artifact.name, artifact.media_type) == ("mesh", "ball_7_0.glb", "model/gltf-binary")
    assert (artifact.width_px, artifact.height_px, artifact.pixel_format) == (0, 0, None)
    assert artifact.sha256 == hashlib.sha256(artifact.data).hexdigest()
    found = read(artifact)
    assert found.is_watertight
    assert found.extents.max() == pytest.approx(1.0, abs=1e-5)
    assert found.bounds[0][1] == pytest.approx(0, abs=1e-6)


def test_levels_of_detail_get_fewer_and_fewer_triangles():
    made = files(triangles=400, levels=3, size=3.0)
    assert [a.role for a in made] == ["mesh", "mesh_lod1", "mesh_lod2"]
    assert [a.name for a in made] == [f"ball_7_0_LOD{i}.glb" for i in range(3)]
    for artifact, most in zip(made, (400, 200, 100), strict=True):
        found = read(artifact)
        assert found.is_watertight
        assert most / 2 <= len(found.faces) <= most
        assert found.extents.max() == pytest.approx(3.0, abs=1e-4)


def test_obj_and_smooth_normals_are_to_be_had():
    (obj,) = files(format="obj", triangles=200)
    assert (obj.name, obj.media_type) == ("ball_7_0.obj", "model/obj")
    assert read(obj).is_watertight
    flat, smooth = (files(normals=how, triangles=200)[0] for how in ("flat", "smooth"))
    assert len(flat.data) > 2 * len(smooth.data)


def test_a_preview_is_a_picture_of_the_mesh():
    made = files(preview=64, levels=2, triangles=400)
    assert [a.role for a in made] == ["mesh", "mesh_lod1", "preview"]
    picture = np.asarray(Image.open(io.BytesIO(made[-1].data)))
    assert picture.shape == (64, 64, 4)
    top, bottom = picture[16, 32].astype(int), picture[50, 32].astype(int)
    assert top[3] == bottom[3] == 255
    assert top[0] > bottom[0] + 30
    (_, raw) = files(preview=32, output=OutputSpec(encoding=Encoding.RAW))
    assert len(raw.data) == 32 * 32 * 4


def test_names_follow_the_engine_and_the_caller():
    assert files(output=OutputSpec(profile="unreal"))[0].name == "SM_ball_7_0.glb"
    assert files(index=2, output=OutputSpec(name="stone"))[0].name == "stone_2.glb"


def test_an_empty_volume_is_told():
    with pytest.raises(InternalError, match="made nothing"):
        files(made=outputs(radius=-5.0))


def test_an_output_that_is_not_finite_is_no_mesh():
    broken = outputs()
    broken["volume"][0, 0, 0, 0] = np.nan
    with pytest.raises((ValueError, AssetgenError)):
        files(made=broken)


def test_the_same_request_gives_the_same_bytes():
    assert [a.sha256 for a in files(levels=2, preview=32)] == [a.sha256 for a in files(levels=2, preview=32)]
