"""What a client sends over HTTP, within limits, and whether it is still there; imports exchange only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from assetgen.server.exchange import MAX_REQUEST_BYTES

MAX_BODIES_BYTES = 8 * MAX_REQUEST_BYTES
BODY_S = 30.0


class ClientLeftError(Exception):
    """The client left while it sent its request."""


class BodyRefusedError(Exception):
    """The body of a request is not read to its end.

    Attributes:
        status: of HTTP, to answer with.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class Bodies:
    """How many bytes of requests are held at once."""

    def __init__(self) -> None:
        self.held_bytes = 0


class Body:
    """The body of one request; all of them together have at most ``MAX_BODIES_BYTES``."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.data = bytearray()

    async def read(self, headers: Mapping[str, str], receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Fill ``data``.

        Raises:
            ClientLeftError: before the end.
            BodyRefusedError: it is too large, too slow, or there are too many.
        """
        try:
            await asyncio.wait_for(self._read(headers, receive), BODY_S)
        except TimeoutError:
            raise BodyRefusedError(408, f"a request comes within {BODY_S:.0f} s") from None

    def let_go(self) -> None:
        """Hold it no longer."""
        self._bodies.held_bytes -= len(self.data)
        self.data = bytearray()

    async def _read(self, headers: Mapping[str, str], receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > MAX_REQUEST_BYTES:
            raise BodyRefusedError(413, f"a request has at most {MAX_REQUEST_BYTES} bytes")
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            piece = message.get("body", b"")
            self.data += piece
            self._bodies.held_bytes += len(piece)
            if len(self.data) > MAX_REQUEST_BYTES:
                raise BodyRefusedError(413, f"a request has at most {MAX_REQUEST_BYTES} bytes")
            if self._bodies.held_bytes > MAX_BODIES_BYTES:
                raise BodyRefusedError(503, "too many large requests at once; try again later")
            if not message.get("more_body"):
                return


class Leaving:
    """Has functions called when the client leaves.

    Attributes:
        gone: whether it has.
    """

    def __init__(self) -> None:
        self.gone = False
        self._lock = threading.Lock()
        self._then: list[Callable[[], None]] = []

    def call(self, then: Callable[[], None]) -> bool:
        """Have ``then`` called; returns whether the client is still there."""
        with self._lock:
            self._then.append(then)
            return not self.gone

    def leave(self) -> None:
        """The client left."""
        with self._lock:
            self.gone = True
            then, self._then = self._then, []
        for function in then:
            function()
