"""Files of pictures without what their pixels do not need: libraries read and unpack the rest part by part.

32 MiB have room for millions of empty notes, and for thousands of which each kilobyte unpacks to a megabyte. Such parts
are dropped unread. Imports errors of ours.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from assetgen.errors import ImageInvalid

# A PNG of 32 MiB whose pixels come in chunks of 4 KiB has 8,192.
MAX_PARTS: Final = 10_000
# Each scan of a JPEG is a walk over all pixels; encoders make ten, optimisers twenty.
MAX_SCANS: Final = 40
# Quantisers and Huffman codes have 2 KiB; a thumbnail beside them at most 64.
MAX_TABLES_BYTES: Final = 1 << 17

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK: Final = struct.Struct(">I4s")
_CHECKSUM_BYTES: Final = 4
_KEPT_CHUNKS: Final = (b"IHDR", b"acTL", b"fcTL", b"PLTE", b"tRNS", b"gAMA", b"sRGB")

_JPEG: Final = b"\xff\xd8"
# What lies between segments and within scans is no marker. Fill is taken as a whole, lest each byte of it is tried.
_MARKER: Final = re.compile(rb"\xff(?:[\xc0-\xcf\xd9-\xfe]|\xff++.?)", re.DOTALL)
_MARKERS: Final = frozenset({*range(0xC0, 0xD0), *range(0xD9, 0xFF)})
_SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
# Frames and codes, quantisers, restarts; JFIF and Adobe tell how colours are coded.
_TABLES: Final = frozenset({*range(0xC0, 0xC8), *range(0xC9, 0xD0), 0xDB, 0xDD, 0xE0, 0xEE})
_EXIF_HEAD: Final = b"Exif\0\0"

_RIFF: Final = b"RIFF"
_RIFF_CHUNK: Final = struct.Struct("<4sI")
_RIFF_HEAD_BYTES: Final = 12

_ORIENTATION: Final = 0x0112
_SHORT: Final = 3


def stripped(data: bytes, field: str = "") -> tuple[bytes, bytes]:
    """A file of the same pixels without notes, profiles and what follows the picture; and its EXIF.

    Args:
        data: the whole file, PNG or JPEG; any other comes back as it is, the parts of a WebP counted. Whether it is
            sound is for others to say.
        field: path of the request field, for the error.

    Raises:
        ImageInvalid: more than ``MAX_PARTS`` parts, ``MAX_SCANS`` scans or ``MAX_TABLES_BYTES`` before the first scan.
    """
    if data.startswith(_PNG):
        return _png(data, field)
    if data.startswith(_JPEG):
        return _jpeg(data, field)
    if data.startswith(_RIFF):
        _check_riff(data, field)
    return data, b""


def orientation(exif: bytes) -> int:
    """How a picture is to be turned to view it, 1 to 8 as EXIF counts; 1 if it says nothing that can be understood."""
    tiff = exif.removeprefix(_EXIF_HEAD)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
    except struct.error:  # cut off
        return 1
    entries = tiff[at + 2 : at + 2 + 12 * count]
    for tag, kind, value in struct.iter_unpack(f"{order}HH4xH2x", entries[: len(entries) // 12 * 12]):
        if tag == _ORIENTATION:
            return int(value) if kind == _SHORT and 1 <= value <= 8 else 1
    return 1


def _png(data: bytes, field: str) -> tuple[bytes, bytes]:
    head: dict[bytes, memoryview] = {}
    pixels, end, exif = [], b"", b""
    for name, start, stop in _chunks(data, field):
        chunk = memoryview(data)[start:stop]
        if name == b"IDAT":
            pixels.append(chunk)
        elif name == b"IEND":
            end = bytes(chunk)
        elif name == b"eXIf":
            exif = exif or data[start + _CHUNK.size : stop - _CHECKSUM_BYTES]
        elif name in _KEPT_CHUNKS and not pixels:
            head.setdefault(name, chunk)
    return b"".join([_PNG, *head.values(), *pixels, end]), exif


def _chunks(data: bytes, field: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and stop of each chunk to the last."""
    at = len(_PNG)
    for _ in range(MAX_PARTS):
        if at + _CHUNK.size > len(data):
            return
        size_bytes, name = _CHUNK.unpack_from(data, at)
        stop = at + _CHUNK.size + size_bytes + _CHECKSUM_BYTES
        yield name, at, stop
        if name == b"IEND":
            return
        at = stop
    raise _too_many(MAX_PARTS, "parts", field)


def _jpeg(data: bytes, field: str) -> tuple[bytes, bytes]:
    view = memoryview(data)
    tables, exif, scans = [], b"", []
    stop = len(data)
    for marker, start, stop in _segments(data, field):
        if marker == _SCAN:
            scans.append(start)
        elif not scans and marker in _TABLES:
            tables.append(view[start:stop])
        elif not scans and marker == _EXIF and data.startswith(_EXIF_HEAD, start + 4):
            exif = exif or data[start + 4 : stop]
    if len(scans) > MAX_SCANS:
        raise _too_many(MAX_SCANS, "scans", field)
    if sum(map(len, tables)) > MAX_TABLES_BYTES:
        raise _too_many(MAX_TABLES_BYTES, "bytes of tables", field)
    return b"".join([_JPEG, *tables, view[scans[0] : stop] if scans else b""]), exif


def _segments(data: bytes, field: str) -> Iterator[tuple[int, int, int]]:
    """Marker, start and stop of each segment to the end of the picture, which may be that of the file."""
    at = len(_JPEG)
    for _ in range(MAX_PARTS):
        found = _MARKER.search(data, at)
        if found is None:
            yield _END, len(data), len(data)
            return
        marker, at = data[found.end() - 1], found.end()
        if marker not in _MARKERS:
            continue
        size_bytes = 0 if marker == _END else max(int.from_bytes(data[at : at + 2], "big"), 2)
        yield marker, at - 2, at + size_bytes
        if marker == _END:
            return
        at += size_bytes
    raise _too_many(MAX_PARTS, "parts", field)


def _check_riff(data: bytes, field: str) -> None:
    """Notes of a WebP stay: one library reads it, not byte by byte, and only very many take long."""
    end = min(len(data), _RIFF_CHUNK.size + int.from_bytes(data[4:8], "little"))
    at = _RIFF_HEAD_BYTES
    for _ in range(MAX_PARTS):
        if at + _RIFF_CHUNK.size > end:
            return
        _, size_bytes = _RIFF_CHUNK.unpack_from(data, at)
        at += _RIFF_CHUNK.size + size_bytes + size_bytes % 2
    raise _too_many(MAX_PARTS, "parts", field)


def _too_many(most: int, what: str, field: str) -> ImageInvalid:
    return ImageInvalid(
        f"{field or 'picture'}: more than {most} {what} in one file",
        hint="Save it again with an image editor.",
        field=field,
    )
