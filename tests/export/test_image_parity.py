"""Planted faults are found: a graph that computes something else, and one that does not tile."""

import numpy as np
import pytest
import torch
from torch import nn

from assetgen.errors import ParityFailed
from export.image_parity import LIMIT, image_parity


class Darker(nn.Module):
    """Half of every value: local and shift-equivariant."""

    outputs = ("base_color",)
    stride = 4

    def __init__(self, classes=0):
        super().__init__()
        self.classes = classes

    def forward(self, image, *class_weights):
        share = class_weights[0][:, :1, None, None] if class_weights else 0.5
        return [image * share]


class Fading(Darker):
    """Darker from left to right: it has a border."""

    def forward(self, image, *class_weights):
        return [image * torch.linspace(0, 1, image.shape[3])]


class Session:
    """A runtime that computes ``module``, off by ``error``."""

    def __init__(self, module, error=0.0):
        self.module, self.error = module, error

    def run(self, inputs):
        with torch.no_grad():
            (made,) = self.module(*(torch.from_numpy(np.ascontiguousarray(values)) for values in inputs.values()))
        return {"base_color": made.numpy() + np.float32(self.error)}


@pytest.mark.parametrize(("classes", "names"), [(0, ["image"]), (3, ["image", "class_weights"])])
def test_a_graph_that_is_right_passes(classes, names):
    graph = Darker(classes)
    assert max(image_parity(graph, Session(graph), names).values()) == 0


@pytest.mark.parametrize("error", [2 * LIMIT, float("nan")])
def test_a_graph_that_is_off_is_refused(error):
    with pytest.raises(ParityFailed, match="graph against network"):
        image_parity(Darker(), Session(Darker(), error), ["image"])


def test_a_network_that_does_not_tile_is_refused():
    with pytest.raises(ParityFailed, match="roll network"):
        image_parity(Fading(), Session(Fading()), ["image"])
