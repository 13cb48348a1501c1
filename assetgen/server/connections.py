"""Connections of the HTTP port that hold up nobody: who sends no whole request makes way; imports places and uvicorn.

Uvicorn lets a connection wait for its request without end and refuses everybody once there are too many of them.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from assetgen.server.places import Places

# A client that is gone without a word: asked after half a minute of silence, given up when nothing of what it was sent
# arrives. The latter ends who reads nothing at all for as long, too.
IDLE_S, AGAIN_S, PROBES, UNREAD_S = 30, 10, 2, 60
LAST_ANSWER_S = 5.0


class Connection(H11Protocol):
    """One connection.

    Args:
        awaited: for those whose next request is not there as a whole yet; who has to leave is hung up.
    """

    def __init__(self, *arguments: Any, awaited: Places[Connection], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._awaited = awaited

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """It has been accepted, and where there is TLS, agreed on."""
        super().connection_made(transport)
        notice_who_is_gone(transport.get_extra_info("socket"))
        self._judge()

    def data_received(self, data: bytes) -> None:
        """Something of a request came."""
        super().data_received(data)
        self._judge()

    def on_response_complete(self) -> None:
        """The next request may come."""
        super().on_response_complete()
        self._judge()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._awaited.leave(self)
        super().connection_lost(exc)

    def make_way(self) -> None:
        """Hang up once the last answer is on its way, and count no more meanwhile."""
        self.connections.discard(self)
        self.transport.close()
        self.loop.call_later(LAST_ANSWER_S, self.transport.abort)

    def _judge(self) -> None:
        request = self.cycle
        if self.transport.is_closing() or (
            request is not None and not request.response_complete and not request.more_body
        ):
            self._awaited.leave(self)
        elif (oldest := self._awaited.enter(self)) is not None:
            oldest.make_way()


def notice_who_is_gone(connection: socket.socket) -> None:
    """Have the system give up a connection whose other end is gone, as far as it can be told to."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": IDLE_S,
        "TCP_KEEPINTVL": AGAIN_S,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": UNREAD_S * 1000,
    }
    for name, value in options.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
