"""What is probed: real requests of every class with parameters at their ends, and the largest magnitude of a tensor."""

import numpy as np
import pytest

from export.probe import magnitudes, open_bytes, real_inputs, run
from tests.helpers.tiny_package import tiny_feeds, tiny_manifest, tiny_model


def test_requests_take_classes_in_turn_and_numbers_at_their_ends():
    inputs = real_inputs(tiny_manifest(), 6, edge_px=32)
    assert [int(feeds["class_weights"].argmax()) for feeds in inputs] == [0, 1, 0, 1, 0, 1]
    assert [float(feeds["truncation"][0, 0]) for feeds in inputs] == pytest.approx([0.7, 0, 1, 0.7, 0, 1])
    assert inputs[0]["grid"].shape == (1, 2, 2, 2)


def test_the_edge_is_one_that_the_model_makes():
    assert real_inputs(tiny_manifest(max_px=64), 1, edge_px=512)[0]["grid"].shape[2:] == (4, 4)
    assert real_inputs(tiny_manifest(), 1, edge_px=1)[0]["grid"].shape[2:] == (2, 2)


def test_magnitudes_are_those_of_the_tensors():
    model, feeds = tiny_model(), [tiny_feeds(seed) for seed in range(2)]
    feeds[1]["z"] *= 100
    found = magnitudes(model, ["z", "v0", "height"], feeds)
    assert found["v0"].tolist() == pytest.approx(
        [float(np.abs(each["z"] * each["truncation"]).max()) for each in feeds]
    )
    assert found["z"].tolist() == pytest.approx([float(np.abs(each["z"]).max()) for each in feeds])
    session = open_bytes(model)
    assert found["height"].tolist() == pytest.approx([float(run(session, each)["height"].max()) for each in feeds])


def test_what_is_not_finite_shows():
    feeds = tiny_feeds()
    feeds["z"][0, 0] = np.nan
    assert not np.isfinite(magnitudes(tiny_model(), ["v0"], [feeds])["v0"]).any()
