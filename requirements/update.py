"""Rewrite uv.lock's exports for pip, demo.txt and test.txt: `python requirements/update.py`; stdlib only, runs uv.

`run.py` installs from these files, so that a machine with nothing but Python needs no uv. They name every package with
its hashes and no index.
"""

import argparse
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
EXPORTS = {
    "demo.txt": ("--extra", "cpu", "--extra", "mesh", "--no-dev", "--group", "build"),
    "test.txt": (
        *("--extra", "cpu", "--extra", "openvino", "--extra", "tensorrt", "--extra", "export"),
        *("--extra", "mesh", "--extra", "props", "--extra", "otel", "--extra", "signing"),
        *("--group", "dev", "--group", "build"),
    ),
}
# torch is installed by its own step: which build is right (CPU, CUDA) differs between machines, and so do the hashes.
# What only its CUDA build needs goes with it.
TORCH_PREFIXES = ("torch", "nvidia-", "cuda-")
TORCH_COMPILER = "triton"  # not the server of that name, nor its client


def torch_packages() -> list[str]:
    """Return the locked packages that come with torch's CUDA build, and torch."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    names = {package["name"] for package in lock["package"]}
    return sorted(name for name in names if name.startswith(TORCH_PREFIXES) or name == TORCH_COMPILER)


def export(name: str, uv: str) -> str:
    """Return the text of the requirements file `name`."""
    without = [argument for package in torch_packages() for argument in ("--no-emit-package", package)]
    command = [uv, "export", "--quiet", "--locked", "--format", "requirements-txt", "--no-emit-project", "--no-header"]
    text = subprocess.run(
        [*command, "--no-annotate", *EXPORTS[name], *without], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return f"# Written by requirements/update.py from uv.lock. Do not edit.\n{text}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description="Rewrite the files that run.py installs from.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    output_dir = parser.parse_args(argv).output
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        print("error: uv is not installed\nhint: python -m pip install uv", file=sys.stderr)
        return 2
    for name in EXPORTS:
        try:
            text = export(name, uv)
        except subprocess.CalledProcessError as error:
            print(f"error: {name}: {error.stderr.strip()}\nhint: run `uv lock` first", file=sys.stderr)
            return 1
        (output_dir / name).write_text(text, encoding="utf-8", newline="\n")
        print(output_dir / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
