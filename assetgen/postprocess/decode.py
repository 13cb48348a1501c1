"""Pictures from clients to arrays, limited before any pixel is decoded; imports types and errors of ours, Pillow.

Of notes in a file only the orientation in EXIF counts; Pillow is not shown the others, nor profiles.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from assetgen.errors import ImageInvalid
from assetgen.postprocess import parts
from assetgen.postprocess.resize import srgb_from_linear
from assetgen.types import FloatArray

FORMATS: Final = ("PNG", "JPEG", "WEBP")
MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")
# By orientation in EXIF; those from 5 swap width and height.
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPED: Final = 5
_DEPTH_BYTE: Final = 24  # of a PNG: bits a channel, in its header
# What Pillow raises on damaged or hostile data, beside OSError of which UnidentifiedImageError is one.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,  # an exception only where warnings are errors
)
_KIND = f"a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture in grey or RGB"
_HINT = f"Send {_KIND}, without transparency."
_HINT_ALPHA = f"Send {_KIND}, with alpha or without, 8 bits a channel."
# What Pillow warns of, clients could fill the log with; sizes are checked here.
warnings.filterwarnings("ignore", module=r"PIL\.")
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"}


@dataclass(frozen=True)
class Picture:
    """A picture as it came.

    Attributes:
        color: [H, W, 3] in [0, 1], sRGB-coded, not multiplied by alpha; grey is repeated.
        alpha: [H, W], 0 to 255; None where every pixel is opaque.
    """

    color: FloatArray
    alpha: NDArray[np.uint8] | None


def decode_image(data: bytes, max_edge_px: int, field: str = "") -> FloatArray:
    """Decode a PNG, JPEG or WebP picture; its size is read from the header and refused before pixels are decoded.

    Orientation in EXIF is applied. Embedded colour profiles are not: values count as sRGB.

    Args:
        data: the whole file.
        max_edge_px: longest edge allowed.
        field: path of the request field, for the error.

    Returns:
        [H, W, 3] in [0, 1], sRGB-coded; grey is repeated.

    Raises:
        ImageInvalid: not such a picture, damaged, animated, transparent or too large.
    """
    with _opened(data, field, _HINT) as opened:
        _check_header(opened.picture, max_edge_px, field)
        return _pixels(_upright(opened), field)


def picture_size(data: bytes, min_edge_px: int, max_edge_px: int, field: str = "") -> tuple[int, int]:
    """Width and height of a picture from its header alone, as it is meant to be viewed.

    Raises:
        ImageInvalid: not a picture that ``decode_picture`` takes, as far as the header tells, or not of such a size.
    """
    with _opened(data, field, _HINT_ALPHA) as opened:
        return _size(opened, min_edge_px, max_edge_px, field)


def decode_picture(data: bytes, min_edge_px: int, max_edge_px: int, field: str = "") -> Picture:
    """Decode a PNG, JPEG or WebP picture with or without alpha, 8 bits a channel.

    Orientation in EXIF is applied. Values count as sRGB, whatever an embedded profile says; those of a PNG that
    declares a gamma of 1 are linear and are coded.

    Raises:
        ImageInvalid: not such a picture, damaged, animated, too small, too large, or nothing of it can be seen.
    """
    pixels, linear = _eight_bits(data, min_edge_px, max_edge_px, field)
    color = _linear_coded(pixels) if linear else np.divide(pixels[:, :, :3], np.float32(255), dtype=np.float32)
    if pixels.shape[2] == 3 or pixels[:, :, 3].min() == 255:
        return Picture(color, None)
    if not pixels[:, :, 3].any():
        raise ImageInvalid(
            f"{_named(field)}: every pixel is transparent; nothing can be seen", hint=_HINT_ALPHA, field=field
        )
    return Picture(color, pixels[:, :, 3].copy())


@dataclass(frozen=True)
class _Opened:
    picture: Image.Image
    depth: int  # bits a channel
    orientation: int


@contextmanager
def _opened(data: bytes, field: str, hint: str) -> Iterator[_Opened]:
    """The picture, its header read; what goes wrong while it is used becomes our error."""
    file, exif = parts.stripped(data, field)
    try:
        with Image.open(io.BytesIO(file), formats=FORMATS) as picture:
            depth = file[_DEPTH_BYTE] if picture.format == "PNG" else 8
            yield _Opened(picture, depth, parts.orientation(exif or picture.info.get("exif", b"")))
    except UnidentifiedImageError:
        message = f"{_named(field)}: {len(data)} bytes that are none of {', '.join(FORMATS)}"
        raise ImageInvalid(message, hint=hint, field=field) from None
    except _DECODING_ERRORS as error:
        message = f"{_named(field)}: {len(data)} bytes that cannot be decoded ({error})"
        raise ImageInvalid(message, hint=hint, field=field) from error


def _named(field: str) -> str:
    return field or "picture"


def _check_header(picture: Image.Image, max_edge_px: int, field: str) -> None:
    width_px, height_px = picture.size
    if max(width_px, height_px) > max_edge_px:
        raise ImageInvalid(
            f"{_named(field)}: {width_px} x {height_px} px is too large; at most {max_edge_px} px an edge are allowed",
            hint="Scale or crop it first.",
            field=field,
            metadata={"width_px": str(width_px), "height_px": str(height_px), "max_edge_px": str(max_edge_px)},
        )
    frames = getattr(picture, "n_frames", 1)
    if frames != 1:
        raise ImageInvalid(f"{_named(field)}: {frames} frames; one is expected", hint=_HINT, field=field)


def _size(opened: _Opened, min_edge_px: int, max_edge_px: int, field: str) -> tuple[int, int]:
    """Width and height to view, checked as well as the rest of the header."""
    picture = opened.picture
    _check_header(picture, max_edge_px, field)
    if picture.mode not in _MODES or opened.depth == 16:
        found = "16 bits a channel" if opened.depth == 16 else f"colours coded as {picture.mode}"
        raise ImageInvalid(
            f"{_named(field)}: {found}; 8 bits, grey or RGB, are expected", hint=_HINT_ALPHA, field=field
        )
    width_px, height_px = picture.size
    if min(width_px, height_px) < min_edge_px:
        raise ImageInvalid(
            f"{_named(field)}: {width_px} x {height_px} px is too small; each edge needs {min_edge_px} px at least",
            hint="Enlarge it first.",
            field=field,
            metadata={"width_px": str(width_px), "height_px": str(height_px), "min_edge_px": str(min_edge_px)},
        )
    return (height_px, width_px) if opened.orientation >= _SWAPPED else (width_px, height_px)


def _upright(opened: _Opened) -> Image.Image:
    """The picture decoded, and turned to view it."""
    opened.picture.load()
    turn = _TURNS.get(opened.orientation)
    return opened.picture if turn is None else opened.picture.transpose(turn)


def _eight_bits(data: bytes, min_edge_px: int, max_edge_px: int, field: str) -> tuple[NDArray[np.uint8], bool]:
    """[H, W, 3], or [H, W, 4] where transparency may be; and whether colours are linear. Pillow's memory is freed."""
    with _opened(data, field, _HINT_ALPHA) as opened:
        _size(opened, min_edge_px, max_edge_px, field)
        upright = _upright(opened)
        info = opened.picture.info
        linear = "srgb" not in info and abs(info.get("gamma", 0.0) - 1.0) < 0.01
        mode = "RGBA" if upright.has_transparency_data else "RGB"
        return np.asarray(upright if upright.mode == mode else upright.convert(mode)), linear


def _linear_coded(pixels: NDArray[np.uint8]) -> FloatArray:
    """Row by row: coding takes several times the memory of its result."""
    color = np.empty((*pixels.shape[:2], 3), dtype=np.float32)
    for row, values in zip(color, pixels[:, :, :3], strict=True):
        row[:] = srgb_from_linear(np.divide(values, np.float32(255), dtype=np.float32))
    return color


def _pixels(picture: Image.Image, field: str) -> FloatArray:
    if picture.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(picture).astype(np.float32) / np.float32(65535)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[:, :, 3].min() < 255:
        raise ImageInvalid(f"{_named(field)}: it has transparent pixels", hint=_HINT, field=field)
    if picture.mode not in _MODES:
        message = f"{_named(field)}: colours are coded as {picture.mode}; grey or RGB is expected"
        raise ImageInvalid(message, hint=_HINT, field=field)
    color: FloatArray = np.divide(np.asarray(picture.convert("RGB")), np.float32(255), dtype=np.float32)
    return color
