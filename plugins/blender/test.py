"""Test the add-on in real Blender: `python plugins/blender/test.py [arguments of pytest]`; stdlib only.

Run it with the project's own Python, which becomes the server's: `.venv/bin/python` after `python3 run.py test`. Makes
`.venv/blender`, once (350 MB to download, 1.1 GB), with Blender 4.2 as a Python module, gRPC and pytest; no assetgen.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build

ROOT = build.FOLDER.parent.parent
VENV = ROOT / ".venv" / "blender"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PACKAGES = ("bpy==4.2.*", *build.REQUIREMENTS, "hypothesis>=6.150", "pytest>=9.0", "pytest-timeout>=2.4")
SERVER_NEEDS = "import grpc_status, numpy, onnx, onnxruntime"


def main(arguments: list[str]) -> int:
    """Make the environment unless it is there, run the tests, and return pytest's exit status."""
    if sys.version_info[:2] != (3, 11):
        print("error: Blender 4.2 needs Python 3.11\nhint: call this script with python3.11", file=sys.stderr)
        return 2
    if subprocess.call([sys.executable, "-c", SERVER_NEEDS], stderr=subprocess.DEVNULL) != 0:
        print("error: this Python cannot run the server\nhint: use .venv's, see docs/blender.md", file=sys.stderr)
        return 2
    stamp, digest = VENV / "packages.sha256", hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text(encoding="ascii") != digest:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        subprocess.run([str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *PACKAGES], check=True)
        stamp.write_text(digest, encoding="ascii")
    environment = os.environ | {"ASSETGEN_SERVER_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(PYTHON), "-m", "pytest", "-m", "blender", str(ROOT / "tests" / "plugins"), *arguments]
    return subprocess.call(command, cwd=ROOT, env=environment)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        print(f"error: {error}\nhint: the reason is above; check the network and the disk", file=sys.stderr)
        sys.exit(1)
