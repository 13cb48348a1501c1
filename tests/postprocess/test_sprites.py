"""Sprites: exact against plain definitions, and without halos on white, black and magenta."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from assetgen.postprocess import sprites
from assetgen.postprocess.encode import encode
from assetgen.postprocess.sprites import Box
from assetgen.types import ColorSpace, Encoding, PixelFormat

WHITE, BLACK, MAGENTA = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 1.0)
BACKGROUNDS = [WHITE, BLACK, MAGENTA]
RED = np.array([0.8, 0.1, 0.1], np.float32)
# Few alphas and colours, so that invisible pixels and equal colours are common.
SPRITES = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda edges: hnp.arrays(np.uint8, (*edges, 4), elements=st.sampled_from((0, 1, 127, 128, 254, 255)))
)


def premultiplied(alpha, color=RED):
    """``[h, w, 4] float32`` of one colour."""
    alpha = np.asarray(alpha, np.float32)[:, :, None]
    return np.concatenate([color * alpha, alpha], axis=2)


def disc(edge=32, soft=3.0):
    y, x = np.mgrid[:edge, :edge] + 0.5
    return premultiplied(np.clip((edge * 0.3 - np.hypot(x - edge / 2, y - edge / 2)) / soft + 0.5, 0, 1))


def over(straight, background):
    """Straight alpha, float in [0, 1], on a flat background."""
    alpha = straight[:, :, 3:]
    return straight[:, :, :3] * alpha + np.float32(background) * (1 - alpha)


def as_float(sprite):
    return sprite.astype(np.float32) / 255


def halved(values):
    """A mip level as graphics cards make it: colours and alpha averaged, each for itself."""
    return values.reshape(values.shape[0] // 2, 2, values.shape[1] // 2, 2, 4).mean(axis=(1, 3))


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_on_any_background_it_looks_as_the_premultiplied_picture(background):
    values = disc()
    sprite = sprites.unpremultiply(values)
    wanted = values[:, :, :3] + np.float32(background) * (1 - values[:, :, 3:])
    # Alpha near 0 and 1 is moved by 4/255 at most, and rounded once more.
    assert np.abs(over(as_float(sprite), background) - wanted).max() <= 5.01 / 255


def test_edges_have_the_full_colour_of_the_inside():
    sprite = sprites.unpremultiply(disc())
    alpha = sprite[:, :, 3]
    assert ((alpha > 0) & (alpha < 255)).any()
    assert np.abs(sprite[alpha > 0][:, :3].astype(int) - np.round(RED * 255)).max() <= 1


def strays(straight, background):
    """How far colours lie from the mixtures of sprite and background, mip level by mip level."""
    worst = 0.0
    while straight.shape[0] > 1:
        straight = halved(straight)
        seen, alpha = over(straight, background), straight[:, :, 3:]
        mixture = RED * alpha + np.float32(background) * (1 - alpha)
        worst = max(worst, float(np.abs(seen - mixture).max()))
    return worst


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_mipmaps_have_no_halo_on(background):
    sprite = sprites.unpremultiply(disc())
    assert strays(as_float(sprites.bleed(sprite)), background) <= 2 / 255
    assert strays(as_float(sprite), background) > 20 / 255  # the test sees the halo of what was not bled


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_enlarged_by_a_filter_there_is_no_halo_on(background):
    large = cv2.resize(as_float(sprites.bleed(sprites.unpremultiply(disc()))), (96, 96), interpolation=cv2.INTER_LINEAR)
    alpha = large[:, :, 3:]
    mixture = RED * alpha + np.float32(background) * (1 - alpha)
    assert np.abs(over(large, background) - mixture).max() <= 2 / 255


def test_what_a_tanh_leaves_of_nothing_and_of_all_becomes_that():
    values = premultiplied([[0.0, 3 / 255, 0.5, 252 / 255, 1.0]])
    assert sprites.unpremultiply(values)[0, :, 3].tolist() == [0, 0, 128, 255, 255]


def test_colour_above_alpha_is_no_overflow():
    values = np.full((1, 1, 4), 0.5, np.float32)
    values[..., :3] = 0.9
    assert sprites.unpremultiply(values)[0, 0, :3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("values", [np.full((2, 2, 4), np.nan), np.full((2, 2, 4), 1.5), np.zeros((2, 2, 3))])
def test_what_no_network_makes_is_refused(values):
    with pytest.raises(ValueError, match="sprite"):
        sprites.unpremultiply(values.astype(np.float32))


@given(SPRITES)
def test_bleeding_takes_a_nearest_visible_colour_and_changes_nothing_visible(sprite):
    filled = sprites.bleed(sprite)
    visible = sprite[:, :, 3] > 0
    assert (filled[:, :, 3] == sprite[:, :, 3]).all()
    assert (filled[visible] == sprite[visible]).all()
    if not visible.any():
        assert (filled == sprite).all()
        return
    places = np.argwhere(visible)
    for row, column in np.argwhere(~visible):
        squared = ((places - (row, column)) ** 2).sum(axis=1)
        nearest = places[squared == squared.min()]
        colors = {tuple(sprite[r, c, :3]) for r, c in nearest}
        assert tuple(filled[row, column, :3]) in colors


def test_bleeding_reaches_across_a_large_picture():
    sprite = np.zeros((300, 40, 4), np.uint8)
    sprite[299, 39] = (1, 2, 3, 255)
    assert (sprites.bleed(sprite)[:, :, :3] == (1, 2, 3)).all()


@given(SPRITES, st.floats(0, 1))
def test_hard_alpha_is_all_or_nothing(sprite, threshold):
    hard = sprites.harden(sprite, threshold)
    assert set(np.unique(hard[:, :, 3])) <= {0, 255}
    assert (hard[:, :, :3] == sprite[:, :, :3]).all()
    kept = hard[:, :, 3] == 255
    assert (sprite[kept][:, 3] > 0).all()
    assert (sprite[kept][:, 3] / 255 >= threshold - 1e-9).all()
    assert (sprites.harden(hard, threshold) == hard).all()


@given(SPRITES, st.integers(2, 8))
def test_a_palette_has_as_many_colours_as_asked_and_leaves_alpha(sprite, colors):
    reduced = sprites.reduce_colors(sprite, colors)
    visible = sprite[:, :, 3] > 0
    assert len(np.unique(reduced[visible][:, :3], axis=0)) <= colors
    assert (reduced[:, :, 3] == sprite[:, :, 3]).all()
    assert (reduced[~visible] == sprite[~visible]).all()


@given(st.integers(1, 16), st.randoms(use_true_random=False))
def test_what_has_few_colours_already_stays_exactly(colors, random):
    table = np.array([[random.randrange(256) for _ in range(3)] + [255] for _ in range(colors)], np.uint8)
    sprite = table[np.array([[random.randrange(colors) for _ in range(9)] for _ in range(9)])]
    assert (sprites.reduce_colors(sprite, 16) == sprite).all()


def test_equal_colours_stay_equal_wherever_they_lie():
    rng = np.random.default_rng(5)
    tile = rng.integers(0, 256, (6, 6, 4), dtype=np.uint8)
    tile[:, :, 3] = 255
    reduced = sprites.reduce_colors(np.tile(tile, (3, 3, 1)), 5)
    assert (reduced == np.tile(reduced[:6, :6], (3, 3, 1))).all()


def test_the_palette_is_that_of_the_solid_pixels_and_is_near_what_was_there():
    sprite = np.zeros((16, 16, 4), np.uint8)
    sprite[:8] = (200, 10, 10, 255)
    sprite[8:12] = (10, 10, 200, 255)
    sprite[12:] = (90, 90, 90, 20)  # a faint edge does not earn a colour of its own
    found = np.unique(sprites.reduce_colors(sprite, 2)[:, :, :3].reshape(-1, 3), axis=0)
    assert found.tolist() == [[10, 10, 200], [200, 10, 10]]


def test_colours_are_counted_from_2_to_256():
    for colors in (1, 257):
        with pytest.raises(ValueError, match="2 to 256"):
            sprites.reduce_colors(np.full((1, 1, 4), 255, np.uint8), colors)


@given(SPRITES, st.integers(0, 5))
def test_cutting_loses_nothing_visible_and_can_be_undone(sprite, margin):
    height, width = sprite.shape[:2]
    box = sprites.opaque_box(sprite)
    wide = sprites.widen(box, margin, width, height)
    part = sprites.cut(sprite, wide)
    whole = np.zeros_like(sprite)
    whole[wide.top_px : wide.top_px + wide.height_px, wide.left_px : wide.left_px + wide.width_px] = part
    visible = sprite[:, :, 3] > 0
    assert (whole[visible] == sprite[visible]).all()
    assert part.shape[:2] == (wide.height_px, wide.width_px)
    if visible.any() and margin == 0:
        edges = part[0], part[-1], part[:, 0], part[:, -1]
        assert all((edge[:, 3] > 0).any() for edge in edges)


def test_a_sprite_of_nothing_keeps_its_size():
    assert sprites.opaque_box(np.zeros((3, 5, 4), np.uint8)) == Box(0, 0, 5, 3)
    assert not sprites.bleed(np.zeros((3, 5, 4), np.uint8)).any()
    assert not sprites.reduce_colors(np.zeros((3, 5, 4), np.uint8), 4).any()


@given(SPRITES, st.integers(1, 8))
def test_enlarged_pixels_are_squares_on_the_grid(sprite, factor):
    large = sprites.enlarge(sprite, factor)
    assert large.shape == (sprite.shape[0] * factor, sprite.shape[1] * factor, 4)
    for row in range(factor):
        for column in range(factor):
            assert (large[row::factor, column::factor] == sprite).all()


def test_enlarging_by_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        sprites.enlarge(np.zeros((1, 1, 4), np.uint8), 0)


def test_pivots_by_hand():
    box = Box(2, 4, 10, 20)
    assert sprites.pivot_of(box, "center") == (7.0, 14.0)
    assert sprites.pivot_of(box, "bottom") == (7.0, 24.0)
    assert sprites.pivot_of(box, "top_right") == (12.0, 4.0)


def test_colours_under_alpha_0_survive_the_file():
    sprite = sprites.bleed(sprites.unpremultiply(disc()))
    data = encode(sprite, PixelFormat.RGBA8, Encoding.PNG, color_space=ColorSpace.SRGB)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "RGBA"
        assert (np.asarray(picture) == sprite).all()
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[:, :, [2, 1, 0, 3]] == sprite).all()


def test_a_sprite_is_shown_on_squares():
    sprite = np.zeros((16, 16, 4), np.uint8)
    sprite[4, 4] = (10, 20, 30, 255)
    shown = sprites.on_squares(sprite)
    assert shown[4, 4].tolist() == [10, 20, 30]
    assert shown[0, 0].tolist() == shown[15, 15].tolist() == [224] * 3
    assert shown[0, 15].tolist() == shown[15, 0].tolist() == [176] * 3
