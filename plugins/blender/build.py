"""Make the extension: `python plugins/blender/build.py vendor` copies the contract's code, `... zip` makes the archive.

Needs Python 3.11 and, for `zip`, a pip that reaches a package index; the wheels are never committed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ADDON = FOLDER / "assetgen_blender"
GENERATED = FOLDER.parent.parent / "assetgen" / "v1"
INIT = '''"""Copied from assetgen/v1 (Apache-2.0) by plugins/blender/build.py. Do not edit."""
'''
# The oldest that the generated code allows; Blender 4.2 to 5.0 have Python 3.11.
REQUIREMENTS = ("grpcio==1.80.0", "protobuf==6.33.6", "googleapis-common-protos==1.73.0", "typing-extensions==4.15.0")
PIP_PLATFORMS = {
    "linux-x64": ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "macos-arm64": ("macosx_11_0_arm64",),
    "macos-x64": ("macosx_11_0_x86_64",),
    "windows-x64": ("win_amd64",),
}
FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the same content makes the same archive


def vendor(output_dir: Path) -> list[Path]:
    """Write the copy of the generated code, whose imports are relative since Blender chooses the add-on's name."""
    output_dir.mkdir(parents=True, exist_ok=True)
    texts = {"__init__.py": INIT}
    for path in sorted(GENERATED.glob("*_pb2*.py")):
        texts[path.name] = path.read_text(encoding="utf-8").replace("from assetgen.v1 import ", "from . import ")
    for name, text in texts.items():
        (output_dir / name).write_text(text, encoding="utf-8", newline="\n")
    return [output_dir / name for name in texts]


def download(platform: str, folder: Path) -> list[Path]:
    """Download the wheels for Blender's Python on `platform`; raises CalledProcessError."""
    names = [argument for name in PIP_PLATFORMS[platform] for argument in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11", *names]
    subprocess.run([*command, "--dest", str(folder), *REQUIREMENTS], check=True)
    return sorted(folder.glob("*.whl"))


def write_zip(platform: str, wheels: Sequence[Path], output_dir: Path) -> Path:
    """Write `assetgen-VERSION-PLATFORM.zip`, ready for Blender's "Install from Disk"."""
    manifest = (ADDON / "blender_manifest.toml").read_text(encoding="utf-8")
    lines = [line for line in manifest.splitlines() if line.startswith("version = ")]
    version = json.loads(lines[0].partition("= ")[2])
    listed = json.dumps([f"./wheels/{wheel.name}" for wheel in wheels], indent=2)
    keys = f'platforms = ["{platform}"]\nwheels = {listed}\n\n[permissions]'
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / f"assetgen-{version}-{platform}.zip"
    entries = {"blender_manifest.toml": manifest.replace("[permissions]", keys).encode()}
    entries["LICENSE"] = (FOLDER / "LICENSE").read_bytes()
    entries |= {source.relative_to(ADDON).as_posix(): source.read_bytes() for source in sorted(ADDON.rglob("*.py"))}
    entries |= {f"wheels/{wheel.name}": wheel.read_bytes() for wheel in wheels}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name, FIXED_TIME), data, zipfile.ZIP_DEFLATED)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("vendor", help="write assetgen_blender/v1 from assetgen/v1")
    zip_parser = commands.add_parser("zip", help="make the extension's archive, wheels included")
    zip_parser.add_argument("--platform", action="append", choices=sorted(PIP_PLATFORMS), help="(all)")
    zip_parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder (out)")
    arguments = parser.parse_args(argv)
    if arguments.command == "vendor":
        vendor(ADDON / "v1")
        return 0
    for platform in arguments.platform or PIP_PLATFORMS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(write_zip(platform, download(platform, Path(folder)), arguments.output))
            except subprocess.CalledProcessError:
                print(f"error: no wheels for {platform}; pip says why\nhint: check the network", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
