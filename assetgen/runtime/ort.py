"""ONNX Runtime behind the session protocol: on the CPU, or on CUDA by option; imports onnxruntime only when called."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from assetgen.errors import AssetgenError, Cancelled, ConfigInvalid, InternalError, PackageInvalid, RuntimeMissing
from assetgen.package import VerifiedPackage
from assetgen.processor import instruction_family, usable_cores
from assetgen.runtime.bound import BoundSession, first_line, ort_errors
from assetgen.runtime.cuda import CudaDevice, cuda_devices
from assetgen.runtime.finish import open_finisher
from assetgen.runtime.shortage import shortage
from assetgen.runtime.weave import woven
from assetgen.types import FloatArray

NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
# They all own the module `onnxruntime`: installed together, one silently hides the other's devices.
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
SPIN_US = 10
CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
INSTALL_CPU = "Install it: pip install 'assetgen[cpu]'"
INSTALL_CUDA = "Install it: pip uninstall -y onnxruntime, then pip install 'assetgen[cuda]'"

_WITHOUT_GRAPHS, _ON_CPU = "; without CUDA graphs", "; some nodes run on the CPU"
# What ONNX Runtime says where not all of a graph can be on the GPU.
_REFUSALS = ("fallback", "graph capture")
_NAME = re.compile(r"auto|(?:cpu|cuda(?::(?P<index>[0-9]{1,3}))?)(?::(?P<precision>fp16|int8))?")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Bound:
    """Inputs and outputs that stay where they are, and how each of the sessions is tied to them, by whether half."""

    inputs: Mapping[str, FloatArray]
    outputs: Mapping[str, FloatArray]
    ties: dict[bool, Any] = field(default_factory=dict)


class OrtSession:
    """A graph loaded by ONNX Runtime; ``run`` may be called from several threads."""

    def __init__(
        self, session: Any, ort: ModuleType, backend: str, device: str, reason: str, half: Any | None = None
    ) -> None:
        self._session = session
        self._half = half
        self._ort = ort
        self._running: dict[Any, object] = {}
        self._lock = threading.Lock()
        self.backend = backend
        self.device = device
        self.reason = reason
        self._output_names = [output.name for output in session.get_outputs()]

    @property
    def splits(self) -> bool:
        """Whether two runs at once, each on half of the threads, give the same bytes as a run on all of them."""
        return self._half is not None

    def run(
        self, inputs: Mapping[str, FloatArray], *, half: bool = False, owner: object = None
    ) -> dict[str, FloatArray]:
        """Run the graph once, on half of the threads if ``half``.

        Raises:
            Cancelled: ``terminate`` was called.
            MemoryError: there is not enough of it; a smaller run may fit.
            InternalError: the graph failed.
        """
        feeds = dict(inputs)
        values = self._run(half, owner, lambda session, options: session.run(self._output_names, feeds, options))
        return dict(zip(self._output_names, values, strict=True))

    def bind(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> Bound:
        """See ``runtime.Binds``."""
        return Bound(inputs, outputs)

    def run_bound(self, bound: Bound, *, half: bool = False, owner: object = None) -> None:
        """See ``runtime.Binds``."""
        self._run(half, owner, lambda session, options: session.run_with_iobinding(_tie(session, bound, half), options))

    def _run(self, half: bool, owner: object, call: Callable[[Any, Any], Any]) -> Any:
        options = self._ort.RunOptions()
        with self._lock:
            session = self._half if half else self._session
            if session is None:
                raise RuntimeError("run() of a session that was closed, or by halves of one that does not split")
            self._running[options] = owner
        try:
            values = call(session, options)
        except ort_errors(self._ort) as error:
            if options.terminate:
                raise Cancelled("the run was stopped on request") from error
            lacking = shortage(self.backend, error)
            if lacking is None:
                raise InternalError(f"{self.backend}: the graph failed: {first_line(error)}") from error
            self._give_back(session, call)
            raise lacking from error
        finally:
            with self._lock:
                del self._running[options]
        if options.terminate:  # it came too late to stop the last node
            raise Cancelled("the run was stopped on request")
        return values

    def _give_back(self, session: Any, call: Callable[[Any, Any], Any]) -> None:
        """Have ONNX Runtime let go of all that a run took before it failed, which others may lack meanwhile.

        It does so at the end of a run only, also of one that ends before its first node.
        """
        options = self._ort.RunOptions()
        options.terminate = True
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        with contextlib.suppress(*ort_errors(self._ort)):
            call(session, options)

    def join(self) -> None:
        """Split no more."""
        with self._lock:
            self._half = None

    def terminate(self, owner: object = None) -> None:
        """Stop the runs of ``owner`` under way, from another thread; honoured between nodes, not inside one."""
        with self._lock:
            for options, whose in self._running.items():
                if whose is owner:
                    options.terminate = True

    def close(self) -> None:
        """Free the graph once no call uses it; a later ``run`` raises RuntimeError."""
        with self._lock:
            self._session = self._half = None


def _tie(session: Any, bound: Bound, half: bool) -> Any:
    tie = bound.ties.get(half)
    if tie is None:
        tie = session.io_binding()
        for name, values in bound.inputs.items():
            tie.bind_cpu_input(name, values)
        for name, values in bound.outputs.items():
            tie.bind_output(name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)
        bound.ties[half] = tie
    return tie


def open_ort_session(
    package: VerifiedPackage, device: str = "auto", threads: int | None = None
) -> OrtSession | BoundSession:
    """Load a package's graph; see ``runtime.open_session``."""
    match = _NAME.fullmatch(device)
    if match is None:
        allowed = (
            "auto, cpu, cuda or cuda:N, openvino or openvino:bf16, tensorrt, ort-tensorrt, ort-tensorrt-rtx; or one "
            "with :fp16 or :int8 behind it"
        )
        raise ConfigInvalid(f"device {device!r:.80} is not allowed; use {allowed}", field="device")
    if threads is not None and not 1 <= threads <= 1024:
        raise ConfigInvalid(f"threads: {threads} is not allowed; use 1 to 1024", field="threads")
    ort = import_onnxruntime()
    precision = match["precision"] or "fp32"
    graph = package.read_graph(precision)
    if device == "auto":
        return _open_best(ort, graph, package, threads)
    if device.startswith("cpu"):
        return _open_cpu(ort, graph, package, threads, "asked for", precision)
    return _open_cuda(ort, graph, package, int(match["index"] or 0), "asked for", precision)


