"""Packing models as volumes: what is stored, what is refused and why, and reading it back."""

import json
import shutil

import numpy as np
import pytest

from assetgen.datasets import cli
from assetgen.datasets.volumes import load_volumes, pack_volumes
from assetgen.errors import ConfigInvalid, DataInvalid, OutputUnwritable
from tests.helpers.tiny_meshes import EDGE, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"), count=2)


def test_what_was_packed_comes_back(models, tmp_path):
    report = pack_volumes(models, tmp_path / "v.zip", EDGE, license="CC0-1.0")
    items = load_volumes(tmp_path / "v.zip")
    assert report.items == len(items) == 4
    assert report.classes == {"ball": 2, "crate": 2}
    assert report.licenses == {"CC0-1.0": 4}
    assert {item.grid.shape for item in items} == {(4, EDGE, EDGE, EDGE)}
    red, blue = (np.stack([i.grid for i in load_volumes(tmp_path / "v.zip", [name])]) for name in ("ball", "crate"))
    assert red[:, 1].max() == blue[:, 3].max() == 220
    assert not (tmp_path / "v.zip.partial").exists()


def test_the_same_folder_gives_the_same_bytes(models, tmp_path):
    digests = {pack_volumes(models, tmp_path / name, EDGE, license="CC0-1.0").sha256 for name in ("a.zip", "b.zip")}
    assert len(digests) == 1


def test_a_manifest_tells_group_author_and_licence(models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    record = {"id": "x", "class": "ball", "file": "ball/0.glb", "group": "g", "licence": "CC-BY-4.0", "author": "A"}
    (folder / "manifest.json").write_text(json.dumps({"items": [record]}), encoding="utf-8")
    pack_volumes(folder, tmp_path / "v.zip", EDGE)
    (item,) = load_volumes(tmp_path / "v.zip")
    assert (item.id, item.group, item.license, item.author) == ("x", "g", "CC-BY-4.0", "A")


def test_what_is_refused_is_told_with_the_reason(models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    (folder / "ball" / "broken.glb").write_bytes(b"glTF but not really")
    (folder / "notes.png").write_bytes(b"")
    records = [
        {"id": "good", "class": "ball", "file": "ball/0.glb", "licence": "CC0-1.0"},
        {"id": "broken", "class": "ball", "file": "ball/broken.glb", "licence": "CC0-1.0"},
        {"id": "grey", "class": "ball", "file": "ball/1.glb", "licence": "CC0-1.0", "has_colour": False},
        {"id": "picture", "class": "ball", "file": "notes.png", "licence": "CC0-1.0"},
        {"id": "unlicensed", "class": "ball", "file": "ball/1.glb"},
        {"id": "outside", "class": "ball", "file": "../ball/1.glb", "licence": "CC0-1.0"},
        {"id": "named", "class": "Big Ball", "file": "ball/1.glb", "licence": "CC0-1.0"},
    ]
    (folder / "manifest.json").write_text(json.dumps({"items": records}), encoding="utf-8")
    report = pack_volumes(folder, tmp_path / "v.zip", EDGE)
    assert report.items == 1
    reasons = {entry.id: entry.reason for entry in report.refused}
    assert "cannot be read" in reasons["broken"]
    assert "no colours" in reasons["grey"]
    assert ".glb" in reasons["picture"]
    assert "no licence" in reasons["unlicensed"]
    assert "inside the folder" in reasons["outside"]
    assert "not a name" in reasons["named"]


def test_what_cannot_be_packed_says_what_to_do(models, tmp_path):
    with pytest.raises(ConfigInvalid, match="16 to 128"):
        pack_volumes(models, tmp_path / "v.zip", 8)
    with pytest.raises(ConfigInvalid, match="boat is not in"):
        pack_volumes(models, tmp_path / "v.zip", EDGE, classes=["boat"])
    with pytest.raises(DataInvalid, match="4 refused"):
        pack_volumes(models, tmp_path / "v.zip", EDGE)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputUnwritable):
        pack_volumes(models, tmp_path / "file" / "v.zip", EDGE, license="CC0-1.0")
    assert not (tmp_path / "v.zip").exists()


def test_what_is_no_training_file_is_refused(models, tmp_path):
    with pytest.raises(DataInvalid, match="does not exist"):
        load_volumes(tmp_path / "none.zip")
    (tmp_path / "v.zip").write_bytes(b"PK and no more")
    with pytest.raises(DataInvalid, match="not a file of volumes"):
        load_volumes(tmp_path / "v.zip")
    pack_volumes(models, tmp_path / "good.zip", EDGE, license="CC0-1.0")
    with pytest.raises(DataInvalid, match="boat"):
        load_volumes(tmp_path / "good.zip", ["boat"])


def test_the_command_line_packs_and_tells(models, tmp_path, capsys):
    output = tmp_path / "v.zip"
    arguments = ["voxelize", str(models), "-o", str(output), "--edge", str(EDGE), "--license", "CC0-1.0"]
    assert cli.main([*arguments, "--classes", "crate"]) == 0
    told = capsys.readouterr().out
    assert "2 items" in told
    assert "crate 2" in told
