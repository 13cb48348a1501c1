"""What a wheel of assetgen holds, and what each extra asks for."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import assetgen

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names in a wheel that was built without a network."""
    output_dir = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(output_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = output_dir.glob("*.whl")
    assert path.name == f"assetgen-{assetgen.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_a_wheel_holds_assetgen_only(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    assert tops == {"assetgen", f"assetgen-{assetgen.__version__}.dist-info"}


def test_a_wheel_holds_every_file_of_the_package(wheel):
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "assetgen").rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name and not name.endswith(".DS_Store")}
    assert "assetgen/py.typed" in files
    assert files == {name for name in wheel if name.startswith("assetgen/")}


def test_a_wheel_holds_the_licence(wheel):
    assert {name.rpartition("/")[2] for name in wheel if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_extras_install_only_what_they_need():
    extras = PROJECT["project"]["optional-dependencies"]
    base = " ".join(PROJECT["project"]["dependencies"])
    assert not any(name in base for name in ("torch", "onnx", "scipy", "opencv"))
    assert any(line.startswith("onnxruntime>=") for line in extras["cpu"])
    assert any(line.startswith("onnxruntime-gpu[") for line in extras["cuda"])
    assert not any("torch" in line for extra in ("server", "cpu", "cuda") for line in extras[extra])
    assert {"extra": "cpu"} in PROJECT["tool"]["uv"]["conflicts"][0]
    assert {"extra": "cuda"} in PROJECT["tool"]["uv"]["conflicts"][0]


def test_the_changelog_knows_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {assetgen.__version__}" in text or "## Unreleased" in text
