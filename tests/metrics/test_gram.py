"""Distance of Gram matrices."""

import numpy as np
import pytest

from assetgen.metrics.gram import gram_distance
from tests.metrics.synthetic import blotches, blurred, waves


def test_order_and_number_do_not_matter():
    pictures = waves(6)
    assert gram_distance(pictures, pictures) == 0
    assert gram_distance(np.concatenate([pictures, pictures])[::-1], pictures) < 1e-6


def test_one_kind_is_near_another_and_blur_far():
    reals = blotches(24, 1)
    near = gram_distance(blotches(24, 0), reals)
    assert gram_distance(waves(24, 0), reals) > 1.5 * near
    assert gram_distance(blurred(blurred(waves(24, 0))), waves(24, 1)) > gram_distance(waves(24, 0), waves(24, 1))


def test_double_contrast_is_four_times_the_matrix():
    """Filters are linear and a Gram matrix is of the second degree: |4G - G| / |G| = 3."""
    rng = np.random.default_rng(0)
    half = rng.integers(-30, 31, (4, 64, 64, 3))
    reals, fakes = ((128 + factor * half).astype(np.uint8) for factor in (1, 2))
    assert gram_distance(fakes, reals) == pytest.approx(3, rel=0.02)


def test_small_pictures_are_refused_and_those_between_have_fewer_scales():
    with pytest.raises(ValueError, match="22 at least"):
        gram_distance(waves(2, edge_px=20), waves(2, edge_px=20))
    assert gram_distance(waves(2, edge_px=32), waves(2, edge_px=32)) == 0
