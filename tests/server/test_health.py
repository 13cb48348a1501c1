"""grpc.health.v1: true answers, and clients that watch, or read nothing, hold up nobody; it is open to all."""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from assetgen.client import Client
from assetgen.launch import ServerProcess
from assetgen.server.health import MAX_WATCHERS, SERVICE_NAME, Health
from assetgen.server.servicer import MAX_AWAITED
from tests.helpers.serving import write_model
from tests.load.garbage import PREFACE, call_begin, frame

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
ASK = health_pb2.HealthCheckRequest
INITIAL_WINDOW_SIZE, SETTINGS, DATA, END_STREAM = 4, 4, 0, 1
EMPTY = struct.pack(">BI", 0, 0)


@pytest.fixture
def health():
    """What says how services are, and a stub of a server in this process that has it."""
    server, health = grpc.server(ThreadPoolExecutor(MAX_WATCHERS + 4)), Health(["", "one", "two"])
    server.add_generic_rpc_handlers([health.handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health, health_pb2_grpc.HealthStub(channel)
    server.stop(0).wait()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    return folder


@pytest.fixture
def server(models):
    with ServerProcess(["--models", str(models), "--device", "cpu", "--threads", "1", "--reflection"]) as process:
        yield process


def serves(server):
    begun_s = time.monotonic()
    with Client(server.address) as client:
        assert [model.id for model in client.models()] == ["tiny"]
    with grpc.insecure_channel(server.address) as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(ASK(), timeout=20).status == SERVING
    return time.monotonic() - begun_s < 5


def test_what_is_told_is_answered_and_after_the_end_nothing_else(health):
    told, stub = health
    assert [stub.Check(ASK(service=name)).status for name in ("", "one", "two")] == [NOT_SERVING] * 3
    told.tell(["", "one"], serving=True)
    assert [stub.Check(ASK(service=name)).status for name in ("", "one", "two")] == [SERVING, SERVING, NOT_SERVING]
    told.end()
    told.tell(["one"], serving=True)
    assert [stub.Check(ASK(service=name)).status for name in ("", "one", "two")] == [NOT_SERVING] * 3
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(ASK(service="three"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_watchers_are_told_of_changes_alone(health):
    told, stub = health
    one, two, none = (stub.Watch(ASK(service=name), timeout=20) for name in ("one", "two", "three"))
    assert [next(watch).status for watch in (one, two, none)] == [NOT_SERVING, NOT_SERVING, UNKNOWN]
    told.tell(["one"], serving=True)
    assert next(one).status == SERVING
    told.tell(["one"], serving=True)
    told.tell(["one", "two"], serving=False)
    assert next(one).status == NOT_SERVING
    told.tell(["two"], serving=True)
    assert next(two).status == SERVING
    told.end()
    assert next(two).status == NOT_SERVING


def test_a_watcher_that_ends_just_when_it_is_looked_at_does_not_wait_for_ever():
    class Context:
        """Ends after the second look, on a thread of its own, as in gRPC."""

        def __init__(self):
            self.looks, self.active, self.callbacks = 0, True, []

        def is_active(self):
            self.looks += 1
            if self.looks == 2:
                ending = threading.Thread(target=self.end, daemon=True)
                ending.start()
                ending.join(0.2)
                return True
            return self.active

        def end(self):
            self.active = False
            for callback in self.callbacks:
                callback()

        def add_callback(self, callback):
            self.callbacks.append(callback)
            return True

    found = []
    watch = threading.Thread(target=lambda: found.extend(Health([""])._watch(b"", Context())), daemon=True)
    watch.start()
    watch.join(20)
    assert not watch.is_alive()
    assert len(found) == 1


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_bytes_that_are_no_message_are_refused(server, method):
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        next(channel.unary_stream(f"/{SERVICE_NAME}/{method}")(b"\xff", timeout=20))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_many_who_watch_take_no_thread_that_others_need(server):
    """Each had a thread, and a few hundred, of anybody, had all."""
    with grpc.insecure_channel(server.address) as channel:
        watchers = [health_pb2_grpc.HealthStub(channel).Watch(ASK(), timeout=60) for _ in range(500)]
        assert next(watchers[-1]).status == SERVING
        assert serves(server)
        with pytest.raises(grpc.RpcError) as caught:
            list(watchers[0])
        assert caught.value.code() == grpc.StatusCode.CANCELLED
        for watcher in watchers:
            watcher.cancel()
    assert "Traceback" not in server.errors()


def test_many_who_ask_nothing_of_reflection_take_no_thread_that_others_need(server):
    silent, ask = queue.SimpleQueue(), reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        streams = [stub.ServerReflectionInfo(iter(silent.get, None), timeout=60) for _ in range(3 * MAX_AWAITED)]
        assert serves(server)
        names = {each.name for each in next(stub.ServerReflectionInfo(iter([ask]))).list_services_response.service}
        assert SERVICE_NAME in names
        for stream in streams:
            silent.put(None)
            stream.cancel()
    assert "Traceback" not in server.errors()


def test_watchers_that_read_nothing_hold_up_neither_those_who_ask_nor_the_end(models):
    """Their windows are of 0 bytes: what is sent to them never arrives."""
    with ServerProcess(["--models", str(models), "--device", "cpu", "--drain-s", "1"]) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)))
            for stream in range(1, 2 * 3 * MAX_WATCHERS, 2):
                connection.sendall(call_begin(stream, f"/{SERVICE_NAME}/Watch"))
                connection.sendall(frame(DATA, END_STREAM, stream, EMPTY))
            time.sleep(0.5)
            assert serves(server)
            begun_s = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begun_s < 15
