"""Pictures from clients to arrays, limited before any pixel is decoded; imports types and errors of ours, Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from assetgen.errors import ImageInvalid
from assetgen.types import FloatArray

FORMATS: Final = ("PNG", "JPEG", "WEBP")
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
_HINT = f"Send a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture in grey or RGB, without transparency."


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
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_header(picture, max_edge_px, field)
            picture.load()
            return _pixels(ImageOps.exif_transpose(picture), field)
    except UnidentifiedImageError:
        message = f"picture: {len(data)} bytes that are none of {', '.join(FORMATS)}"
        raise ImageInvalid(message, hint=_HINT, field=field) from None
    except _DECODING_ERRORS as error:
        message = f"picture: {len(data)} bytes that cannot be decoded ({error})"
        raise ImageInvalid(message, hint=_HINT, field=field) from error


def _check_header(picture: Image.Image, max_edge_px: int, field: str) -> None:
    width_px, height_px = picture.size
    if max(width_px, height_px) > max_edge_px:
        raise ImageInvalid(
            f"picture: {width_px} x {height_px} px is too large; at most {max_edge_px} px an edge are allowed",
            hint="Scale or crop it first.",
            field=field,
            metadata={"width_px": str(width_px), "height_px": str(height_px), "max_edge_px": str(max_edge_px)},
        )
    frames = getattr(picture, "n_frames", 1)
    if frames != 1:
        raise ImageInvalid(f"picture: {frames} frames; one is expected", hint=_HINT, field=field)


def _pixels(picture: Image.Image, field: str) -> FloatArray:
    if picture.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(picture).astype(np.float32) / np.float32(65535)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[:, :, 3].min() < 255:
        raise ImageInvalid("picture: it has transparent pixels", hint=_HINT, field=field)
    if picture.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"}:
        message = f"picture: colours are coded as {picture.mode}; grey or RGB is expected"
        raise ImageInvalid(message, hint=_HINT, field=field)
    return np.asarray(picture.convert("RGB")).astype(np.float32) / np.float32(255)
