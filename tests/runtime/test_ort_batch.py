"""Batches of ONNX Runtime: eight at once give what each of them gives alone."""

from __future__ import annotations

import numpy as np
import pytest

from assetgen.package import verify_package
from assetgen.runtime import open_session
from tests.helpers.tiny_package import tiny_feeds, write_tiny_package

BATCH = 8


def alone(feeds, number):
    return {name: values[number : number + 1] for name, values in feeds.items()}


@pytest.mark.parametrize("channels", [8, 32])
@pytest.mark.parametrize("cells", [(2, 2), (4, 4), (3, 7)])
def test_a_batch_of_eight_gives_what_each_gives_alone(tmp_path, channels, cells):
    write_tiny_package(tmp_path, channels=channels)
    package = verify_package(tmp_path)
    session = open_session(package, "cpu", 1)
    feeds = tiny_feeds(seed=11, batch=BATCH, cells=cells)
    feeds["class_weights"] = np.random.default_rng(2).dirichlet((1.0, 1.0), BATCH).astype(np.float32)
    feeds["truncation"] = np.linspace(0, 1, BATCH, dtype=np.float32)[:, None]
    together = session.run(feeds)
    each = [session.run(alone(feeds, number)) for number in range(BATCH)]
    for name, tolerance in package.manifest.tolerance["fp32"].items():
        assert together[name].shape[0] == BATCH
        for number in range(BATCH):
            np.testing.assert_allclose(together[name][number], each[number][name][0], rtol=0, atol=tolerance)
        pairs = [np.abs(each[one][name] - each[one + 1][name]).max() for one in range(BATCH - 1)]
        assert min(pairs) > 10 * tolerance  # places that were confused would be seen


def test_the_order_within_a_batch_changes_nothing(tmp_path):
    write_tiny_package(tmp_path)
    package = verify_package(tmp_path)
    session = open_session(package, "cpu", 1)
    feeds = tiny_feeds(seed=12, batch=BATCH)
    order = np.random.default_rng(3).permutation(BATCH)
    straight = session.run(feeds)
    shuffled = session.run({name: values[order] for name, values in feeds.items()})
    for name, tolerance in package.manifest.tolerance["fp32"].items():
        np.testing.assert_allclose(shuffled[name], straight[name][order], rtol=0, atol=tolerance)
