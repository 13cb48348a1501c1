"""A session of ONNX Runtime on a GPU: inputs and outputs stay in device memory, each set of shapes is one CUDA graph.

Imports errors, types and postprocess of ours, and numpy. ONNX Runtime keeps a graph that it captured with the thread
that ran it, so one thread of the session's own does all runs.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assetgen.errors import Cancelled, InternalError
from assetgen.postprocess import finishing
from assetgen.runtime.finish import Finisher, owned
from assetgen.runtime.shortage import shortage
from assetgen.types import FloatArray

SIZES_KEPT = 4
# A captured graph is freed with the session only; sizes beyond these run without one.
MOST_GRAPHS = 64
# Inputs of so few values are compared with those that lie on the device: a copy takes some 25 us, however small it is.
FEW = 256
_GRAPH_KEY, _NO_GRAPH = "gpu_graph_id", "-1"

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass
class _Bound:
    """Buffers for inputs of one set of shapes, bound for good, what lies in the small ones, and how to run on them."""

    binding: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    options: Any
    lying: dict[str, bytes] = field(default_factory=dict)

    def fill(self, inputs: Mapping[str, FloatArray]) -> None:
        """Copy to the device what does not lie there."""
        for name, value in self.inputs.items():
            values = np.ascontiguousarray(inputs[name])
            few = values.tobytes() if values.size <= FEW else b""
            if few and self.lying.get(name) == few:
                continue
            self.lying.pop(name, None)
            value.update_inplace(values)
            self.lying[name] = few


@dataclass(eq=False)
class _Call:
    """One call of ``run``: whose it is, and whether it was stopped."""

    owner: object
    stopped: bool = False


class BoundSession:
    """A graph loaded by ONNX Runtime; ``run`` may be called from several threads, one computes at a time.

    Args:
        session: an ``onnxruntime.InferenceSession`` with all its nodes on the device.
        memory: kind and number of the device that buffers lie on, such as ``("cuda", 0)``.
        captures: whether the session was opened with CUDA graphs.
        finisher: turns the maps into pixels where they lie, if the inputs hold ``finishing.NAME``.
    """

    splits = False

    def __init__(
        self,
        session: Any,
        ort: ModuleType,
        memory: tuple[str, int],
        backend: str,
        device: str,
        reason: str,
        *,
        captures: bool,
        finisher: Finisher | None = None,
    ) -> None:
        self._session, self._ort, self._memory, self._captures = session, ort, memory, captures
        self._finisher = finisher
        self._sizes: OrderedDict[Shapes, _Bound] = OrderedDict()
        self._graphs = 0
        self._calls: set[_Call] = set()
        self._lock = threading.Lock()
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="assetgen-onnxruntime")
        self._closed = False
        self._input_names = {port.name for port in session.get_inputs()}
        self._output_names = [port.name for port in session.get_outputs()]
        self.backend, self.device, self.reason = backend, device, reason

    @property
    def finishes(self) -> bool:
        """See ``runtime.Finishes``."""
        return self._finisher is not None

    def run(
        self, inputs: Mapping[str, FloatArray], *, half: bool = False, owner: object = None
    ) -> dict[str, NDArray[Any]]:
        """Run the graph once, after the runs that other threads began.

        A run that has begun on the GPU ends there; ``terminate`` then only throws its outputs away.

        Raises:
            Cancelled: ``terminate`` was called.
            MemoryError: there is not enough of it, mostly on the GPU; a smaller run may fit.
            InternalError: the graph failed.
        """
        if half:
            raise RuntimeError("run() by halves of a session that does not split")
        call = _Call(owner)
        with self._lock:
            if self._closed:
                raise RuntimeError("run() of a session that was closed")
            self._calls.add(call)
            future = self._runner.submit(self._run, inputs, call)
        try:
            outputs = future.result()
        except ort_errors(self._ort) as error:
            failed = InternalError(f"{self.backend}: the graph failed: {first_line(error)}")
            raise shortage(self.backend, error) or failed from error
        finally:
            with self._lock:
                self._calls.discard(call)
        if call.stopped:
            raise Cancelled("the run was stopped on request")
        return outputs

    def repeat(self, inputs: Mapping[str, FloatArray], count: int) -> float:
        """Run ``count`` times over what lies on the device; returns seconds a run, in which nothing is copied."""
        self.run(inputs)
        return self._runner.submit(self._repeat, inputs, count).result()

    def join(self) -> None:
        """Do nothing: it never splits."""

    def terminate(self, owner: object = None) -> None:
        """Stop the runs of ``owner`` that wait; one under way is thrown away when it ends."""
        with self._lock:
            for call in self._calls:
                call.stopped = call.stopped or call.owner is owner

    def close(self) -> None:
        """Free the graph once the runs that were begun have ended; a later ``run`` raises RuntimeError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._runner.submit(self._free).result()
        self._runner.shutdown()

    def _free(self) -> None:
        self._sizes.clear()  # before the session that they are bound to
        self._session = self._finisher = None

    def _run(self, inputs: Mapping[str, FloatArray], call: _Call) -> dict[str, NDArray[Any]]:
        if call.stopped:
            return {}
        inputs = dict(inputs)
        terms = inputs.pop(finishing.NAME, None) if self._finisher is not None else None
        self._check(inputs)
        bound = self._at(inputs)
        try:
            bound.fill(inputs)
            self._session.run_with_iobinding(bound.binding, bound.options)
        except BaseException:
            self._sizes.popitem()  # of a run that failed while it was captured, half a graph would be replayed
            raise
        if self._finisher is not None and terms is not None:
            return self._finisher.run(bound.outputs, finishing.terms_from(terms))
        return {name: owned(value.numpy()) for name, value in bound.outputs.items()}

    def _repeat(self, inputs: Mapping[str, FloatArray], count: int) -> float:
        bound = self._at(inputs)
        begun_s = time.perf_counter()
        for _ in range(count):
            self._session.run_with_iobinding(bound.binding, bound.options)
        return (time.perf_counter() - begun_s) / count

    def _check(self, inputs: Mapping[str, FloatArray]) -> None:
        """Buffers take any bytes of the right number."""
        if inputs.keys() != self._input_names:
            raise ValueError(f"the inputs are {sorted(inputs)}, expected {sorted(self._input_names)}")
        for name, values in inputs.items():
            if values.dtype != np.float32:
                raise ValueError(f"input {name!r} is {values.dtype}, expected float32")

    def _at(self, inputs: Mapping[str, FloatArray]) -> _Bound:
        shapes = tuple(sorted((name, values.shape) for name, values in inputs.items()))
        if shapes not in self._sizes:
            while len(self._sizes) >= SIZES_KEPT:
                self._sizes.popitem(last=False)
            self._sizes[shapes] = self._bind(inputs)
        self._sizes.move_to_end(shapes)
        return self._sizes[shapes]

    def _bind(self, inputs: Mapping[str, FloatArray]) -> _Bound:
        """Buffers at addresses that stay, which a captured graph needs; a first run tells the shapes of the outputs."""
        binding = self._session.io_binding()
        values = {
            name: self._ort.OrtValue.ortvalue_from_numpy(array.copy(), *self._memory) for name, array in inputs.items()
        }
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._output_names:
            binding.bind_output(name, *self._memory)
        self._session.run_with_iobinding(binding, self._options(_NO_GRAPH))
        made = [value.shape() for value in binding.get_outputs()]
        binding.clear_binding_outputs()
        outputs = {
            name: self._ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, *self._memory)
            for name, shape in zip(self._output_names, made, strict=True)
        }
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        graph = _NO_GRAPH
        if self._captures and self._graphs < MOST_GRAPHS:
            self._graphs += 1
            graph = str(self._graphs)
        return _Bound(binding, values, outputs, self._options(graph))

    def _options(self, graph: str) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry(_GRAPH_KEY, graph)
        return options


def ort_errors(ort: ModuleType) -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions; they have no base class of their own."""
    state = ort.capi.onnxruntime_pybind11_state
    found = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*found, RuntimeError, ValueError, MemoryError)


def first_line(error: BaseException) -> str:
    """What an error says first, for people."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
