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
from assetgen.postprocess.decode import decode_image, decode_picture, picture_size
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


ALPHA = np.random.default_rng(5).integers(0, 256, (24, 16)).astype(np.uint8)


@pytest.mark.parametrize(("file_format", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_alpha_is_kept_beside_colours_that_are_not_multiplied_by_it(file_format, options):
    data = saved(Image.fromarray(np.dstack([COLOURS, ALPHA])), file_format, **options)
    picture = decode_picture(data, 1, 24)
    assert np.array_equal(picture.color, COLOURS.astype(np.float32) / np.float32(255))
    assert np.array_equal(picture.alpha, ALPHA)


def test_opaque_pictures_have_no_alpha():
    opaque = np.dstack([COLOURS, np.full((24, 16), 255, np.uint8)])
    assert decode_picture(saved(Image.fromarray(opaque), "PNG"), 1, 24).alpha is None
    assert decode_picture(saved(Image.fromarray(COLOURS), "PNG"), 1, 24).alpha is None


def test_one_transparent_colour_of_a_palette_is_alpha():
    flags = Image.fromarray(COLOURS).quantize(4)
    picture = decode_picture(saved(flags, "PNG", transparency=2), 1, 24)
    assert np.array_equal(picture.alpha == 0, np.asarray(flags) == 2)


def test_sizes_come_from_the_header_as_pictures_are_viewed():
    exif = Image.Exif()
    exif[0x0112] = 6
    for file_format in ("PNG", "JPEG", "WEBP"):
        assert picture_size(saved(Image.fromarray(COLOURS), file_format), 1, 24) == (16, 24)
        turned = saved(Image.fromarray(COLOURS), file_format, exif=exif)
        assert picture_size(turned, 1, 24) == (24, 16)
        assert decode_picture(turned, 1, 24).color.shape == (16, 24, 3)


def test_a_png_that_says_it_is_linear_is_coded():
    linear = saved(Image.fromarray(COLOURS), "PNG")
    gamma = b"gAMA" + struct.pack(">I", 100_000)
    chunk = struct.pack(">I", 4) + gamma + struct.pack(">I", zlib.crc32(gamma))
    linear = linear[:33] + chunk + linear[33:]  # behind the header
    values = COLOURS.astype(np.float64) / 255
    expected = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    assert np.abs(decode_picture(linear, 1, 24).color - expected).max() < 1e-5


def test_depth_and_size_are_refused_before_pixels_are_decoded():
    deep = COLOURS[:, :, :1].astype(np.uint16) * 257
    with pytest.raises(ImageInvalid, match="16 bits a channel"):
        picture_size(encode(deep, PixelFormat.R16, Encoding.PNG), 1, 64)
    with pytest.raises(ImageInvalid, match="16 x 24 px is too small; each edge needs 17 px") as error:
        picture_size(saved(Image.fromarray(COLOURS), "PNG"), 17, 64, "parameters[image]")
    assert error.value.message.startswith("parameters[image]: ")


def test_a_picture_of_which_nothing_can_be_seen_is_refused():
    with pytest.raises(ImageInvalid, match="every pixel is transparent"):
        decode_picture(saved(Image.fromarray(np.zeros((24, 16, 4), np.uint8)), "PNG"), 1, 64)
