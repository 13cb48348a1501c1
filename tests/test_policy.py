"""The graph policy: what a package's graph may hold, rule by rule; hostile graphs, each refused by name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from assetgen.errors import PackageInvalid, PolicyViolated
from assetgen.foreign import check_graphs
from assetgen.manifest import Manifest, SizeSpec
from assetgen.package import verify_package, write_manifest
from assetgen.policy import OPERATORS, broken_rule, input_shape
from tests.helpers.tiny_package import tiny_inputs, tiny_manifest, tiny_model, write_tiny_package

Change = Callable[[onnx.ModelProto], object]
MANIFEST: Manifest = tiny_manifest()


def changed(change: Change) -> bytes:
    model = tiny_model()
    change(model)
    return model.SerializeToString()


def check(change: Change) -> None:
    assert broken_rule(changed(change), MANIFEST) == ""


def check_apart(graph: bytes) -> None:
    """The same in a process of its own, for graphs that may end it; raises PolicyViolated."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "tiny"
        write_tiny_package(folder)
        (folder / MANIFEST.graph).write_bytes(graph)
        write_manifest(folder, MANIFEST)
        check_graphs([verify_package(folder)])


def refused(change: Change, rule: str) -> None:
    assert re.search(rule, broken_rule(changed(change), MANIFEST))


def insert(op_type: str, inputs: list[str], outputs: list[str] | None = None, **attributes: object) -> Change:
    """A change that puts a node first in the graph; its result goes nowhere."""
    node = helper.make_node(op_type, inputs, outputs or ["planted"], **attributes)
    return lambda model: model.graph.node.insert(0, node)


def constant(name: str, values: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=np.int64), name)


