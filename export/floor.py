"""``python -m export.floor``: a material's time on a device beside what its memory and arithmetic would allow; torch.

Both limits are measured where it runs, by a product of matrices and by a copy, so that no table of chips is needed. Two
floors are told: of the multiplications, and of the bytes that move if every convolution reads its input and writes its
output once, all else being computed on the way.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from assetgen.errors import AssetgenError, ConfigInvalid, OutputUnwritable
from assetgen.manifest import InputSpec
from assetgen.measure import batch_of
from assetgen.optimize import one_package
from assetgen.package import VerifiedPackage
from assetgen.policy import input_shape
from assetgen.runtime import open_session
from assetgen.runtime.bound import BoundSession
from assetgen.types import FloatArray
from export.graph import MaterialGraph
from export.networks import graph_of_package
from export.precision import CONVOLUTIONS
from export.precisions import add_precisions

EDGE_PX, BATCHES = 512, (1, 8)
GOAL_MS = 5.0  # at batch 1
ROUNDS, WARM_UP = 30, 5
_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Edge of the matrices and size of the copy that find the limits; smaller on a processor.
_EDGE, _EDGE_ON_CPU = 8192, 1024
_COPY_BYTES, _COPY_BYTES_ON_CPU = 1 << 30, 1 << 26

Feeds = Mapping[str, FloatArray]


@dataclass(frozen=True)
class Work:
    """What one batch costs at least.

    Attributes:
        multiplications: of convolutions and products of matrices.
        values_moved: read and written by those if all else is computed on the way, weights included.
    """

    multiplications: int
    values_moved: int


@dataclass(frozen=True)
class Limits:
    """What the device reaches: floating-point operations and bytes a second."""

    operations_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Row:
    """One way to compute a batch: the whole call with its copies, and the device alone where that can be told."""

    name: str
    batch: int
    call_ms: float
    device_ms: float | None


def main(argv: Sequence[str]) -> int:
    """Measure and print; returns 1 if the goal is missed on a GPU, else 0."""
    parser = argparse.ArgumentParser(prog="python -m export.floor", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("package", type=Path, help="folder of a package of materials")
    parser.add_argument("--runs", type=Path, nargs=2, required=True, metavar=("TEXTURE", "DETAIL"), help="its networks")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu is a rehearsal (cuda)")
    parser.add_argument("--precision", default="", choices=("", *_TYPES), help="fp16; on cpu fp32")
    parser.add_argument("--edge", type=int, default=EDGE_PX, metavar="PX", help=f"({EDGE_PX})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"({ROUNDS})")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigInvalid("PyTorch sees no CUDA device", hint="--device cpu rehearses the same on the processor")
    precision = options.precision or ("fp16" if options.device == "cuda" else "fp32")
    package = one_package(options.package)
    _check_size(package, options.edge)
    graph = graph_of_package(package.manifest, *options.runs)
    with tempfile.TemporaryDirectory(prefix="assetgen-") as scratch:
        rounded = _with_graph(package, precision if options.device == "cuda" else "fp32", Path(scratch) / "package")
        report = _measured(rounded, graph, options.device, precision, options.edge, options.rounds)
    best_ms = report["goal"]["best_ms"]
    met = "met" if report["goal"]["met"] else "missed"
    _say(
        f"{options.edge} px at batch 1: {best_ms:.3f} ms; the goal of {GOAL_MS:g} ms at {EDGE_PX} px on a GPU is {met}"
    )
    _write(options.output, report)
    return int(options.device == "cuda" and options.edge == EDGE_PX and best_ms > GOAL_MS)


def _measured(
    package: VerifiedPackage, graph: MaterialGraph, device: str, precision: str, edge_px: int, rounds: int
) -> dict[str, Any]:
    """All figures, said as they come."""
    limits = measured_limits(device, _TYPES[precision])
    model = onnx.load_from_string(package.read(package.manifest.graph))
    report: dict[str, Any] = {
        "machine": _machine(device),
        "model": {"id": package.manifest.id, "digest": package.digest},
        "edge_px": edge_px,
        "precision": precision,
        "limits": asdict(limits),
        "batches": {},
    }
    reached = f"{limits.operations_per_s / 1e12:.2f} TFLOP/s, {limits.bytes_per_s / 1e9:.0f} GB/s"
    _say(f"{report['machine']}; {precision}, {edge_px} px; measured limits: {reached}")
    best_ms = float("inf")
    for batch in BATCHES:
        work = work_of(model, package.manifest.inputs, edge_px, batch)
        floors = floors_ms(work, limits, _TYPES[precision].itemsize)
        feeds = batch_of(package.manifest, edge_px, batch)
        moved_mb = work.values_moved * _TYPES[precision].itemsize / 1e6
        arithmetic = f"{2e-9 * work.multiplications:.1f} GFLOP in {floors['arithmetic']:.3f} ms at least"
        _say(f"batch {batch}: {arithmetic}, {moved_mb:.0f} MB in {floors['memory']:.3f} ms")
        rows = []
        for row in _rows(package, graph, device, precision, feeds, batch, rounds):
            rows.append(asdict(row))
            spent_ms = row.call_ms if row.device_ms is None else row.device_ms
            alone = "not told" if row.device_ms is None else f"{row.device_ms:.3f} ms"
            times = spent_ms / max(floors.values())
            _say(f"  {row.name:28} call {row.call_ms:9.3f} ms, device {alone:>12}, {times:6.1f} times the floor")
            best_ms = min(best_ms, spent_ms) if batch == 1 else best_ms
        report["batches"][batch] = {"work": asdict(work), "floor_ms": floors, "rows": rows}
    report["goal"] = {"ms": GOAL_MS, "best_ms": best_ms, "met": best_ms <= GOAL_MS}
    return report


def _with_graph(package: VerifiedPackage, precision: str, folder: Path) -> VerifiedPackage:
    """The package, or a copy in ``folder`` with a graph in ``precision`` where it has none."""
    if precision in package.manifest.graphs:
        return package
    add_precisions(package.folder, folder, [precision], _say)
    return one_package(folder)


def work_of(model: onnx.ModelProto, inputs: Sequence[InputSpec], edge_px: int, batch: int) -> Work:
    """Multiplications and values of a batch of pictures of ``edge_px``, by the shapes that follow from it."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    specs = {spec.name: spec for spec in inputs}
    for value in fixed.graph.input:
        sizes = input_shape(specs[value.name], edge_px, edge_px, batch)
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
            dim.Clear()
            dim.dim_value = size
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output, *inferred.input)
    }
    shapes |= {weight.name: list(weight.dims) for weight in model.graph.initializer}
    multiplications = values = 0
    for node in model.graph.node:
        if node.op_type not in (*CONVOLUTIONS, "Gemm", "MatMul"):
            continue
        first, second, made = (shapes[name] for name in (*node.input[:2], node.output[0]))
        each = int(np.prod(second[1:])) if node.op_type == "Conv" else first[-1]
        if node.op_type == "ConvTranspose":
            multiplications += int(np.prod(first)) * int(np.prod(second[1:]))
        else:
            multiplications += int(np.prod(made)) * each
        values += sum(int(np.prod(shape)) for shape in (first, second, made))
    return Work(multiplications, values)


