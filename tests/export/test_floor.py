"""What a batch must cost at least is worked out by hand, and a GPU's measurement runs whole on a processor."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from assetgen.errors import ConfigInvalid, OutputUnwritable
from assetgen.manifest import InputSpec
from assetgen.package import verify_package
from export import floor, precisions
from export.floor import Limits, Work, floors_ms, work_of
from tests.helpers.tiny_package import write_tiny_package


def small_model():
    """A convolution of 2 to 3 channels at half of the edge, one that doubles it, and a product of matrices."""
    weights = {
        "first": np.zeros((3, 2, 3, 3), np.float32),
        "twice": np.zeros((3, 1, 2, 2), np.float32),
        "dense": np.zeros((4, 5), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["grid", "first"], ["narrow"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["narrow", "twice"], ["height"], strides=[2, 2]),
        helper.make_node("MatMul", ["z", "dense"], ["told"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info("grid", TensorProto.FLOAT, ["n", 2, "h", "w"]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4]),
        ],
        [
            helper.make_tensor_value_info("height", TensorProto.FLOAT, ["n", 1, "H", "W"]),
            helper.make_tensor_value_info("told", TensorProto.FLOAT, ["n", 5]),
        ],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


INPUTS = (InputSpec("grid", "grid", ("n", 2, "h", "w"), 2), InputSpec("z", "latent", ("n", 4)))


@pytest.mark.parametrize("batch", [1, 8])
def test_work_is_that_of_the_books(batch):
    """8 px: a grid of 4 x 4. By hand: 16 pixels x 3 channels x 18; 16 x 3 x 4 for the doubling; 5 x 4."""
    found = work_of(small_model(), INPUTS, 8, batch)
    assert found.multiplications == batch * (16 * 3 * 18 + 16 * 3 * 4 + 5 * 4)
    maps = 16 * 2 + 16 * 3 + 16 * 3 + 64 + 4 + 5
    weights = 54 + 12 + 20
    assert found.values_moved == batch * maps + weights


def test_floors_are_work_over_what_the_device_reaches():
    found = floors_ms(Work(multiplications=5_000_000, values_moved=1000), Limits(1e12, 1e9), value_bytes=2)
    assert found == pytest.approx({"arithmetic": 0.01, "memory": 0.002})


def test_limits_and_times_are_measured_on_the_device(monkeypatch):
    monkeypatch.setattr(floor, "_EDGE_ON_CPU", 64)
    monkeypatch.setattr(floor, "_COPY_BYTES_ON_CPU", 1 << 16)
    found = floor.measured_limits("cpu", torch.float32)
    assert found.operations_per_s > 1e6
    assert found.bytes_per_s > 1e6


def test_the_whole_measurement_is_rehearsed_on_the_processor(runs, exported, tmp_path, monkeypatch, capsys):
    """Compiling takes a minute and is PyTorch's own, so here it does nothing."""
    monkeypatch.setattr(floor, "_EDGE_ON_CPU", 64)
    monkeypatch.setattr(floor, "_COPY_BYTES_ON_CPU", 1 << 16)
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    report = tmp_path / "floor.json"
    arguments = [str(exported), "--runs", *map(str, runs), "--device", "cpu", "--edge", "64", "--rounds", "2"]
    assert floor.main([*arguments, "-o", str(report)]) == 0
    told = json.loads(report.read_text())
    assert list(told["batches"]) == ["1", "8"]
    for found in told["batches"].values():
        assert [row["name"] for row in found["rows"]] == [
            "onnxruntime cpu",
            "pytorch eager fp32",
            "pytorch compiled fp32",
        ]
        assert all(row["call_ms"] > 0 for row in found["rows"])
        assert min(found["floor_ms"].values()) > 0
    small, large = (told["batches"][batch]["work"]["multiplications"] for batch in ("1", "8"))
    assert large == 8 * small
    assert told["goal"]["best_ms"] > 0
    assert "times the floor" in capsys.readouterr().out


def test_a_graph_that_the_package_lacks_is_made_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(precisions, "CHECKS", 2)
    monkeypatch.setattr(precisions, "PROBES", 3)
    write_tiny_package(tmp_path / "tiny")
    package = verify_package(tmp_path / "tiny")
    assert floor._with_graph(package, "fp32", tmp_path / "more") is package
    assert list(floor._with_graph(package, "fp16", tmp_path / "more").manifest.graphs) == ["fp32", "fp16"]
    assert verify_package(tmp_path / "tiny").digest == package.digest


def test_what_cannot_be_measured_is_refused(runs, exported, tmp_path):
    arguments = [str(exported), "--runs", *map(str, runs)]
    if not torch.cuda.is_available():
        with pytest.raises(ConfigInvalid, match="sees no CUDA device"):
            floor.main(arguments)
    with pytest.raises(ConfigInvalid, match="makes no material of 65 px"):
        floor.main([*arguments, "--device", "cpu", "--edge", "65"])
    with pytest.raises(OutputUnwritable):
        floor._write(tmp_path, {})


def test_the_graph_measured_is_one_that_onnx_takes():
    onnx.checker.check_model(small_model(), full_check=True)