def installed_distributions() -> dict[str, str]:
    """Versions of the ONNX Runtime distributions that are installed; a sound environment has exactly one."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime; raises RuntimeMissing, with the command that repairs it, if absent, doubled or broken.

    From 1.29 on it tells its makers on Linux and macOS, too, what is run and how often, under a number for the machine
    that it writes into the home folder as soon as it is imported; told before not to, it does neither.
    """
    found = installed_distributions()
    if len(found) > 1:
        names = " ".join(found)
        raise RuntimeMissing(
            f"{' and '.join(found)} are installed together; they overwrite each other's files, only one may be",
            hint=f"Repair it: pip uninstall -y {names}, then pip install 'assetgen[cpu]' or 'assetgen[cuda]'",
            metadata={"installed": names},
        )
    os.environ.setdefault(NO_TELEMETRY, "1")
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        if found:
            raise RuntimeMissing(
                f"onnxruntime is installed but does not load: {error}", hint=_reinstall(found)
            ) from error
        raise RuntimeMissing("onnxruntime is not installed", hint=INSTALL_CPU) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # What is left when one of two distributions that shared the folder was removed.
        raise RuntimeMissing("onnxruntime is installed but its files are gone", hint=_reinstall(found))
    if os.environ[NO_TELEMETRY] == "1":
        onnxruntime.disable_telemetry_events()  # Windows, where the variable is not read
    return onnxruntime


def _reinstall(found: Mapping[str, str]) -> str:
    return f"Repair it: pip install --force-reinstall --no-deps {' '.join(found) or 'onnxruntime'}"


def _open_best(
    ort: ModuleType, graph: bytes, package: VerifiedPackage, threads: int | None
) -> OrtSession | BoundSession:
    if CUDA_PROVIDER not in ort.get_available_providers():
        return _open_cpu(ort, graph, package, threads, "the installed onnxruntime has no CUDA")
    devices, problem = cuda_devices()
    if not devices:
        return _open_cpu(ort, graph, package, threads, problem)
    try:
        return _open_cuda(ort, graph, package, 0, "a CUDA device is there and opens")
    except AssetgenError as error:
        log.warning("%s; running on the CPU", error.message)
        return _open_cpu(ort, graph, package, threads, f"CUDA does not open: {error.message}")


