"""TensorRT behind the session protocol: an engine from the cache, one context, everything prepared once for each size.

Written against TensorRT 10.13 and later, 11 and TensorRT for RTX, whose interface here is the same. The driver is asked
for a device before any object of TensorRT's is made: without one, some of them end the process.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from assetgen.errors import Cancelled, ConfigInvalid, InternalError, RuntimeMissing
from assetgen.package import VerifiedPackage
from assetgen.runtime.cache import Cache
from assetgen.runtime.cuda import CudaDevice, cuda_devices
from assetgen.runtime.cuda_driver import CudaDriver
from assetgen.runtime.engines import Profile, Shape, TensorRt, engine_for, import_tensorrt, profiles_of
from assetgen.runtime.shortage import shortage
from assetgen.types import FloatArray

SIZES_KEPT = 4
_NAME = re.compile(r"tensorrt(?::([0-9]{1,3}))?(?::(fp16|bf16|int8))?")

Shapes = tuple[tuple[str, Shape], ...]


@dataclass
class _Buffer:
    """One tensor on the device and in pinned host memory."""

    address: int
    host: FloatArray
    host_address: int


@dataclass
class _Prepared:
    """Buffers for inputs of one set of shapes, and what was captured of a run on them."""

    profile: int
    inputs: dict[str, _Buffer]
    outputs: dict[str, _Buffer]
    graph: int = 0


@dataclass(eq=False)
class _Call:
    """One call of ``run``: whose it is, and whether it was stopped."""

    owner: object
    stopped: bool = False


class TensorRtSession:
    """An engine on one GPU; ``run`` may be called from several threads, one computes at a time.

    Args:
        engine: deserialised; ``profiles`` are those it was built with.
        context: its one context. Runs of a size are captured as a CUDA graph; TensorRT for RTX does so by itself.
    """

    splits = False

    def __init__(
        self,
        trt: TensorRt,
        engine: Any,
        context: Any,
        profiles: tuple[Profile, ...],
        driver: CudaDriver,
        backend: str,
        device: str,
        reason: str,
    ) -> None:
        self._engine, self._context, self._driver = engine, context, driver
        self._profiles = profiles
        self._captures = trt.flavour == "tensorrt"
        self._stream = driver.stream()
        self._sizes: OrderedDict[Shapes, _Prepared] = OrderedDict()
        self._profile = 0
        self._shapes: Shapes = ()
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._calls: set[_Call] = set()
        self._closed = False
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.module.TensorIOMode.INPUT for name in names}
        self._input_names = {name for name in names if is_input[name]}
        self._output_names = [name for name in names if not is_input[name]]
        self.backend, self.device, self.reason = backend, device, reason

    def run(
        self, inputs: Mapping[str, FloatArray], *, half: bool = False, owner: object = None
    ) -> dict[str, FloatArray]:
        """Run the graph once, after the runs that other threads began.

        A run that has begun on the GPU ends there; ``terminate`` then only throws its outputs away.

        Raises:
            Cancelled: ``terminate`` was called.
            MemoryError: there is not enough of it, mostly on the GPU; a smaller run may fit.
            InternalError: the driver or TensorRT refused.
        """
        if half:
            raise RuntimeError("run() by halves of a session that does not split")
        call = _Call(owner)
        with self._lock:
            self._calls.add(call)
        try:
            with self._turn:
                if self._closed:
                    raise RuntimeError("run() of a session that was closed")
                outputs = {} if call.stopped else self._run(inputs)
            if call.stopped:
                raise Cancelled("the run was stopped on request")
            return outputs
        except InternalError as error:
            lacking = shortage(self.backend, error)
            if lacking is None:
                raise
            raise lacking from error
        finally:
            with self._lock:
                self._calls.discard(call)

    def join(self) -> None:
        """Do nothing: it never splits."""

    def terminate(self, owner: object = None) -> None:
        """Stop the runs of ``owner`` that wait; one under way is thrown away when it ends."""
        with self._lock:
            for call in self._calls:
                call.stopped = call.stopped or call.owner is owner

    def close(self) -> None:
        """Free the engine once the run under way has ended; a later ``run`` raises RuntimeError."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            self._driver.enter()
            while self._sizes:
                self._free(self._sizes.popitem()[1])
            self._context = self._engine = None  # before the stream and the device they live on
            self._driver.destroy_stream(self._stream)
            self._driver.close()

    def _run(self, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        if inputs.keys() != self._input_names:
            raise InternalError(f"the inputs are {sorted(inputs)}, expected {sorted(self._input_names)}")
        self._driver.enter()
        prepared = self._at(tuple(sorted((name, values.shape) for name, values in inputs.items())))
        for name, buffer in prepared.inputs.items():
            np.copyto(buffer.host, inputs[name], casting="no")
            self._driver.upload(buffer.address, buffer.host, self._stream)
        self._compute(prepared)
        for buffer in prepared.outputs.values():
            self._driver.download(buffer.host, buffer.address, self._stream)
        self._driver.wait(self._stream)
        return {name: prepared.outputs[name].host.copy() for name in self._output_names}

    def _compute(self, prepared: _Prepared) -> None:
        if prepared.graph:
            self._driver.launch(prepared.graph, self._stream)
            return
        self._execute()
        if self._captures:  # the first run of a size may allocate, which a capture must not
            self._driver.wait(self._stream)
            self._driver.begin_capture(self._stream)
            try:
                self._execute()
            except BaseException:  # half a graph, which must not be launched
                self._driver.destroy_graph(self._driver.end_capture(self._stream))
                raise
            prepared.graph = self._driver.end_capture(self._stream)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise InternalError(f"{self.backend}: the engine did not run; TensorRT's own lines are in the log")

    def _at(self, shapes: Shapes) -> _Prepared:
        """Buffers for these shapes, with the context set to them."""
        found = self._sizes.get(shapes)
        current, self._shapes = self._shapes, ()  # none, if this fails half way
        if found is None:
            while len(self._sizes) >= SIZES_KEPT:
                self._free(self._sizes.popitem(last=False)[1])
            found = self._prepare(dict(shapes))
            self._sizes[shapes] = found
        elif current != shapes:
            self._set(found, dict(shapes))
        self._sizes.move_to_end(shapes)
        self._shapes = shapes
        return found

    def _prepare(self, shapes: dict[str, Shape]) -> _Prepared:
        profile = next((i for i, held in enumerate(self._profiles) if held.holds(shapes)), -1)
        if profile < 0:
            raise InternalError(f"{self.backend}: no profile of the engine holds {shapes}"[:400])
        prepared = _Prepared(profile, {}, {})
        try:
            for name, shape in shapes.items():
                prepared.inputs[name] = self._buffer(shape)
            self._set(prepared, shapes)
            for name in self._output_names:
                prepared.outputs[name] = self._buffer(tuple(self._context.get_tensor_shape(name)))
            self._set_addresses(prepared.outputs)
        except BaseException:
            self._free(prepared)
            raise
        return prepared

    def _set(self, prepared: _Prepared, shapes: dict[str, Shape]) -> None:
        """Set profile, shapes and addresses of the context."""
        if prepared.profile != self._profile:
            if not self._context.set_optimization_profile_async(prepared.profile, self._stream):
                raise InternalError(f"{self.backend}: profile {prepared.profile} was refused")
            self._profile = prepared.profile
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise InternalError(f"{self.backend}: {name} of {shape} was refused")
        self._set_addresses(prepared.inputs)
        self._set_addresses(prepared.outputs)

    def _set_addresses(self, buffers: Mapping[str, _Buffer]) -> None:
        for name, buffer in buffers.items():
            if not self._context.set_tensor_address(name, buffer.address):
                raise InternalError(f"{self.backend}: the address of {name} was refused")

    def _buffer(self, shape: Shape) -> _Buffer:
        host, host_address = self._driver.pinned(shape)
        try:
            return _Buffer(self._driver.allocate(host.nbytes), host, host_address)
        except BaseException:
            self._driver.unpin(host_address)
            raise

    def _free(self, prepared: _Prepared) -> None:
        if prepared.graph:
            self._driver.destroy_graph(prepared.graph)
        for buffer in (*prepared.inputs.values(), *prepared.outputs.values()):
            self._driver.free(buffer.address)
            self._driver.unpin(buffer.host_address)


def open_tensorrt_session(package: VerifiedPackage, device: str, cache: Cache | None = None) -> TensorRtSession:
    """Load a package's engine for a GPU, built first if the cache has none; see ``runtime.open_session``.

    Args:
        device: ``tensorrt``, ``tensorrt:N``, and behind it ``:fp16``, ``:bf16`` or ``:int8``.
    """
    match = _NAME.fullmatch(device)
    if match is None:
        raise ConfigInvalid(
            f"device {device!r:.80} is not allowed; use tensorrt or tensorrt:N, and :fp16, :bf16 or :int8 behind it",
            field="device",
        )
    index, precision = int(match.group(1) or 0), match.group(2) or "fp32"
    graph = package.read_graph(precision)
    devices, problem = cuda_devices()
    if index >= len(devices):
        there = ", ".join(f"{d.index} {d.name}" for d in devices) or problem
        raise RuntimeMissing(f"there is no device {index} for TensorRT: {there}", hint="List them: assetgen doctor")
    trt = import_tensorrt()
    cache = cache or Cache()
    plan, built = engine_for(cache, graph, trt, devices[index], precision, package.manifest)
    driver = CudaDriver(index)
    engine = _deserialise(trt, plan)
    if engine is None:
        driver.close()
        raise RuntimeMissing(
            f"{trt.flavour} {trt.version} does not load its own engine on {devices[index].name}",
            hint=f"Remove {cache.folder}, or use the device cuda.",
        )
    backend = f"{trt.flavour}-{trt.version}/cuda/{precision}/{_slug(devices[index])}-driver{devices[index].driver}"
    reason = "asked for; the engine was built now" if built else "asked for; the engine was in the cache"
    name = f"cuda:{index} {devices[index].name}"
    profiles = profiles_of(package.manifest)
    return TensorRtSession(trt, engine, _context(trt, engine), profiles, driver, backend, name, reason)


def _deserialise(trt: TensorRt, plan: bytes) -> Any:
    module: Any = trt.module
    return module.Runtime(module.Logger(module.Logger.ERROR)).deserialize_cuda_engine(plan)


def _context(trt: TensorRt, engine: Any) -> Any:
    module: Any = trt.module
    if trt.flavour != "tensorrt-rtx":
        context = engine.create_execution_context()
    else:
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        strategy = module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        context = engine.create_execution_context(config)
    if context is None:
        raise RuntimeMissing(f"{trt.flavour} makes no context; is the GPU's memory full?", hint="Use the device cuda.")
    return context


def _slug(device: CudaDevice) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", f"{device.name}-sm{device.capability}".lower()).strip("-")
