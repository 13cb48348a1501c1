"""Sliced Wasserstein distance."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assetgen.metrics.swd import _distance, _enlarge, laplacian_pyramid, mean_distance, sliced_wasserstein
from tests.metrics.synthetic import blotches, blurred, bytes_of, noise, waves


def test_a_set_is_at_no_distance_from_itself():
    assert sliced_wasserstein(waves(8), waves(8)) == {64: 0, 32: 0, 16: 0}


def test_the_same_for_the_same_seed():
    a, b = waves(4, 0), waves(4, 1)
    assert sliced_wasserstein(a, b, seed=3) == sliced_wasserstein(a, b, seed=3)
    assert sliced_wasserstein(a, b, seed=3) != sliced_wasserstein(a, b, seed=4)


def test_one_kind_is_near_and_another_far():
    near = mean_distance(sliced_wasserstein(waves(32, 0), waves(32, 1)))
    far = mean_distance(sliced_wasserstein(blotches(32, 0), waves(32, 1)))
    assert near < 150
    assert far > 2 * near


def test_blur_is_seen_most_where_detail_is():
    found = sliced_wasserstein(blurred(noise(8, 0)), noise(8, 1))
    assert found[64] > 200
    assert found[64] > found[32] > found[16]


def test_one_picture_repeated_is_far():
    reals = blotches(24, 1)
    repeated = np.repeat(blotches(1, 5), 24, axis=0)
    near = mean_distance(sliced_wasserstein(blotches(24, 2), reals))
    assert mean_distance(sliced_wasserstein(repeated, reals)) > 2 * near


def test_a_shift_of_brightness_is_its_size_at_the_coarsest_level_and_nothing_above():
    """All patches move by d / σ on every value; on a random unit direction that is |N(0, 1)| d / σ."""
    reals = noise(16)
    shift = 20
    found = sliced_wasserstein(reals + np.uint8(shift), reals, patches=32, directions=1024)
    low = laplacian_pyramid(torch.from_numpy(reals.transpose(0, 3, 1, 2)).float())[-1]
    # Half a step of leeway for patches that are not the whole picture; the three channels are equal here.
    assert found[16] == pytest.approx(1000 * shift / float(low.std()) * math.sqrt(2 / math.pi), rel=0.06)
    assert found[64] < 1e-2
    assert found[32] < 1e-2


def test_half_the_contrast_is_seen_since_reals_alone_set_the_scale():
    reals = noise(8)
    assert sliced_wasserstein(bytes_of(120 + (reals - 120.0) / 2), reals)[64] > 300


def test_bands_add_up_to_the_picture():
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for wrap in (False, True):
        bands = laplacian_pyramid(x, wrap)
        assert [band.shape[2] for band in bands] == [64, 32, 16]
        total = bands[-1]
        for band in bands[-2::-1]:
            total = band + _enlarge(total, wrap)
        assert torch.allclose(total, x, atol=1e-5)


def test_wrapped_bands_roll_with_the_picture():
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rolled = laplacian_pyramid(torch.roll(x, (8, 20), (2, 3)), wrap=True)
    for level, band in enumerate(laplacian_pyramid(x, wrap=True)):
        assert torch.allclose(torch.roll(band, (8 >> level, 20 >> level), (2, 3)), rolled[level], atol=1e-6)


def test_wrapped_patches_cross_the_border():
    """Stripes of one row each: only patches over the border hold the last row next to the first."""
    flat = np.full((2, 16, 16, 3), 128, np.uint8)
    edged = flat.copy()
    edged[:, 0] = 0
    edged[:, -1] = 255
    assert sliced_wasserstein(edged, edged, wrap=True) == {16: 0}
    rolled = np.roll(edged, 8, axis=1)
    plain, wrapped = (sliced_wasserstein(rolled, edged, wrap=wrap, patches=512)[16] for wrap in (False, True))
    assert wrapped < 0.6 * plain


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.floats(-10, 10))
def test_moving_points_on_a_line_costs_the_way(points, shift):
    a = torch.tensor(points, dtype=torch.float64)[:, None]
    assert float(_distance(a + shift, a.flip(0))) == pytest.approx(abs(shift), abs=1e-9)


def test_sides_must_match():
    with pytest.raises(ValueError, match="3 fakes and 4 reals"):
        sliced_wasserstein(waves(3), waves(4))
    with pytest.raises(ValueError, match="reals"):
        sliced_wasserstein(waves(3), waves(3, edge_px=32))
    with pytest.raises(ValueError, match="7 at least"):
        sliced_wasserstein(waves(3, edge_px=6), waves(3, edge_px=6))
