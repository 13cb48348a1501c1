"""Int8 by OpenVINO: what a convolution that wraps makes of rounded values is what ONNX Runtime makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from assetgen.runtime import openvino
from assetgen.runtime.rounding import join_roundings
from export.precision import quantized_model

pytestmark = pytest.mark.skipif(openvino.installed_version() == "", reason="OPENVINO NOT TESTED: pip install openvino")
CHANNELS, EDGE = 16, 8
FIRST, LAST = 0, np.iinfo(np.int64).max


def wrapping_model() -> onnx.ModelProto:
    """A picture, the same with a column of the other side at either end, and a convolution over it."""
    rng = np.random.default_rng(0)
    constants = {
        "weight": rng.standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32) / 12,
        "bias": rng.standard_normal(CHANNELS, np.float32),
        "gain": np.float32(1.5),
        "axis": np.array([3]),
        "first": np.array([FIRST]),
        "second": np.array([1]),
        "last": np.array([-1]),
        "end": np.array([LAST]),
    }
    nodes = [
        helper.make_node("Mul", ["picture", "gain"], ["bright"]),
        helper.make_node("Slice", ["bright", "last", "end", "axis"], ["left"]),
        helper.make_node("Slice", ["bright", "first", "second", "axis"], ["right"]),
        helper.make_node("Concat", ["left", "bright", "right"], ["wide"], axis=3),
        helper.make_node("Conv", ["wide", "weight", "bias"], ["made"], kernel_shape=[3, 3], pads=[1, 0, 1, 0]),
        helper.make_node("LeakyRelu", ["made"], ["maps"], alpha=0.2),
    ]
    shape = [1, CHANNELS, EDGE, EDGE]
    graph = helper.make_graph(
        nodes,
        "wrapping",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def quantized() -> bytes:
    data: bytes = quantized_model(wrapping_model(), {"made"}, {"wide": 4.5, "made": 6.0}).SerializeToString()
    return data


@pytest.fixture(scope="module")
def picture() -> Any:
    return np.random.default_rng(1).standard_normal((1, CHANNELS, EDGE, EDGE), np.float32)


def read(data: bytes) -> Any:
    return openvino.openvino_core().read_model(data)


def compiled(model: Any) -> Any:
    return openvino.openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def by_onnx_runtime(data: bytes, picture: Any) -> Any:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"picture": picture})[0]


def test_rounded_values_are_those_of_onnx_runtime(quantized, picture):
    """A step of the last rounding is 6 / 127; one value in a thousand may fall on its other side."""
    model = read(quantized)
    assert join_roundings(openvino.import_openvino(), model) == 2, "what goes into the convolution, and what comes out"
    found = next(iter(compiled(model)({"picture": picture}).values()))
    apart = np.abs(found - by_onnx_runtime(quantized, picture))
    assert np.quantile(apart, 0.999) < 1e-4
    assert apart.max() < 6.1 / 127


def test_it_is_still_computed_in_int8(quantized):
    model = read(quantized)
    join_roundings(openvino.import_openvino(), model)
    kinds = [node.get_rt_info() for node in compiled(model).get_runtime_model().get_ordered_ops()]
    told = [info["primitiveType"].astype(str) for info in kinds if info["layerType"].astype(str) == "Convolution"]
    if not any("I8" in kind for kind in told):
        pytest.skip(f"OpenVINO computes no int8 on this processor, but by {told}")
    assert len(told) == 1


def test_what_is_no_rounding_to_int8_stays(quantized, picture):
    """A graph in fp32 has none; one with a zero that is not 0 is left as it is: the exporter writes none."""
    model = read(wrapping_model().SerializeToString())
    before = len(model.get_ordered_ops())
    assert join_roundings(openvino.import_openvino(), model) == 0
    assert len(model.get_ordered_ops()) == before
    shifted = onnx.load_from_string(quantized)
    for weight in shifted.graph.initializer:
        if weight.name == "wide.zero":
            weight.CopyFrom(numpy_helper.from_array(np.int8(3), weight.name))
    assert join_roundings(openvino.import_openvino(), read(shifted.SerializeToString())) == 1
