"""Write assetgen/v1 from proto/assetgen/v1: `python proto/generate.py`; stdlib only, runs a pinned generator by uv."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROTO_DIR = Path(__file__).resolve().parent
PACKAGE_DIR = Path("assetgen") / "v1"
# The oldest generator whose code still loads on the newest protobuf runtime: gencode 6.31.1 loads on 6.31.1 up to 7.x,
# while code from newer generators refuses protobuf 6. It is kept out of the lock file, whose grpcio is newer.
# mypy-protobuf writes the type stubs: protoc's own --pyi_out has none for the gRPC classes and loses enum types.
# setuptools 80 removed pkg_resources, which grpcio-tools 1.80.0 imports.
REQUIREMENTS = ("grpcio-tools==1.80.0", "mypy-protobuf==5.1.0", "protobuf==6.33.6", "setuptools<80")
INIT = '''"""Generated from proto/assetgen/v1 by proto/generate.py; imports grpc and protobuf only. Do not edit."""
'''


def find_uv() -> str | None:
    """Return the uv beside the running Python, else the one on PATH, else None."""
    beside = shutil.which("uv", path=str(Path(sys.executable).parent))
    return beside or shutil.which("uv")


def generate(output_dir: Path) -> list[Path]:
    """Write the generated package below `output_dir` and return its files.

    Raises:
        FileNotFoundError: uv is not installed.
        subprocess.CalledProcessError: the generator could not be installed or refused a file.
    """
    uv = find_uv()
    if uv is None:
        raise FileNotFoundError("uv is not installed; install it with `python -m pip install uv`")
    sources = sorted(path.relative_to(PROTO_DIR).as_posix() for path in PROTO_DIR.glob("assetgen/v1/*.proto"))
    withs = [argument for requirement in REQUIREMENTS for argument in ("--with", requirement)]
    outputs = [f"--{kind}={output_dir}" for kind in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")]
    command = [uv, "run", "--quiet", "--no-project", "--python", sys.executable, *withs, "python", "-W", "ignore"]
    command += ["-m", "grpc_tools.protoc", f"--proto_path={PROTO_DIR}", *outputs, *sources]
    output_dir.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True, stdout=sys.stderr)
    package_dir = output_dir / PACKAGE_DIR
    (package_dir / "__init__.py").write_text(INIT, encoding="utf-8", newline="\n")
    return sorted(path for path in package_dir.iterdir() if path.suffix in {".py", ".pyi"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PROTO_DIR.parent, help="folder to write assetgen/v1 below")
    output_dir = parser.parse_args(argv).output.resolve()
    try:
        files = generate(output_dir)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"error: the generator failed with status {error.returncode}; its message is above", file=sys.stderr)
        return 1
    for path in files:
        print(path.relative_to(output_dir).as_posix())
    return 0


if __name__ == "__main__":
    sys.exit(main())