def floors_ms(work: Work, limits: Limits, value_bytes: int) -> dict[str, float]:
    """Milliseconds that the arithmetic and the memory of a device would need at least."""
    return {
        "arithmetic": 2 * work.multiplications / limits.operations_per_s * 1e3,
        "memory": work.values_moved * value_bytes / limits.bytes_per_s * 1e3,
    }


def measured_limits(device: str, kind: torch.dtype) -> Limits:
    """What a product of large matrices and a large copy reach, the best of several."""
    on_gpu = device == "cuda"
    edge, size = (_EDGE, _COPY_BYTES) if on_gpu else (_EDGE_ON_CPU, _COPY_BYTES_ON_CPU)
    one, other = (torch.randn(edge, edge, device=device).to(kind) for _ in range(2))
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product_s = min(device_seconds(lambda: one @ other, device, 3) for _ in range(5))
    copy_s = min(device_seconds(lambda: target.copy_(source), device, 3) for _ in range(5))
    return Limits(2 * edge**3 / product_s, 2 * size / copy_s)


def device_seconds(work: Callable[[], object], device: str, rounds: int) -> float:
    """Seconds a call of ``work`` keeps the device busy, of ``rounds`` calls on end."""
    work()
    if device != "cuda":
        begun_s = time.perf_counter()
        for _ in range(rounds):
            work()
        return (time.perf_counter() - begun_s) / rounds
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(rounds):
        work()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / rounds / 1e3


