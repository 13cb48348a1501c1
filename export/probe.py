"""How large every tensor of a graph gets over many real requests, by ONNX Runtime on the processor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from assetgen.kinds import KINDS
from assetgen.manifest import IMAGE_KINDS, Manifest, ParameterSpec
from assetgen.runtime.ort import import_onnxruntime
from assetgen.trial import trial_inputs
from assetgen.types import FloatArray, ParameterValue, Request

# Smaller pictures show as many values of the same network.
PROBE_PX = 128


def real_inputs(
    manifest: Manifest, count: int, first_seed: int = 0, edge_px: int = PROBE_PX
) -> list[dict[str, FloatArray]]:
    """Inputs of ``count`` requests: every class in turn; a third each has every number at its default and ends."""
    kind = KINDS[manifest.kind]
    size = manifest.size
    edge_px = min(max(edge_px, size.min_px), size.max_px)
    if manifest.kind in IMAGE_KINDS:
        return [trial_inputs(manifest, edge_px, first_seed + i) for i in range(count)]
    found = []
    for i in range(count):
        parameters = {spec.name: value for spec in manifest.parameters if (value := _value(spec, i)) is not None}
        request = Request(manifest.id, seed=first_seed + i, width_px=edge_px, height_px=edge_px, parameters=parameters)
        found.append(kind.prepare(manifest, kind.resolve(manifest, request), 0))
    return found


def _value(spec: ParameterSpec, i: int) -> ParameterValue | None:
    if spec.name == "class":
        return spec.values[i % len(spec.values)]
    if spec.type == "float" and i % 3:
        return spec.minimum if i % 3 == 1 else spec.maximum
    return None


def open_bytes(model: onnx.ModelProto, threads: int = 1, *, optimise: bool = True) -> Any:
    """An ONNX Runtime session on the processor."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session: Any, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def magnitudes(
    model: onnx.ModelProto, tensors: Sequence[str], inputs: Iterable[Mapping[str, FloatArray]]
) -> dict[str, FloatArray]:
    """Largest magnitude of each of ``tensors`` in every one of ``inputs``, ``[n]``; not finite where a value is not."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    told = {value.name for value in model.graph.output}
    given = {value.name for value in model.graph.input}
    made = [name for name in tensors if name not in told | given]
    probed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made)
    session = open_bytes(probed)
    asked = [name for name in tensors if name not in given]
    rows = []
    for feeds in inputs:
        values = dict(zip(asked, session.run(asked, dict(feeds)), strict=True)) | dict(feeds)
        rows.append([np.abs(values[name]).max() for name in tensors])
    return dict(zip(tensors, np.array(rows, np.float32).reshape(-1, len(tensors)).T, strict=True))
