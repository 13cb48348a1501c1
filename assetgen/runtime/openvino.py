"""OpenVINO behind the session protocol: on the CPU in fp32 or bf16, by choice; imports openvino only when called.

Differs from ONNX Runtime: every size is compiled for itself at its first run, so that the bytes of a size never depend
on what ran before; a compiled size is a quarter to a third faster than one graph for all sizes. In bf16, what follows
from the latent alone is computed in fp32.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from assetgen.errors import AssetgenError, Cancelled, ConfigInvalid, InternalError, PackageInvalid, RuntimeMissing
from assetgen.manifest import SPATIAL_ROLES, Manifest
from assetgen.package import VerifiedPackage
from assetgen.processor import instruction_family, usable_cores
from assetgen.runtime.latent_part import cut_latent_part
from assetgen.runtime.rounding import join_roundings
from assetgen.runtime.shortage import shortage
from assetgen.types import FloatArray

# Device name to the precision of the arithmetic, as OpenVINO calls it; inputs and outputs are fp32 always.
DEVICES = {"openvino": "f32", "openvino:bf16": "bf16", "openvino:int8": "f32"}
SIZES_KEPT = 4
# A larger size gives its scratch memory back when another one runs; a smaller one would lose more time than it frees.
SCRATCH_KEPT_PX = 1 << 20
INSTALL = "Install it: pip install 'assetgen[openvino]'"
# Any of these multiplies bf16 natively; OpenVINO says BF16 of every AVX-512 processor, and of the others emulates it.
_BF16_FLAGS = frozenset(["avx512_bf16", "amx_bf16", "avx_ne_convert"])

Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(eq=False)
class _Run:
    """One call of ``run``: whose it is, and whether it was stopped; ``request`` is set while the graph computes."""

    owner: object
    stopped: bool = False
    request: Any = None


@dataclass(eq=False)
class _Compiled:
    """The graph for one size; ``latent`` computes the first inputs of its requests, where the graph was cut.

    Attributes:
        idle: requests that no run has; a run by halves takes one, or makes another.
        busy: how many runs have one.
    """

    graph: Any
    pixels: int
    latent: Any
    idle: list[Any]
    busy: int = 0


@dataclass(frozen=True, eq=False)
class Bound:
    """Inputs, and the tensors that outputs are written to; both stay where they are."""

    inputs: Mapping[str, FloatArray]
    tensors: Mapping[str, Any]


class OpenVinoSession:
    """A graph loaded by OpenVINO; ``run`` may be called from several threads, one or two halves compute at a time."""

    device = "cpu"

    def __init__(
        self,
        core: Any,
        model: Any,
        settings: Mapping[str, Any],
        openvino: ModuleType,
        backend: str,
        spatial: Set[str],
        reason: str = "asked for",
    ) -> None:
        self._core = core
        # Cut in fp32, the graph would give the same numbers no sooner.
        parts = cut_latent_part(openvino, model, spatial) if settings["INFERENCE_PRECISION_HINT"] != "f32" else None
        self._latent: Any = parts[0] if parts else None
        self._picture: Any = parts[1] if parts else model
        self._latent_request: tuple[dict[str, tuple[int, ...]], Any] = ({}, None)
        self._settings = settings
        self._openvino = openvino
        # Of runs on all threads, and of those by halves: two streams of half the threads each.
        self._compiled: dict[bool, OrderedDict[Shapes, _Compiled]] = {False: OrderedDict(), True: OrderedDict()}
        self._last: _Compiled | None = None
        self._runs: set[_Run] = set()
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._closed = False
        self._splits = settings["INFERENCE_NUM_THREADS"] > 1
        self._input_names = {port.any_name for port in model.inputs}
        self._output_names = [port.any_name for port in model.outputs]
        self.backend, self.reason = backend, reason

    @property
    def splits(self) -> bool:
        """Whether two runs at once, each on half of the threads, give the same bytes as a run on all of them."""
        return self._splits and not self._closed

    def run(
        self, inputs: Mapping[str, FloatArray], *, half: bool = False, owner: object = None
    ) -> dict[str, FloatArray]:
        """Run the graph once, on half of the threads if ``half``.

        Runs on all threads come one after the other; what is computed by halves does not wait for anything.

        Raises:
            Cancelled: ``terminate`` was called.
            MemoryError: there is not enough of it; a smaller run may fit.
            InternalError: the graph failed.
        """
        return self._run(inputs, {}, half, owner)

    def bind(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> Bound:
        """See ``runtime.Binds``."""
        tensor = self._openvino.Tensor
        return Bound(inputs, {name: tensor(values, shared_memory=True) for name, values in outputs.items()})

    def run_bound(self, bound: Bound, *, half: bool = False, owner: object = None) -> None:
        """See ``runtime.Binds``."""
        self._run(bound.inputs, bound.tensors, half, owner)

    def _run(
        self, inputs: Mapping[str, FloatArray], tensors: Mapping[str, Any], half: bool, owner: object
    ) -> dict[str, FloatArray]:
        """Run into ``tensors``; without any, into arrays that are returned."""
        if half and not self._splits:
            raise RuntimeError("run() by halves of a session that does not split")
        run = _Run(owner)
        with self._lock:
            self._runs.add(run)
        try:
            with self._turn:
                compiled, request, feeds = self._take(run, inputs, half)
                if not half:
                    return self._infer(run, compiled, request, feeds, tensors)
            return self._infer(run, compiled, request, feeds, tensors)
        finally:
            with self._lock:
                self._runs.discard(run)

    def join(self) -> None:
        """Split no more."""
        self._splits = False
        self._compiled[True].clear()

    def terminate(self, owner: object = None) -> None:
        """Stop the runs of ``owner`` under way, from another thread; honoured between nodes, not inside one."""
        with self._lock:
            for run in self._runs:
                if run.owner is owner:
                    run.stopped = True
                    if run.request is not None:
                        run.request.cancel()

    def close(self) -> None:
        """Free the graph once no run uses it; a later ``run`` raises RuntimeError."""
        with self._turn:
            self._closed = True
            for compiled in self._compiled.values():
                compiled.clear()
            self._last = self._latent = self._picture = None
            self._latent_request = ({}, None)

    def prepare(self, shapes: Shapes) -> None:
        """Compile the graph for inputs of these shapes, as the first run of them would."""
        with self._turn:
            self._at(shapes, half=False)

    def _take(
        self, run: _Run, inputs: Mapping[str, FloatArray], half: bool
    ) -> tuple[_Compiled, Any, dict[str, FloatArray]]:
        """A request for a run, and what to feed it; the latent part is computed here, one at a time."""
        if self._closed:
            raise RuntimeError("run() of a session that was closed")
        try:
            self._check(inputs)
            compiled = self._at(tuple(sorted((name, values.shape) for name, values in inputs.items())), half)
            feeds = dict(inputs)
            if compiled.latent is not None:
                compiled.latent.infer(_of(compiled.latent, feeds), share_inputs=True)
                # Copied, for another run's latent part may be computed before these are read.
                feeds |= {f"cut_{n}": tensor.data.copy() for n, tensor in enumerate(compiled.latent.output_tensors)}
            with self._lock:
                compiled.busy += 1
                request = compiled.idle.pop() if compiled.idle else None
            return compiled, compiled.graph.create_infer_request() if request is None else request, feeds
        except (RuntimeError, TypeError, ValueError) as error:
            raise self._fault(run, error) from error

    def _infer(
        self, run: _Run, compiled: _Compiled, request: Any, feeds: dict[str, FloatArray], tensors: Mapping[str, Any]
    ) -> dict[str, FloatArray]:
        own: dict[str, Any] = {}
        try:
            for name, tensor in tensors.items():
                own[name] = request.get_tensor(name)
                request.set_tensor(name, tensor)
            with self._lock:  # so that a stop comes either before the start, and is seen, or after it
                if not run.stopped:
                    request.start_async(_of(request, feeds), share_inputs=True)
                    run.request = request
            if run.request is not None:  # one that was stopped, too, so that the next run finds it idle
                request.wait()
            copied = () if tensors else self._output_names
            outputs = {name: request.get_tensor(name).data.copy() for name in copied}
        except (RuntimeError, TypeError, ValueError) as error:
            if not run.stopped:
                raise self._fault(run, error) from error
        finally:
            for name, tensor in own.items():  # the next run must not write there
                request.set_tensor(name, tensor)
            with self._lock:  # the request is the next run's now, which a late stop must not meet
                run.request = None
                compiled.busy -= 1
                compiled.idle.append(request)
        if run.stopped:
            raise Cancelled("the run was stopped on request")
        return outputs

    def _fault(self, run: _Run, error: Exception) -> AssetgenError | MemoryError:
        if run.stopped:
            return Cancelled("the run was stopped on request")
        return shortage(self.backend, error) or InternalError(f"{self.backend}: the graph failed: {_reason(error)}")

    def _check(self, inputs: Mapping[str, FloatArray]) -> None:
        """OpenVINO itself would convert other types, and keep the last value of an input that is not given."""
        if inputs.keys() != self._input_names:
            raise ValueError(f"the inputs are {sorted(inputs)}, expected {sorted(self._input_names)}")
        for name, values in inputs.items():
            if values.dtype != np.float32:
                raise ValueError(f"input {name!r} is {values.dtype}, expected float32")

    def _at(self, shapes: Shapes, half: bool) -> _Compiled:
        """The graph for these shapes, compiled if need be."""
        sizes = self._compiled[half]
        found = sizes.get(shapes)
        last = self._last
        if last is not None and last is not found and last.pixels > SCRATCH_KEPT_PX and not last.busy:
            last.graph.release_memory()
        if found is None:
            while len(sizes) >= SIZES_KEPT:
                sizes.popitem(last=False)
            found = sizes[shapes] = self._compile(dict(shapes), half)
        sizes.move_to_end(shapes)
        self._last = found
        return found

    def _compile(self, shapes: dict[str, tuple[int, ...]], half: bool) -> _Compiled:
        latent = None
        if self._latent is not None:
            latent = self._latent_for({port.any_name: shapes[port.any_name] for port in self._latent.inputs})
            shapes |= {f"cut_{n}": tuple(tensor.shape) for n, tensor in enumerate(latent.output_tensors)}
        settings = {**self._settings, "NUM_STREAMS": 2} if half else self._settings
        graph = self._compile_part(self._picture, shapes, settings)
        pixels = max(int(np.prod(list(port.shape)[2:])) for port in graph.outputs)
        return _Compiled(graph, pixels, latent, [graph.create_infer_request()])

    def _latent_for(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        """The request of the latent part, which is the same for pictures of all sizes."""
        if self._latent_request[0] != shapes:
            exact = {**self._settings, "INFERENCE_PRECISION_HINT": "f32"}
            self._latent_request = shapes, self._compile_part(self._latent, shapes, exact).create_infer_request()
        return self._latent_request[1]

    def _compile_part(self, part: Any, shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]) -> Any:
        model = part.clone()
        named = {port.any_name: self._openvino.PartialShape(list(shapes[port.any_name])) for port in model.inputs}
        model.reshape(named)
        return self._core.compile_model(model, "CPU", dict(settings))


def open_openvino_session(
    package: VerifiedPackage, device: str, threads: int | None = None, reason: str = "asked for"
) -> OpenVinoSession:
    """Load a package's graph and compile it for its smallest size; see ``runtime.open_session``.

    Args:
        device: ``openvino`` for fp32, ``openvino:bf16``; ``openvino:int8`` for the package's graph of that precision.
    """
    if device not in DEVICES:
        raise ConfigInvalid(f"device {device!r:.80} is not allowed; use {' or '.join(DEVICES)}", field="device")
    if threads is not None and not 1 <= threads <= 1024:
        raise ConfigInvalid(f"threads: {threads} is not allowed; use 1 to 1024", field="threads")
    openvino = import_openvino()
    precision = device.partition(":")[2] or "fp32"
    graph = package.read_graph("int8" if precision == "int8" else "fp32")
    core = openvino_core()
    if device == "openvino:bf16" and (problem := _bf16_problem(core)):
        raise RuntimeMissing(f"device {device!r}: {problem}", hint="Use cpu or openvino, which compute in fp32.")
    threads = threads or usable_cores()
    settings = {
        "INFERENCE_PRECISION_HINT": DEVICES[device],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # pinned threads wait for their core while the engine beside us has it
    }
    backend = f"openvino-{_version(openvino)}/cpu/{precision}/{_kernels(precision)}/threads{threads}"
    try:
        spatial = {spec.name for spec in package.manifest.inputs if spec.role in SPATIAL_ROLES}
        model = core.read_model(graph)
        if precision == "int8":
            join_roundings(openvino, model)
        session = OpenVinoSession(core, model, settings, openvino, backend, spatial, reason)
        session.prepare(_smallest(package.manifest))
    except (RuntimeError, TypeError, ValueError) as error:
        raise PackageInvalid(
            f"{package.manifest.id}: openvino {_version(openvino)} cannot load the graph: {_reason(error)}",
            hint="Check the package with `assetgen doctor`, or use the device cpu.",
        ) from error
    return session


def import_openvino() -> ModuleType:
    """Import OpenVINO; raises RuntimeMissing, with the command that installs it, if absent or broken.

    Importing it tells its makers so over the network, and writes into the home folder, by the package
    ``openvino_telemetry``; where that package cannot be imported it does neither.
    """
    hidden = "openvino_telemetry"
    hide = hidden not in sys.modules
    if hide:
        sys.modules[hidden] = ModuleType(hidden)
    try:
        openvino = importlib.import_module("openvino")
    except ImportError as error:
        if not installed_version():
            raise RuntimeMissing("openvino is not installed", hint=INSTALL) from error
        raise RuntimeMissing(
            f"openvino is installed but does not load: {error}",
            hint="Repair it: pip install --force-reinstall --no-deps openvino",
        ) from error
    finally:
        if hide:
            del sys.modules[hidden]
    return openvino


@functools.cache
def openvino_core() -> Any:
    """The one core of this process, never freed; raises as ``import_openvino``.

    Its CPU plug-in gives the loading thread another stack for signals and unmaps it when the last core goes, from
    whatever thread that happens in: the next signal, such as SIGTERM, then kills the process with SIGSEGV.
    """
    return import_openvino().Core()


def installed_version() -> str:
    """Version of the distribution, without importing it; empty when it is absent."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return ""


