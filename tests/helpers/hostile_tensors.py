"""Safetensors files that break one rule each, written by hand; standard library only."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

NAN = struct.pack("<f", float("nan"))


def frame(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file: length of the header, the header, and the bytes of all tensors."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _entry(start: int, end: int, shape: tuple[int, ...] = (4,)) -> dict[str, object]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}


def _header(**tensors: Mapping[str, object]) -> bytes:
    return json.dumps(tensors).encode()


_HEADER = _header(a=_entry(0, 16), b=_entry(16, 32))
_TWICE = b'{"a":%s,"a":%s}' % (json.dumps(_entry(0, 16)).encode(), json.dumps(_entry(0, 16)).encode())

SOUND = frame(_HEADER, bytes(32))
# What is wrong: the file, and what its error must match.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a header of 2**63 bytes": (frame(_HEADER, bytes(32), 2**63), "header too large"),
    "a header beyond the file": (frame(_HEADER, bytes(32), 4096), "invalid header length"),
    "tensors that overlap": (frame(_header(a=_entry(0, 16), b=_entry(12, 28)), bytes(28)), "invalid offset"),
    "a hole": (frame(_header(a=_entry(0, 16), b=_entry(20, 36)), bytes(36)), "invalid offset"),
    "a shape unlike its bytes": (frame(_header(a=_entry(0, 16, (5,))), bytes(16)), "invalid shape"),
    "a shape that overflows": (frame(_header(a=_entry(0, 16, (2**62, 2**62))), bytes(16)), "overflow"),
    "trailing bytes": (frame(_HEADER, bytes(33)), "not fully covered"),
    "a name twice": (frame(_TWICE, bytes(16)), "duplicate key 'a'"),
    "a value that is not a number": (frame(_HEADER, bytes(28) + NAN), "'b' holds values that are not finite"),
}
