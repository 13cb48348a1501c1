"""How alike pictures of one class are."""

import numpy as np
import pytest

from assetgen.metrics.diversity import mean_ms_ssim, mean_pairwise_distance, ms_ssim, random_pairs
from tests.metrics.synthetic import blotches, noise, waves


def test_equal_pictures_are_as_alike_as_can_be():
    assert ms_ssim(waves(3), waves(3)) == pytest.approx(1, abs=1e-5)


def test_flat_pictures_differ_by_luminance_alone():
    """Contrast terms are C2 / C2; luminance counts at the last of three levels, with 0.3001 of 0.6305."""
    a, b = 51, 204
    pictures = [np.full((1, 64, 64, 3), level, np.uint8) for level in (a, b)]
    x, y, c1 = a / 255, b / 255, 0.01**2
    expected = ((2 * x * y + c1) / (x * x + y * y + c1)) ** (0.3001 / (0.0448 + 0.2856 + 0.3001))
    assert ms_ssim(*pictures)[0] == pytest.approx(expected, rel=1e-4)


def test_a_negative_is_not_alike():
    pictures = noise(4)
    assert (ms_ssim(pictures, 255 - pictures) < 0.05).all()


def test_a_little_noise_harms_less_than_much():
    rng = np.random.default_rng(0)
    pictures = blotches(4)
    noisy = [np.clip(pictures + rng.normal(0, sigma, pictures.shape), 0, 255).astype(np.uint8) for sigma in (4, 16, 64)]
    found = [float(ms_ssim(pictures, other).mean()) for other in noisy]
    assert 1 > found[0] > found[1] > found[2]


def test_one_picture_repeated_shows_in_both_figures():
    repeated = np.repeat(waves(1), 8, axis=0)
    pairs = random_pairs(8, 64)
    assert mean_ms_ssim(repeated, pairs) == pytest.approx(1, abs=1e-5)
    assert mean_pairwise_distance(repeated, pairs) == 0
    assert mean_ms_ssim(waves(8), pairs) < 0.6
    assert mean_pairwise_distance(waves(8), pairs) > 0.1


def test_the_distance_of_black_and_white_is_one():
    pictures = np.stack([np.zeros((16, 16, 3)), np.full((16, 16, 3), 255)]).astype(np.uint8)
    assert mean_pairwise_distance(pictures, random_pairs(2, 10)) == 1


def test_pairs_are_of_two_and_take_in_all():
    pairs = random_pairs(5, 500)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert {tuple(pair) for pair in pairs} == {(a, b) for a in range(5) for b in range(5) if a != b}
    assert np.array_equal(pairs, random_pairs(5, 500))
    with pytest.raises(ValueError, match="1 pictures make no pair"):
        random_pairs(1, 4)


def test_pictures_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="11 at least"):
        ms_ssim(waves(1, edge_px=10), waves(1, edge_px=10))
