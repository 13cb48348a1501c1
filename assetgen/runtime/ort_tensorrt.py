"""The TensorRT execution providers of ONNX Runtime, by choice: TensorRT 10 of its GPU wheel, and TensorRT for RTX.

The driver is asked for a device first. The provider must take the whole graph: where ONNX Runtime would put a node, or
all of them, elsewhere, the session is refused.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from assetgen.errors import ConfigInvalid, OutputUnwritable, PackageInvalid, RuntimeMissing
from assetgen.package import VerifiedPackage
from assetgen.runtime.bound import BoundSession, first_line, ort_errors
from assetgen.runtime.cache import Cache
from assetgen.runtime.cuda import cuda_devices
from assetgen.runtime.engines import Profile, Shape, TensorRt, engine_key, profiles_of
from assetgen.runtime.ort import import_onnxruntime, load_graph, session_options, slug

PROVIDER, RTX_PROVIDER = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
RTX_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
INSTALL = (
    "Install it: pip install 'assetgen[cuda]' and, for its TensorRT, tensorrt-cu13==10.16.1.11 from NVIDIA's index; "
    "or use the device tensorrt, which needs no ONNX Runtime"
)
INSTALL_RTX = "Install it: pip install 'assetgen[cpu]' onnxruntime-ep-nv-tensorrt-rtx-cu13; not beside onnxruntime-gpu"
_NAME = re.compile(r"ort-tensorrt(?P<rtx>-rtx)?(?::(?P<index>[0-9]{1,3}))?(?::(?P<precision>fp16|bf16|int8))?")


def open_ort_tensorrt_session(package: VerifiedPackage, device: str, cache: Cache | None = None) -> BoundSession:
    """Load a package's graph by ``ort-tensorrt`` or ``ort-tensorrt-rtx``, with ``:N`` and a precision behind it.

    Raises:
        ConfigInvalid: no such device name, no graph in that precision, or a cache that others can write.
        RuntimeMissing: no device, no such provider, or one that does not open here.
        PackageInvalid: the provider does not take the whole graph.
    """
    match = _NAME.fullmatch(device)
    if match is None:
        raise ConfigInvalid(
            f"device {device!r:.80} is not allowed; use ort-tensorrt or ort-tensorrt-rtx, and :N, :fp16, :bf16 or "
            ":int8 behind it",
            field="device",
        )
    index, precision = int(match["index"] or 0), match["precision"] or "fp32"
    graph = package.read_graph(precision)
    devices, problem = cuda_devices()
    if index >= len(devices):
        there = ", ".join(f"{d.index} {d.name}" for d in devices) or problem
        family = device.partition(":")[0]
        raise RuntimeMissing(f"there is no device {index} for {family}: {there}", hint="List them: assetgen doctor")
    ort = import_onnxruntime()
    gpu = devices[index]
    flavour = TensorRt(ort, "ort-tensorrt-rtx" if match["rtx"] else "ort-tensorrt", ort.__version__)
    profiles = profiles_of(package.manifest)
    key = engine_key(graph, flavour, gpu, precision, profiles)
    options = session_options(ort)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if match["rtx"]:
        provider, providers = RTX_PROVIDER, []
        found = _rtx_device(ort, index)
        kept = _kept(cache or Cache(), key)
        options.add_provider_for_devices([found], rtx_options(profiles, kept))
    else:
        if PROVIDER not in ort.get_available_providers():
            raise RuntimeMissing("the installed onnxruntime has no TensorRT", hint=INSTALL)
        _load_libraries(ort)
        kept = _kept(cache or Cache(), key)
        provider, providers = PROVIDER, [(PROVIDER, tensorrt_options(profiles, kept, index, precision))]
    session = _loaded(ort, graph, options, providers, package, device)
    # Without its libraries, ONNX Runtime writes a line to its log and runs elsewhere.
    if session.get_providers()[0] != provider:
        raise RuntimeMissing(
            f"{device} on {gpu.name} does not open: libraries of TensorRT or CUDA are missing or do not fit",
            hint=INSTALL_RTX if match["rtx"] else INSTALL,
        )
    backend = f"{flavour.flavour}-{flavour.version}/cuda/{precision}/{slug(gpu)}-driver{gpu.driver}"
    return BoundSession(session, ort, ("cuda", index), backend, f"cuda:{index} {gpu.name}", "asked for", captures=False)


def tensorrt_options(profiles: tuple[Profile, ...], kept: Path, index: int, precision: str) -> dict[str, str]:
    """Options of the provider for TensorRT 10, which takes a precision from the graph only if it is allowed to."""
    return {
        "device_id": str(index),
        "trt_fp16_enable": str(int(precision == "fp16")),
        "trt_bf16_enable": str(int(precision == "bf16")),
        "trt_int8_enable": str(int(precision == "int8")),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(kept),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(kept),
        **_shape_options("trt", profiles),
    }


def rtx_options(profiles: tuple[Profile, ...], kept: Path) -> dict[str, str]:
    """Options of the provider for TensorRT for RTX, which is strongly typed and keeps what it compiles for a GPU."""
    return {
        "nv_runtime_cache_path": str(kept),
        "nv_multi_profile_enable": "1",
        **_shape_options("nv", profiles),
    }


def _shape_options(prefix: str, profiles: tuple[Profile, ...]) -> dict[str, str]:
    """Shapes as both providers take them: ``name:1x128``, an input once for every profile."""

    def text(shapes: list[Mapping[str, Shape]]) -> str:
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for held in shapes for name, shape in held.items())

    return {
        f"{prefix}_profile_min_shapes": text([profile.smallest for profile in profiles]),
        f"{prefix}_profile_opt_shapes": text([profile.usual for profile in profiles]),
        f"{prefix}_profile_max_shapes": text([profile.largest for profile in profiles]),
    }


def _load_libraries(ort: ModuleType) -> None:
    """Load CUDA's libraries and TensorRT's, whose wheels lie where the system's loader does not look."""
    ort.preload_dlls()
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("tensorrt")


