"""A connection that asks next to nothing of the machine: gRPC calls as frames of HTTP/2 (RFC 9113), laid ready before.

A load generator on the server's own machine takes from what it measures. A call by grpcio's client takes 0.8 ms of a
processor; one by these frames a fraction of that, for of its answer only lengths and the status are read. It knows what
our server sends, and refuses anything else.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 4, 5
_LARGEST_WINDOW, _LARGEST_FRAME, _FIRST_WINDOW = 2**31 - 1, 2**24 - 1, 2**16 - 1
_CANCEL = 8
# Entries of the table that nobody need send (RFC 7541, appendix A).
_STATIC_HEADERS = 61
_HEAD_BYTES = 9
# A window is opened again when that much of it is used.
_WINDOW_SHARE = _LARGEST_WINDOW // 2
_RECEIVE_BYTES = 2**20
_STATUS = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True)
class Ended:
    """A call that has ended.

    Attributes:
        call: what ``call`` returned for it.
        status: name of its status.
        size_bytes: of its answer's messages.
    """

    call: int
    status: str
    size_bytes: int


class Connection:
    """Calls of one method of a server, each with the same deadline."""

    def __init__(self, address: str, method: str, deadline_s: float) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host.strip("[]"), int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = {_HEADER_TABLE_SIZE: 0, _INITIAL_WINDOW_SIZE: _LARGEST_WINDOW, _MAX_FRAME_SIZE: _LARGEST_FRAME}
        told = b"".join(struct.pack(">HI", *setting) for setting in settings.items())
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, told) + _wider(_LARGEST_WINDOW - _FIRST_WINDOW))
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", address), ("te", "trailers"),
            ("content-type", "application/grpc"), ("grpc-timeout", f"{round(deadline_s * 1e3)}m"),
        ]  # fmt: skip
        # The first call puts the headers into the table that the server keeps; the others name their places in it.
        self._first = b"".join(b"\x40" + _text(name) + _text(value) for name, value in headers)
        self._next = bytes(0x80 | _STATIC_HEADERS + place for place in range(len(headers), 0, -1))
        self._calls = 0
        self._window = _FIRST_WINDOW
        self._received, self._used = bytearray(), 0
        self._sizes: dict[int, int] = {}

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def call(self, body: bytes) -> int:
        """Send a request; returns a number that is new on this connection."""
        stream = 2 * self._calls + 1
        block = self._next if self._calls else self._first
        data = struct.pack(">BI", 0, len(body)) + body
        self._calls += 1
        self._window -= len(data)
        if self._window < 0:
            raise ConnectionError("the server does not take what was sent before")
        self._sizes[stream] = 0
        self._socket.sendall(_frame(_HEADERS, _END_HEADERS, stream, block) + _frame(_DATA, _END_STREAM, stream, data))
        return stream

    def cancel(self, call: int) -> None:
        """Stop a call; it does not end any more."""
        del self._sizes[call]
        self._socket.sendall(_frame(_RST_STREAM, 0, call, struct.pack(">I", _CANCEL)))

    def ended(self) -> Iterator[Ended]:
        """Wait for bytes, and tell which calls they end."""
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server hung up")
        self._received += data
        begin, end = 0, len(self._received)
        while end - begin >= _HEAD_BYTES:
            high, low, kind, flags, stream = struct.unpack_from(">BHBBI", self._received, begin)
            size_bytes = high << 16 | low
            if end - begin < _HEAD_BYTES + size_bytes:
                break
            begin += _HEAD_BYTES + size_bytes
            if kind == _DATA and not flags & _PADDED:
                self._used += size_bytes
                if stream in self._sizes:
                    self._sizes[stream] += size_bytes
                status = ""
            else:
                status = self._understood(kind, flags, stream, bytes(self._received[begin - size_bytes : begin]))
            if status and stream in self._sizes:  # it was not cancelled meanwhile
                yield Ended(stream, status, self._sizes.pop(stream))
        del self._received[:begin]
        if self._used > _WINDOW_SHARE:
            self._socket.sendall(_wider(self._used))
            self._used = 0

    def _understood(self, kind: int, flags: int, stream: int, payload: bytes) -> str:
        """The status of the stream if the frame ends it."""
        if kind == _HEADERS and flags & _END_HEADERS and not flags & (_PADDED | _PRIORITY):
            return _STATUS[_status(payload)] if flags & _END_STREAM else ""
        if kind == _RST_STREAM:
            return f"RST_STREAM {struct.unpack('>I', payload)[0]}" if stream in self._sizes else ""
        if kind == _WINDOW_UPDATE:
            self._window += struct.unpack(">I", payload)[0] if stream == 0 else 0
        elif kind in (_SETTINGS, _PING):
            if not flags & _ACK:
                self._socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        else:
            raise ConnectionError(f"the server sent a frame of type {kind}, flags {flags}: {payload[:80]!r}")
        return ""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _wider(size_bytes: int) -> bytes:
    return _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", size_bytes))


def _text(text: str) -> bytes:
    """A string shorter than 127 bytes as it stands in a block of headers."""
    return bytes([len(text)]) + text.encode()


def _status(block: bytes) -> int:
    """The number under ``grpc-status`` in a block of headers that refers to no table but the static one."""
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # name and value by number
            _, at = _integer(block, at, 7)
        elif first & 0xE0 == 0x20:  # a new size of the table
            _, at = _integer(block, at, 5)
        else:
            number, at = _integer(block, at, 6 if first & 0x40 else 4)
            name, at = (b"", at) if number else _string(block, at)
            value, at = _string(block, at)
            if name == b"grpc-status":
                return int(value)
    raise ConnectionError(f"an answer ended without a status: {block!r}")


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """A number whose first byte has so many bits for it, and where it ends (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while True:
        value += (block[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not block[at - 1] & 0x80:
            return value, at


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """The bytes of a string, in Huffman's code if the server chose it, and where it ends."""
    length, begin = _integer(block, at, 7)
    return block[begin : begin + length], begin + length
