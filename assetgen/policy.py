"""What the ONNX graph of a package may hold, checked without running it; imports onnx, so not where a server listens.

ONNX Runtime has no list of allowed operators of its own, and a graph of 66 bytes may ask for 4 TiB. So a graph may hold
the operators that a convolutional generator needs, weights inside the file, and inputs and outputs as the manifest
says; no subgraph, no randomness (latents and noise are inputs), no external data, no foreign domain, no function. Every
tensor's size must follow from the sizes of the inputs alone, and stay in proportion to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, numpy_helper

from assetgen.manifest import MAX_FILE_BYTES, InputSpec, Manifest, OutputMap

OPSETS = range(18, 23)
IR_VERSIONS = range(8, 11)
MAX_NODES = 20_000
MAX_RANK = 8
# Elements that one tensor may have: a fixed part, and so many for each pixel of the output.
MAX_FIXED_ELEMENTS = 1 << 24
MAX_ELEMENTS_PER_PIXEL = 256

OPERATORS = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "CastLike",
        "Ceil",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "Cos",
        "DepthToSpace",
        "DequantizeLinear",
        "Div",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "Identity",
        "InstanceNormalization",
        "LayerNormalization",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "Range",
        "Reciprocal",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "ReduceSumSquare",
        "Relu",
        "Reshape",
        "Resize",
        "Round",
        "Selu",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Size",
        "Slice",
        "Softmax",
        "Softplus",
        "SpaceToDepth",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Tanh",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
_FORBIDDEN_BECAUSE = {
    "If": "control flow",
    "Loop": "control flow",
    "Scan": "control flow",
    "SequenceMap": "control flow",
    "RandomNormal": "randomness inside the graph",
    "RandomNormalLike": "randomness inside the graph",
    "RandomUniform": "randomness inside the graph",
    "RandomUniformLike": "randomness inside the graph",
    "Multinomial": "randomness inside the graph",
    "Bernoulli": "randomness inside the graph",
    "Dropout": "randomness inside the graph",
}
_ELEMENT_TYPES = frozenset(
    [
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.DOUBLE,
        TensorProto.INT64,
        TensorProto.INT32,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.BOOL,
    ]
)
_ATTRIBUTE_TYPES = frozenset(
    [
        AttributeProto.FLOAT,
        AttributeProto.INT,
        AttributeProto.STRING,
        AttributeProto.TENSOR,
        AttributeProto.FLOATS,
        AttributeProto.INTS,
        AttributeProto.STRINGS,
    ]
)


def broken_rule(data: bytes, manifest: Manifest) -> str:
    """The rule that a graph breaks, empty for none; native code is run here, which a hostile graph may end.

    ``foreign.check_graphs`` asks in a process of its own.

    Args:
        data: a serialised ONNX model, as ``VerifiedPackage.read`` returns it.
        manifest: whose inputs, outputs and sizes the graph must have.
    """
    try:
        model = _check_rules(data, manifest)
        _check_by_onnx(model, manifest)
    except _RuleError as error:
        return str(error)
    return ""


class _RuleError(Exception):
    """A broken rule."""


def _check_rules(data: bytes, manifest: Manifest) -> onnx.ModelProto:
    if len(data) > MAX_FILE_BYTES:
        raise _RuleError(f"has more than {MAX_FILE_BYTES} bytes, the largest allowed")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise _RuleError("is not an ONNX model, or is cut off") from error
    _check_texts(model)
    _check_frame(model)
    for tensor in _tensors(model.graph):
        _check_tensor(tensor)
    _check_nodes(model.graph)
    _check_interface(model.graph, manifest)
    return model


def _check_by_onnx(model: onnx.ModelProto, manifest: Manifest) -> None:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, TypeError) as error:
        raise _RuleError(f"is not valid ONNX: {_first_line(error)}") from error
    small, large = manifest.size.min_px, manifest.size.max_px
    for height_px, width_px in sorted({(small, small), (small, large), (large, large)}):
        _check_sizes(model, manifest.inputs, manifest.outputs, height_px, width_px)


def _check_texts(model: onnx.ModelProto) -> None:
    """Check that every name is text: protobuf hands out what is not UTF-8 as bytes."""
    graph = model.graph
    texts: list[object] = [opset.domain for opset in model.opset_import]
    texts += [function.name for function in model.functions]
    texts += [tensor.name for tensor in _tensors(graph)]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        texts += [value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim)]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        for attribute in node.attribute:
            texts += [attribute.name, attribute.ref_attr_name]
    for text in texts:
        if not isinstance(text, str):
            raise _RuleError(f"holds the name {text!r:.80}, which is not UTF-8")


def _check_frame(model: onnx.ModelProto) -> None:
    """Check everything around the graph: versions, domains, functions."""
    opsets = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
    for domain in opsets:
        if domain != "ai.onnx":
            raise _RuleError(f"uses the operator domain {domain!r:.80}, allowed is ONNX's own")
    opset = opsets.get("ai.onnx", 0)
    if opset not in OPSETS or len(model.opset_import) != 1:
        raise _RuleError(f"has opset {opset}, allowed are {OPSETS.start} to {OPSETS.stop - 1}")
    if model.ir_version not in IR_VERSIONS:
        raise _RuleError(
            f"has IR version {model.ir_version}, allowed are {IR_VERSIONS.start} to {IR_VERSIONS.stop - 1}"
        )
    if model.functions:
        raise _RuleError(f"defines the local function {model.functions[0].name!r:.80}")
    if model.training_info:
        raise _RuleError("holds training information")
    if model.graph.sparse_initializer:
        raise _RuleError("holds sparse weights")
    if len(model.graph.node) > MAX_NODES:
        raise _RuleError(f"has {len(model.graph.node)} nodes, allowed are {MAX_NODES}")


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _check_tensor(tensor: TensorProto) -> None:
    where = f"weight {tensor.name!r:.80}"
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise _RuleError(f"{where} lies outside the file (external data)")
    if tensor.data_type not in _ELEMENT_TYPES:
        raise _RuleError(f"{where} has element type {tensor.data_type}, which is not allowed")
    if len(tensor.dims) > MAX_RANK or any(size < 0 for size in tensor.dims):
        raise _RuleError(f"{where} has shape {list(tensor.dims)[: MAX_RANK + 1]}")
    # Before to_array: it trusts the shape. int32_data holds at most one element an entry, raw data is exact.
    elements = math.prod(tensor.dims)
    if elements > MAX_FILE_BYTES:
        raise _RuleError(f"{where} has {elements} elements, more than a file can hold")
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise _RuleError(f"{where} does not hold {elements} elements: {_first_line(error)}") from error
    if tensor.data_type == TensorProto.BFLOAT16:  # whose numbers numpy takes for bytes
        values = values.astype(np.float32)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise _RuleError(f"{where} holds values that are not finite")


def _check_nodes(graph: onnx.GraphProto) -> None:
    """Check operators and attributes, and that every tensor is made once and before it is used."""
    made = {""} | {value.name for value in graph.input}
    for weight in graph.initializer:
        if weight.name in made:
            raise _RuleError(f"weight {weight.name!r:.80} is named twice, or as an input")
        made.add(weight.name)
    for node in graph.node:
        where = f"node {node.name or node.op_type!r:.80}"
        if node.domain not in ("", "ai.onnx"):
            raise _RuleError(f"{where} is of the operator domain {node.domain!r:.80}, allowed is ONNX's own")
        if node.op_type not in OPERATORS:
            reason = _FORBIDDEN_BECAUSE.get(node.op_type, "not among the allowed operators")
            raise _RuleError(f"{where} is a {node.op_type!r:.80}: {reason}")
        for attribute in node.attribute:
            if attribute.type not in _ATTRIBUTE_TYPES or attribute.ref_attr_name or attribute.HasField("g"):
                raise _RuleError(f"{where}: attribute {attribute.name!r:.80} holds a subgraph or a foreign type")
        for name in node.input:
            if name not in made:
                raise _RuleError(f"{where} uses {name!r:.80}, which nothing before it makes")
        for name in node.output:
            if name and name in made:
                raise _RuleError(f"{where} makes {name!r:.80} a second time")
            made.add(name)


def _check_interface(graph: onnx.GraphProto, manifest: Manifest) -> None:
    """Check names, element types and dimensions of inputs and outputs against the manifest."""
    wanted: dict[str, tuple[int | str, ...]] = {spec.name: spec.shape for spec in manifest.inputs}
    _check_values("input", list(graph.input), wanted)
    edges: tuple[int | str, int | str] = ("h", "w")
    if manifest.size.min_px == manifest.size.max_px:  # one size only, which no input tells
        edges = (manifest.size.max_px, manifest.size.max_px)
    wanted = {spec.name: ("n", spec.channels, *edges) for spec in manifest.outputs}
    _check_values("output", list(graph.output), wanted)


def _check_values(what: str, values: list[onnx.ValueInfoProto], wanted: dict[str, tuple[int | str, ...]]) -> None:
    names = [value.name for value in values]
    if sorted(names) != sorted(wanted):
        raise _RuleError(f"has the {what}s {names!r:.400}, the manifest says {list(wanted)}")
    for value in values:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.elem_type != TensorProto.FLOAT:
            raise _RuleError(f"{what} {value.name!r} is not a float32 tensor")
        dims = [int(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
        shape = wanted[value.name]
        fits = len(dims) == len(shape) and all(
            isinstance(dim, str) if isinstance(size, str) else dim == size
            for dim, size in zip(dims, shape, strict=True)
        )
        if not fits:
            raise _RuleError(f"{what} {value.name!r} has shape {dims[:9]}, the manifest says {list(shape)}")


def _check_sizes(
    model: onnx.ModelProto, inputs: Sequence[InputSpec], outputs: Sequence[OutputMap], height_px: int, width_px: int
) -> None:
    """Infer the shape of every tensor for one asset of this size, and check that none is unknown or too large."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    specs = {spec.name: spec for spec in inputs}
    for value in fixed.graph.input:
        _set_shape(value, input_shape(specs[value.name], height_px, width_px))
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    at = f"at {width_px} x {height_px} px"
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise _RuleError(f"the shapes do not fit each other {at}: {_first_line(error)}") from error
    shapes = {}
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes[value.name] = tuple(int(dim.dim_value) for dim in kind.shape.dim)
    limit = MAX_FIXED_ELEMENTS + MAX_ELEMENTS_PER_PIXEL * height_px * width_px
    for node in model.graph.node:
        for name in filter(None, node.output):
            where = f"node {node.name or name!r:.80} ({node.op_type})"
            if name not in shapes:
                raise _RuleError(f"{where}: the size of its result does not follow from the sizes of the inputs")
            if math.prod(shapes[name]) > limit:
                raise _RuleError(f"{where} makes a tensor of {list(shapes[name])} {at}, allowed are {limit} elements")
    for spec in outputs:
        wanted = (1, spec.channels, height_px, width_px)
        if shapes.get(spec.name) != wanted:
            found = shapes.get(spec.name)
            raise _RuleError(f"output {spec.name!r} has shape {found} {at}, expected {wanted}")


def input_shape(spec: InputSpec, height_px: int, width_px: int, batch: int = 1) -> tuple[int, ...]:
    """The shape of one input for assets of a size that is a multiple of its stride."""
    free = [batch]
    if spec.stride_px:
        free += [height_px // spec.stride_px, width_px // spec.stride_px]
    names = iter(free)
    return tuple(size if isinstance(size, int) else next(names) for size in spec.shape)


def _set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dim.Clear()
        dim.dim_value = size


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
