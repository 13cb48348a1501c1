"""The port of metrics: it answers, takes few threads however many connect, and nobody keeps one for long."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from contextlib import ExitStack, closing

import pytest

from assetgen.server import metrics_port
from assetgen.server.metrics_port import MAX_READERS, serve_metrics


def application(environment, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"calls 7\n"]


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(metrics_port._Handler, "timeout", 0.5)
    number, server = serve_metrics(application, 0)
    with closing(server):
        yield number


def read(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return answer.read()


def test_it_answers_on_the_loopback_address_until_it_is_closed():
    port, server = serve_metrics(application, 0)
    assert server.server_address[0] == "127.0.0.1"
    assert read(port) == b"calls 7\n"
    with pytest.raises(OSError, match="in use"):
        serve_metrics(application, port)
    server.close()
    with pytest.raises(OSError, match="refused"):
        read(port)


def test_who_says_nothing_takes_few_threads_and_none_for_long(port, capfd):
    before = threading.active_count()
    with ExitStack() as stack:
        most = 0
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            time.sleep(0.002)  # for the thread that accepts
            most = max(most, threading.active_count() - before)
        end_s = time.monotonic() + 30
        while True:
            try:
                assert read(port) == b"calls 7\n"
            except OSError:  # no place yet
                assert time.monotonic() < end_s
                time.sleep(0.02)
            else:
                break
    assert 0 < most <= MAX_READERS
    assert capfd.readouterr().err == ""
