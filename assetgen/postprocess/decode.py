"""Pictures from clients to arrays, limited before any pixel is decoded; imports types and errors of ours, Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from assetgen.errors import ImageInvalid
from assetgen.postprocess.resize import srgb_from_linear
from assetgen.types import FloatArray

FORMATS: Final = ("PNG", "JPEG", "WEBP")
MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")
_EXIF_ORIENTATION: Final = 0x0112
_TURNED: Final = (5, 6, 7, 8)  # orientations that swap width and height
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
    Image.DecompressionBombWarning,  # an exception only where warnings are errors
)
_KIND = f"a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture in grey or RGB"
_HINT = f"Send {_KIND}, without transparency."
_HINT_ALPHA = f"Send {_KIND}, with alpha or without, 8 bits a channel."
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
    with _opened(data, field, _HINT) as picture:
        _check_header(picture, max_edge_px, field)
        picture.load()
        return _pixels(ImageOps.exif_transpose(picture), field)


def picture_size(data: bytes, min_edge_px: int, max_edge_px: int, field: str = "") -> tuple[int, int]:
    """Width and height of a picture from its header alone, as it is meant to be viewed.

    Raises:
        ImageInvalid: not a picture that ``decode_picture`` takes, as far as the header tells, or not of such a size.
    """
    with _opened(data, field, _HINT_ALPHA) as picture:
        _check_header(picture, max_edge_px, field)
        if picture.mode not in _MODES or (picture.format == "PNG" and data[_DEPTH_BYTE] == 16):
            deep = picture.format == "PNG" and data[_DEPTH_BYTE] == 16
            found = "16 bits a channel" if deep else f"colours coded as {picture.mode}"
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
        turned = picture.getexif().get(_EXIF_ORIENTATION) in _TURNED
        return (height_px, width_px) if turned else (width_px, height_px)


def decode_picture(data: bytes, min_edge_px: int, max_edge_px: int, field: str = "") -> Picture:
    """Decode a PNG, JPEG or WebP picture with or without alpha, 8 bits a channel.

    Orientation in EXIF is applied. Values count as sRGB, whatever an embedded profile says; those of a PNG that
    declares a gamma of 1 are linear and are coded.

    Raises:
        ImageInvalid: not such a picture, damaged, animated, too small, too large, or nothing of it can be seen.
    """
    picture_size(data, min_edge_px, max_edge_px, field)
    with _opened(data, field, _HINT_ALPHA) as picture:
        picture.load()
        linear = "srgb" not in picture.info and abs(picture.info.get("gamma", 0.0) - 1.0) < 0.01
        upright = ImageOps.exif_transpose(picture)
        has_alpha = upright.has_transparency_data
        pixels = np.asarray(upright.convert("RGBA" if has_alpha else "RGB"))
    color = pixels[:, :, :3].astype(np.float32) / np.float32(255)
    if linear:
        color = srgb_from_linear(color)
    if not has_alpha or pixels[:, :, 3].min() == 255:
        return Picture(color, None)
    if not pixels[:, :, 3].any():
        raise ImageInvalid(
            f"{_named(field)}: every pixel is transparent; nothing can be seen", hint=_HINT_ALPHA, field=field
        )
    return Picture(color, pixels[:, :, 3].copy())


@contextmanager
def _opened(data: bytes, field: str, hint: str) -> Iterator[Image.Image]:
    """The picture, its header read; what goes wrong while it is used becomes our error."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            yield picture
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


def _pixels(picture: Image.Image, field: str) -> FloatArray:
    if picture.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(picture).astype(np.float32) / np.float32(65535)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[:, :, 3].min() < 255:
        raise ImageInvalid(f"{_named(field)}: it has transparent pixels", hint=_HINT, field=field)
    if picture.mode not in _MODES:
        message = f"{_named(field)}: colours are coded as {picture.mode}; grey or RGB is expected"
        raise ImageInvalid(message, hint=_HINT, field=field)
    return np.asarray(picture.convert("RGB")).astype(np.float32) / np.float32(255)
