"""Pictures without their notes: the same pixels, and nothing left that takes long to read."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from assetgen.errors import ImageInvalid
from assetgen.postprocess.parts import MAX_PARTS, MAX_SCANS, MAX_TABLES_BYTES, orientation, stripped
from tests.helpers.picture_files import chunk, interlaced_png, saved, segment, webp_with_notes, with_notes, with_scans

QUICK_S = 0.1
COLOURS = np.random.default_rng(4).integers(0, 256, (24, 18, 3)).astype(np.uint8)
RGB = Image.fromarray(COLOURS)
NOISE = np.random.default_rng(5).bytes(100_000)
EXIF = Image.Exif()
EXIF[0x013B] = "an artist"
NOTES = {"icc_profile": NOISE, "exif": EXIF}


def text():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("prompt", "moss", zip=True)
    notes.add_itxt("XML:com.adobe.xmp", "<x/>")
    return notes


def rgb_by_adobe():
    """A JPEG whose channels have numbers: that they are no YCbCr only Adobe's segment tells."""
    data = saved(RGB, "JPEG", keep_rgb=True)
    for number, letter in enumerate(b"RGB", 1):
        data = data.replace(bytes([letter, 0x11, 0]), bytes([number, 0x11, 0]))
    return data.replace(b"\3R\0G\0B\0", b"\3\1\0\2\0\3\0")


SOUND = {
    "png": saved(RGB, "PNG"),
    "png in grey": saved(RGB.convert("L"), "PNG"),
    "png in grey with alpha": saved(RGB.convert("LA"), "PNG"),
    "png of one bit": saved(RGB.convert("1"), "PNG"),
    "png of 16 bits": saved(Image.fromarray(COLOURS[:, :, 0].astype(np.uint16) * 257), "PNG"),
    "png with a palette": saved(RGB.quantize(8), "PNG", transparency=3),
    "png with alphas in its palette": saved(RGB.quantize(8), "PNG", transparency=bytes(range(8))),
    "png with one transparent colour": saved(RGB, "PNG", transparency=tuple(int(x) for x in COLOURS[3, 3])),
    "png with notes": saved(RGB, "PNG", pnginfo=text(), dpi=(72, 72), **NOTES),
    "png interlaced": interlaced_png(COLOURS),
    "jpeg": saved(RGB, "JPEG"),
    "jpeg in grey": saved(RGB.convert("L"), "JPEG"),
    "jpeg in cmyk": saved(RGB.convert("CMYK"), "JPEG"),
    "jpeg in rgb": saved(RGB, "JPEG", keep_rgb=True),
    "jpeg in rgb by adobe": rgb_by_adobe(),
    "jpeg with restarts": saved(RGB, "JPEG", restart_marker_blocks=1),
    "jpeg progressive": saved(RGB, "JPEG", progressive=True, quality=95, subsampling=0),
    "jpeg with notes": saved(RGB, "JPEG", comment=b"moss", xmp=b"<x/>", dpi=(72, 72), **NOTES),
    "jpeg progressive with notes": saved(RGB, "JPEG", progressive=True, comment=b"moss", **NOTES),
    "webp": saved(RGB, "WEBP"),
    "webp with notes": saved(RGB, "WEBP", lossless=True, xmp=b"<x/>", **NOTES),
}
STRIPPED = [name for name in SOUND if not name.startswith("webp")]


def seen(data: bytes) -> tuple[Image.Image, bytes]:
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return picture, picture.convert("RGBA").tobytes()


@pytest.mark.parametrize("name", SOUND)
def test_pixels_are_what_they_were(name):
    file, _ = stripped(SOUND[name])
    before, after = seen(SOUND[name]), seen(file)
    assert after[1] == before[1]
    assert (after[0].mode, after[0].size) == (before[0].mode, before[0].size)


@pytest.mark.parametrize("name", STRIPPED)
def test_notes_are_gone_and_exif_is_given(name):
    file, exif = stripped(SOUND[name])
    assert len(file) < 4000
    assert (b"an artist" in exif) == name.endswith("notes")
    assert set(seen(file)[0].info) <= {
        *("transparency", "gamma", "srgb", "interlace"),
        *("jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "adobe", "adobe_transform"),
        *("progressive", "progression"),
    }


@pytest.mark.parametrize("name", STRIPPED)
def test_what_follows_a_picture_is_dropped(name):
    """Photos of phones end with a film, in whose bytes any marker can be found."""
    assert stripped(SOUND[name] + NOISE + b"\xff\xda" * 1000) == stripped(SOUND[name])


HEAVY = {
    "a hundred thousand chunks": (with_notes(SOUND["png"], chunk(b"zzZz") * 10**5), "10000 parts"),
    "a hundred thousand texts": (with_notes(SOUND["png"], chunk(b"tEXt", b"a\0b") * 10**5), "10000 parts"),
    "a hundred thousand comments": (with_notes(SOUND["jpeg"], segment(0xFE) * 10**5), "10000 parts"),
    "a hundred thousand chunks of webp": (webp_with_notes(SOUND["webp with notes"], 10**5), "10000 parts"),
    "a million pieces of fill": (with_notes(SOUND["jpeg"], b"\xff\xff\0" * 10**6), "10000 parts"),
    "hundreds of scans": (with_scans(SOUND["jpeg progressive"], 500), "40 scans"),
    "megabytes of tables": (
        with_notes(SOUND["jpeg"], segment(0xDB, (b"\0" + b"\1" * 64) * 999) * 100),
        "131072 bytes of tables",
    ),
}
LIGHT = {
    "megabytes between segments": with_notes(SOUND["jpeg"], segment(0xFE) + bytes(8_000_000)),
    "megabytes of fill": with_notes(SOUND["jpeg"], b"\xff" * 8_000_000),
    "megabytes after the end": SOUND["jpeg"] + bytes(8_000_000),
    "comments of 8 MB": with_notes(SOUND["jpeg"], segment(0xFE, bytes(65_000)) * 123),
    "exif in thousands of pieces": with_notes(SOUND["jpeg"], segment(0xE1, b"Exif\0\0" + bytes(1000)) * 8000),
    "texts of a megabyte each": with_notes(SOUND["png"], chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6))) * 8000),
    "profiles of a megabyte each": with_notes(
        SOUND["png"], chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**6))) * 8000
    ),
}


