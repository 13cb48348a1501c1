"""Clouds of features."""

import numpy as np
import pytest

from assetgen.metrics.neighbours import Neighbours, distances, kid, neighbours


def cloud(n, shift=0.0, seed=0, d=8):
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


def column(*values):
    return np.array(values, dtype=np.float32)[:, None]


def test_figures_of_points_on_a_line_are_as_counted_by_hand():
    """Reals at 0 … 9; five fakes at 4.5, within reach of all ten reals for k 5, and five far away.

    Fakes lie on each other, so the third neighbour of each is at distance 0 and no real is within their reach.
    """
    found = neighbours(column(*[4.5] * 5, *[100] * 5), column(*range(10)))
    assert found == Neighbours(precision=0.5, recall=0.0, density=1.0, coverage=1.0)


def test_a_cloud_against_itself_is_perfect():
    same = neighbours(cloud(64), cloud(64))
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density > 1


def test_clouds_of_one_distribution_lie_in_each_other_and_others_apart():
    near = neighbours(cloud(128, seed=1), cloud(128, seed=2))
    assert min(near.precision, near.recall, near.coverage) > 0.7
    assert near.density == pytest.approx(1, abs=0.3)
    far = neighbours(cloud(128, shift=20), cloud(128))
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


def test_collapse_keeps_precision_and_loses_recall_and_coverage():
    reals = cloud(128, seed=2)
    collapsed = np.repeat(reals[:1], 128, axis=0) + cloud(128, seed=3) * 1e-3
    found = neighbours(collapsed, reals)
    assert found.precision == 1
    assert found.recall < 0.05
    assert found.coverage < 0.2


def test_kid_of_two_points_each_is_as_counted_by_hand():
    """k(x, y) = (xy + 1)³: within fakes {0, 1} 1, within reals {0, 2} 1, between (1 + 1 + 1 + 27) / 4 = 7.5."""
    assert kid(column(0, 1), column(0, 2)) == pytest.approx(1 + 1 - 2 * 7.5)


def test_kid_is_zero_on_average_for_one_distribution_and_grows_with_the_distance():
    near = [kid(cloud(32, seed=2 * n), cloud(32, seed=2 * n + 1)) for n in range(40)]
    assert abs(np.mean(near)) < 3 * np.std(near) / np.sqrt(40)
    assert min(near) < 0 < max(near)
    assert max(near) < kid(cloud(32, shift=0.5), cloud(32, seed=1)) < kid(cloud(32, shift=1), cloud(32, seed=1))


def test_distances_are_those_of_pythagoras():
    found = distances(np.array([[0, 0], [3, 4]], np.float32), np.array([[3, 4]], np.float32))
    assert np.allclose(found, [[5], [0]])


def test_too_few_or_other_features_are_refused():
    with pytest.raises(ValueError, match="6 at least"):
        neighbours(cloud(5), cloud(64))
    with pytest.raises(ValueError, match="2 at least"):
        kid(cloud(1), cloud(64))
    with pytest.raises(ValueError, match="reals"):
        neighbours(cloud(64, d=4), cloud(64, d=5))
