"""Sprites of a call on one sheet: whole, in place, marked, and refused where something is missing."""

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from assetgen.errors import ConfigInvalid, TransferDamaged
from assetgen.launch import ServerProcess
from assetgen.local import open_local
from assetgen.sheet import on_one_sheet
from assetgen.types import Artifact, Encoding, Finished, OutputSpec, Progress, Request, Started
from tests.helpers.serving import write_model
from tests.helpers.tiny_sprites import write_sprites


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_sprites(folder)
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def events(models):
    """The events of a call of five trimmed sprites with sidecars, as raw pixels and as PNG."""
    made = {}
    with open_local([models / "items"], "cpu", 1) as maker:
        for encoding in Encoding:
            asked = {"class": "gem", "trim": "on", "trim_margin": 1, "sidecar": "on", "pivot": "bottom"}
            output = OutputSpec(encoding=encoding)
            made[encoding] = list(maker.generate(Request("items", 7, 5, 2, parameters=asked, output=output)))
    return made


def sheet_of(events):
    *_, picture, description, finished = on_one_sheet(events)
    assert isinstance(finished, Finished)
    with Image.open(io.BytesIO(picture.data)) as opened:
        opened.load()
    return picture, opened, json.loads(description.data)


@pytest.mark.parametrize("encoding", Encoding)
def test_every_sprite_lies_where_the_json_says(events, encoding):
    picture, opened, description = sheet_of(events[encoding])
    assert (picture.role, picture.name) == ("sheet", "gem_7_sheet.png")
    assert picture.sha256 == hashlib.sha256(picture.data).hexdigest()
    sprites = [event for event in events[Encoding.RAW] if isinstance(event, Artifact) and event.role == "sprite"]
    assert list(description["frames"]) == [f"gem_7_{index}.png" for index in range(2, 7)]
    for sprite, entry in zip(sprites, description["frames"].values(), strict=True):
        x, y, w, h = (entry["frame"][key] for key in "xywh")
        wanted = np.frombuffer(sprite.data, np.uint8).reshape(sprite.height_px, sprite.width_px, 4)
        assert (np.asarray(opened)[y : y + h, x : x + w] == wanted).all()
    assert opened.size == (picture.width_px, picture.height_px)
    assert description["meta"]["size"] == {"w": picture.width_px, "h": picture.height_px}
    assert description["meta"]["image"] == picture.name
    assert description["meta"]["assetgen"] == {
        "model": "items",
        "version": "1.0.0",
        "seed": "7",
        "first_index": "2",
        "count": "5",
    }


def test_pivots_stay_those_of_the_single_sprites(events):
    _, _, description = sheet_of(events[Encoding.RAW])
    told = [json.loads(bytes(event.data)) for event in events[Encoding.RAW] if getattr(event, "role", "") == "sidecar"]
    single = [entry for one in told for entry in one["frames"].values()]
    for entry, alone in zip(description["frames"].values(), single, strict=True):
        assert [entry[key] for key in ("pivot", "anchor", "spriteSourceSize", "sourceSize", "trimmed")] == [
            alone[key] for key in ("pivot", "anchor", "spriteSourceSize", "sourceSize", "trimmed")
        ]


def test_the_sheet_is_srgb_and_marked_as_made_by_a_model(events):
    _, opened, _ = sheet_of(events[Encoding.RAW])
    assert opened.info["srgb"] == 0
    assert b"trainedAlgorithmicMedia" in opened.info["xmp"]
    assert b'seed="7"' in opened.info["xmp"]


def test_only_sprites_are_held_back(events):
    kinds = [type(event) for event in on_one_sheet([*events[Encoding.RAW][:-1], Progress("x", 1.0), Finished(0, 0)])]
    assert kinds[0] is Started
    assert kinds[-4:] == [Progress, Artifact, Artifact, Finished]
    assert kinds.count(Artifact) == 2


def test_no_sheet_comes_of_a_call_that_broke_off(events):
    assert not any(isinstance(event, Artifact) for event in on_one_sheet(events[Encoding.RAW][:-1]))


def changed(events, role, **changes):
    return [
        replace(event, **changes) if isinstance(event, Artifact) and event.role == role else event for event in events
    ]


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"frames": {"x": 1}}', b'{"frames": {}}', b"\xff"])
def test_strange_sidecars_are_an_error(events, data):
    with pytest.raises(TransferDamaged):
        list(on_one_sheet(changed(events[Encoding.RAW], "sidecar", data=data)))


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("changes", [{"width_px": 3}, {"data": b"abc"}])
def test_sprites_that_are_not_what_they_say_are_an_error(events, encoding, changes):
    with pytest.raises(TransferDamaged, match="RGBA"):
        list(on_one_sheet(changed(events[encoding], "sprite", **changes)))


def test_sprites_without_sidecars_make_no_sheet(events):
    bare = [event for event in events[Encoding.RAW] if getattr(event, "role", "") != "sidecar"]
    with pytest.raises(ConfigInvalid, match="there were 5 and 0"):
        list(on_one_sheet(bare))
    with pytest.raises(ConfigInvalid, match="there were 0 and 0"):
        list(on_one_sheet([event for event in bare if not isinstance(event, Artifact)]))


def assetgen(*arguments):
    command = [sys.executable, "-m", "assetgen", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_generate_writes_one_sheet_the_same_here_and_from_a_server(models, tmp_path):
    options = ["--models", models, "--device", "cpu", "--threads", "1"]
    wanted = ["generate", "--model", "items", "--set", "class=potion", "--count", "8", "--seed", "5", "--sheet"]
    here = assetgen(*wanted, "-o", tmp_path / "here", *options)
    assert here.returncode == 0, here.stderr
    with ServerProcess([str(option) for option in options]) as server:
        there = assetgen(*wanted, "--server", server.address, "-o", tmp_path / "there")
        assert there.returncode == 0, there.stderr
    made = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    assert sorted(made) == ["potion_5_sheet.json", "potion_5_sheet.png"]
    with Image.open(tmp_path / "here" / "potion_5_sheet.png") as picture:
        assert picture.size == (3 * 18, 3 * 18)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "tiny"], "is of kind 'texture'"),
        (["--model", "items", "--encoding", "raw"], "exclude each other"),
        (["--model", "items", "--set", "class=cheese"], "potion, sword, gem"),
        (["--model", "items", "--set", "truncation=1.5"], "0 to 1"),
        (["--model", "items", "--set", "palette=1.5"], "no int"),
        (["--model", "items", "--size", "32"], "width_px"),
        (["--model", "items", "--maps", "normal"], "output.maps"),
        (["--model", "items", "--normal", "y_up"], "output.normal_convention"),
    ],
)
def test_mistakes_are_told_in_two_lines(models, tmp_path, arguments, said, capsys):
    from assetgen.cli import main

    options = ["--models", str(models), "--device", "cpu", "--threads", "1", "-o", str(tmp_path / "out")]
    assert main(["generate", "--sheet", *options, *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert len(lines) <= 2
    assert not (tmp_path / "out").exists()


def test_a_client_needs_no_encoder_of_the_server_for_a_sheet():
    code = (
        "import sys, assetgen.sheet, assetgen.client\n"
        "print([name for name in ('deflate', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
