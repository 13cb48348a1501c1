"""A package as a model repository of Triton Inference Server: one model a graph, for its ONNX Runtime backend.

Written are only fields of Triton's published ``model_config.proto``. An engine for its TensorRT backend is built on the
GPU's machine and cannot be shipped; the configuration for it lies beside, to be used once ``trtexec`` has made one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from assetgen.errors import OutputUnwritable
from assetgen.manifest import SPATIAL_ROLES, InputSpec, Manifest
from assetgen.optimize import one_package

MAX_BATCH = 8
PREFERRED_BATCHES = (4, 8)
# How long Triton lets a request wait for others to fill its batch.
QUEUE_DELAY_US = 500
_WARM_PX = 256


def write_repository(package: Path, folder: Path) -> list[str]:
    """Write ``folder``, with one model for each graph of the package; returns their names.

    Raises:
        PackageInvalid, PolicyViolated: the package is not sound, or its graph is none that we would run ourselves.
        OutputUnwritable: the folder exists, is no empty one, or cannot be written.
    """
    verified = one_package(package)
    manifest = verified.manifest
    partial = folder.with_name(folder.name + ".partial")
    names = []
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputUnwritable(f"{folder} is not empty", hint="give a folder that is new")
        shutil.rmtree(partial, ignore_errors=True)
        for precision, graph in manifest.graphs.items():
            name = f"{manifest.id}-{precision}"
            (partial / name / "1").mkdir(parents=True)
            (partial / name / "1" / "model.onnx").write_bytes(verified.read(graph))
            (partial / name / "config.pbtxt").write_text(config(manifest, name, "onnxruntime"), encoding="utf-8")
            (partial / name / "tensorrt.pbtxt").write_text(config(manifest, name, "tensorrt"), encoding="utf-8")
            names.append(name)
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    except OSError as error:
        raise OutputUnwritable(
            f"{folder} cannot be written: {error.strerror}", hint="check space and rights"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return names


def config(manifest: Manifest, name: str, backend: str) -> str:
    """The text of ``config.pbtxt`` for ``onnxruntime`` or ``tensorrt``."""
    platform = {"onnxruntime": 'backend: "onnxruntime"', "tensorrt": 'platform: "tensorrt_plan"'}[backend]
    file = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}[backend]
    inputs = [_tensor(spec.name, _dims(spec, 0)) for spec in manifest.inputs]
    edge = manifest.size.max_px if manifest.size.min_px == manifest.size.max_px else -1
    outputs = [_tensor(output.name, (output.channels, edge, edge)) for output in manifest.outputs]
    preferred = ", ".join(map(str, PREFERRED_BATCHES))
    return f"""name: "{name}"
{platform}
default_model_filename: "{file}"
max_batch_size: {MAX_BATCH}
input [
{_joined(inputs)}
]
output [
{_joined(outputs)}
]
dynamic_batching {{
  preferred_batch_size: [ {preferred} ]
  max_queue_delay_microseconds: {QUEUE_DELAY_US}
}}
instance_group [ {{ count: 1 kind: KIND_AUTO }} ]
model_warmup [
{_joined([_warm_up(manifest, batch) for batch in (1, MAX_BATCH)])}
]
parameters [
  {{ key: "assetgen_model" value: {{ string_value: "{manifest.id} {manifest.version}" }} }}
]
"""


def _dims(spec: InputSpec, edge_px: int) -> tuple[int, ...]:
    """Dimensions behind the batch; free ones are -1, or those of a picture of ``edge_px``."""
    if spec.role not in SPATIAL_ROLES:
        return (int(spec.shape[1]),)
    cells = edge_px // spec.stride_px if edge_px else -1
    return int(spec.shape[1]), cells, cells


def _tensor(name: str, dims: Sequence[int]) -> str:
    return f'  {{ name: "{name}" data_type: TYPE_FP32 dims: [ {", ".join(map(str, dims))} ] }}'


def _warm_up(manifest: Manifest, batch: int) -> str:
    size = manifest.size
    edge_px = min(max(_WARM_PX, size.min_px), size.max_px)
    edge_px -= edge_px % size.stride_px
    lines = []
    for spec in manifest.inputs:
        dims = ", ".join(map(str, _dims(spec, edge_px)))
        kind = "zero_data" if spec.role == "class_weights" else "random_data"
        value = f"data_type: TYPE_FP32 dims: [ {dims} ] {kind}: true"
        lines.append(f'    inputs {{ key: "{spec.name}" value: {{ {value} }} }}')
    return f'  {{\n    name: "batch {batch}"\n    batch_size: {batch}\n' + "\n".join(lines) + "\n  }"


def _joined(entries: Sequence[str]) -> str:
    return ",\n".join(entries)
