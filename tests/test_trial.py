"""Inputs to try a graph on: of the right shapes, the same each time, and such as the model's own requests feed."""

import numpy as np
import pytest

from assetgen.kinds import texture
from assetgen.trial import _picture, trial_inputs
from assetgen.types import Request
from tests.helpers.tiny_package import tiny_feeds, tiny_manifest


def test_shapes_are_those_of_a_request():
    manifest = tiny_manifest()
    plan = texture.resolve(manifest, Request("tiny", seed=0, width_px=64, height_px=64))
    wanted = {name: values.shape for name, values in texture.prepare(manifest, plan, 0).items()}
    assert {name: values.shape for name, values in trial_inputs(manifest, 64, 0).items()} == wanted
    assert wanted == {name: values.shape for name, values in tiny_feeds().items()}


def test_they_follow_from_the_seed():
    one, two, other = (trial_inputs(tiny_manifest(), 64, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert all(not np.array_equal(one[name], other[name]) for name in one if name != "truncation")
    assert all(values.dtype == np.float32 for values in one.values())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_layouts_are_layouts_and_weights_add_up(seed):
    found = trial_inputs(tiny_manifest(), 64, seed)
    assert found["class_weights"].sum() == 1
    assert found["layout_0"].shape[1] == found["layout_1"].shape[1] == 8
    assert 0 <= found["layout_1"][:, 0].min() <= found["layout_1"][:, 0].max() <= 1


def test_a_picture_has_the_whole_range():
    picture = _picture(np.random.default_rng(0), 3, 40)
    assert (picture.shape, picture.min(), picture.max()) == ((3, 40, 40), 0, 1)
