"""Decoding pictures from clients: exactness, limits, hostile bytes."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assetgen.errors import ImageInvalid
from assetgen.postprocess.decode import decode_image
from assetgen.postprocess.encode import encode
from assetgen.types import Encoding, PixelFormat

COLOURS = np.random.default_rng(4).integers(0, 256, (24, 16, 3)).astype(np.uint8)


def saved(picture: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def test_lossless_pictures_decode_exactly():
    expected = COLOURS.astype(np.float32) / np.float32(255)
    for data in (
        encode(COLOURS, PixelFormat.RGB8, Encoding.PNG),
        saved(Image.fromarray(COLOURS), "PNG"),
        saved(Image.fromarray(COLOURS), "WEBP", lossless=True),
        saved(Image.fromarray(COLOURS).convert("RGBA"), "PNG"),
    ):
        decoded = decode_image(data, 24)
        assert decoded.dtype == np.float32
        assert np.array_equal(decoded, expected)


def test_jpeg_decodes_closely():
    smooth = np.broadcast_to(np.arange(64, 192, 8, dtype=np.uint8)[np.newaxis, :, np.newaxis], (24, 16, 3))
    decoded = decode_image(saved(Image.fromarray(smooth.copy()), "JPEG", quality=95), 24)
    assert np.abs(decoded * 255 - smooth).max() < 4


def test_grey_of_8_and_16_bits_is_repeated():
    grey = COLOURS[:, :, :1]
    decoded = decode_image(encode(grey, PixelFormat.R8, Encoding.PNG), 64)
    assert np.array_equal(decoded, np.repeat(grey.astype(np.float32) / np.float32(255), 3, axis=2))
    deep = grey.astype(np.uint16) * 257
    assert np.allclose(decode_image(encode(deep, PixelFormat.R16, Encoding.PNG), 64), decoded, atol=1e-7)


def test_palettes_decode():
    flags = Image.fromarray(COLOURS).quantize(8)
    assert np.array_equal(decode_image(saved(flags, "PNG"), 64) * 255, np.asarray(flags.convert("RGB")))


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    decoded = decode_image(saved(Image.fromarray(COLOURS), "PNG", exif=exif), 64)
    assert np.array_equal(decoded * 255, np.rot90(COLOURS, -1))


def test_a_picture_that_is_too_large_is_refused_by_its_header():
    """The header alone announces 60000 x 60000 px; there are no pixels to decode."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    with pytest.raises(ImageInvalid):
        decode_image(bomb, 4096)
    with pytest.raises(ImageInvalid, match=r"16 x 24 px is too large; at most 23 px") as error:
        decode_image(saved(Image.fromarray(COLOURS), "PNG"), 23, field="parameters[image]")
    assert error.value.field == "parameters[image]"
    assert error.value.metadata == {"width_px": "16", "height_px": "24", "max_edge_px": "23"}


def test_other_formats_are_refused():
    for file_format in ("BMP", "GIF", "TIFF", "TGA", "ICO", "PPM"):
        with pytest.raises(ImageInvalid, match="none of PNG, JPEG, WEBP"):
            decode_image(saved(Image.fromarray(COLOURS), file_format), 64)


def test_transparent_animated_and_cmyk_pictures_are_refused():
    clear = Image.fromarray(np.dstack([COLOURS, COLOURS[:, :, 0]]))
    with pytest.raises(ImageInvalid, match="transparent"):
        decode_image(saved(clear, "PNG"), 64)
    frames = [Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1].copy())]
    for file_format in ("PNG", "WEBP"):
        with pytest.raises(ImageInvalid, match="2 frames"):
            decode_image(saved(frames[0], file_format, save_all=True, append_images=frames[1:]), 64)
    with pytest.raises(ImageInvalid, match="CMYK"):
        decode_image(saved(Image.fromarray(COLOURS).convert("CMYK"), "JPEG"), 64)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_our_error(data):
    with pytest.raises(ImageInvalid):
        decode_image(data, 64)


VALID = [
    saved(Image.fromarray(COLOURS), "PNG"),
    saved(Image.fromarray(COLOURS).quantize(8), "PNG"),
    saved(Image.fromarray(COLOURS), "JPEG"),
    saved(Image.fromarray(COLOURS), "WEBP"),
]


@given(st.sampled_from(VALID), st.data())
def test_truncated_pictures_are_refused_or_decode_whole(data, choice):
    cut = choice.draw(st.integers(0, len(data) - 1))
    try:
        decoded = decode_image(data[:cut], 64)
    except ImageInvalid:
        return
    assert decoded.shape == (24, 16, 3)  # only the trailer was lost
    assert cut > len(data) * 3 // 4


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8)


@given(st.sampled_from(VALID), CHANGES)
def test_damaged_pictures_raise_our_error_or_none(data, changes):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        decoded = decode_image(bytes(damaged), 64)
    except ImageInvalid:
        return
    assert decoded.ndim == 3
    assert max(decoded.shape[:2]) <= 64
    assert 0 <= decoded.min() <= decoded.max() <= 1
