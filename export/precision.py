"""A graph in a smaller precision: which nodes are rounded and which stay exact; onnx and numpy only.

The fp32 graph is rewritten node by node, so that models of every kind go the same way and each rounded graph is, but
for its rounding, the graph that was compared with the network. Rounded is what lies between two convolutions, or
between spatial inputs and one: there the time goes. What follows from the latent alone, statistics, and all behind the
last convolution stay fp32, and so do nodes that ``probe`` saw come near to what fp16 can hold.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from assetgen.errors import PackageInvalid
from assetgen.manifest import SPATIAL_ROLES, InputSpec
from assetgen.types import FloatArray

TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
CONVOLUTIONS = frozenset(["Conv", "ConvTranspose"])
# Sums over many values, and operators whose type is not that of their input.
_EXACT_OPERATORS = frozenset(
    [
        "BatchNormalization",
        "Cast",
        "CastLike",
        "Constant",
        "ConstantOfShape",
        "DequantizeLinear",
        "Exp",
        "GlobalAveragePool",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "Pow",
        "QuantizeLinear",
        "Range",
        "ReduceL2",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
    ]
)
# Convolutions take bf16 from here on; nothing else of what a package may hold changed its meaning since 18.
_BF16_OPSET = 22
# Inputs that stay fp32 by ONNX's definition, by operator.
_EXACT_INPUTS = {"Resize": (1, 2)}


def spatial_inputs(inputs: tuple[InputSpec, ...]) -> frozenset[str]:
    """Names of the inputs that are pictures."""
    return frozenset(spec.name for spec in inputs if spec.role in SPATIAL_ROLES)


def rounded_nodes(graph: onnx.GraphProto, spatial: Set[str]) -> list[str]:
    """Nodes that may be rounded, each by the name of its first output, in the order of the graph."""
    below: set[str] = set(spatial)
    above: set[str] = set()
    for node in graph.node:
        if node.op_type in CONVOLUTIONS or any(name in below for name in node.input):
            below.update(node.output)
    for node in reversed(graph.node):
        if node.op_type in CONVOLUTIONS or any(name in above for name in node.output):
            above.update((*node.input, *node.output))
    return [
        node.output[0]
        for node in graph.node
        if node.output[0] in below & above and node.op_type not in _EXACT_OPERATORS
    ]


def nodes_of_extreme_weights(model: onnx.ModelProto, nodes: Set[str], headroom: float) -> set[str]:
    """Those of ``nodes`` with a weight that fp16 holds badly: all of it near zero, or some near the largest number.

    Args:
        headroom: how many times fp16's smallest normal and largest number must be cleared by.
    """
    kinds = np.finfo(np.float16)
    low, high = float(kinds.smallest_normal) * headroom, float(kinds.max) / headroom
    largest = {
        weight.name: float(np.abs(numpy_helper.to_array(weight)).max(initial=0.0))
        for weight in model.graph.initializer
        if weight.data_type == TensorProto.FLOAT
    }
    extreme = {name for name, value in largest.items() if value and not low <= value <= high}
    return {node.output[0] for node in model.graph.node if node.output[0] in nodes and extreme & set(node.input)}


def cast_model(model: onnx.ModelProto, precision: str, nodes: Set[str]) -> onnx.ModelProto:
    """The model with ``nodes`` computed in ``fp16`` or ``bf16``; inputs and outputs stay float32.

    Args:
        nodes: of ``rounded_nodes``.

    Raises:
        PackageInvalid: the graph does not say of what type a tensor is.
    """
    cast = _Caster(model, TYPES[precision], f".{precision}").cast(nodes)
    if precision == "bf16":
        cast.opset_import[0].version = max(_BF16_OPSET, cast.opset_import[0].version)
    return cast


def round_trip_model(model: onnx.ModelProto, precision: str, nodes: Set[str]) -> onnx.ModelProto:
    """The model in fp32 with every result of ``nodes``, and all that they take, rounded to ``precision`` and back.

    That is what units do that multiply rounded numbers and add in fp32. It runs where no kernels of that type exist.
    """
    cast = cast_model(model, precision, nodes)
    graph = copy.deepcopy(cast)
    del graph.graph.node[:]
    element = TYPES[precision]
    weights = {weight.name: weight for weight in graph.graph.initializer}
    for name, weight in weights.items():
        if weight.data_type == element:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), name))
    for node in cast.graph.node:
        if node.op_type == "Cast" and _attribute(node, "to") == element:
            graph.graph.node.extend(_there_and_back(node.input[0], node.output[0], element))
        elif node.op_type == "Cast" and _attribute(node, "to") == TensorProto.FLOAT:
            graph.graph.node.append(helper.make_node("Identity", list(node.input), list(node.output)))
        elif node.output[0] in nodes or node.output[0].endswith(f".{precision}"):
            raw = copy.deepcopy(node)
            raw.output[0] = f"{node.output[0]}.raw"
            graph.graph.node.append(raw)
            graph.graph.node.extend(_there_and_back(raw.output[0], node.output[0], element))
        else:
            graph.graph.node.append(node)
    return graph


class _Caster:
    """Rewrites one model; every tensor is converted once, where it is first needed."""

    def __init__(self, model: onnx.ModelProto, element: int, suffix: str) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._element, self._suffix = element, suffix
        self._weights = {weight.name: weight for weight in model.graph.initializer}
        self._floats = float_tensors(model)
        self._outputs = {value.name for value in model.graph.output}
        self._made: list[onnx.NodeProto] = []
        self._converted: dict[tuple[str, int], str] = {}
        self._rounded: dict[str, str] = {}
        self._new_weights: list[TensorProto] = []

    def cast(self, nodes: Set[str]) -> onnx.ModelProto:
        for node in self._model.graph.node:
            low = node.output[0] in nodes
            exact = _EXACT_INPUTS.get(node.op_type, ()) if low else ()
            for i, name in enumerate(node.input):
                node.input[i] = self._low(name) if low and i not in exact else self._exact(name)
            outputs = list(node.output)
            if low:
                for i, name in enumerate(outputs):
                    if name in self._floats:
                        # A graph's output keeps its name for its float32 value.
                        node.output[i] = f"{name}{self._suffix}" if name in self._outputs else name
                        self._rounded[name] = node.output[i]
            self._made.append(node)
            for name in self._outputs & self._rounded.keys() & set(outputs):
                self._made.append(_cast(self._rounded[name], name, TensorProto.FLOAT))
        graph = onnx.ModelProto()
        graph.CopyFrom(self._model)
        del graph.graph.node[:], graph.graph.value_info[:]
        graph.graph.node.extend(self._made)
        used = {name for node in self._made for name in node.input}
        kept = [weight for weight in (*self._model.graph.initializer, *self._new_weights) if weight.name in used]
        del graph.graph.initializer[:]
        graph.graph.initializer.extend(kept)
        return graph

    def _low(self, name: str) -> str:
        if name not in self._floats:
            return name
        if name in self._rounded:
            return self._rounded[name]
        if name in self._weights:
            return self._once(name, self._element, self._small_weight)
        return self._once(name, self._element, self._cast_node)

    def _exact(self, name: str) -> str:
        if name not in self._rounded or self._rounded[name] != name:
            return name
        return self._once(name, TensorProto.FLOAT, self._cast_node)

    def _once(self, name: str, element: int, make: Callable[[str, str, int], None]) -> str:
        key = name, element
        if key not in self._converted:
            suffix = self._suffix if element == self._element else ".fp32"
            self._converted[key] = f"{name}{suffix}"
            make(name, self._converted[key], element)
        return self._converted[key]

    def _cast_node(self, name: str, made: str, element: int) -> None:
        self._made.append(_cast(name, made, element))

    def _small_weight(self, name: str, made: str, element: int) -> None:
        values = numpy_helper.to_array(self._weights[name]).astype(helper.tensor_dtype_to_np_dtype(element))
        self._new_weights.append(numpy_helper.from_array(values, made))


def float_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Names of all tensors that are float32; raises PackageInvalid where a type cannot be told."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    types |= {value.name: value.type.tensor_type.elem_type for value in inferred.input}
    types |= {weight.name: weight.data_type for weight in inferred.initializer}
    for node in model.graph.node:
        for name in filter(None, node.output):
            if not types.get(name):
                raise PackageInvalid(
                    f"the type of {name!r:.80}, made by a {node.op_type}, cannot be told",
                    hint="export the model again with `assetgen export`",
                )
    return frozenset(name for name, kind in types.items() if kind == TensorProto.FLOAT)


def quantized_model(model: onnx.ModelProto, nodes: Set[str], largest: Mapping[str, float]) -> onnx.ModelProto:
    """The model with the convolutions ``nodes`` between QuantizeLinear and DequantizeLinear, all symmetric int8.

    Weights have a scale for every output channel, pictures one for all. A bias is added behind, in fp32: TensorRT takes
    none of int32, and ONNX Runtime none of fp32 in a convolution of integers.

    Args:
        nodes: convolutions, each by its output.
        largest: magnitude at which inputs and outputs of ``nodes`` are cut off, by name.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    constants: list[TensorProto] = []
    ready: dict[str, str] = {}

    def constant(name: str, values: Any) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    def small(name: str, source: str, target: str) -> Iterator[onnx.NodeProto]:
        scale = constant(f"{name}.scale", np.float32(max(largest[name], 1e-6) / 127))
        zero = constant(f"{name}.zero", np.int8(0))
        yield helper.make_node("QuantizeLinear", [source, scale, zero], [f"{name}.int8"], f"{name}.quantize")
        yield helper.make_node("DequantizeLinear", [f"{name}.int8", scale, zero], [target], f"{name}.dequantize")

    nodes_made: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.output[0] not in nodes:
            nodes_made.append(node)
            continue
        picture, weight, output = node.input[0], node.input[1], node.output[0]
        if picture not in ready:
            ready[picture] = f"{picture}.rounded"
            nodes_made.extend(small(picture, picture, ready[picture]))
        values, scales = int8_weights(weights[weight])
        names = [constant(f"{output}.weight", values), constant(f"{output}.weight.scale", scales)]
        names.append(constant(f"{output}.weight.zero", np.zeros(len(scales), np.int8)))
        nodes_made.append(
            helper.make_node(
                "DequantizeLinear", names, [f"{output}.weight.rounded"], f"{output}.weight.dequantize", axis=0
            )
        )
        convolution = copy.deepcopy(node)
        del convolution.input[:], convolution.output[:]
        convolution.input.extend([ready[picture], f"{output}.weight.rounded"])
        convolution.output.append(f"{output}.raw")
        biased = len(node.input) > 2 and node.input[2]
        nodes_made.append(convolution)
        nodes_made.extend(small(output, f"{output}.raw", f"{output}.plain" if biased else output))
        if biased:
            bias = constant(f"{output}.bias", weights[node.input[2]].reshape(1, -1, 1, 1))
            nodes_made.append(helper.make_node("Add", [f"{output}.plain", bias], [output], f"{output}.add"))
    del made.graph.node[:], made.graph.value_info[:]
    made.graph.node.extend(nodes_made)
    used = {name for node in nodes_made for name in node.input}
    kept = [weight for weight in (*model.graph.initializer, *constants) if weight.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def int8_weights(values: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Weights ``[out, in, h, w]`` as int8, and the scale of every output channel."""
    scales = np.maximum(np.abs(values).reshape(len(values), -1).max(axis=1), 1e-12).astype(np.float32) / 127
    return np.rint(values / scales[:, None, None, None]).astype(np.int8), scales


def _cast(name: str, made: str, element: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [made], f"{made}.cast", to=element)


def _there_and_back(name: str, made: str, element: int) -> list[onnx.NodeProto]:
    return [_cast(name, f"{made}.small", element), _cast(f"{made}.small", made, TensorProto.FLOAT)]


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next(attribute.i for attribute in node.attribute if attribute.name == name)
