"""Graphs by rows: the same bytes as by planes, whatever lies between convolutions."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from assetgen.package import verify_package
from assetgen.runtime.rows import use_rows
from assetgen.runtime.weave import woven
from assetgen.store import bundled_models_folder
from assetgen.trial import trial_inputs

WITH_ROWS = ("starter-materials", "photo-to-pbr", "pixel-dungeon", "retro-shooter", "surface-states")

STEPS = ("wrap", "twice", "vector", "noise", "relu", "residual", "layout", "resize", "pool")


class Net:
    """A graph that is written layer by layer."""

    def __init__(self, channels=8, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights = [], []
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, "h", "w"])]
        self.channels = {"x": channels}

    def input(self, name, *shape):
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def add(self, operator, *inputs, channels=None, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        self.channels[output] = channels or max(self.channels.get(name) or 0 for name in inputs)
        return output

    def constant(self, values, dtype=np.float32):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def numbers(self, *values):
        return self.constant(values, np.int64)

    def conv(self, x, channels, edge=3, **attributes):
        weight = self.rng.normal(size=(channels, self.channels[x], edge, edge)) / edge
        bias = self.rng.normal(size=channels)
        inputs = [x, self.constant(weight), self.constant(bias)]
        return self.add("Conv", *inputs, channels=channels, kernel_shape=[edge, edge], **attributes)

    def wrap(self, x, border=1):
        for axis in (2, 3):
            on = self.numbers(axis)
            before = self.add("Slice", x, self.numbers(-border), self.numbers(2**63 - 1), on, self.numbers(1))
            after = self.add("Slice", x, self.numbers(0), self.numbers(border), on)
            x = self.add("Concat", before, x, after, axis=axis, channels=self.channels[x])
        return x

    def vector(self, channels, name=None):
        """One number a channel, of the model or of a request."""
        if name is None:
            return self.constant(self.rng.normal(size=(1, channels, 1, 1)))
        return self.add("Unsqueeze", self.input(name, "n", channels), self.numbers(2, 3))

    def model(self, *outputs):
        made = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", self.channels[name], f"{name}h", f"{name}w"])
            for name in outputs
        ]
        graph = helper.make_graph(self.nodes, "g", self.inputs, made, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def by_rows(model):
    """A copy by rows; the graph must be sound, and something must have changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert use_rows(copy)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def run(model, feeds, threads=2):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def feeds(model, n, h, w, seed=1):
    sides = {"n": n, "h": h, "w": w, "h2": 2 * h, "w2": 2 * w}
    rng = np.random.default_rng(seed)
    return {
        each.name: rng.normal(
            size=[sides.get(side.dim_param, side.dim_value) for side in each.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for each in model.graph.input
    }


def check(model, sizes=((1, 8, 8), (2, 5, 7), (1, 16, 4))):
    """By rows as by planes, to the bit; returns the operators that are left."""
    faster = by_rows(model)
    for n, h, w in sizes:
        given = feeds(model, n, h, w)
        for wanted, made in zip(run(model, given), run(faster, given), strict=True):
            np.testing.assert_array_equal(made, wanted)
    return [node.op_type for node in faster.graph.node]


@pytest.mark.parametrize("border", [1, 2, 3])
def test_a_picture_is_continued_by_one_copy(border):
    net = Net()
    x = net.add("LeakyRelu", net.conv("x", 16, 1), alpha=0.2)
    x = net.conv(net.wrap(x, border), 16)
    left = check(net.model(net.conv(net.wrap(x, border), 8)))
    assert left.count("Gather") == 2
    assert "Concat" not in left[left.index("Gather") :]


@pytest.mark.parametrize("channels", [16, 24, 96, 128])
@pytest.mark.parametrize("name", [None, "style"])
def test_numbers_of_a_channel(channels, name):
    """Short rows go by the line, long ones by the pixel; of the model, or of a request."""
    net = Net()
    x = net.add("Mul", net.conv("x", channels, 1), net.vector(channels, name))
    x = net.add("Add", net.vector(channels), x)
    x = net.add("Sub", net.vector(channels), net.add("LeakyRelu", x, alpha=0.1))
    x = net.add("Mul", x, net.constant(0.7))
    check(net.model(net.conv(net.wrap(net.add("Add", x, net.constant([[[[0.5]]]]))), 8)))


@pytest.mark.parametrize("name", [None, "style"])
def test_noise_of_one_channel(name):
    net = Net()
    noise = net.add("Mul", net.constant(0.3), net.input("noise", "n", 1, "h", "w"))
    x = net.add("Add", net.conv("x", 16, 1), net.add("Mul", noise, net.vector(16, name)))
    assert "MatMul" in check(net.model(net.conv(net.wrap(x), 8)))


@pytest.mark.parametrize("name", [None, "style"])
def test_doubling_with_noise_and_numbers_of_a_channel(name):
    net = Net()
    x = net.add("DepthToSpace", net.conv(net.wrap("x"), 64), mode="CRD", blocksize=2, channels=16)
    noise = net.add("Mul", net.input("noise", "n", 1, "h2", "w2"), net.vector(16, name))
    x = net.add("Relu", net.add("Mul", net.add("Add", x, noise), net.vector(16)))
    left = check(net.model(net.conv(net.wrap(x, 2), 8), net.conv(x, 8)))
    assert "DepthToSpace" not in left


def test_a_doubled_picture_beside_one_that_is_whole():
    net = Net()
    x = net.add("DepthToSpace", net.conv("x", 64, 1), mode="CRD", blocksize=2, channels=16)
    large = net.add("Resize", net.conv("x", 16, 1), "", net.constant([1, 1, 2, 2]), mode="linear")
    both = net.add("Concat", net.add("Add", x, large), large, axis=1, channels=32)
    check(net.model(net.conv(net.wrap(both), 8), net.conv(net.wrap(x), 8)))


def test_a_doubling_whose_channels_somebody_else_reads_keeps_their_order():
    net = Net()
    x = net.conv("x", 64, 1)
    doubled = net.add("DepthToSpace", x, mode="CRD", blocksize=2, channels=16)
    check(net.model(x, net.conv(net.wrap(doubled), 8), net.conv(net.wrap(x), 8)))


def test_residuals_parts_and_what_is_not_known_here():
    net = Net()
    x = net.add("Relu", net.conv("x", 16, 1))
    for _ in range(2):
        x = net.add("Add", x, net.conv(net.add("Relu", net.conv(net.wrap(x, 2), 16)), 16))
    cut = net.add("Slice", x, net.numbers(2, 1), net.numbers(14, 4), net.numbers(1, 2), channels=12)
    soft = net.add("Sigmoid", x)
    check(net.model(net.conv(net.wrap(net.add("Mul", x, soft)), 8), net.conv(net.wrap(cut), 8), x))


def test_a_picture_of_one_pixel_that_is_repeated_does_not_give_its_size():
    net = Net()
    small = net.conv(net.add("GlobalAveragePool", "x"), 16, 1)
    x = net.conv("x", 16, 1)
    for pair in ((small, x), (x, small)):
        y = net.add("Mul", *pair)
        x = net.conv(net.wrap(y), 16)
    check(net.model(x, net.conv(net.wrap(small), 8)))


@pytest.mark.parametrize("number", [-1, 2**63 - 1])
@pytest.mark.parametrize("shape", [(1, 1), (), (2,), (0,)])
def test_a_cut_that_onnx_runtime_refuses_is_left_for_it_to_refuse(shape, number):
    """Packages are made by others: what does not look like a border must not end in an error of ours."""
    net = Net()
    model = net.model(net.conv(net.wrap(net.conv("x", 16, 1)), 8))
    border = next(each for each in model.graph.initializer if numpy_helper.to_array(each).tolist() == [number])
    border.CopyFrom(numpy_helper.from_array(np.full(shape, number, np.int64), border.name))
    left = [node.op_type for node in onnx.load_from_string(woven(model.SerializeToString())).graph.node]
    assert left.count("Concat") >= 1, "the border is not taken for one"


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(st.sampled_from(STEPS), max_size=9),
    size=st.tuples(st.integers(1, 2), st.integers(3, 9), st.integers(3, 9)),
)
def test_any_order_of_layers(seed, steps, size):
    net = Net(seed=seed)
    x = net.add("LeakyRelu", net.conv(net.wrap("x"), 16), alpha=0.2)
    same = True  # the size of x is that of the input
    for position, step in enumerate(steps):
        channels = net.channels[x]
        if step == "wrap":
            x = net.conv(net.wrap(x), 16)
        elif step == "twice":
            x, same = net.add("DepthToSpace", net.conv(x, 64, 1), mode="CRD", blocksize=2, channels=16), False
        elif step == "vector":
            x = net.add("Mul", x, net.vector(channels, f"style{position}"))
        elif step == "noise" and same:
            noise = net.input(f"noise{position}", "n", 1, "h", "w")
            x = net.add("Add", x, net.add("Mul", noise, net.vector(channels)))
        elif step == "relu":
            x = net.add("Relu", x)
        elif step == "residual":
            x = net.add("Add", net.conv(net.wrap(x), channels), x)
        elif step == "layout" and same:
            x = net.add("Concat", x, "x", axis=1, channels=channels + 8)
        elif step == "resize":
            x, same = net.add("Resize", x, "", net.constant([1, 1, 2, 2]), mode="linear"), False
        elif step == "pool":
            x = net.add("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    check(net.model(net.conv(net.wrap(net.conv(x, 16, 1)), 8)), sizes=[size])


def test_what_has_nothing_to_gain_is_left_alone():
    plain = Net()
    model = plain.model(plain.conv(plain.add("Relu", plain.conv("x", 16)), 8))
    before = model.SerializeToString()
    assert not use_rows(model)
    few = Net()
    model_of_few = few.model(few.conv(few.wrap(few.conv("x", 8)), 8))
    assert not use_rows(model_of_few)
    assert model.SerializeToString() == before


def test_a_graph_is_rewritten_once_and_not_if_it_has_graphs_within():
    net = Net()
    model = net.model(net.conv(net.wrap(net.conv("x", 16)), 8))
    assert not use_rows(by_rows(model))
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("t0", TensorProto.FLOAT, None)])
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    assert not use_rows(model)


