"""``assetgen doctor``: what is installed, which device is used and why, and whether the models do what they did."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from assetgen import __version__, golden
from assetgen.errors import AssetgenError
from assetgen.package import VerifiedPackage
from assetgen.runtime import open_session
from assetgen.runtime.devices import describe_devices
from assetgen.store import Store, bundled_models_folder, open_store

_DISTRIBUTIONS = ("numpy", "pillow", "isal", "grpcio", "protobuf", "onnx", "torch")

Say = Callable[[str], None]


def examine(folders: Sequence[Path], device: str, threads: int | None, say: Say) -> int:
    """Tell everything, fault or not; returns 0 if models were found and all is well, else 1."""
    say(f"assetgen {__version__}, Python {platform.python_version()}, {platform.platform()}")
    say("installed: " + ", ".join(f"{name} {_version(name)}" for name in _DISTRIBUTIONS))
    store, healthy = _verified(list(folders) or [bundled_models_folder()], say)
    _devices(next(iter(store.values()), None), say)
    for package in store.values():
        healthy = _replays(package, device, threads, say) and healthy
    healthy = healthy and len(store) > 0
    say("all is well" if healthy else "error: not all is well, see above")
    return 0 if healthy else 1


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def _verified(folders: Sequence[Path], say: Say) -> tuple[Store, bool]:
    try:
        store = open_store(folders)
    except AssetgenError as error:
        _tell(error, say)
        return Store({}), False
    for package in store.values():
        say(f"model {package.manifest.id} {package.manifest.version}: verified, digest {package.digest}")
    if not store:
        say(f"error: no models in {', '.join(str(folder) for folder in folders)}")
    return store, True


def _devices(package: VerifiedPackage | None, say: Say) -> None:
    report = describe_devices(package)
    installed = ", ".join(f"{name} {version}" for name, version in report.installed.items()) or "none"
    say(f"runtime: {installed}; {', '.join(report.providers) or 'no providers'}")
    for device in report.cuda:
        say(f"GPU: cuda:{device.index} {device.name}, compute {device.capability}, driver for CUDA {device.driver}")
    if report.cuda_problem:
        say(f"GPU: {report.cuda_problem}")
    say(f"CPU: {report.cores} physical cores to use, {report.instructions}")
    if report.chosen:
        say(f"device: {report.chosen}, because: {report.reason}" + ("" if report.tested else " (not opened yet)"))
    else:
        say(f"error: no device works: {report.reason}")
        say(f"hint: {report.hint}")


def _replays(package: VerifiedPackage, device: str, threads: int | None, say: Say) -> bool:
    """Open the model and replay its golden requests."""
    try:
        recorded = golden.load(package)
        session = open_session(package, device, threads)
        say(f"model {package.manifest.id}: opens on {session.device}, backend {session.backend}")
        if recorded is None:
            say(f"model {package.manifest.id}: no golden requests to replay")
            return True
        results = golden.replay(session, package.manifest, recorded)
        session.close()
    except AssetgenError as error:
        _tell(error, say)
        return False
    for result in results:
        worst = max(result.differences.values(), default=0.0)
        compared = "bytes compared" if result.bytes_compared else "another backend than recorded: within tolerance only"
        verdict = f"FAILED: {', '.join(result.failed)}" if result.failed else "ok"
        request = result.request
        say(f"  seed {request.seed} index {request.index}: largest difference {worst:.1e}, {compared}: {verdict}")
    return not any(result.failed for result in results)


def _tell(error: AssetgenError, say: Say) -> None:
    say(f"error: {error.message}")
    if error.hint:
        say(f"hint: {error.hint}")
