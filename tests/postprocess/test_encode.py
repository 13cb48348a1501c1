"""Encoding: exactness by two independent readers, chunks by a third reading of our own, raw layout, determinism."""

import hashlib
import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from assetgen.postprocess.encode import encode, media_type
from assetgen.types import ColorSpace, Encoding, PixelFormat

FORMATS = {
    PixelFormat.R8: (1, np.uint8),
    PixelFormat.RGB8: (3, np.uint8),
    PixelFormat.RGBA8: (4, np.uint8),
    PixelFormat.R16: (1, np.uint16),
}
PICTURES = st.sampled_from(list(FORMATS)).flatmap(
    lambda pixel_format: st.tuples(
        st.just(pixel_format),
        hnp.arrays(
            FORMATS[pixel_format][1],
            st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(FORMATS[pixel_format][0])),
            fill=st.just(7),
        ),
    )
)


def noise(pixel_format: PixelFormat, rows: int = 33, columns: int = 65) -> np.ndarray:
    channels, dtype = FORMATS[pixel_format]
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max + 1, (rows, columns, channels)).astype(dtype)


def read_with_opencv(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels[:, :, order[pixels.shape[2]]]


def read_with_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Walk the chunks with the standard library and check every checksum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = [], 8
    while place < len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + size]
        assert struct.unpack_from(">I", data, place + 8 + size)[0] == zlib.crc32(kind + body)
        chunks.append((kind, body))
        place += 12 + size
    return chunks


@given(PICTURES)
def test_png_is_read_back_exactly_by_independent_readers(picture):
    pixel_format, pixels = picture
    data = encode(pixels, pixel_format, Encoding.PNG)
    for read in (read_with_pillow, read_with_opencv):
        again = read(data)
        assert again.dtype == pixels.dtype
        assert np.array_equal(again, pixels)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 1), (700, 500)])
def test_png_of_noise_in_awkward_shapes_is_exact(pixel_format, shape):
    pixels = noise(pixel_format, *shape)
    data = encode(pixels, pixel_format, Encoding.PNG)
    assert np.array_equal(read_with_pillow(data), pixels)
    assert np.array_equal(read_with_opencv(data), pixels)


def test_every_16_bit_value_is_exact():
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    data = encode(pixels, PixelFormat.R16, Encoding.PNG)
    assert np.array_equal(read_with_pillow(data), pixels)
    assert np.array_equal(read_with_opencv(data), pixels)


def test_views_and_foreign_byte_orders_are_encoded_as_what_they_hold():
    pixels = noise(PixelFormat.RGB8)
    mirrored = pixels[::-1, ::-1]
    assert np.array_equal(read_with_pillow(encode(mirrored, PixelFormat.RGB8, Encoding.PNG)), mirrored)
    assert encode(mirrored, PixelFormat.RGB8, Encoding.RAW) == np.ascontiguousarray(mirrored).tobytes()


@given(PICTURES)
def test_raw_is_rows_of_interleaved_little_endian_pixels(picture):
    pixel_format, pixels = picture
    data = encode(pixels, pixel_format, Encoding.RAW)
    letter = "H" if pixel_format is PixelFormat.R16 else "B"
    assert list(struct.unpack(f"<{pixels.size}{letter}", data)) == [
        int(value) for row in pixels for pixel in row for value in pixel
    ]


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("encoding", Encoding)
def test_equal_pixels_give_equal_bytes_wherever_they_lie_in_memory(pixel_format, encoding):
    pixels = noise(pixel_format, 300, 200)
    expected = encode(pixels, pixel_format, encoding)
    for offset in range(0, 48, 5):
        room = np.empty(pixels.nbytes + 128, dtype=np.uint8)
        moved = np.ndarray(pixels.shape, pixels.dtype, room.data, offset * pixels.itemsize)
        moved[:] = pixels
        assert encode(moved, pixel_format, encoding) == expected


