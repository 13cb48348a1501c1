"""The HTTP/1.1 port itself, by uvicorn on a thread of its own; imports web, tls, places and, when used, connections."""

from __future__ import annotations

import functools
import importlib
import socket
import threading
import time
from types import ModuleType

from assetgen.errors import AddressUnusable, InternalError, RuntimeMissing
from assetgen.server.places import Places
from assetgen.server.tls import TlsFiles, server_context
from assetgen.server.web import Web

MAX_HEADER_BYTES, KEEP_ALIVE_S, START_S = 32 * 1024, 30, 30.0


class WebServer:
    """Uvicorn with a ``Web`` on a thread of its own.

    Args:
        listener: a listening socket, see ``listen``.
        max_busy: connections whose request is carried out or answered; more are refused.
        max_awaited: connections whose request is still to come; one more takes the place of the oldest.
    """

    def __init__(
        self, web: Web, listener: socket.socket, tls: TlsFiles | None, max_busy: int, max_awaited: int
    ) -> None:
        library = import_uvicorn()
        from assetgen.server.connections import Connection

        config = library.Config(
            web,
            http=functools.partial(Connection, awaited=Places(max_awaited)),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=max_busy + max_awaited,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        config.load()
        config.ssl = server_context(tls) if tls is not None else None  # its own would never look at the files again
        self._web, self._server = web, library.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="assetgen-http", daemon=True
        )
        self._thread.start()
        end_s = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end_s:
                raise InternalError("the HTTP port did not open", hint="see the log")
            time.sleep(0.005)

    def close(self) -> None:
        """Stop listening, and end what is left."""
        self._server.should_exit = True
        self._thread.join()
        self._web.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises AddressUnusable."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128, reuse_port=False)
    except (OSError, OverflowError) as error:
        raise AddressUnusable(
            f"cannot listen for HTTP on {host}:{port}: {error}", hint="choose another port with --http-port"
        ) from error


def import_uvicorn() -> ModuleType:
    """Uvicorn; raises RuntimeMissing."""
    try:
        return importlib.import_module("uvicorn")
    except ImportError as error:
        raise RuntimeMissing(
            "uvicorn is not installed", hint="pip install uvicorn, or leave --http-port out"
        ) from error
