"""Sprites on one sheet, and the JSON that says where each lies; imports sprites, numpy and the standard library.

The JSON is TexturePacker's "hash" layout, which PixiJS, Phaser and importers for other engines read: by file name the
rectangle in the picture, what was cut off, and the pivot as a share of the picture before the cut, y down. Some readers
call the pivot ``anchor``: it stands there under both names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from assetgen.postprocess.sprites import Box, Sprite

BORDER_PX = 1


@dataclass(frozen=True)
class Frame:
    """Where a sprite lies, and where it lay in the picture it was cut from.

    Attributes:
        name: file name of the sprite.
        place: its rectangle in the file or sheet.
        source: the same rectangle in the picture before it was cut.
        source_width_px, source_height_px: size of that picture.
        pivot_px: x and y in that picture.
    """

    name: str
    place: Box
    source: Box
    source_width_px: int
    source_height_px: int
    pivot_px: tuple[float, float]


def describe(
    frames: Sequence[Frame], image: str, width_px: int, height_px: int, facts: Mapping[str, str]
) -> dict[str, Any]:
    """The description of a picture, ready for JSON.

    Args:
        image: file name of the picture; width_px, height_px: its size.
        facts: where it comes from, such as ``model`` and ``seed``.
    """
    return {
        "frames": {frame.name: _entry(frame) for frame in frames},
        "meta": {
            "app": "assetgen",
            "assetgen": dict(facts),
            "format": "RGBA8888",
            "image": image,
            "scale": "1",
            "size": {"w": width_px, "h": height_px},
        },
    }


def read_frames(description: Mapping[str, Any]) -> list[Frame]:
    """The frames of what ``describe`` made; raises KeyError, TypeError or ValueError for anything else."""
    return [_frame(name, entry) for name, entry in description["frames"].items()]


def pack(sprites: Sequence[Sprite], frames: Sequence[Frame]) -> tuple[Sprite, list[Frame]]:
    """One sheet of equal cells, as square as their number allows, and the frames with their places on it.

    Cells are as large as the largest sprite with a border of 1 px around, which holds the colours of the sprite's edge
    at alpha 0: filters meet no neighbour. The sheet is whole cells, so engines that slice by rows and columns can.

    Raises:
        ValueError: no sprites, or not one frame for each.
    """
    if not sprites or len(sprites) != len(frames):
        raise ValueError(f"got {len(sprites)} sprites and {len(frames)} frames, expected one frame a sprite")
    cell_height = max(sprite.shape[0] for sprite in sprites) + 2 * BORDER_PX
    cell_width = max(sprite.shape[1] for sprite in sprites) + 2 * BORDER_PX
    columns = math.ceil(math.sqrt(len(sprites)))
    rows = math.ceil(len(sprites) / columns)
    sheet: Sprite = np.zeros((rows * cell_height, columns * cell_width, 4), dtype=np.uint8)
    placed = []
    for number, (sprite, frame) in enumerate(zip(sprites, frames, strict=True)):
        top, left = number // columns * cell_height, number % columns * cell_width
        bordered = np.pad(sprite, ((BORDER_PX, BORDER_PX), (BORDER_PX, BORDER_PX), (0, 0)), mode="edge")
        inside = bordered[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
        bordered[:, :, 3] = 0
        inside[:, :, 3] = sprite[:, :, 3]
        sheet[top : top + bordered.shape[0], left : left + bordered.shape[1]] = bordered
        place = Box(left + BORDER_PX, top + BORDER_PX, sprite.shape[1], sprite.shape[0])
        placed.append(replace(frame, place=place))
    return sheet, placed


def _entry(frame: Frame) -> dict[str, Any]:
    x, y = frame.pivot_px[0] / frame.source_width_px, frame.pivot_px[1] / frame.source_height_px
    pivot = {"x": round(x, 6), "y": round(y, 6)}
    whole = (frame.source.width_px, frame.source.height_px) == (frame.source_width_px, frame.source_height_px)
    return {
        "frame": _rectangle(frame.place),
        "rotated": False,
        "trimmed": not whole,
        "spriteSourceSize": _rectangle(frame.source),
        "sourceSize": {"w": frame.source_width_px, "h": frame.source_height_px},
        "pivot": pivot,
        "anchor": pivot,
    }


def _frame(name: str, entry: Mapping[str, Any]) -> Frame:
    width, height = _count(entry["sourceSize"]["w"]), _count(entry["sourceSize"]["h"])
    pivot = float(entry["pivot"]["x"]) * width, float(entry["pivot"]["y"]) * height
    return Frame(name, _box(entry["frame"]), _box(entry["spriteSourceSize"]), width, height, pivot)


def _rectangle(box: Box) -> dict[str, int]:
    return {"x": box.left_px, "y": box.top_px, "w": box.width_px, "h": box.height_px}


def _box(rectangle: Mapping[str, Any]) -> Box:
    return Box(*(_count(rectangle[key]) for key in ("x", "y", "w", "h")))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"got {value!r:.80}, expected a whole number of pixels")
    return value