def least_s(work, data):
    """Of processor: what else runs does not count."""
    spent_s = []
    for _ in range(3):
        begun_s = time.process_time()
        work(data)
        spent_s.append(time.process_time() - begun_s)
    return min(spent_s)


def refused(data):
    with pytest.raises(ImageInvalid) as caught:
        stripped(data, "parameters[image]")
    return caught.value


@pytest.mark.parametrize("name", HEAVY)
def test_what_takes_long_to_read_is_refused_at_once(name):
    data, what = HEAVY[name]
    error = refused(data)
    assert error.message == f"parameters[image]: more than {what} in one file"
    assert (error.field, bool(error.hint)) == ("parameters[image]", True)
    assert least_s(refused, data) < QUICK_S


@pytest.mark.parametrize("name", LIGHT)
def test_what_pixels_do_not_need_is_dropped_at_once(name):
    """Pillow walks fill and what lies between segments byte by byte, unpacks texts and joins EXIF piece by piece."""
    sound = SOUND["png" if LIGHT[name].startswith(b"\x89PNG") else "jpeg"]
    assert stripped(LIGHT[name])[0] == stripped(sound)[0]
    assert least_s(stripped, LIGHT[name]) < QUICK_S


def test_as_many_parts_as_are_allowed_are_taken():
    sound = SOUND["png"]
    own = sound.count(b"IDAT") + 2
    assert seen(stripped(with_notes(sound, chunk(b"zzZz") * (MAX_PARTS - own)))[0])[1] == RGB.convert("RGBA").tobytes()
    refused(with_notes(sound, chunk(b"zzZz") * (MAX_PARTS - own + 1)))
    assert stripped(webp_with_notes(SOUND["webp"], MAX_PARTS - 2))
    refused(webp_with_notes(SOUND["webp"], MAX_PARTS - 1))
    assert stripped(SOUND["webp"] + bytes(10**6))
    progressive = SOUND["jpeg progressive"]
    own = progressive.count(b"\xff\xda")
    assert seen(stripped(with_scans(progressive, MAX_SCANS - own))[0])
    refused(with_scans(progressive, MAX_SCANS - own + 1))
    jpeg = SOUND["jpeg"]
    thumbnail = segment(0xE0, bytes(2**16 - 3))
    assert seen(stripped(with_notes(jpeg, thumbnail))[0])[1] == seen(jpeg)[1]
    refused(with_notes(jpeg, thumbnail * (MAX_TABLES_BYTES >> 16)))


@pytest.mark.parametrize("hidden", [segment(0xC4, b"\xff\xd9"), b"\xff\x02\xff\xf0", segment(0xFE, b"\xff\xd9")])
def test_scans_cannot_be_hidden(hidden):
    """An end within a segment is none, and what only looks like a segment hides nothing."""
    data = SOUND["jpeg progressive"]
    first = data.index(b"\xff\xda")
    refused(with_scans(data[: first + 20] + hidden + data[first + 20 :], 500))


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF"]), st.binary(max_size=300))
def test_any_bytes_are_taken_or_refused_with_our_error(head, tail):
    for data in (head + tail, head + tail * 50):
        try:
            file, exif = stripped(data)
        except ImageInvalid:
            continue
        assert len(file) + len(exif) <= len(data)
        assert 1 <= orientation(exif) <= 8


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from([*range(256), 0xFF, 0xD9, 0xDA])), max_size=8)


@given(st.sampled_from([SOUND[name] for name in STRIPPED if "notes" not in name]), CHANGES)
def test_stripping_again_changes_nothing(data, changes):
    """What is left has no part that would not be kept: no library can find more in it than was judged."""
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        file, _ = stripped(bytes(damaged))
    except ImageInvalid:
        return
    assert stripped(file) == (file, b"")


def exif_of(value, order="<", kind=3, tag=0x0112, count=1):
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    other = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 7, 0)
    return head + struct.pack(f"{order}IH", 8, 2) + other + struct.pack(f"{order}HHIHH", tag, kind, count, value, 0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientations_are_read_in_both_byte_orders(order):
    assert [orientation(exif_of(value, order)) for value in range(1, 9)] == list(range(1, 9))
    assert orientation(b"Exif\0\0" + exif_of(6, order)) == 6


def test_what_is_no_orientation_is_upright():
    for value in (0, 9, 65535):
        assert orientation(exif_of(value)) == 1
    assert orientation(exif_of(6, kind=4)) == 1
    assert orientation(exif_of(6, tag=0x0113)) == 1
    whole = exif_of(6)
    assert [orientation(whole[:cut]) for cut in range(len(whole))] == [1] * len(whole)


@given(st.sampled_from([b"", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0\xff\xff"]), st.binary(max_size=64))
def test_any_exif_has_an_orientation(head, tail):
    assert 1 <= orientation(head + tail) <= 8


def test_exif_of_many_entries_is_read_at_once():
    entries = struct.pack("<HHII", 0x0100, 7, 2**20, 1) * 65535
    exif = b"II*\0" + struct.pack("<IH", 8, 65535) + entries
    assert orientation(exif) == 1
    assert least_s(orientation, exif) < QUICK_S