def _rtx_device(ort: ModuleType, index: int) -> Any:
    """The provider's own name for a GPU; raises RuntimeMissing."""
    try:
        plugin = importlib.import_module(RTX_MODULE)
    except ImportError as error:
        raise RuntimeMissing(f"{RTX_MODULE} is not installed, or does not load: {error}", hint=INSTALL_RTX) from error
    try:
        ort.register_execution_provider_library(RTX_PROVIDER, plugin.get_library_path())
    except ort_errors(ort) as error:
        if "already registered" not in str(error).lower():
            raise RuntimeMissing(
                f"ONNX Runtime does not take TensorRT for RTX: {first_line(error)}", hint=INSTALL_RTX
            ) from error
    found = [device for device in ort.get_ep_devices() if device.ep_name == RTX_PROVIDER]
    if index >= len(found):
        raise RuntimeMissing(
            f"TensorRT for RTX lists {len(found)} devices, number {index} is none of them",
            hint="It takes RTX cards from the 30 series on; use the device cuda for others.",
        )
    return found[index]


def _kept(cache: Cache, key: str) -> Path:
    """A folder in the cache for what the provider builds, of one graph and GPU; its files are machine code, too."""
    try:
        (cache.folder / f"ort-{key[:40]}").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(
            f"{cache.folder} cannot be written: {error.strerror}", hint="check space and rights"
        ) from error
    return Cache(cache.folder / f"ort-{key[:40]}").folder


def _loaded(
    ort: ModuleType, graph: bytes, options: Any, providers: list[Any], package: VerifiedPackage, device: str
) -> Any:
    try:
        return load_graph(ort, graph, options, providers, package)
    except PackageInvalid as error:
        if "fallback" not in error.message:
            raise
        raise PackageInvalid(
            f"{package.manifest.id}: {device} does not take the whole graph, and would leave the rest to the processor",
            hint="Use the device cuda or tensorrt.",
        ) from error
