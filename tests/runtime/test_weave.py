"""Graphs for ONNX Runtime's CPU: the same bytes, and nothing left of what is slow there."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from assetgen.errors import PackageInvalid
from assetgen.package import verify_package
from assetgen.runtime import open_session
from assetgen.runtime.weave import woven
from assetgen.store import bundled_models_folder


def graph(*layers, channels=8):
    """One ``DepthToSpace`` after the other, of a mode and a block each."""
    nodes = [
        helper.make_node("DepthToSpace", [f"x{i}"], [f"x{i + 1}"], mode=mode, blocksize=block)
        for i, (mode, block) in enumerate(layers)
    ]
    given = helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["n", channels, "h", "w"])
    made = helper.make_tensor_value_info(f"x{len(layers)}", TensorProto.FLOAT, ["n", "c", "oh", "ow"])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [given], [made]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    return model.SerializeToString()


def operators(data):
    return {node.op_type for node in onnx.load_from_string(data).graph.node}


@pytest.mark.parametrize("size", [(1, 4, 6), (3, 1, 1), (2, 5, 2)])
@pytest.mark.parametrize("layers", [[("CRD", 2)], [("CRD", 4)], [("CRD", 2), ("CRD", 2)], [("DCR", 2), ("CRD", 2)]])
def test_pixels_go_where_they_went(layers, size):
    data = graph(*layers, channels=32)
    n, h, w = size
    x = np.random.default_rng(1).random((n, 32, h, w), dtype=np.float32)
    faster = woven(data)
    onnx.checker.check_model(onnx.load_from_string(faster), full_check=True)
    session = onnxruntime.InferenceSession(faster, providers=["CPUExecutionProvider"])
    (wanted,) = ReferenceEvaluator(onnx.load_from_string(data)).run(None, {"x0": x})
    np.testing.assert_array_equal(session.run(None, {"x0": x})[0], wanted)


def test_only_the_order_that_is_known_is_woven():
    assert "DepthToSpace" not in operators(woven(graph(("CRD", 2))))
    assert operators(woven(graph(("DCR", 2)))) == {"DepthToSpace"}


def test_other_graphs_are_left_alone(package):
    data = package.read("generator.onnx")
    assert woven(data) is data


def test_what_is_no_model_is_refused():
    with pytest.raises(PackageInvalid, match="no ONNX model"):
        woven(b"DepthToSpace")


def test_the_shipped_model_runs_woven_on_the_cpu(monkeypatch):
    starter = verify_package(bundled_models_folder() / "starter-materials", allow_hard_links=True)
    seen = []
    plain = onnxruntime.InferenceSession

    def spy(data, *args, **kwargs):
        seen.append(operators(data))
        return plain(data, *args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    open_session(starter, "cpu", 1)
    assert seen
    assert all("Transpose" in found and "DepthToSpace" not in found for found in seen)
