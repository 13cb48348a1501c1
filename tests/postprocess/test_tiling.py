"""Pictures on the torus and off it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen.postprocess.tiling import continued, repeats, resized
from tests.helpers.style_package import photo

OPAQUE = np.ones((64, 64), np.float32)


def color(*arguments, **options):
    return photo(*arguments, **options).astype(np.float32) / np.float32(255)


def test_a_tile_is_told_from_a_crop_on_each_axis():
    tile, ramp = color(96), np.linspace(0, 0.4, 96, dtype=np.float32)
    assert repeats(tile) == (True, True)
    assert repeats(tile * 0.5 + ramp[:, None, None]) == (False, True)
    assert repeats(tile * 0.5 + ramp[None, :, None]) == (True, False)
    assert repeats(np.zeros((16, 16, 3), np.float32)) == (True, True)


def test_a_border_at_a_joint_is_as_sharp_as_other_joints():
    joints = np.zeros((64, 64, 3), np.float32)
    joints[::16] = 1
    assert repeats(joints) == (True, True)


@pytest.mark.parametrize(("border", "expected"), [(0.30, True), (0.33, True), (0.36, False)])
def test_a_border_may_be_a_little_sharper_than_the_sharpest_line_inside(border, expected):
    values = np.zeros(16, np.float32)
    values[4:8] = 0.33  # two steps of 0.33 inside
    values[8:] = border  # one of the difference, and the border's own
    assert repeats(np.broadcast_to(values[:, None, None], (16, 16, 3)).copy())[0] is expected


def test_rolling_a_tile_changes_no_decision():
    tile = color(64)
    for shift in range(0, 64, 7):
        assert repeats(np.roll(tile, (shift, 2 * shift), axis=(0, 1))) == (True, True)


def test_a_picture_goes_on_as_itself_or_as_its_mirror_image():
    picture = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    made = continued(picture, (1, 2), (2, 1), (True, False))[:, :, 0]
    assert made[:, 2:-1].tolist() == [[8, 9, 10, 11], *picture[:, :, 0].tolist(), [0, 1, 2, 3], [4, 5, 6, 7]]
    assert made[1].tolist() == [1, 0, 0, 1, 2, 3, 3]
    assert continued(picture, (0, 0), (0, 0), (False, False)) is picture


def test_a_margin_may_be_wider_than_the_picture():
    assert continued(color(16), (40, 40), (64, 64), (False, True)).shape == (96, 144, 3)


@given(st.sampled_from([16, 24, 48, 96, 128]), st.sampled_from([32, 40, 80]))
def test_a_tile_of_another_size_is_a_tile(width_px, height_px):
    tile = color(64)
    made, seen = resized(tile, OPAQUE, (width_px, height_px), (True, True))
    assert made.shape == (height_px, width_px, 3)
    assert (seen == 1).all() or np.allclose(seen, 1, atol=1e-6)
    # Half of the picture is a whole number of pixels at every size.
    rolled, _ = resized(np.roll(tile, (32, 32), axis=(0, 1)), OPAQUE, (width_px, height_px), (True, True))
    assert np.abs(np.roll(made, (height_px // 2, width_px // 2), axis=(0, 1)) - rolled).max() < 1e-5


def test_colours_that_are_not_seen_do_not_bleed_in():
    tile, alpha = color(64), OPAQUE.copy()
    alpha[:, 32:] = 0
    other = np.where(alpha[:, :, None] > 0, tile, 1 - tile)
    first, seen = resized(tile, alpha, (32, 32), (False, False))
    second, _ = resized(other, alpha, (32, 32), (False, False))
    assert np.abs(first - second)[seen > 0.01].max() < 1e-5
    assert 0 <= seen.min() < 0.01
    assert seen.max() == 1


def test_light_is_averaged_not_its_code():
    checks = np.indices((64, 64)).sum(axis=0) % 2
    made, _ = resized(np.repeat(checks[:, :, None], 3, axis=2).astype(np.float32), OPAQUE, (32, 32), (True, True))
    assert made.mean() == pytest.approx(0.7354, abs=0.01)  # sRGB code of half the light
