"""Connections of the HTTP port that send no whole request, or are gone: they hold up nobody."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from contextlib import ExitStack, closing

import pytest

from assetgen.launch import ServerProcess
from assetgen.server.connections import IDLE_S, UNREAD_S, notice_who_is_gone
from assetgen.server.servicer import MAX_AWAITED
from assetgen.server.web_server import WebServer, listen
from tests.helpers.serving import write_model
from tests.server.test_web import GENERATE, LIST, SMALL, Server, envelope, envelopes

HEAD = f"POST {LIST} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
UNFINISHED = {"silent": "", "half-a-head": HEAD[:60], "half-a-body": HEAD + "\r\n{"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    write_model(folder, "slow", channels=96)
    options = ["--http-port", "0", "--device", "cpu", "--threads", "1"]
    with ServerProcess(["--models", str(folder), *options]) as process:
        yield Server(process)


def is_open(connection):
    connection.settimeout(0)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("begun", UNFINISHED.values(), ids=UNFINISHED)
def test_requests_that_never_come_hold_up_nobody(server, begun):
    """Three times as many as may wait, beside a good client that keeps its connection and one whose answer streams."""
    slow = json.dumps(SMALL | {"model_id": "slow", "count": 8, "width_px": 256, "height_px": 256}).encode()
    with ExitStack() as stack:
        streaming, kept = (
            stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)))
            for _ in range(2)
        )
        streaming.request("POST", GENERATE, envelope(slow), {"content-type": "application/connect+json"})
        held = []
        for _ in range(3 * MAX_AWAITED):
            held.append(stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), timeout=60)))
            held[-1].sendall(begun.encode())
            if len(held) % 50 == 0:
                begun_s = time.monotonic()
                kept.request("POST", LIST, b"{}", {"content-type": "application/json"})
                assert kept.getresponse().read()
                assert server.post(LIST, b"{}", "application/json")[0] == 200  # on a new connection
                assert time.monotonic() - begun_s < 5
        still = [is_open(connection) for connection in held]
        assert not any(still[:MAX_AWAITED])  # the oldest made way
        assert all(still[-MAX_AWAITED // 2 :])
        *_, (flags, end) = envelopes(streaming.getresponse().read())
        assert (flags, json.loads(end)) == (2, {})
    assert "Traceback" not in server.process.errors()


def test_a_request_that_comes_slowly_is_answered(server):
    request = (HEAD + "\r\n{}").encode()
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=60) as connection:
        for place in range(0, len(request), 16):
            connection.sendall(request[place : place + 16])
            time.sleep(0.01)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")


class Held:
    """An application that answers when it is told to."""

    def __init__(self, data=b""):
        self.go, self._data = threading.Event(), data

    async def __call__(self, scope, receive, send):
        await asyncio.get_running_loop().run_in_executor(None, self.go.wait, 60)
        length = (b"content-length", str(len(self._data)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": self._data})

    def close(self):
        pass


@pytest.fixture
def held(request):
    """Asks a server in this process that has room for two requests and waits for three; and its application."""
    listener, web = listen("127.0.0.1", 0), Held(getattr(request, "param", b""))
    port = listener.getsockname()[1]
    with closing(WebServer(web, listener, None, max_busy=2, max_awaited=3)), ExitStack() as stack:

        def connect():
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))

        def ask():
            connection = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)))
            connection.request("GET", "/")
            return connection

        yield connect, ask, web


def test_a_full_port_refuses_clearly_and_serves_again_when_there_is_room(held):
    connect, ask, web = held
    busy = [ask(), ask()]
    time.sleep(0.2)
    idle = [connect(), connect()]
    refused = ask().getresponse()
    assert (refused.status, refused.read()) == (503, b"Service Unavailable")
    web.go.set()
    assert [connection.getresponse().status for connection in busy] == [200, 200]
    assert ask().getresponse().status == 200
    assert not any(is_open(connection) for connection in idle)


@pytest.mark.parametrize("held", [b"x" * 2**25], indirect=True)
def test_who_makes_way_gets_the_last_answer_whole(held):
    connect, ask, web = held
    web.go.set()
    reader = ask()
    answer = reader.getresponse()  # its head; the rest is larger than what sockets hold
    for _ in range(6):
        connect()
    time.sleep(0.2)
    assert answer.read() == b"x" * 2**25
    assert not is_open(reader.sock)


def test_the_system_is_told_to_notice_who_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        notice_who_is_gone(ours)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == IDLE_S
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNREAD_S * 1000
