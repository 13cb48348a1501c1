"""Pixel art from pictures: colours counted, tiles kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assetgen.postprocess.pixelart import shrunk, with_palette
from tests.helpers.style_package import photo

COLOR = photo().astype(np.float32) / np.float32(255)
OPAQUE = np.ones((64, 64), np.float32)
SEEN = np.ones((64, 64), np.bool_)


def count(color):
    return len(np.unique(np.round(color * 255).reshape(-1, 3), axis=0))


@settings(max_examples=25)
@given(st.integers(2, 256), st.integers(0, 31), st.integers(0, 31))
def test_a_palette_is_kept_to_and_does_not_depend_on_places(colors, down, right):
    picture, seen = COLOR[:32, :32], SEEN[:32, :32]
    made = with_palette(picture, seen, colors)
    assert count(made) <= colors
    rolled = with_palette(np.roll(picture, (down, right), axis=(0, 1)), seen, colors)
    assert np.array_equal(np.roll(made, (down, right), axis=(0, 1)), rolled)


def test_more_colours_come_nearer():
    errors = [np.abs(with_palette(COLOR, SEEN, colors) - COLOR).mean() for colors in (2, 8, 32, 256)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 4 / 255


def test_few_colours_stay_exactly():
    four = np.array([[0, 0, 0], [255, 0, 0], [0, 127, 1], [9, 9, 255]], np.float32) / np.float32(255)
    picture = four[np.arange(64 * 64).reshape(64, 64) % 4]
    assert np.array_equal(with_palette(picture, SEEN, 4), picture)
    assert count(with_palette(picture, SEEN, 3)) == 3


def test_noise_has_more_colours_than_are_told_apart_and_is_reduced_all_the_same():
    noise = np.random.default_rng(0).random((256, 256, 3), dtype=np.float32)
    made = with_palette(noise, np.ones((256, 256), np.bool_), 8)
    assert count(made) == 8
    assert np.abs(made - noise).mean() < 0.2  # 0.25 with one grey


def test_pixels_that_are_not_seen_choose_no_colour():
    seen = SEEN.copy()
    seen[32:] = False
    other = COLOR.copy()
    other[32:] = 1 - other[32:]
    first, second = (with_palette(picture, seen, 8) for picture in (COLOR, other))
    assert np.array_equal(first, second)
    assert count(first) <= 8


@pytest.mark.parametrize("colors", [-1, 0, 1, 257])
def test_numbers_that_make_no_palette_are_refused(colors):
    with pytest.raises(ValueError, match="expected 2 to 256"):
        with_palette(COLOR, SEEN, colors)


def test_a_square_becomes_the_mean_of_its_light():
    picture = np.zeros((4, 4, 3), np.float32)
    picture[::2, ::2] = picture[1::2, 1::2] = 1
    made, seen = shrunk(picture, np.ones((4, 4), np.float32), 2)
    assert made.shape == (2, 2, 3)
    assert np.allclose(made, 0.7354, atol=1e-3)  # sRGB code of half the light
    assert (seen == 1).all()


def test_colours_count_by_how_much_of_them_is_seen():
    picture, alpha = np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.float32)
    picture[0, 0], alpha[0, 0] = [1, 0, 0], 1
    made, seen = shrunk(picture, alpha, 2)
    assert np.allclose(made, [1, 0, 0], atol=1e-3)
    assert np.allclose(seen, 0.25)


def test_a_square_of_one_pixel_changes_nothing_and_one_that_does_not_fit_is_refused():
    assert shrunk(COLOR, OPAQUE, 1)[0] is COLOR
    for edge in (0, 3, 5):
        with pytest.raises(ValueError, match="expected a divisor of 64 x 64"):
            shrunk(COLOR, OPAQUE, edge)
