"""The picture of a request: its size, whether it tiles, and how it goes on; imports manifest and postprocess."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assetgen.errors import FieldInvalid
from assetgen.kinds.plan import check_integer
from assetgen.manifest import Manifest, SizeSpec
from assetgen.postprocess import decode, pixelart, tiling
from assetgen.types import FloatArray, Request

IMAGE = "image"
IMAGE_FIELD = f"parameters[{IMAGE}]"
AUTO, YES, NO = "auto", "yes", "no"
TILES = (AUTO, YES, NO)


@dataclass(frozen=True)
class Source:
    """What the user sent, decoded and at the size that is drawn.

    Attributes:
        color: [H, W, 3] in [0, 1]; where nothing is visible, the mean of what is.
        alpha: [H, W] in [0, 1]; opaque: whether all of it is 1.
        wraps: whether rows, and columns, repeat themselves.
    """

    color: FloatArray
    alpha: FloatArray
    opaque: bool
    wraps: tuple[bool, bool]


def read_source(data: bytes, size: SizeSpec, drawn_px: tuple[int, int], pixel_size: int, tiles: str) -> Source:
    """Decode a picture and bring it to the size that is drawn.

    Args:
        size: edges that the model takes.
        drawn_px: width and height.
        pixel_size: how many times larger the result is; the picture is brought to that size first.
        tiles: one of ``TILES``.

    Raises:
        ImageInvalid: it cannot be decoded.
        FieldInvalid: it repeats itself, and the size is none that the model keeps so.
    """
    picture = decode.decode_picture(data, size.min_px, size.max_px, IMAGE_FIELD)
    color, opaque = picture.color, picture.alpha is None
    alpha = np.ones(color.shape[:2], dtype=np.float32)
    if picture.alpha is not None:
        alpha = picture.alpha.astype(np.float32) / np.float32(255)
        color = np.where(alpha[:, :, np.newaxis] > 0, color, color[alpha > 0].mean(axis=0, dtype=np.float64))
        color = color.astype(np.float32)
    wraps = tiling.repeats(color) if tiles == AUTO else (tiles == YES,) * 2
    width_px, height_px = (edge * pixel_size for edge in drawn_px)
    if color.shape[1::-1] != (width_px, height_px):
        color, alpha = tiling.resized(color, alpha, (width_px, height_px), wraps)
    color, alpha = pixelart.shrunk(color, alpha, pixel_size)
    check_torus(size, drawn_px, wraps, "seem to " if tiles == AUTO else "")
    return Source(color, alpha, opaque, wraps)


def result_size(own_px: tuple[int, int], request: Request, manifest: Manifest) -> tuple[int, int]:
    """Width and height of the result: the picture's own, or what is asked for; an edge left open keeps the shape.

    Raises:
        FieldInvalid: an edge is asked for that the model does not make.
    """
    size = manifest.size
    asked = request.width_px, request.height_px
    for name, edge in zip(("width_px", "height_px"), asked, strict=True):
        check_integer(edge, 0, 2**32 - 1, name)
        if edge and not (size.min_px <= edge <= size.max_px and edge % size.stride_px == 0):
            raise FieldInvalid(
                f"{name}: {edge} is not allowed; use multiples of {size.stride_px} from {size.min_px} to "
                f"{size.max_px}, or 0 for the picture's own (model {manifest.id!r})",
                field=name,
                metadata={"value": str(edge), "stride": str(size.stride_px), "max": str(size.max_px)},
            )
    if not any(asked):
        return own_px
    scale = max(edge / own for edge, own in zip(asked, own_px, strict=True))
    width_px, height_px = (
        edge or min(max(round(own * scale / size.stride_px) * size.stride_px, size.min_px), size.max_px)
        for edge, own in zip(asked, own_px, strict=True)
    )
    return width_px, height_px


def margins(edge_px: int, stride_px: int, reach_px: int) -> tuple[int, int]:
    """How far an axis that does not repeat itself goes on, before and behind; whole cells of the network in all."""
    before = -(-reach_px // stride_px) * stride_px
    return before, before + -edge_px % stride_px


def check_torus(size: SizeSpec, drawn_px: tuple[int, int], wraps: tuple[bool, bool], seem: str = "") -> None:
    """Raise FieldInvalid unless the edges of the axes that repeat themselves are whole cells of the network.

    Args:
        drawn_px: width and height; wraps: for rows and columns.
        seem: "seem to " where that was measured.
    """
    stride_px = size.stride_px
    for wrap, edge, what, field in zip(
        wraps, drawn_px[::-1], ("top and bottom", "left and right"), ("height_px", "width_px"), strict=True
    ):
        if wrap and edge % stride_px:
            low, high = edge // stride_px * stride_px, -(-edge // stride_px) * stride_px
            raise FieldInvalid(
                f"{IMAGE_FIELD}: its {what} {seem}continue each other, but {edge} px is no multiple of {stride_px}, "
                "and only such a size stays a tile",
                field=IMAGE_FIELD,
                hint=f"send {low} or {high} px, ask for it with {field}, or set the parameter tiles to {NO}",
                metadata={"value": str(edge), "stride": str(stride_px)},
            )
