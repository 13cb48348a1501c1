"""Which convolutions of a graph can be computed in int8: tried one by one on real latents, taken while quality lasts.

A convolution's damage is the squared error it alone brings into each output. Errors of several add up nearly, so the
cheapest set is that with the most multiplications for the least damage; the whole is measured afterwards, and the last
ones taken are given back until it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from assetgen.manifest import InputSpec
from assetgen.policy import input_shape
from assetgen.types import FloatArray
from export.precision import CONVOLUTIONS, quantized_model
from export.probe import magnitudes, open_bytes, run

# What adding up is trusted with: the sum of damages may be this share of what is allowed.
TRUST = 0.7
GIVEN_BACK = 0.9
_PICTURE_DIMS = 4

Feeds = Mapping[str, FloatArray]
Outputs = dict[str, FloatArray]
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A convolution: its output, multiplications for one picture, and squared error by output of the graph."""

    name: str
    multiplications: int
    damage: Mapping[str, float]


def quantize(
    model: onnx.ModelProto,
    inputs: tuple[InputSpec, ...],
    calibration: Sequence[Feeds],
    least_psnr_db: Mapping[str, float],
    holds: Callable[[Sequence[Outputs], Sequence[Outputs]], bool],
    notify: Notify,
) -> tuple[onnx.ModelProto, list[str]] | None:
    """The model with as many convolutions in int8 as quality allows.

    Args:
        calibration: inputs that ranges and damage are measured on.
        least_psnr_db: by output, for the choice.
        holds: judges what the whole makes of ``calibration``, beside what the fp32 graph does.

    Returns:
        The model and the convolutions in int8, by output; ``None`` if not one can be.
    """
    nodes = candidates(model)
    tensors = sorted({name for node in nodes for name in (node.input[0], node.output[0])})
    largest = {name: float(values.max()) for name, values in magnitudes(model, tensors, calibration).items()}
    reference = _outputs(model, calibration)
    costs = multiplications(model, inputs, nodes)
    tried = []
    for node in nodes:
        name = node.output[0]
        found = _errors(reference, _outputs(quantized_model(model, {name}, largest), calibration))
        tried.append(Candidate(name, costs[name], found))
    allowed = {name: 10 ** (-least_db / 10) for name, least_db in least_psnr_db.items()}
    chosen = choose(tried, {name: TRUST * error for name, error in allowed.items()})
    notify(f"int8: {len(chosen)} of {len(tried)} convolutions may be")
    while chosen:
        made = quantized_model(model, set(chosen), largest)
        if holds(reference, _outputs(made, calibration)):
            return made, chosen
        chosen = chosen[: int(len(chosen) * GIVEN_BACK)]
    return None


def candidates(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Convolutions of pictures with constant weights, of one group."""
    weights = {weight.name: len(weight.dims) for weight in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in CONVOLUTIONS - {"ConvTranspose"}
        and all(name in weights for name in node.input[1:] if name)
        and weights[node.input[1]] == _PICTURE_DIMS
        and all(attribute.i == 1 for attribute in node.attribute if attribute.name == "group")
    ]


def choose(tried: Sequence[Candidate], allowed: Mapping[str, float]) -> list[str]:
    """Names in the order in which they are taken: least damage for a multiplication first, while the sum is allowed."""

    def worst(candidate: Candidate) -> float:
        share = max(candidate.damage[name] / error for name, error in allowed.items())
        return share / candidate.multiplications

    spent = dict.fromkeys(allowed, 0.0)
    chosen = []
    for candidate in sorted(tried, key=worst):
        total = {name: spent[name] + candidate.damage[name] for name in spent}
        if all(total[name] <= allowed[name] for name in total):
            spent = total
            chosen.append(candidate.name)
    return chosen


def multiplications(
    model: onnx.ModelProto, inputs: tuple[InputSpec, ...], nodes: Sequence[onnx.NodeProto], edge_px: int = 256
) -> dict[str, int]:
    """Multiplications of each convolution for one picture, by its output; at ``edge_px`` where sizes are free."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    specs = {spec.name: spec for spec in inputs}
    for value in fixed.graph.input:
        for dim, size in zip(
            value.type.tensor_type.shape.dim, input_shape(specs[value.name], edge_px, edge_px), strict=True
        ):
            dim.Clear()
            dim.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    pixels = {
        value.name: int(np.prod([dim.dim_value for dim in value.type.tensor_type.shape.dim][2:]))
        for value in (*inferred.value_info, *inferred.output)
    }
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in model.graph.initializer}
    return {node.output[0]: sizes[node.input[1]] * max(pixels.get(node.output[0], 1), 1) for node in nodes}


def _outputs(model: onnx.ModelProto, calibration: Sequence[Feeds]) -> list[Outputs]:
    session = open_bytes(model)
    return [run(session, feeds) for feeds in calibration]


def _errors(reference: Sequence[Outputs], given: Sequence[Outputs]) -> dict[str, float]:
    """Mean squared error of the picture that came out worst, by output."""
    return {
        name: max(
            float(np.mean((one[name].astype(np.float64) - other[name]) ** 2))
            for one, other in zip(reference, given, strict=True)
        )
        for name in reference[0]
    }
