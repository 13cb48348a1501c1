"""Copies of training pictures are found, and nothing else."""

import numpy as np
import pytest

from assetgen.metrics.memorisation import copied_share, nearest_training
from tests.metrics.synthetic import blotches, bytes_of, waves


@pytest.fixture(scope="module")
def training():
    return list(blotches(12, seed=1, edge_px=96, cells=24))


def crops(pictures, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack(
        [picture[top : top + 64, left : left + 64] for picture in pictures for top, left in [rng.integers(33, size=2)]]
    )


def changed(pictures, how):
    return {
        "as it is": pictures,
        "flipped": pictures[:, :, ::-1],
        "turned": np.rot90(pictures, 1, (1, 2)),
        "turned and flipped": np.rot90(pictures, 1, (1, 2))[:, ::-1],
        "rolled": np.roll(pictures, (21, 43), (1, 2)),
        "darker and flatter": bytes_of(pictures * 0.5),
        "noisy": bytes_of(pictures + np.random.default_rng(0).normal(0, 5, pictures.shape)),
    }[how]


@pytest.mark.parametrize(
    "how", ["as it is", "flipped", "turned", "turned and flipped", "rolled", "darker and flatter", "noisy"]
)
def test_a_copy_is_found_whatever_was_done_to_it(training, how):
    found = nearest_training(np.ascontiguousarray(changed(crops(training), how)), training)
    assert found.picture.tolist() == list(range(12))
    assert found.distance.max() < 0.35


def test_other_pictures_of_the_kind_are_not_copies(training):
    held_out = nearest_training(blotches(32, seed=2, cells=16), training)
    new = nearest_training(blotches(32, seed=3, cells=16), training)
    copies = nearest_training(crops(training), training)
    assert held_out.distance.min() > 0.5
    assert copied_share(new.distance, held_out.distance) < 0.2
    assert copied_share(copies.distance, held_out.distance) == 1


def test_the_corner_is_where_the_window_was_cut(training):
    query = training[3][10:74, 22:86][None]
    found = nearest_training(query, training)
    assert found.picture[0] == 3
    assert tuple(found.corner[0]) in {(10 + down, 22 + right) for down in (0, 32) for right in (0, 32)}


def test_the_share_counts_what_is_nearer_than_a_twentieth():
    held_out = np.linspace(1, 2, 101, dtype=np.float32)
    assert copied_share(np.array([0.5, 1.04, 1.06, 1.5], np.float32), held_out) == 0.5


def test_wrong_sizes_are_refused(training):
    with pytest.raises(ValueError, match="multiples of 8 px"):
        nearest_training(waves(1, edge_px=36), training)
    with pytest.raises(ValueError, match="0 training pictures"):
        nearest_training(waves(1), [])
    with pytest.raises(ValueError, match="training picture of 20 px"):
        nearest_training(waves(1), [waves(1, edge_px=20)[0]])
