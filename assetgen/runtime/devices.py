"""What this machine can run models on, for people: what is installed, which device is taken and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from assetgen.errors import AssetgenError
from assetgen.package import VerifiedPackage
from assetgen.processor import instruction_family, usable_cores
from assetgen.runtime import choice, openvino
from assetgen.runtime.cuda import CudaDevice, cuda_devices
from assetgen.runtime.ort import CUDA_PROVIDER, import_onnxruntime, installed_distributions


@dataclass(frozen=True)
class DeviceReport:
    """What ``assetgen doctor`` says of the runtime.

    Attributes:
        installed: distribution name to version; a sound environment has exactly one.
        providers: what the installed onnxruntime was built with; says nothing of what works.
        cuda: the GPUs the driver knows; with none, ``cuda_problem`` says why.
        cores: physical cores that may be used.
        instructions: platform and processor family.
        chosen: the device that ``auto`` takes, empty when there is none.
        reason: why that one, or what is broken.
        hint: what to do when ``chosen`` is empty.
        tested: whether a session was really opened there.
        openvino: version of OpenVINO, empty when it is absent.
        openvino_devices: devices to be had by their names through it.
        openvino_problem: why one of them, or all, cannot be had.
    """

    installed: Mapping[str, str]
    cuda: tuple[CudaDevice, ...]
    cuda_problem: str
    cores: int
    instructions: str
    providers: tuple[str, ...] = ()
    chosen: str = ""
    reason: str = ""
    hint: str = ""
    tested: bool = False
    openvino: str = ""
    openvino_devices: tuple[str, ...] = ()
    openvino_problem: str = ""


def describe_devices(package: VerifiedPackage | None = None) -> DeviceReport:
    """Tell what is installed, which devices exist, which one ``auto`` takes and why.

    Args:
        package: when given, its graph is opened to find out; else the answer says what would be tried first.
    """
    devices, problem = cuda_devices()
    report = DeviceReport(installed_distributions(), tuple(devices), problem, usable_cores(), instruction_family())
    report = _with_openvino(report)
    try:
        providers = tuple(import_onnxruntime().get_available_providers())
        report = replace(report, providers=providers)
        if package is not None:
            session = choice.open_fastest(package)
            session.close()
            return replace(
                report,
                chosen=session.device,
                reason=session.reason,
                tested=True,
            )
    except AssetgenError as error:
        return replace(report, reason=error.message, hint=error.hint)
    if CUDA_PROVIDER not in providers:
        return replace(report, chosen="cpu", reason="the installed onnxruntime has no CUDA")
    if not devices:
        return replace(report, chosen="cpu", reason=problem)
    return replace(report, chosen=f"cuda:0 {devices[0].name}", reason="a CUDA device is there; not opened yet")


def _with_openvino(report: DeviceReport) -> DeviceReport:
    version = openvino.installed_version()
    if not version:
        return report
    try:
        names, problem = openvino.usable_devices()
    except AssetgenError as error:
        return replace(report, openvino=version, openvino_problem=error.message)
    return replace(report, openvino=version, openvino_devices=names, openvino_problem=problem)
