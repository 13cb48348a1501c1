"""Who may import what: the layers of pyproject.toml, the heavy packages, and what a serving process really loads."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for top in ("assetgen", "export") for path in (ROOT / top).rglob("*.py"))
PROTOBUF = ("assetgen/server/", "assetgen/client.py", "assetgen/v1/", "assetgen/wire", "assetgen/status.py")
GRAPHS = (
    "assetgen/policy.py",
    "assetgen/runtime/weave.py",
    "assetgen/runtime/rows.py",
    "assetgen/runtime/graph_facts.py",
)
# Where each package may be imported, as prefixes of paths.
ALLOWED = {
    "grpc": ("assetgen/server/", "assetgen/client.py", "assetgen/v1/"),
    "grpc_health": ("assetgen/server/", "assetgen/client.py"),
    "grpc_reflection": ("assetgen/server/",),
    "grpc_status": ("assetgen/server/", "assetgen/client.py"),
    "google": (*PROTOBUF, *GRAPHS),  # what the parser of graphs raises
    "onnx": (*GRAPHS, "export/"),
    "onnxscript": ("export/",),
    "onnxruntime": ("assetgen/runtime/", "export/"),
    "openvino": ("assetgen/runtime/",),
    "tensorrt": ("assetgen/runtime/",),
    "tensorrt_rtx": ("assetgen/runtime/",),
    "prometheus_client": ("assetgen/server/",),
    "uvicorn": ("assetgen/server/",),
    "skimage": ("assetgen/postprocess/",),
    "fast_simplification": ("assetgen/postprocess/",),
    "trimesh": ("assetgen/datasets/",),
    "torch": ("assetgen/models/", "assetgen/datasets/", "assetgen/metrics/", "assetgen/training/", "export/"),
    "safetensors": ("assetgen/metrics/", "assetgen/training/", "export/"),
}
TORCH_SIDE = ("assetgen.datasets", "assetgen.metrics", "assetgen.models", "assetgen.training")


def imports(source: str) -> set[str]:
    """Return the absolute module names that a source imports anywhere, functions and TYPE_CHECKING included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"importlib.import_module", "__import__"}:
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return found


def misplaced(path: str, source: str) -> list[str]:
    """Return the restricted packages that `source`, standing at `path`, must not import."""
    packages = {name.partition(".")[0] for name in imports(source)}
    return sorted(package for package in packages & ALLOWED.keys() if not path.startswith(ALLOWED[package]))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_heavy_packages_stay_where_they_belong(path):
    relative = path.relative_to(ROOT).as_posix()
    assert misplaced(relative, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("assetgen/worker.py", "import torch.nn", ["torch"]),
        ("assetgen/worker.py", "def f():\n    from onnx import helper", ["onnx"]),
        ("assetgen/service.py", "import importlib\nimportlib.import_module('grpc.aio')", ["grpc"]),
        ("assetgen/policy.py", "import onnx", []),
        ("assetgen/models/layers.py", "import torch", []),
    ],
)
def test_a_planted_import_is_found(path, source, expected):
    assert misplaced(path, source) == expected


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    environment = {**os.environ, "PYTHONPATH": str(root), "NO_COLOR": "1"}
    command = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def test_layers_hold():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_a_planted_upward_import_is_found(tmp_path):
    for name in ("assetgen", "export"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "packages"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "assetgen" / "latents.py").open("a", encoding="utf-8") as file:
        file.write("\nimport assetgen.service\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "assetgen.latents -> assetgen.service" in done.stdout


def modules_of_fresh_process(statements: str) -> set[str]:
    """Return the top-level packages in sys.modules after a fresh Python has run `statements`."""
    code = f"{statements}\nimport json, sys; print(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_no_serving_module_loads_torch():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES]
    serving = [name for name in names if not name.startswith((*TORCH_SIDE, "export")) and "__main__" not in name]
    assert "assetgen.service" in serving
    loaded = modules_of_fresh_process("\n".join(f"import {name}" for name in serving))
    assert {"grpc", "numpy", "onnx"} <= loaded, "the modules were not really imported"
    assert not loaded & {"torch", "safetensors", "onnxscript"}


def test_the_command_line_starts_light():
    loaded = modules_of_fresh_process("import assetgen.cli")
    assert not loaded & {"torch", "onnx", "onnxruntime", "grpc", "numpy", "PIL"}


def test_the_client_needs_no_backend():
    loaded = modules_of_fresh_process("import assetgen.client")
    assert "grpc" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "safetensors"}


def test_the_manifest_is_read_with_the_standard_library_alone():
    loaded = modules_of_fresh_process("import assetgen.manifest")
    assert not loaded & {"numpy", "onnx", "onnxruntime", "grpc", "PIL"}
