"""Picture files for tests, part by part: what no library writes, and what none should read."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

PNG_HEAD_BYTES = 33  # signature and IHDR
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def saved(picture: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def segment(marker: int, content: bytes = b"") -> bytes:
    """Of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def png(width_px, height_px, depth=8, color_type=2, data=b"", interlaced=False) -> bytes:
    header = struct.pack(">IIBBBBB", width_px, height_px, depth, color_type, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND")


def interlaced_png(pixels) -> bytes:
    """``[h, w, 3] uint8``."""
    rows = [
        b"\0" + row.tobytes()
        for left, top, step_x, step_y in ADAM7
        for row in pixels[top::step_y, left::step_x]
        if row.size
    ]
    return png(pixels.shape[1], pixels.shape[0], data=b"".join(rows), interlaced=True)


def with_notes(data: bytes, notes: bytes) -> bytes:
    """Chunks or segments in front of the pixels of a PNG or a JPEG."""
    at = PNG_HEAD_BYTES if data.startswith(b"\x89PNG") else 2
    return data[:at] + notes + data[at:]


def webp_with_notes(data: bytes, notes: int) -> bytes:
    """A WebP file with that many empty chunks behind its own."""
    body = data[8:] + b"note\0\0\0\0" * notes
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_scans(data: bytes, more: int) -> bytes:
    """A progressive JPEG whose last scan comes again."""
    last, end = data.rindex(b"\xff\xda"), len(data) - 2
    return data[:end] + data[last:end] * more + data[end:]