def _open_cpu(
    ort: ModuleType,
    graph: bytes,
    package: VerifiedPackage,
    threads: int | None,
    reason: str,
    precision: str = "fp32",
) -> OrtSession:
    threads = threads or usable_cores()

    def load(count: int) -> Any:
        options = session_options(ort)
        options.intra_op_num_threads = count
        return load_graph(ort, faster, options, [CPU_PROVIDER], package)

    faster = woven(graph)
    # All threads make one asset soonest, but meet after every node, and wait there for one that lost its core to the
    # server. Two halves of them, an asset each, make a fifth more a second (measured, two cores).
    session, half = load(threads), load(threads // 2) if threads > 1 else None
    # Measured: with a number of channels that is no multiple of 4 the bytes depend on the number of threads.
    backend = f"onnxruntime-{ort.__version__}/cpu/{precision}/{instruction_family()}/threads{threads}"
    return OrtSession(session, ort, backend, "cpu", reason, half)


def _open_cuda(
    ort: ModuleType, graph: bytes, package: VerifiedPackage, index: int, reason: str, precision: str = "fp32"
) -> BoundSession:
    if CUDA_PROVIDER not in ort.get_available_providers():
        raise RuntimeMissing("the installed onnxruntime has no CUDA", hint=INSTALL_CUDA)
    devices, problem = cuda_devices()
    if index >= len(devices):
        there = ", ".join(f"cuda:{d.index} {d.name}" for d in devices) or problem
        raise RuntimeMissing(f"there is no device cuda:{index}: {there}", hint="List the devices: assetgen doctor")
    ort.preload_dlls()  # libraries from the nvidia-* wheels, which the system's loader does not find by itself
    cuda_options = {
        "device_id": str(index),
        # fp32 means fp32. In other precisions ONNX Runtime would take convolutions off the tensor cores with it.
        "use_tf32": "0" if precision == "fp32" else "1",
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE chooses by timing, so bytes would differ between starts
        "arena_extend_strategy": "kSameAsRequested",
    }
    session, captures, told = _load_on_cuda(ort, graph, cuda_options, package)
    # Without a working CUDA, ONNX Runtime writes a line to its log and runs on the CPU.
    if session.get_providers()[0] != CUDA_PROVIDER:
        raise RuntimeMissing(
            f"cuda:{index} {devices[index].name} does not open: CUDA or cuDNN libraries are missing or do not fit",
            hint=f"{INSTALL_CUDA}; the driver supports CUDA {devices[index].driver}, CUDA 13 is needed",
        )
    finisher, unfinished = open_finisher(
        lambda data: load_finishing(ort, data, cuda_options, package), ort, ("cuda", index), package.manifest
    )
    device = devices[index]
    mixed = "+cpu" if _ON_CPU in told else ""
    backend = f"onnxruntime-{ort.__version__}/cuda{mixed}/{precision}/{slug(device)}-driver{device.driver}"
    backend += "-finishing" if finisher is not None else ""
    name = f"cuda:{index} {device.name}"
    told += unfinished
    return BoundSession(
        session, ort, ("cuda", index), backend, name, reason + told, captures=captures, finisher=finisher
    )


def _load_on_cuda(
    ort: ModuleType, graph: bytes, cuda_options: Mapping[str, str], package: VerifiedPackage
) -> tuple[Any, bool, str]:
    """The session, whether it makes CUDA graphs, and what is not as it should be, to be told.

    ONNX Runtime puts arithmetic on shapes on the CPU, and makes no CUDA graphs of a model that has some there. Both are
    allowed, but must be told.
    """

    def load(*, captures: bool, on_cpu: bool) -> Any:
        options = session_options(ort)
        options.use_deterministic_compute = True
        if not on_cpu:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        provider = CUDA_PROVIDER, {**cuda_options, "enable_cuda_graph": str(int(captures))}
        return load_graph(ort, graph, options, [provider], package)

    try:
        return load(captures=True, on_cpu=False), True, ""
    except PackageInvalid as error:
        if not any(words in error.message for words in _REFUSALS):
            raise
    try:
        return load(captures=False, on_cpu=False), False, _WITHOUT_GRAPHS
    except PackageInvalid as error:
        if not any(words in error.message for words in _REFUSALS):
            raise
    return load(captures=False, on_cpu=True), False, _WITHOUT_GRAPHS + _ON_CPU


def load_finishing(ort: ModuleType, graph: bytes, cuda_options: Mapping[str, str], package: VerifiedPackage) -> Any:
    """A session of the graph of finishing, in fp32 whatever the model is in: slopes are differences of near heights."""
    options = session_options(ort)
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return load_graph(ort, graph, options, [(CUDA_PROVIDER, {**cuda_options, "use_tf32": "0"})], package)


def session_options(ort: ModuleType) -> Any:
    """What every session is opened with."""
    options = ort.SessionOptions()
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.inter_op_num_threads = 1
    # A planned block is kept for every shape that ever ran, and nothing of it is shared: double memory at 4096 px.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    # After every node threads wait for the slowest. Those that spin until it is done spare 7 % of a run, and take cores
    # from the server, the encoder and the engine beside us; so little is 4 %, and nothing is lost beside a busy program
    # (measured, two cores). Versions before 1.26 spin without this limit, until the run ends.
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def load_graph(ort: ModuleType, graph: bytes, options: Any, providers: list[Any], package: VerifiedPackage) -> Any:
    """A session of ONNX Runtime; raises PackageInvalid if it cannot load the graph there.

    Its own way out of an error, at the start as in the middle of a run, is to go on elsewhere; it is told not to.
    """
    try:
        return ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    except ort_errors(ort) as error:
        raise PackageInvalid(
            f"{package.manifest.id}: onnxruntime {ort.__version__} cannot load the graph: {first_line(error)}",
            hint="Check the package with `assetgen doctor`, or update onnxruntime.",
        ) from error


def slug(device: CudaDevice) -> str:
    """A GPU's name as part of a backend's."""
    return re.sub(r"[^a-z0-9.]+", "-", f"{device.name}-sm{device.capability}".lower()).strip("-")
