"""assetgen/v1 is what proto/ generates, and the contract keeps its promises."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proto import generate

ROOT = Path(__file__).resolve().parent.parent


def buf(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    executable = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    assert executable is not None, "buf is not installed; install the package buf-bin"
    return subprocess.run([executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def generator_is_missing() -> str:
    """Return why the generator cannot run here, or nothing."""
    uv = generate.find_uv()
    if uv is None:
        return "uv is not installed"
    withs = [argument for requirement in generate.REQUIREMENTS for argument in ("--with", requirement)]
    command = [uv, "run", "--quiet", "--no-project", "--python", sys.executable, *withs, "python", "-c", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{', '.join(generate.REQUIREMENTS)} cannot be installed: {done.stderr}" if done.returncode else ""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    reason = generator_is_missing()
    if reason:
        assert not os.environ.get("CI"), reason
        pytest.skip(f"GENERATED CODE NOT COMPARED: {reason}")
    output_dir = tmp_path_factory.mktemp("generated")
    return {path.name: path.read_bytes() for path in generate.generate(output_dir)}


def test_generated_code_is_committed_byte_for_byte(fresh):
    package_dir = ROOT / generate.PACKAGE_DIR
    committed = {path.name: path.read_bytes() for path in package_dir.iterdir() if path.suffix in {".py", ".pyi"}}
    assert sorted(committed) == sorted(fresh)
    stale = [name for name in fresh if committed[name] != fresh[name]]
    assert not stale, f"{stale} differ: run `python proto/generate.py`"


def test_every_proto_file_has_its_code(fresh):
    protos = [path.stem for path in (ROOT / "proto" / "assetgen" / "v1").glob("*.proto")]
    assert protos
    for stem in protos:
        for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
            assert stem + suffix in fresh


def test_floors_of_the_dependencies_fit_the_generated_code():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / generate.PACKAGE_DIR).glob("*.py"))
    assert "# Protobuf Python Version: 6.31.1\n" in code
    assert "protobuf>=6.31.1,<8" in dependencies
    assert "GRPC_GENERATED_VERSION = '1.80.0'" in code
    assert "grpcio>=1.80" in dependencies


def test_generate_says_what_to_install_without_uv(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(generate, "find_uv", lambda: None)
    assert generate.main(["--output", str(tmp_path)]) == 2
    assert "pip install uv" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_contract_passes_lint():
    done = buf("lint", "proto")
    assert done.returncode == 0, done.stdout + done.stderr


def test_contract_breaks_nothing_that_was_released():
    done = buf("breaking", "proto", "--against", "proto/baseline.json")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("uint32 page_size = 1;", "uint32 page_size = 21;"),
        ("uint32 max_edge_px = 5;", "uint64 max_edge_px = 5;"),
        ("rpc GetModel(", "rpc FetchModel("),
    ],
    ids=["renumbered", "retyped", "renamed"],
)
def test_a_break_is_noticed(tmp_path, old, new):
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    path = tmp_path / "proto" / "assetgen" / "v1" / "model_service.proto"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    done = buf("breaking", "proto", "--against", "proto/baseline.json", cwd=tmp_path)
    assert done.returncode == 100, done.stdout + done.stderr
    assert "model_service.proto" in done.stdout