@pytest.mark.parametrize("name", WITH_ROWS)
def test_shipped_models_give_the_same_bytes_by_rows(name):
    """Whole and by halves, alone and in a batch, at sizes of all kinds."""
    package = verify_package(bundled_models_folder() / name, allow_hard_links=True)
    model = onnx.load_from_string(package.read_graph("fp32"))
    faster = by_rows(model)
    continued = [node for node in faster.graph.node if node.op_type == "Gather"]
    assert len(continued) > 3
    for edge_px, threads in ((64, 1), (192, 2)):
        given = trial_inputs(package.manifest, edge_px, 3)
        for wanted, made in zip(run(model, given, threads), run(faster, given, threads), strict=True):
            np.testing.assert_array_equal(made, wanted)
    pair = {
        key: np.concatenate([value, value[:, ::-1]]) for key, value in trial_inputs(package.manifest, 64, 4).items()
    }
    for wanted, made in zip(run(model, pair), run(faster, pair), strict=True):
        np.testing.assert_array_equal(made, wanted)


def test_only_where_convolutions_work_on_blocks(monkeypatch):
    net = Net()
    data = net.model(net.conv(net.wrap(net.conv("x", 16)), 8)).SerializeToString()
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert woven(data) is data
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert b"Gather" in woven(data)