@pytest.mark.parametrize("held", [b"\0", b"\xff", b"\1\0", b"\x40\0\x21\0\2\0"])
def test_equal_pixels_give_equal_bytes_whatever_memory_held_before(held):
    """Numbers that an unset table of the compressor would take for places of earlier matches."""
    pictures = [(np.zeros((32, 32, 1), np.uint8), PixelFormat.R8), (noise(PixelFormat.RGB8, 64, 64), PixelFormat.RGB8)]
    expected = [encode(*picture, Encoding.PNG) for picture in pictures]
    for size in (1 << 12, 1 << 15, 100_000, 1 << 17, 150_000, 200_000, 1 << 18, 300_000, 400_000):
        freed = [bytearray(held * (size // len(held))) for _ in range(3)]
        freed.clear()
        assert [encode(*picture, Encoding.PNG) for picture in pictures] == expected


def smooth(seed: int) -> np.ndarray:
    """Runs and near repetitions, among which a compressor has many matches to choose from."""
    rng = np.random.default_rng(seed)
    steps = rng.choice(np.array([0, 0, 0, 1, 255], np.uint8), (32, 32, 1 + 2 * (seed % 2)))
    return np.cumsum(steps, axis=1, dtype=np.uint8) + rng.integers(0, 3, (32, 1, 1)).astype(np.uint8)


def test_equal_pixels_give_equal_bytes_wherever_the_stack_lies():
    """Level 1 of isal 1.9.1 gave one small file in ten thousand other bytes, by the high bits of an address."""
    pictures = [smooth(seed) for seed in range(64)]
    formats = {1: PixelFormat.R8, 3: PixelFormat.RGB8}

    def made() -> list[bytes]:
        return [encode(pixels, formats[pixels.shape[2]], Encoding.PNG) for pixels in pictures]

    expected = made()
    together = threading.Barrier(256)  # stacks of threads that live at once are different ones

    def run(_) -> bool:
        together.wait(timeout=60)
        return made() == expected

    with ThreadPoolExecutor(256) as pool:
        assert all(pool.map(run, range(256)))


def test_the_bytes_of_a_file_are_those_of_every_machine():
    """Golden: what recipes in version control are compared by. A new libdeflate may change them; then say so."""
    digest = hashlib.sha256()
    for seed in range(8):
        pixels = smooth(seed)
        digest.update(encode(pixels, PixelFormat.RGB8 if seed % 2 else PixelFormat.R8, Encoding.PNG))
    digest.update(encode(noise(PixelFormat.R16), PixelFormat.R16, Encoding.PNG))
    assert digest.hexdigest() == "7560022de33ab023cfeb813eb7f9f17ecf86d1878bd26c186cd42bfda11dbe3c"


def test_the_header_says_what_the_file_is():
    for pixel_format, bits_and_type in zip(FORMATS, [(8, 0), (8, 2), (8, 6), (16, 0)], strict=True):
        kind, header = chunks_of(encode(noise(pixel_format), pixel_format, Encoding.PNG))[0]
        assert kind == b"IHDR"
        assert struct.unpack(">IIBBBBB", header) == (65, 33, *bits_and_type, 0, 0, 0)


def test_only_colours_are_marked_srgb():
    pixels = noise(PixelFormat.RGB8)
    linear = encode(pixels, PixelFormat.RGB8, Encoding.PNG)
    colour = encode(pixels, PixelFormat.RGB8, Encoding.PNG, color_space=ColorSpace.SRGB)
    assert [kind for kind, _ in chunks_of(linear)] == [b"IHDR", b"IDAT", b"IEND"]
    assert [kind for kind, _ in chunks_of(colour)] == [b"IHDR", b"sRGB", b"IDAT", b"IEND"]
    with Image.open(io.BytesIO(colour)) as picture:
        assert picture.info["srgb"] == 0


@pytest.mark.parametrize(
    ("pixels", "pixel_format"),
    [
        (np.zeros((4, 4), np.uint8), PixelFormat.R8),
        (np.zeros((4, 4, 3), np.uint8), PixelFormat.RGBA8),
        (np.zeros((4, 4, 3), np.float32), PixelFormat.RGB8),
        (np.zeros((4, 4, 1), np.uint8), PixelFormat.R16),
        (np.zeros((4, 4, 1), np.uint16), PixelFormat.R8),
        (np.zeros((0, 4, 1), np.uint8), PixelFormat.R8),
    ],
)
@pytest.mark.parametrize("encoding", Encoding)
def test_pixels_that_do_not_fit_are_refused(pixels, pixel_format, encoding):
    with pytest.raises(ValueError, match="pixels"):
        encode(pixels, pixel_format, encoding)


def test_media_types():
    assert {encoding: media_type(encoding) for encoding in Encoding} == {
        Encoding.PNG: "image/png",
        Encoding.RAW: "application/octet-stream",
    }


def test_smooth_pictures_shrink_well():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, np.newaxis, np.newaxis], (256, 256, 3))
    assert len(encode(ramp, PixelFormat.RGB8, Encoding.PNG)) < ramp.size // 50
