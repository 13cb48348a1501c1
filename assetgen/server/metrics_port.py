"""The port where metrics are read: by few at a time, and by nobody for long; standard library only.

prometheus_client's own gives each connection a thread for as long as it likes: a thousand that say nothing would take a
thousand threads from the calls.
"""

from __future__ import annotations

import socket
import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import WSGIApplication

MAX_READERS = 8


class _Handler(WSGIRequestHandler):
    timeout = 5.0  # seconds for each read and write

    def log_message(self, *_: object) -> None:
        """Nothing: who reads metrics does so all the time."""


class _Port(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._places = threading.BoundedSemaphore(MAX_READERS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread, or hang up if there are too many."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Who leaves, or takes too long, is no fault of ours."""

    def close(self) -> None:
        """Stop listening; who is reading has until then to end."""
        self.shutdown()
        self.server_close()


def serve_metrics(application: WSGIApplication, port: int) -> tuple[int, _Port]:
    """Answer on the loopback address, on a thread, until what is returned is closed; returns the port, too.

    Raises:
        OSError: the port is taken.
        OverflowError: it is no port.
    """
    server = make_server("127.0.0.1", port, application, _Port, _Handler)
    threading.Thread(target=server.serve_forever, name="assetgen-metrics", daemon=True).start()
    return server.server_port, server
