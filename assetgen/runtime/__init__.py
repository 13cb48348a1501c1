"""Running a model's graph: what a session is, and how to open one; imports package and errors of ours, numpy.

``open_session`` imports the runtime it needs when it is called, so that a client needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from assetgen.errors import InternalError
from assetgen.package import VerifiedPackage
from assetgen.types import FloatArray

SELF_CHECK_RUNS = 3


class Session(Protocol):
    """A graph ready to run."""

    @property
    def backend(self) -> str:
        """What computes; equal strings promise equal bytes."""
        ...

    @property
    def device(self) -> str:
        """Where it computes, for people, such as ``cpu`` or ``cuda:0 NVIDIA L4``."""
        ...

    @property
    def reason(self) -> str:
        """Why that device was chosen, one sentence."""
        ...

    @property
    def splits(self) -> bool:
        """Whether two runs at once, each on half of the device, give the same bytes as a run on all of it."""
        ...

    def run(
        self, inputs: Mapping[str, FloatArray], *, half: bool = False, owner: object = None
    ) -> dict[str, FloatArray]:
        """Run the graph once.

        Args:
            half: leave half of the device to another run; only if the session ``splits``.
            owner: whose run it is, for ``terminate``.

        Raises:
            Cancelled: ``terminate`` was called meanwhile.
        """
        ...

    def join(self) -> None:
        """Split no more."""
        ...

    def terminate(self, owner: object = None) -> None:
        """Stop the runs of ``owner`` that are under way, from another thread; later runs are not affected."""
        ...

    def close(self) -> None:
        """Free the graph; a later ``run`` raises. Closing twice does nothing."""
        ...


@runtime_checkable
class Binds(Protocol):
    """A session that can run on arrays where they lie, which saves copying what comes out."""

    def bind(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> Any:
        """Tie contiguous arrays of the graph's names and shapes to it; they must stay as long as what is returned."""
        ...

    def run_bound(self, bound: Any, *, half: bool = False, owner: object = None) -> None:
        """As ``run``, from and to the arrays that are ``bound``; one run at a time."""
        ...


@runtime_checkable
class Finishes(Protocol):
    """A session that may turn the maps of a material into pixels where they lie."""

    @property
    def finishes(self) -> bool:
        """Whether it does if the inputs hold ``postprocess.finishing.NAME``; see there."""
        ...


def open_session(package: VerifiedPackage, device: str = "auto", threads: int | None = None) -> Session:
    """Load a package's graph.

    Args:
        package: the graph's bytes are checked against the manifest again while they are read.
        device: ``cpu``, ``cuda``, ``cuda:N`` by ONNX Runtime; ``openvino``, ``openvino:bf16``, the CPU by OpenVINO
            in fp32 or bf16; ``tensorrt``, ``tensorrt:N``, a GPU by TensorRT; ``ort-tensorrt``, ``ort-tensorrt-rtx``,
            the same by ONNX Runtime's providers; ``auto``: CUDA by ONNX Runtime if a session really opens there, else
            the CPU by the fastest runtime that holds the tolerance (``choice``).
            ``:fp16`` or ``:int8`` behind a name takes the package's graph in that precision.
        threads: of the CPU; ``None`` means one a physical core.

    Raises:
        RuntimeMissing: the runtime or the device is absent, doubled or broken.
        ConfigInvalid: no such device name, a number of threads below 1, or no graph in that precision.
        PackageInvalid: the graph changed since it was verified, or cannot be loaded.
    """
    from assetgen.runtime import choice, openvino, ort, ort_tensorrt, tensorrt

    if device == "auto":
        return choice.open_fastest(package, threads)
    if device.startswith("openvino"):
        return openvino.open_openvino_session(package, device, threads)
    if device.startswith("ort-tensorrt"):
        return ort_tensorrt.open_ort_tensorrt_session(package, device)
    if device.startswith("tensorrt"):
        return tensorrt.open_tensorrt_session(package, device)
    return ort.open_ort_session(package, device, threads)


def precision_of(backend: str) -> str:
    """Precision of the arithmetic of a session, from its ``backend``, such as ``fp32``."""
    return backend.split("/")[2]


def reference_device(backend: str) -> str:
    """The device whose fp32 a session in a smaller precision is held to: of the same runtime where there is one."""
    return "openvino" if backend.startswith("openvino-") else "cpu"


def self_check(session: Session, inputs: Mapping[str, FloatArray]) -> None:
    """Raise InternalError unless the same inputs give the same finite numbers three times.

    Runtimes have been seen to change a folded constant in place, so that the first call was right and later ones were
    not; a server runs this before it says that it is ready. A session that gives other bytes on half of the device
    (measured: where the number of channels is no multiple of 4) splits no more.
    """
    first = session.run(inputs)
    for name, values in first.items():
        if not np.isfinite(values).all():
            raise InternalError(f"{session.backend}: output {name!r} holds values that are not finite")
    for repeat in range(2, SELF_CHECK_RUNS + 1):
        if changed := _first_difference(first, session.run(inputs)):
            raise InternalError(
                f"{session.backend}: run {repeat} of the same inputs gave another {changed!r} than the first",
                hint="The runtime or its driver is broken; update it or choose another device.",
            )
    if session.splits and _first_difference(first, session.run(inputs, half=True)):
        session.join()


def _first_difference(expected: Mapping[str, FloatArray], given: Mapping[str, FloatArray]) -> str:
    """Name of the first output whose bytes differ, or nothing."""
    return next((name for name, values in given.items() if values.tobytes() != expected[name].tobytes()), "")
