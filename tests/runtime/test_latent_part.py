"""A graph cut behind the latent: both parts together are the whole, and only the picture sees what is spatial."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assetgen.runtime import openvino
from assetgen.runtime.latent_part import cut_latent_part
from tests.helpers.tiny_package import tiny_feeds, tiny_model

pytestmark = pytest.mark.skipif(openvino.installed_version() == "", reason="OPENVINO NOT TESTED: pip install openvino")
SPATIAL = frozenset(["grid", "layout_0", "layout_1", "noise_0"])


@pytest.fixture(scope="module")
def whole() -> Any:
    return openvino.openvino_core().read_model(tiny_model().SerializeToString())


def computed(model: Any, feeds: dict[str, Any]) -> list[Any]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.openvino_core().compile_model(model, "CPU", settings).create_infer_request()
    request.infer({port.any_name: feeds[port.any_name] for port in model.inputs})
    return [tensor.data.copy() for tensor in request.output_tensors]


def names(ports: Any) -> set[str]:
    return {port.any_name for port in ports}


@pytest.mark.parametrize("batch", [1, 3])
def test_the_parts_one_after_the_other_compute_the_whole(whole, batch):
    latent, picture = cut_latent_part(openvino.import_openvino(), whole, SPATIAL)
    feeds = tiny_feeds(batch=batch)
    cuts = {f"cut_{n}": values for n, values in enumerate(computed(latent, feeds))}
    for wanted, given in zip(computed(whole, feeds), computed(picture, feeds | cuts), strict=True):
        np.testing.assert_allclose(given, wanted, atol=1e-6)


def test_the_latent_part_takes_the_latent_and_the_picture_the_rest(whole):
    latent, picture = cut_latent_part(openvino.import_openvino(), whole, SPATIAL)
    assert names(latent.inputs) == {"z", "class_weights", "truncation"}
    assert names(picture.inputs) == SPATIAL | {"cut_0"}
    assert names(picture.outputs) == names(whole.outputs)
    assert list(latent.outputs[0].get_partial_shape())[1:] == [8, 1, 1]


def test_the_whole_is_left_as_it_was(whole):
    feeds = tiny_feeds()
    before = computed(whole, feeds)
    cut_latent_part(openvino.import_openvino(), whole, SPATIAL)
    assert names(whole.inputs) == set(feeds)
    for wanted, given in zip(before, computed(whole, feeds), strict=True):
        np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize("spatial", [frozenset(), frozenset(tiny_feeds())])
def test_a_graph_of_one_part_is_not_cut(whole, spatial):
    assert cut_latent_part(openvino.import_openvino(), whole, spatial) is None
