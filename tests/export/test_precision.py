"""Graphs in a smaller precision: which nodes are rounded, that the result is sound, and how near it stays."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from assetgen import policy
from assetgen.errors import PackageInvalid
from assetgen.fidelity import psnr_db
from export.precision import (
    cast_model,
    float_tensors,
    int8_weights,
    quantized_model,
    round_trip_model,
    rounded_nodes,
    spatial_inputs,
)
from export.probe import open_bytes, run
from tests.helpers.tiny_package import tiny_feeds, tiny_inputs, tiny_manifest, tiny_model

SPATIAL = spatial_inputs(tiny_inputs())


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def nodes(model):
    return rounded_nodes(model.graph, SPATIAL)


def types_of(model):
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}


def lowest_db(model, other, optimise=True):
    feeds = [tiny_feeds(seed, batch=2) for seed in range(3)]
    one, two = open_bytes(model), open_bytes(other, optimise=optimise)
    return min(psnr_db(values, run(two, each)[name]) for each in feeds for name, values in run(one, each).items())


def test_what_lies_between_convolutions_is_rounded_and_the_rest_is_not(model, nodes):
    chosen = {node.op_type for node in model.graph.node if node.output[0] in nodes}
    exact = {node.op_type for node in model.graph.node if node.output[0] not in nodes}
    assert {"Conv", "LeakyRelu", "Resize", "Slice", "Concat"} <= chosen
    assert {"MatMul", "Tanh", "Sigmoid"} <= exact - chosen, "style and what follows the last convolution"


@pytest.mark.parametrize(("precision", "element"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_the_cast_graph_is_typed_throughout_and_obeys_the_policy(model, nodes, precision, element):
    made = cast_model(model, precision, set(nodes))
    found = types_of(made)
    assert all(found[name] == element for name in nodes if name in found)
    assert all(found[output.name] == TensorProto.FLOAT for output in made.graph.output)
    assert policy.broken_rule(made.SerializeToString(), tiny_manifest()) == ""


def test_weights_are_halved_and_none_is_left_over(model, nodes):
    made = cast_model(model, "fp16", set(nodes))
    used = {name for node in made.graph.node for name in node.input}
    assert {weight.name for weight in made.graph.initializer} <= used
    halves = [weight for weight in made.graph.initializer if weight.data_type == TensorProto.FLOAT16]
    assert sum(len(weight.dims) == 4 for weight in halves) == 7, "every convolution"
    assert made.ByteSize() < model.ByteSize()


@pytest.mark.parametrize(("precision", "least_db"), [("fp16", 60), ("bf16", 40)])
def test_rounding_stays_near(model, nodes, precision, least_db):
    made = round_trip_model(model, precision, set(nodes))
    found = lowest_db(model, made, optimise=False)
    assert least_db < found < 110, "rounded, and no more than that"


def test_the_fp16_graph_runs_and_agrees_with_rounding_by_hand(model, nodes):
    made = cast_model(model, "fp16", set(nodes))
    assert lowest_db(round_trip_model(model, "fp16", set(nodes)), made) > 60


def test_no_nodes_means_the_same_numbers(model):
    assert lowest_db(model, cast_model(model, "fp16", set())) == np.inf


def test_an_output_that_a_convolution_makes_keeps_name_and_type():
    """The last convolution is an output itself, and another one reads it."""
    f32 = TensorProto.FLOAT
    weights = [numpy_helper.from_array(np.float32([[[[scale]]]]), f"w{scale}") for scale in (2, 3)]
    conv = [
        helper.make_node("Conv", ["x", "w2"], ["y"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["y", "w3"], ["z"], kernel_shape=[1, 1]),
    ]
    shape = ["n", 1, "h", "w"]
    values = {name: helper.make_tensor_value_info(name, f32, shape) for name in "xyz"}
    graph = helper.make_graph(conv, "g", [values["x"]], [values["y"], values["z"]], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    made = cast_model(model, "fp16", set(rounded_nodes(model.graph, {"x"})))
    found = run(open_bytes(made), {"x": np.full((1, 1, 2, 2), 1.5, np.float32)})
    assert {name: (values.dtype, float(values.max())) for name, values in found.items()} == {
        "y": (np.float32, 3.0),
        "z": (np.float32, 9.0),
    }


def test_resize_keeps_its_scales_in_fp32(model, nodes):
    made = cast_model(model, "fp16", set(nodes))
    scales = {node.input[2] for node in made.graph.node if node.op_type == "Resize"}
    kept = {weight.name: weight.data_type for weight in made.graph.initializer}
    assert {kept[name] for name in scales} == {TensorProto.FLOAT}


def test_a_tensor_without_a_type_is_refused():
    graph = helper.make_graph(
        [helper.make_node("Mystery", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_empty_tensor_value_info("y")],
    )
    with pytest.raises(PackageInvalid, match="'y', made by a Mystery"):
        float_tensors(helper.make_model(graph))


def test_int8_weights_have_a_scale_a_channel():
    values = np.float32([[[[1.0]], [[-0.5]]], [[[0.01]], [[0.0]]]])
    rounded, scales = int8_weights(values)
    assert rounded[:, :, 0, 0].tolist() == [[127, -64], [127, 0]]
    np.testing.assert_allclose(scales, [1 / 127, 0.01 / 127], rtol=1e-6)


def test_a_quantised_graph_obeys_the_policy_and_stays_near(model):
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    made = quantized_model(
        model, {names[0]}, {name: 8.0 for node in model.graph.node for name in (*node.input, *node.output)}
    )
    assert policy.broken_rule(made.SerializeToString(), tiny_manifest()) == ""
    operators = [node.op_type for node in made.graph.node]
    assert (operators.count("QuantizeLinear"), operators.count("DequantizeLinear")) == (2, 3)
    assert 25 < lowest_db(model, made) < 100
