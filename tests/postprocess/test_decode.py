"""Decoding pictures from clients: exactness, limits, hostile bytes."""

import io
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from assetgen.errors import ImageInvalid
from assetgen.postprocess.decode import decode_image, decode_picture, picture_size
from assetgen.postprocess.encode import encode
from assetgen.types import Encoding, PixelFormat
from tests.helpers.picture_files import PNG_HEAD_BYTES, chunk, interlaced_png, png, saved, segment, with_notes

ROOT = Path(__file__).resolve().parents[2]
COLOURS = np.random.default_rng(4).integers(0, 256, (24, 16, 3)).astype(np.uint8)


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


def oriented(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize(
    ("file_format", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {"quality": 90})]
)
def test_pictures_are_turned_as_exif_says(number, file_format, options):
    data = saved(Image.fromarray(COLOURS), file_format, exif=oriented(number), **options)
    with Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture)).astype(np.float32) / np.float32(255)
    assert np.array_equal(decode_image(data, 24), expected)
    assert np.array_equal(decode_picture(data, 1, 24).color, expected)
    assert picture_size(data, 1, 24) == expected.shape[1::-1]


@pytest.mark.parametrize("number", range(1, 9))
def test_exif_behind_the_pixels_counts_as_well(number):
    early = saved(Image.fromarray(COLOURS), "PNG", exif=oriented(number))
    plain = saved(Image.fromarray(COLOURS), "PNG")
    late = plain[:-12] + chunk(b"eXIf", oriented(number).tobytes().removeprefix(b"Exif\0\0")) + plain[-12:]
    assert np.array_equal(decode_picture(late, 1, 24).color, decode_picture(early, 1, 24).color)
    assert picture_size(late, 1, 24) == picture_size(early, 1, 24) == ((24, 16) if number >= 5 else (16, 24))


def test_a_picture_that_is_too_large_is_refused_by_its_header():
    """The header alone announces 60000 x 60000 px; there are no pixels to decode."""
    bomb = png(60000, 60000)[:PNG_HEAD_BYTES]
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


def test_photos_with_a_second_picture_for_light_or_depth_are_their_first():
    photo = saved(Image.fromarray(COLOURS), "JPEG")
    more = [Image.fromarray(COLOURS[::-1].copy())]
    double = saved(Image.fromarray(COLOURS), "MPO", save_all=True, append_images=more)
    assert len(double) > 1.9 * len(photo)
    assert np.array_equal(decode_picture(double, 1, 24).color, decode_picture(photo, 1, 24).color)


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


def test_sizes_come_from_the_header_alone():
    """A size is asked for when a request comes in; pixels, here damaged, are decoded when it is its turn."""
    data = saved(Image.fromarray(COLOURS), "PNG")
    at = data.index(b"IDAT") + 8
    damaged = data[:at] + b"\xff" * 40 + data[at + 40 :]
    assert picture_size(damaged, 1, 24) == (16, 24)
    with pytest.raises(ImageInvalid):
        decode_picture(damaged, 1, 24)


def test_interlaced_pictures_decode():
    assert np.array_equal(decode_picture(interlaced_png(COLOURS), 1, 24).color * 255, COLOURS)


def test_pictures_may_have_notes_of_any_size_and_many_notes_are_refused():
    profile = np.random.default_rng(6).bytes(10_000_000)
    picture = Image.fromarray(COLOURS)
    sound = {kind: saved(picture, kind, icc_profile=profile) for kind in ("PNG", "JPEG", "WEBP")}
    for data in sound.values():
        assert len(data) > 10_000_000
        assert decode_picture(data, 1, 24).color.shape == (24, 16, 3)
        assert least_s(lambda data=data: decode_picture(data, 1, 24)) < 0.1
    notes = {"PNG": chunk(b"tEXt", b"a\0b"), "JPEG": segment(0xFE, b"ab")}
    for kind, note in notes.items():
        data = with_notes(saved(picture, kind), note * 10**5)
        assert least_s(lambda data=data: refused(data)) < 0.1


def refused(data):
    with pytest.raises(ImageInvalid, match="more than 10000 parts"):
        decode_picture(data, 1, 24)


def least_s(work):
    """Of processor: what else runs does not count."""
    spent_s = []
    for _ in range(3):
        begun_s = time.process_time()
        work()
        spent_s.append(time.process_time() - begun_s)
    return min(spent_s)


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux counts")
def test_the_largest_picture_takes_little_more_memory_than_its_colours(tmp_path):
    """Of a pixel 4 bytes unpacked and 12 of colours; the rest is Python, numpy and the file."""
    edge_px = 4096
    data = png(edge_px, edge_px, color_type=6, data=(b"\0" + b"\x80" * 4 * edge_px) * edge_px)
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "linear.png").write_bytes(with_notes(data, chunk(b"gAMA", struct.pack(">I", 100_000))))
    code = """
import sys
from pathlib import Path
from assetgen.postprocess.decode import decode_picture
for path in sys.argv[1:]:
    picture = decode_picture(Path(path).read_bytes(), 1, 4096)
    assert picture.color.shape == (4096, 4096, 3) and picture.alpha.shape == (4096, 4096)
    del picture
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""
    arguments = [sys.executable, "-c", code, tmp_path / "a.png", tmp_path / "linear.png"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) << 10 < 16 * edge_px**2 + (96 << 20)


def test_a_png_that_says_it_is_linear_is_coded():
    linear = saved(Image.fromarray(COLOURS), "PNG")
    linear = with_notes(linear, chunk(b"gAMA", struct.pack(">I", 100_000)))
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
