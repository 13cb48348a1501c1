"""Graphs get smaller on their way out of PyTorch, and no number that matters is lost on it."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from export.onnx_from_module import onnx_of_pictures


class Small(nn.Module):
    """Numbers near 0 and 1 that are neither, a cast that does nothing, two reshapes for one, a constant part."""

    def forward(self, z, mix):
        scaled = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        scaled = scaled.float().reshape(-1, 4, 1).reshape(-1, 2, 2)
        ones = torch.ones(2, 2) * 3 - 2
        return (scaled * 1.000005 - 1e-9) * ones + mix[:, :, None]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("simplify") / "small.onnx"
    example = torch.randn(2, 4), torch.randn(2, 2)
    onnx_of_pictures(Small(), example, ["z", "mix"], ["picture"], path)
    return path


def test_a_number_that_is_nearly_nothing_stays(made):
    numbers = [numpy_helper.to_array(weight) for weight in onnx.load(made).graph.initializer]
    for wanted in (1e-8, 1.000005, 1e-9):
        assert any(values.size == 1 and np.isclose(values, wanted, rtol=1e-7, atol=0).all() for values in numbers)


@pytest.mark.parametrize("latent", [np.zeros((1, 4)), np.ones((3, 4)), np.full((1, 4), 1e-5)])
def test_the_graph_computes_what_the_module_does(made, latent):
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    feeds = {"z": latent.astype(np.float32), "mix": np.zeros((len(latent), 2), np.float32)}
    found = session.run(None, feeds)[0]
    expected = Small()(*map(torch.from_numpy, feeds.values())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_what_computes_nothing_is_gone(made):
    operators = [node.op_type for node in onnx.load(made).graph.node]
    assert operators.count("Reshape") == 1
    assert not {"Cast", "Identity", "Constant", "Expand"} & set(operators)
    assert operators.count("Mul") <= 4, "the constant part is one number"