def with_constant(change: Change, values: object) -> Change:
    """The change, with a weight named ``k`` beside it."""

    def both(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(constant("k", values))
        change(model)

    return both


def test_the_tiny_graph_passes():
    check(lambda model: None)


def test_shape_arithmetic_passes_because_its_sizes_follow_from_the_inputs():
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(constant("ones", [1, 1, 2, 2]))
        nodes = [
            helper.make_node("Shape", ["grid"], ["s"]),
            helper.make_node("Mul", ["s", "ones"], ["doubled"]),
            helper.make_node("ConstantOfShape", ["doubled"], ["zeros"]),
        ]
        for position, node in enumerate(nodes):
            model.graph.node.insert(position, node)

    check(change)


@pytest.mark.parametrize("op_type", ["RandomNormal", "RandomUniform", "RandomNormalLike", "Bernoulli", "Multinomial"])
def test_randomness_is_refused(op_type):
    refused(insert(op_type, ["z"]), f"{op_type}.*randomness")


def subgraph() -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Identity", ["z"], ["y"])], "g", [], [])


@pytest.mark.parametrize("op_type", ["If", "Loop", "Scan"])
def test_control_flow_is_refused(op_type):
    refused(insert(op_type, ["z"], body=subgraph()), f"{op_type}.*control flow")


def test_a_subgraph_in_an_allowed_operator_is_refused():
    refused(insert("Relu", ["z"], body=subgraph()), "subgraph")


def test_a_subgraph_hidden_behind_another_attribute_type_is_refused():
    def change(model: onnx.ModelProto) -> None:
        attribute = model.graph.node[0].attribute.add(name="axis", type=onnx.AttributeProto.INT)
        attribute.g.CopyFrom(subgraph())

    refused(change, "subgraph")


@pytest.mark.parametrize("op_type", ["NonZero", "Unique", "TfIdfVectorizer", "StringNormalizer", "Optional", "Foo"])
def test_other_operators_are_refused(op_type):
    assert op_type not in OPERATORS
    refused(insert(op_type, ["z"]), "not among the allowed")


def test_foreign_domains_are_refused():
    def imports(model: onnx.ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    refused(imports, r"com\.microsoft")
    refused(insert("Relu", ["z"], domain="ai.onnx.ml"), r"ai\.onnx\.ml")


def test_local_functions_are_refused():
    function = helper.make_function(
        "", "Relu", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [helper.make_opsetid("", 20)]
    )
    refused(lambda model: model.functions.append(function), "local function 'Relu'")


@pytest.mark.parametrize("version", [0, 17, 23, 2**31])
def test_other_opsets_are_refused(version):
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    refused(change, f"opset {version}, allowed are 18 to 22")


def test_two_opsets_are_refused():
    refused(lambda model: model.opset_import.append(helper.make_opsetid("ai.onnx", 20)), "opset")


def test_another_ir_version_is_refused():
    refused(lambda model: setattr(model, "ir_version", 99), "IR version 99")


def external(location: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)

    return change


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd", ""])
def test_external_data_is_refused(location):
    refused(external(location), "external data")


def test_external_data_in_an_attribute_is_refused():
    tensor = constant("t", [1])
    tensor.external_data.add(key="location", value="x")
    refused(insert("Constant", [], value=tensor), "external data")


def test_a_weight_unlike_its_shape_is_refused():
    def longer(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[0] += 1

    def huge(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[0] = 2**40

    def negative(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[0] = -1

    refused(longer, "does not hold")
    refused(huge, "more than a file can hold")
    refused(negative, "has shape")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.float32), "bad"))

    refused(change, "not finite")


@pytest.mark.parametrize("element", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_small_floats_that_are_not_finite_are_refused(element):
    def change(model: onnx.ModelProto) -> None:
        values = np.array([np.inf]).astype(helper.tensor_dtype_to_np_dtype(element))
        model.graph.initializer.append(numpy_helper.from_array(values, "bad"))

    refused(change, "not finite")


def test_strings_are_refused():
    tensor = helper.make_tensor("s", TensorProto.STRING, [1], [b"x"])
    refused(lambda model: model.graph.initializer.append(tensor), "element type")


def test_sparse_weights_and_training_information_are_refused():
    refused(lambda model: model.graph.sparse_initializer.add(), "sparse")
    refused(lambda model: model.training_info.add(), "training information")


def test_names_made_twice_or_never_are_refused():
    refused(insert("Relu", ["nowhere"]), "'nowhere', which nothing")
    refused(insert("Relu", ["z"], ["grid"]), "a second time")
    refused(lambda model: model.graph.initializer.append(model.graph.initializer[0]), "named twice")
    refused(lambda model: model.graph.initializer.append(constant("z", [1])), "named twice, or as an input")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (with_constant(insert("ConstantOfShape", ["k"]), [2**40]), "makes a tensor of"),
        (with_constant(insert("ConstantOfShape", ["k"]), [2**20, 2**20]), "makes a tensor of"),
        (with_constant(insert("Expand", ["truncation", "k"]), [2**30, 2**10]), "makes a tensor of"),
        (with_constant(insert("Tile", ["z", "k"]), [2**20, 2**20]), "makes a tensor of|does not follow"),
        (with_constant(insert("Pad", ["z", "k"]), [0, 0, 2**40, 0]), "makes a tensor of"),
    ],
)
def test_a_graph_may_not_ask_for_terabytes(change, rule):
    refused(change, rule)


def test_a_range_may_not_be_endless():
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.extend([constant("from", 0), constant("to", 2**40), constant("step", 1)])
        model.graph.node.insert(0, helper.make_node("Range", ["from", "to", "step"], ["planted"]))

    refused(change, r"makes a tensor of \[1099511627776\]")


def test_a_size_computed_in_the_graph_is_computed_here_too():
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(constant("k", [2**20, 2**20, 2**10, 2**10]))
        nodes = [
            helper.make_node("Shape", ["grid"], ["s"]),
            helper.make_node("Mul", ["s", "k"], ["large"]),
            helper.make_node("ConstantOfShape", ["large"], ["zeros"]),
        ]
        for position, node in enumerate(nodes):
            model.graph.node.insert(position, node)

    refused(change, "makes a tensor of")


def test_a_size_that_depends_on_values_is_refused():
    def change(model: onnx.ModelProto) -> None:
        nodes = [
            helper.make_node("Cast", ["z"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Flatten", ["whole"], ["flat"], axis=0),
            helper.make_node("Squeeze", ["flat"], ["sizes"]),
            helper.make_node("ConstantOfShape", ["sizes"], ["zeros"]),
        ]
        for position, node in enumerate(nodes):
            model.graph.node.insert(position, node)

    refused(change, "does not follow from the sizes of the inputs")


def test_doubling_forty_times_is_refused():
    def change(model: onnx.ModelProto) -> None:
        previous = "z"
        for step in range(40):
            node = helper.make_node("Concat", [previous, previous], [f"d{step}"], axis=1)
            model.graph.node.insert(step, node)
            previous = f"d{step}"

    refused(change, "makes a tensor of")


def test_a_product_of_all_cells_with_all_cells_is_refused():
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(constant("flat", [1, -1, 1]))
        nodes = [
            helper.make_node("Reshape", ["noise_0", "flat"], ["column"]),
            helper.make_node("Transpose", ["column"], ["row"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["column", "row"], ["square"]),
        ]
        for position, node in enumerate(nodes):
            model.graph.node.insert(position, node)

    large = tiny_manifest(max_px=4096)
    assert "makes a tensor of" in broken_rule(changed(change), large)


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "latent"
    model.graph.node[0].input[0] = "latent"


def set_dim(kind: str, index: int, axis: int, size: int | str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        dim = getattr(model.graph, kind)[index].type.tensor_type.shape.dim[axis]
        dim.Clear()
        setattr(dim, "dim_value" if isinstance(size, int) else "dim_param", size)

    return change


def set_type(kind: str, element_type: int) -> Change:
    return lambda model: setattr(getattr(model.graph, kind)[0].type.tensor_type, "elem_type", element_type)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (rename_input, r"has the inputs \['latent'"),
        (lambda model: model.graph.output.pop(), "has the outputs"),
        (lambda model: model.graph.input.append(model.graph.input[0]), "has the inputs"),
        (set_dim("input", 0, 0, 1), r"input 'z' has shape \[1, 8\]"),
        (set_dim("input", 0, 1, 9), r"input 'z' has shape \['n', 9\]"),
        (set_dim("input", 0, 1, "k"), "input 'z' has shape"),
        (set_dim("input", 3, 2, 4), "input 'grid' has shape"),
        (set_dim("output", 0, 1, 4), "output 'base_color' has shape"),
        (set_dim("output", 1, 3, 64), "output 'height' has shape"),
        (set_type("input", TensorProto.FLOAT16), "not a float32"),
        (set_type("output", TensorProto.DOUBLE), "not a float32"),
    ],
)
def test_inputs_and_outputs_are_the_manifests(change, rule):
    refused(change, rule)


def test_outputs_of_another_size_than_promised_are_refused():
    def swapped(model: onnx.ModelProto) -> None:  # rows and columns exchanged: found by a size that is not square
        head = model.graph.node[-1]
        model.graph.node.insert(
            len(model.graph.node) - 1, helper.make_node("Transpose", [head.input[0]], ["t"], perm=[0, 1, 3, 2])
        )
        model.graph.node[-1].input[0] = "t"

    refused(swapped, "output 'metallic' has shape")


def test_a_manifest_of_another_stride_is_refused():
    other = Manifest(**{**vars(MANIFEST), "size": SizeSpec(stride_px=48, min_px=48, max_px=96, default_px=48)})
    assert broken_rule(ORIGINAL, other) == ""
    inputs = (*tiny_inputs()[:-1], replace(tiny_inputs()[-1], stride_px=4))
    assert "do not fit each other" in broken_rule(ORIGINAL, Manifest(**{**vars(MANIFEST), "inputs": inputs}))


def test_input_shape_follows_the_stride():
    shapes = {spec.name: input_shape(spec, 192, 320) for spec in tiny_inputs()}
    assert shapes == {
        "z": (1, 8),
        "class_weights": (1, 2),
        "truncation": (1, 1),
        "grid": (1, 2, 12, 20),
        "layout_0": (1, 8, 12, 20),
        "layout_1": (1, 8, 24, 40),
        "noise_0": (1, 1, 24, 40),
    }


ORIGINAL = tiny_model().SerializeToString()


@pytest.mark.parametrize("name", [b"base_color", b"noise_0", b"height", b"Sigmoid", b"c3"])
def test_names_that_are_not_utf8_are_refused(name):
    assert "not UTF-8" in broken_rule(ORIGINAL.replace(name, name[:-1] + b"\xff"), MANIFEST)


def test_a_kernel_larger_than_its_picture_is_refused_and_we_live():
    """Found by altering bytes: shape inference of onnx 1.23.2 makes a negative size of it, and then aborts."""

    def change(model: onnx.ModelProto) -> None:
        conv = next(node for node in model.graph.node if node.op_type == "Conv")
        conv.attribute[0].ints[0] = 64

    with pytest.raises(PolicyViolated, match=r"ended the process|do not fit|not valid|has shape|does not follow"):
        check_apart(changed(change))


def test_cut_off_at_every_percent():
    for percent in range(100):
        assert broken_rule(ORIGINAL[: len(ORIGINAL) * percent // 100], MANIFEST)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    assert broken_rule(data, MANIFEST)


@settings(max_examples=10)
@given(st.data())
def test_altered_bytes_are_refused_or_harmless(data):
    """Whatever one byte becomes, the answer is a pass or an error of these; never another exception, never a crash."""
    # The graph's structure, not only its weights: most bytes are weights, so half of the draws look at the rest.
    structure = len(ORIGINAL) - 1500
    position = data.draw(st.integers(0, 300) | st.integers(structure, len(ORIGINAL) - 1) | st.integers(0, structure))
    altered = ORIGINAL[:position] + bytes([data.draw(st.integers(0, 255))]) + ORIGINAL[position + 1 :]
    with contextlib.suppress(PolicyViolated, PackageInvalid):  # the latter of the first bytes
        check_apart(altered)
