"""Set up `.venv` and run the demo or the tests: `python3 run.py demo`; stdlib only, needs no more than Python 3.11."""

from __future__ import annotations  # lets an older Python get as far as the message about its age

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
TORCH = "torch==2.13.0"
# All tests take twenty minutes of one core. Files stay whole, since what one sets up serves all its tests.
ALL_TESTS = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]
USAGE = """usage: python3 run.py demo [arguments of `assetgen demo`]
       python3 run.py test [arguments of pytest]

Sets up .venv with the packages pinned in requirements/, once, then runs the command in it.
On Windows: py run.py demo"""


class SetupError(Exception):
    """The environment cannot be made; holds what is wrong and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def run(command: list[str]) -> int:
    """Run a command with the output of this process and return its exit status."""
    sys.stdout.flush()
    return subprocess.call(command, cwd=ROOT)


def make_venv() -> None:
    """Make `.venv`, unless one with pip and a Python that is new enough is there."""
    probe = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
    if PYTHON.exists() and subprocess.call([str(PYTHON), "-c", probe], stderr=subprocess.DEVNULL) == 0:
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError("this Python has no ensurepip", "on Debian and Ubuntu: apt install python3-venv")
    print(f"setup: making {VENV}")
    if run([sys.executable, "-m", "venv", "--clear", str(VENV)]) != 0:
        raise SetupError(f"could not make {VENV}; the reason is above", "free disk space or fix its permissions")


def pip_install(step: str, *arguments: str) -> None:
    """Install with the pip of `.venv`."""
    print(f"setup: {step}")
    if run([str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *arguments]) != 0:
        raise SetupError(
            f"pip failed at: {step}; its message is above",
            "check the network (behind a proxy set HTTPS_PROXY) and the disk's free space, then run this again",
        )


def install(pins: Path, with_torch: bool) -> None:
    """Install the pinned packages and this checkout into `.venv`, unless a stamp says that they are there."""
    parts = (pins.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), TORCH.encode(), str(ROOT).encode())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    stamp = VENV / f"assetgen-{pins.stem}.sha256"
    make_venv()
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return
    pip_install(f"packages of {pins.relative_to(ROOT)}", "--require-hashes", "--requirement", str(pins))
    if with_torch:
        # Unhashed and after its own dependencies: machines differ in the build that they want and are set up to get.
        size = " (several GB with CUDA, unless pip is set up for CPU builds: see CONTRIBUTING.md)"
        pip_install(f"{TORCH}{size if sys.platform == 'linux' else ''}", TORCH)
    pip_install("assetgen from this checkout", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    stamp.write_text(digest, encoding="ascii")


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status."""
    if sys.version_info < (3, 11):
        version = ".".join(str(part) for part in sys.version_info[:3])
        raise SetupError(f"this is Python {version}; 3.11 or newer is needed", "call this script with a newer Python")
    if not arguments or arguments[0] not in {"demo", "test"}:
        print(USAGE)
        return 0 if arguments and arguments[0] in {"-h", "--help"} else 2
    command, *rest = arguments
    install(ROOT / "requirements" / f"{command}.txt", with_torch=command == "test")
    if command == "demo":
        return run([str(BIN / ("assetgen.exe" if os.name == "nt" else "assetgen")), "demo", *rest])
    return run([str(PYTHON), "-m", "pytest", *(rest or ALL_TESTS)])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
