"""Sheets hold every sprite where the JSON says, and the JSON can be read back."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen.postprocess import atlas
from assetgen.postprocess.atlas import Frame
from assetgen.postprocess.sprites import Box

SIZES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=20)


def frame_of(number, height, width):
    return Frame(f"s_{number}.png", Box(0, 0, width, height), Box(2, 3, width, height), 16, 32, (8.0, 24.0))


def made(sizes):
    rng = np.random.default_rng(1)
    sprites = [rng.integers(1, 256, (height, width, 4), dtype=np.uint8) for height, width in sizes]
    return sprites, [frame_of(number, *size) for number, size in enumerate(sizes)]


@given(SIZES)
def test_every_sprite_lies_where_its_frame_says_and_nothing_else_is_visible(sizes):
    sprites, frames = made(sizes)
    sheet, placed = atlas.pack(sprites, frames)
    seen = np.zeros(sheet.shape[:2], bool)
    for sprite, frame in zip(sprites, placed, strict=True):
        box = frame.place
        rows, columns = slice(box.top_px, box.top_px + box.height_px), slice(box.left_px, box.left_px + box.width_px)
        assert (sheet[rows, columns] == sprite).all()
        assert not seen[rows, columns].any()
        seen[rows, columns] = True
    assert not sheet[~seen][:, 3].any()
    assert [(frame.source, frame.pivot_px) for frame in placed] == [(frame.source, frame.pivot_px) for frame in frames]


@given(SIZES)
def test_a_border_in_the_colours_of_the_edge_keeps_neighbours_apart(sizes):
    sprites, frames = made(sizes)
    sheet, placed = atlas.pack(sprites, frames)
    for sprite, frame in zip(sprites, placed, strict=True):
        box = frame.place
        left = sheet[box.top_px : box.top_px + box.height_px, box.left_px - 1]
        below = sheet[box.top_px + box.height_px, box.left_px : box.left_px + box.width_px]
        assert (left[:, :3] == sprite[:, 0, :3]).all()
        assert (below[:, :3] == sprite[-1, :, :3]).all()
        assert not left[:, 3].any()
        assert not below[:, 3].any()


def test_cells_are_equal_and_the_sheet_is_whole_cells():
    sprites, frames = made([(4, 6)] * 8)
    sheet, placed = atlas.pack(sprites, frames)
    assert sheet.shape == (3 * 6, 3 * 8, 4)
    assert [(frame.place.left_px, frame.place.top_px) for frame in placed[:4]] == [(1, 1), (9, 1), (17, 1), (1, 7)]


def test_the_description_by_hand():
    frame = Frame("potion.png", Box(1, 1, 10, 20), Box(3, 8, 10, 20), 16, 32, (8.0, 28.0))
    assert atlas.describe([frame], "sheet.png", 12, 22, {"model": "items", "seed": "7"}) == {
        "frames": {
            "potion.png": {
                "frame": {"x": 1, "y": 1, "w": 10, "h": 20},
                "rotated": False,
                "trimmed": True,
                "spriteSourceSize": {"x": 3, "y": 8, "w": 10, "h": 20},
                "sourceSize": {"w": 16, "h": 32},
                "pivot": {"x": 0.5, "y": 0.875},
                "anchor": {"x": 0.5, "y": 0.875},
            }
        },
        "meta": {
            "app": "assetgen",
            "assetgen": {"model": "items", "seed": "7"},
            "format": "RGBA8888",
            "image": "sheet.png",
            "scale": "1",
            "size": {"w": 12, "h": 22},
        },
    }


@given(SIZES)
def test_the_description_is_read_back(sizes):
    _, frames = made(sizes)
    text = json.dumps(atlas.describe(frames, "x.png", 1, 1, {}))
    assert atlas.read_frames(json.loads(text)) == frames


@pytest.mark.parametrize(
    "changes",
    [
        {"frame": {"x": 0}},
        {"frame": {"x": -1, "y": 0, "w": 1, "h": 1}},
        {"sourceSize": {"w": True, "h": 1}},
        {"pivot": 3},
    ],
)
def test_a_strange_description_is_refused(changes):
    described = atlas.describe([frame_of(0, 2, 2)], "x.png", 1, 1, {})
    described["frames"]["s_0.png"] |= changes
    with pytest.raises((KeyError, TypeError, ValueError)):
        atlas.read_frames(described)


def test_no_sprites_make_no_sheet():
    with pytest.raises(ValueError, match="one frame a sprite"):
        atlas.pack([], [])
