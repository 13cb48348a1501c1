"""``assetgen doctor``: what is installed, which device is used and why, and whether the models do what they did."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from assetgen import __version__, golden
from assetgen.errors import AssetgenError, RuntimeMissing
from assetgen.fidelity import Comparison, broken_limits
from assetgen.kinds import KINDS
from assetgen.package import VerifiedPackage
from assetgen.runtime import Session, open_session, precision_of, reference_device
from assetgen.runtime.devices import describe_devices
from assetgen.store import Store, bundled_models_folder, is_bundled, open_store
from assetgen.types import FloatArray

_DISTRIBUTIONS = ("numpy", "pillow", "deflate", "grpcio", "protobuf", "onnx", "torch")

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
    if report.openvino:
        can = f"devices {', '.join(report.openvino_devices)}" if report.openvino_devices else "no devices"
        say(f"OpenVINO {report.openvino}: {can}" + (f"; {report.openvino_problem}" if report.openvino_problem else ""))
    say(f"CPU: {report.cores} physical cores to use, {report.instructions}")
    if report.chosen:
        say(f"device: {report.chosen}, because: {report.reason}" + ("" if report.tested else " (not opened yet)"))
    else:
        say(f"error: no device works: {report.reason}")
        say(f"hint: {report.hint}")


def _replays(package: VerifiedPackage, device: str, threads: int | None, say: Say) -> bool:
    """Open the model and replay its golden requests; one of ours whose extra is not installed is only told."""
    try:
        KINDS[package.manifest.kind].check(package)
    except RuntimeMissing as error:
        ours = is_bundled(package.folder)
        say(f"model {package.manifest.id}: {'left out' if ours else 'error'}: {error.message}; {error.hint}")
        return ours
    try:
        recorded = golden.load(package)
        session = open_session(package, device, threads)
        say(f"model {package.manifest.id}: opens on {session.device}, backend {session.backend}")
        if recorded is None:
            say(f"model {package.manifest.id}: no golden requests to replay")
            return True
        if precision_of(session.backend) != "fp32":
            return _compares(package, session, recorded, threads, say)
        results = golden.replay(session, package.manifest, recorded)
        session.close()
    except AssetgenError as error:
        _tell(error, say)
        return False
    return _judged(results, say)


def _judged(results: Sequence[golden.GoldenResult], say: Say) -> bool:
    for result in results:
        worst = max(result.differences.values(), default=0.0)
        compared = "bytes compared" if result.bytes_compared else "another backend than recorded: within tolerance only"
        verdict = f"FAILED: {', '.join(result.failed)}" if result.failed else "ok"
        request = result.request
        say(f"  seed {request.seed} index {request.index}: largest difference {worst:.1e}, {compared}: {verdict}")
    return not any(result.failed for result in results)


class _Compared:
    """Runs both of two sessions, answers for the exact one, and keeps how well the rounded one agreed."""

    def __init__(self, exact: Session, rounded: Session, comparison: Comparison) -> None:
        self._sessions = exact, rounded
        self._comparison = comparison
        self.backend, self.device, self.reason, self.splits = exact.backend, exact.device, exact.reason, False

    def run(
        self, inputs: Mapping[str, FloatArray], *, half: bool = False, owner: object = None
    ) -> dict[str, FloatArray]:
        """The exact session's outputs."""
        exact, rounded = (session.run(inputs, half=half, owner=owner) for session in self._sessions)
        self._comparison.add(inputs, exact, rounded)
        return exact

    def join(self) -> None:
        """Do nothing: it does not split."""

    def terminate(self, owner: object = None) -> None:
        """Stop the runs of ``owner``."""
        for session in self._sessions:
            session.terminate(owner)

    def close(self) -> None:
        """Close both."""
        for session in self._sessions:
            session.close()


def _compares(
    package: VerifiedPackage, session: Session, recorded: Mapping[str, object], threads: int | None, say: Say
) -> bool:
    """Replay in fp32, which is held to what was recorded, and hold ``session`` to that by the model's tolerance."""
    precision, reference = precision_of(session.backend), reference_device(session.backend)
    comparison = Comparison(package.manifest)
    pair = _Compared(open_session(package, reference, threads), session, comparison)
    exact = _judged(golden.replay(pair, package.manifest, recorded), say)
    pair.close()
    differences = comparison.result()
    failed = broken_limits(package.manifest, precision, differences)
    found = ", ".join(f"{name} {found_db:.1f} dB" for name, found_db in differences.psnr_db.items())
    turned = f", normals {differences.normal_degrees:.2f} degrees" if differences.normal_degrees else ""
    verdict = f"FAILED: {'; '.join(failed)}" if failed else "ok"
    say(f"  {precision} against fp32: {found}{turned}: {verdict}")
    return exact and not failed


def _tell(error: AssetgenError, say: Say) -> None:
    say(f"error: {error.message}")
    if error.hint:
        say(f"hint: {error.hint}")
