"""A server under garbage: `python -m tests.load.garbage --seconds 30`; prints JSON.

Connections that bring random bytes, the preface of HTTP/2 and random bytes, or well-formed frames that make no sense;
beside them, hundreds that begin and then say nothing. After every 500, a new client must get the files it got at first.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import psutil

from assetgen.client import Client
from assetgen.launch import ServerProcess
from tests.load.soak import family, golden, held

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GENERATE = "/assetgen.v1.GenerationService/Generate"
BETWEEN_CALLS, AT_ONCE = 500, 25
# What the server does not let go of in that time it holds for ever.
CLOSED_S = 60.0
MOST_MIB = 20.0
_DATA, _HEADERS, _SETTINGS, _END_HEADERS = 0, 1, 4, 4
# Payloads of these frames have a length of their own (RFC 9113, section 6); any other ends the connection at once.
_LENGTHS = {2: 5, 3: 4, 4: 6, 6: 8, 7: 8, 8: 4}
_ODD_STREAMS = (0, 1, 3, 5, 2, 2**31 - 1, 2**32 - 1)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A well-formed frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def call_begin(stream: int, path: str = GENERATE) -> bytes:
    """The headers of a sound call, whose message is still to come."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    headers += [("te", "trailers"), ("content-type", "application/grpc")]
    block = b"".join(b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in header) for header in headers)
    return frame(_HEADERS, _END_HEADERS, stream, block)


def random_frames(chance: random.Random) -> bytes:
    """Up to 20 frames of any type, flags, stream and length; in half of all cases behind the beginning of a call."""
    frames = [frame(_SETTINGS, 0, 0)]
    if chance.random() < 0.5:
        frames.append(call_begin(1))
    for _ in range(chance.randrange(1, 20)):
        kind = chance.choice((*range(10), chance.randrange(256)))
        stream = chance.choice((*_ODD_STREAMS, chance.randrange(2**32)))
        usual = _LENGTHS.get(kind, chance.choice((0, 1, 5, 64, 1000)))
        size_bytes = usual if chance.random() < 0.9 else chance.randrange(2**14 + 1)
        frames.append(
            frame(kind, chance.choice((0, 1, 4, 5, chance.randrange(256))), stream, chance.randbytes(size_bytes))
        )
    return PREFACE + b"".join(frames)


GARBAGE: dict[str, Callable[[random.Random], bytes]] = {
    "random bytes": lambda chance: chance.randbytes(chance.randrange(1, 1000)),
    "preface and random bytes": lambda chance: PREFACE + chance.randbytes(chance.randrange(1, 1000)),
    "random frames": random_frames,
}
# Where a client may fall silent: before its first byte, in the preface, in a frame, between frames, in a call, in a
# message.
SILENCES = (
    b"",
    PREFACE[:10],
    PREFACE + frame(_SETTINGS, 0, 0)[:5],
    PREFACE + frame(_SETTINGS, 0, 0),
    PREFACE + frame(_SETTINGS, 0, 0) + call_begin(1),
    PREFACE + frame(_SETTINGS, 0, 0) + call_begin(1) + frame(_DATA, 0, 1, struct.pack(">BI", 0, 2**20)),
)


def connected(address: str, data: bytes) -> socket.socket:
    """A connection over which ``data`` has gone, unless the server has closed it before."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), CLOSED_S)
    with suppress(ConnectionError):
        connection.sendall(data)
    return connection


def throw(address: str, garbage: Sequence[bytes], chance: random.Random) -> None:
    """Send each over a connection of its own, all at once; a part of them is reset, the others end in order.

    Raises:
        TimeoutError: the server does not close a connection after its end.
    """
    with ExitStack() as open_ones:
        connections = [open_ones.enter_context(connected(address, data)) for data in garbage]
        for connection in connections:
            if chance.random() < 0.2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
                continue
            with suppress(ConnectionError, OSError):
                connection.shutdown(socket.SHUT_WR)
        for connection in connections:
            with suppress(ConnectionError):
                while connection.fileno() != -1 and connection.recv(2**16):
                    pass


def is_open(connection: socket.socket) -> bool:
    """Whether the server still holds a connection that says nothing."""
    connection.setblocking(False)
    try:
        while connection.recv(2**16):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


class Silent:
    """So many connections that have begun and say nothing, held while it is open; a context manager."""

    def __init__(self, address: str, count: int, chance: random.Random) -> None:
        self._address, self._count, self._chance = address, count, chance
        self._held: list[socket.socket] = []

    def __enter__(self) -> Silent:
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._held:
            connection.close()

    def refresh(self) -> int:
        """Begin new ones for those that the server has closed; returns how many these were."""
        gone = [connection for connection in self._held if not is_open(connection)]
        for connection in gone:
            connection.close()
            self._held.remove(connection)
        while len(self._held) < self._count:
            self._held.append(connected(self._address, self._chance.choice(SILENCES)))
        return len(gone)


def withstand(seconds: float, model: str, models: str, half_open: int = 500, seed: int = 0) -> dict[str, object]:
    """Run it; returns the figures. Memory is that of all processes of the server, beyond what three calls have left."""
    options = ["--device", "cpu", "--threads", "1", "--log", "error"]
    options += ["--models", models] if models else []
    chance, made, unlike, gone, grown_mib = random.Random(seed), Counter[str](), 0, 0, []

    def resident_mib() -> float:
        return held(family(psutil.Process(server.process.pid)))[0]

    def files() -> list[str]:
        with Client(server.address) as client:
            return golden(client, model)

    with ServerProcess(options) as server:
        before = [files() for _ in range(3)][-1]
        base_mib, end_s = resident_mib(), time.monotonic() + seconds
        with Silent(server.address, half_open, chance) as silent:
            while time.monotonic() < end_s or not grown_mib:
                gone += silent.refresh()
                for _ in range(BETWEEN_CALLS // AT_ONCE):
                    kinds = chance.choices(list(GARBAGE), k=AT_ONCE)
                    throw(server.address, [GARBAGE[kind](chance) for kind in kinds], chance)
                    made.update(kinds)
                unlike += files() != before
                grown_mib.append(resident_mib() - base_mib)
        errors = server.errors()
    return {
        "seconds": seconds,
        "connections": dict(sorted(made.items())),
        "half_open": half_open,
        "half_open_closed_by_server": gone,
        "good_calls": len(grown_mib) - unlike,
        "calls_with_other_files": unlike,
        "growth_mib": [round(mib, 1) for mib in (grown_mib[0], grown_mib[-1], max(grown_mib))],
        "server_errors": errors.splitlines()[:10],
    }


def is_good(found: Mapping[str, Any]) -> bool:
    """Whether the server stood it."""
    wrong = found["calls_with_other_files"] or found["server_errors"]
    return not wrong and max(found["growth_mib"]) < MOST_MIB


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--model", default="starter-materials")
    parser.add_argument("--models", default="", help="folder (those of assetgen)")
    parser.add_argument("--half-open", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    found = withstand(options.seconds, options.model, options.models, options.half_open, options.seed)
    json.dump(found, sys.stdout, indent=2)
    print()
    return 0 if is_good(found) else 1


if __name__ == "__main__":
    sys.exit(main())