def _rows(
    package: VerifiedPackage,
    graph: MaterialGraph,
    device: str,
    precision: str,
    feeds: Feeds,
    batch: int,
    rounds: int,
) -> Iterator[Row]:
    """Every way that is to be had here; one that is not says why and is left out."""
    for name in (device, f"{device}:{precision}", "tensorrt", f"tensorrt:{precision}"):
        if name.endswith(":fp32") or (device == "cpu" and name.startswith("tensorrt")):
            continue
        try:
            session = open_session(package, name)
        except AssetgenError as error:
            _say(f"  {name}: not here: {error.message}; {error.hint}")
            continue
        call_ms = _median_ms(lambda session=session: session.run(feeds), rounds)  # type: ignore[misc]
        device_ms = session.repeat(feeds, rounds) * 1e3 if isinstance(session, BoundSession) else None
        session.close()
        yield Row(f"onnxruntime {name}" if not name.startswith("tensorrt") else name, batch, call_ms, device_ms)
    for compiled in (False, True):
        name = f"pytorch {'compiled' if compiled else 'eager'} {precision}"
        try:
            yield _torch_row(name, graph, device, precision, feeds, batch, rounds, compiled=compiled)
        except RuntimeError as error:  # torch's own errors of compiling, too
            _say(f"  {name}: not here: {str(error).splitlines()[0][:200]}")


def _torch_row(
    name: str,
    graph: MaterialGraph,
    device: str,
    precision: str,
    feeds: Feeds,
    batch: int,
    rounds: int,
    *,
    compiled: bool,
) -> Row:
    """The network in PyTorch: rounded by autocast, pictures with channels last, as tensor cores want them."""
    module = graph.baked().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # CUDA graphs are what "reduce-overhead" adds.
    call = torch.compile(module, dynamic=False, mode="reduce-overhead" if device == "cuda" else None)
    work: Callable[..., Any] = call if compiled else module
    names = [spec.name for spec in graph.inputs]

    def rounding() -> AbstractContextManager[object]:
        return torch.autocast(device, _TYPES[precision], enabled=precision != "fp32")

    def there() -> list[torch.Tensor]:
        return [torch.from_numpy(feeds[each]).to(device) for each in names]

    with torch.inference_mode(), rounding():
        inputs = there()
        for _ in range(WARM_UP):  # compiles, chooses kernels, captures
            work(*inputs)
        device_ms = 1e3 * device_seconds(lambda: work(*inputs), device, rounds)
        call_ms = _median_ms(lambda: [made.float().cpu() for made in work(*there())], rounds)
    return Row(name, batch, call_ms, device_ms)


def _median_ms(work: Callable[[], object], rounds: int) -> float:
    for _ in range(min(WARM_UP, rounds)):
        work()
    spent = []
    for _ in range(rounds):
        begun_s = time.perf_counter()
        work()
        spent.append((time.perf_counter() - begun_s) * 1e3)
    return float(np.median(spent))


def _check_size(package: VerifiedPackage, edge_px: int) -> None:
    size = package.manifest.size
    if package.manifest.kind != "texture" or edge_px % size.stride_px or not size.min_px <= edge_px <= size.max_px:
        raise ConfigInvalid(
            f"{package.manifest.id} makes no material of {edge_px} px",
            hint=f"use a package of materials, and a multiple of {size.stride_px} from {size.min_px} to {size.max_px}",
        )


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name(0) if device == "cuda" else platform.processor() or platform.machine()
    return f"{name}, torch {torch.__version__}, {platform.platform()}"


def _write(output: Path | None, report: Mapping[str, Any]) -> None:
    if output is None:
        return
    try:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputUnwritable(f"{output} cannot be written: {error.strerror}", hint="choose another -o") from error


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AssetgenError as error:
        sys.exit(f"error: {error.message}\n{error.hint}")