def usable_devices() -> tuple[tuple[str, ...], str]:
    """Names of the devices that OpenVINO really has here, and when one is lacking why; raises RuntimeMissing."""
    import_openvino()  # a core that is kept would hide that it no longer loads
    problem = _bf16_problem(openvino_core())
    return ("openvino",) if problem else ("openvino", "openvino:bf16"), problem


def _bf16_problem(core: Any) -> str:
    """Why bf16 is of no use here; empty if it is."""
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "OpenVINO has no bf16 on this processor"
    flags = _processor_flags()
    return "this processor has no bf16, OpenVINO would emulate it" if flags and not flags & _BF16_FLAGS else ""


def _processor_flags() -> frozenset[str]:
    """What Linux says the processor can do; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(text.partition("flags")[2].partition("\n")[0].split())


def _kernels(precision: str) -> str:
    """The instruction family; in bf16 also whether there are matrix units, whose kernels add up in another order."""
    matrix_units = precision == "bf16" and "amx_bf16" in _processor_flags()
    return instruction_family() + ("-amx" if matrix_units else "")


def _version(openvino: ModuleType) -> str:
    return str(openvino.__version__).partition("-")[0]


def _smallest(manifest: Manifest) -> Shapes:
    """Shapes of the inputs of one asset of the smallest size."""
    edge_px = manifest.size.min_px
    shapes = {}
    for spec in manifest.inputs:
        cells = edge_px // spec.stride_px if spec.role in SPATIAL_ROLES else 0
        shapes[spec.name] = (1, int(spec.shape[1]), *([cells, cells] if cells else []))
    return tuple(sorted(shapes.items()))


def _of(request: Any, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Those of ``feeds`` that the request takes."""
    return {port.any_name: feeds[port.any_name] for port in request.model_inputs}


def _reason(error: BaseException) -> str:
    """The last line of its own that OpenVINO's message has; those before it name source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from ", "Check "))]
    return (told or lines or [type(error).__name__])[0][:300]
