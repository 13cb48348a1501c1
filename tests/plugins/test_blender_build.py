"""What ships of the Blender add-on, without Blender: the vendored contract, the manifest, the archive."""

import re
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import assetgen

FOLDER = Path(__file__).resolve().parents[2] / "plugins" / "blender"
ADDON = FOLDER / "assetgen_blender"


@pytest.fixture
def build(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "build", raising=False)
    import build

    return build


def manifest(text):
    return tomllib.loads(text)


def test_the_vendored_contract_is_what_the_script_makes(build, tmp_path):
    fresh = {path.name: path.read_bytes() for path in build.vendor(tmp_path)}
    committed = {path.name: path.read_bytes() for path in (ADDON / "v1").glob("*.py")}
    assert len(fresh) == 9
    assert committed == fresh, "run `python plugins/blender/build.py vendor`"


def test_the_add_on_imports_nothing_of_the_project():
    for path in ADDON.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) assetgen\b", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_the_manifest_says_what_blender_asks_for():
    facts = manifest((ADDON / "blender_manifest.toml").read_text(encoding="utf-8"))
    assert facts["schema_version"] == "1.0.0"
    assert facts["version"] == assetgen.__version__
    assert facts["license"] == ["SPDX:GPL-3.0-or-later"]
    assert facts["blender_version_min"] == "4.2.0"
    assert "wheels" not in facts
    for text in (facts["tagline"], *facts["permissions"].values()):  # Blender refuses longer ones, and full stops
        assert len(text) <= 64
        assert text[-1].isalnum()
    client = (ADDON / "client.py").read_text(encoding="utf-8")
    assert f'VERSION = "{assetgen.__version__}"' in client
    assert "GNU GENERAL PUBLIC LICENSE" in (FOLDER / "LICENSE").read_text(encoding="utf-8")


def test_the_archive_holds_the_add_on_and_its_wheels(build, tmp_path):
    wheel = tmp_path / "grpcio-1-cp311-cp311-linux.whl"
    wheel.write_bytes(b"wheel")
    path = build.write_zip("linux-x64", [wheel], tmp_path)
    assert path.name == f"assetgen-{assetgen.__version__}-linux-x64.zip"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        facts = manifest(archive.read("blender_manifest.toml").decode())
    assert facts["wheels"] == ["./wheels/grpcio-1-cp311-cp311-linux.whl"]
    assert facts["platforms"] == ["linux-x64"]
    assert facts["permissions"]["network"]
    assert {"__init__.py", "LICENSE", "v1/asset_pb2.py", facts["wheels"][0].removeprefix("./")} <= names
    assert path.read_bytes() == build.write_zip("linux-x64", [wheel], tmp_path).read_bytes()
