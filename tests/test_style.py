"""Formatter, linter and types: what a reviewer need not say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ("assetgen", "export", "proto", "plugins", "requirements", "tests", "run.py")
MAX_LINES = 500


def check(*command: str) -> None:
    """Run a tool of this environment on the checkout and fail with what it says."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    check("ruff", "check", "--no-cache", "--output-format", "concise", *CODE)


def test_code_is_formatted():
    check("ruff", "format", "--no-cache", "--check", *CODE)


def test_types_are_strict(tmp_path):
    check("mypy", "--cache-dir", str(tmp_path))


def test_no_file_outgrows_a_reader():
    paths = [path for top in CODE for path in [*(ROOT / top).rglob("*.py"), ROOT / top] if path.suffix == ".py"]
    assert len(paths) > 20
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {path: count for path, count in lines.items() if count > MAX_LINES and "_pb2" not in path} == {}


def test_every_file_says_what_it_is():
    paths = [path for top in ("assetgen", "export") for path in (ROOT / top).rglob("*.py") if "_pb2" not in path.name]
    assert len(paths) > 20
    silent = [path.relative_to(ROOT).as_posix() for path in paths if not path.read_text("utf-8").startswith('"""')]
    assert silent == []
