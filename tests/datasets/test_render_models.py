"""From GLB models to a folder that pack takes: licences, groups and views kept, what cannot be drawn named."""

import json

import numpy as np
import pytest
from PIL import Image

from assetgen.datasets import cli
from assetgen.datasets.pack import pack
from assetgen.datasets.render_models import Views, read_mesh, render_folder
from assetgen.datasets.tiles import load
from assetgen.errors import ConfigInvalid, DataInvalid, OutputUnwritable
from assetgen.types import MapKind

trimesh = pytest.importorskip("trimesh")
VIEWS = Views(edge_px=32, count=3)


def write_box(path, color=(200, 40, 40, 255), extents=(1, 1, 1)):
    box = trimesh.creation.box(extents=extents)
    if color:
        box.visual.vertex_colors = np.tile(np.array(color, np.uint8), (len(box.vertices), 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    box.export(path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models with a manifest, one without colours, one that is no model."""
    folder = tmp_path_factory.mktemp("models")
    write_box(folder / "glb/red.glb")
    write_box(folder / "glb/flat.glb", (40, 40, 200, 255), (1, 0.1, 1))
    write_box(folder / "glb/grey.glb")
    (folder / "glb/broken.glb").write_bytes(b"glTF nothing")
    known = {"class": "crate", "licence": "CC0-1.0", "author": "A", "source": {"path": "x"}}
    items = [
        {"id": "red", "file": "glb/red.glb", "group": "g", "has_colour": True, **known},
        {"id": "flat", "file": "glb/flat.glb", **known, "class": "table"},
        {"id": "grey", "file": "glb/grey.glb", "has_colour": False, **known},
        {"id": "broken", "file": "glb/broken.glb", **known},
    ]
    (folder / "manifest.json").write_text(json.dumps({"items": items}), encoding="utf-8")
    return folder


def test_every_view_is_a_record_that_says_where_it_comes_from(models, tmp_path):
    report = render_folder(models, tmp_path / "out", VIEWS)
    assert (report.pictures, report.classes) == (6, {"crate": 1, "table": 1})
    assert {entry.id for entry in report.refused} == {"grey", "broken"}
    manifest = json.loads((tmp_path / "out/manifest.json").read_text("utf-8"))
    assert manifest["alpha"] == "straight"
    first = manifest["items"][0]
    assert (first["id"], first["class"], first["group"], first["licence"], first["author"]) == (
        "red-00",
        "crate",
        "g",
        "CC0-1.0",
        "A",
    )
    assert first["view"].keys() == {"azimuth", "elevation", "light_azimuth", "light_elevation", "key"}
    with Image.open(tmp_path / "out" / first["file"]) as picture:
        assert (picture.mode, picture.size) == ("RGBA", (32, 32))


def test_pack_takes_the_folder_and_keeps_views_of_one_model_together(models, tmp_path):
    render_folder(models, tmp_path / "out", VIEWS)
    pack(tmp_path / "out", tmp_path / "data.zip", validation_share=0.5)
    items = load(tmp_path / "data.zip", alpha=True)
    assert {item.maps[MapKind.BASE_COLOR].shape for item in items} == {(32, 32, 4)}
    for name in ("red", "flat"):
        assert len({item.split for item in items if item.id.startswith(name)}) == 1
    assert items[0].license == "CC0-1.0"


def test_the_same_models_give_the_same_bytes_and_others_change_nothing(models, tmp_path):
    render_folder(models, tmp_path / "a", VIEWS)
    render_folder(models, tmp_path / "b", VIEWS, classes=["table"])
    for path in (tmp_path / "b/table").iterdir():
        assert path.read_bytes() == (tmp_path / "a/table" / path.name).read_bytes()
    assert not (tmp_path / "b/crate").exists()


def test_a_folder_of_classes_needs_no_manifest(tmp_path, capsys):
    write_box(tmp_path / "in/crate/one.glb")
    options = ["--edge", "24", "--views", "2", "--arc", "90", "--license", "CC0-1.0"]
    assert cli.main(["render", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *options]) == 0
    assert "2 pictures of 1 models" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out/crate").iterdir()) == ["crate_one-00.png", "crate_one-01.png"]


def test_colours_of_vertices_arrive_as_they_are(tmp_path):
    vertices, faces, colors = read_mesh(write_box(tmp_path / "box.glb", (10, 20, 30, 255)))
    assert (vertices.shape[1], faces.shape, colors.shape) == (3, (12, 3), (12, 3))
    assert (colors == [10, 20, 30]).all()


def test_a_model_without_colours_is_left_out(tmp_path):
    assert "no colours" in read_mesh(write_box(tmp_path / "box.glb", None))


def test_wishes_that_cannot_be_met_are_refused(models, tmp_path):
    with pytest.raises(ConfigInvalid, match="class lava is not in") as caught:
        render_folder(models, tmp_path / "out", VIEWS, classes=["lava"])
    assert caught.value.hint == "it holds crate, table"
    for bad in ({"edge_px": 8}, {"count": 0}, {"arc": 400.0}):
        with pytest.raises(ConfigInvalid, match="is not allowed"):
            Views(**bad)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(OutputUnwritable, match="not empty"):
        render_folder(models, tmp_path / "full", VIEWS)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataInvalid, match="no model"):
        render_folder(tmp_path / "none", tmp_path / "out2", VIEWS)
