"""The demo with models of every kind: all files, one picture a kind, and what it says of a server without any."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from assetgen.shows import SHOWS
from tests.helpers.mesh_package import write_mesh_package
from tests.helpers.serving import write_model
from tests.helpers.style_package import style_manifest, write_style_package
from tests.helpers.tiny_sprites import write_sprites


def demo(*arguments):
    command = [sys.executable, "-m", "assetgen", "demo", "--device", "cpu", "--threads", "1", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What the demo said, and the folder it filled, with a model of each kind."""
    folder = tmp_path_factory.mktemp("demo")
    write_model(folder / "models")
    write_sprites(folder / "models")
    write_style_package(folder / "models", style_manifest())
    write_style_package(folder / "models", style_manifest("photo", maps=True))
    write_mesh_package(folder / "models")
    done = demo("--models", folder / "models", "--size", "64", "-o", folder / "out")
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "out"


def test_every_kind_has_a_picture_that_is_not_empty(shown):
    said, folder = shown
    assert {show.picture_name for show in SHOWS.values()} == {path.name for path in folder.glob("*.png")}
    for show in SHOWS.values():
        with Image.open(folder / show.picture_name) as picture:
            assert len(picture.getcolors(2**24)) > 1000
        assert str(folder / show.picture_name) in said
    assert not list(folder.rglob("*.part"))


def test_every_class_of_every_model_is_made_and_told(shown):
    said, folder = shown
    for name in ("potion", "sword", "gem"):
        assert len(list((folder / "items" / name).glob("*.png"))) == 4
        assert f"items: {name}" in said
    for name in ("clay", "steel"):
        assert len(list((folder / "tiny" / name).glob("*.png"))) == 6
    for name in ("pixel", "retro"):
        assert len(list((folder / "style" / name).glob("*.png"))) == 1
        assert len(list((folder / "photo" / name).glob("*.png"))) == 6
    for name in ("ball", "pea"):
        assert {path.suffix for path in (folder / "solids" / name).iterdir()} == {".glb", ".png"}
    assert "3 classes of sprites" in said
    assert "try next:" in said


def test_what_computed_them_is_told(shown):
    (line,) = (line for line in shown[0].splitlines() if line.startswith("onnxruntime-"))
    backend, models = line.split(": ")
    assert backend.split("/")[1:3] == ["cpu", "fp32"]
    assert models == "items, photo, solids, style, tiny"


def test_sprites_are_shown_large_on_squares(shown):
    with Image.open(shown[1] / "sprites.png") as picture:
        pixels = np.asarray(picture).reshape(-1, 3)
    assert {(224, 224, 224), (176, 176, 176)} <= {tuple(color) for color in pixels}


def test_a_style_has_a_picture_to_repaint_where_there_is_no_material(tmp_path):
    write_style_package(tmp_path / "models", style_manifest())
    done = demo("--models", tmp_path / "models", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["styles.png"]
