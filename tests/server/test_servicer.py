"""What is read of calls whose message is still to come: nothing of strangers, and little of what is open to all."""

from __future__ import annotations

import hashlib
import socket
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from assetgen.client import Access, Client
from assetgen.launch import ServerProcess
from assetgen.server.servicer import MAX_OPEN_AWAITED
from tests.helpers.serving import write_model
from tests.load.garbage import GENERATE, PREFACE, call_begin, frame

HEALTH = "/grpc.health.v1.Health/Check"
TOKEN = "a token that is long enough"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
A_PART = frame(DATA, 0, 1, b"\0\0\x10\0\0" + bytes(1000))  # of a message of a mebibyte


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    tokens = folder.with_name("tokens.toml")
    tokens.write_text(f'[tokens.anna]\nsha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"\n')
    with ServerProcess(["--models", str(folder), "--device", "cpu", "--tokens", str(tokens)]) as process:
        yield process


def begin(server, path):
    host, _, port = server.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + call_begin(1, path) + A_PART)
    return connection


def kinds(connection, received=b""):
    """Types of the call's frames that are there."""
    connection.settimeout(0.05)
    try:
        while data := connection.recv(2**16):
            received += data
    except TimeoutError:
        pass
    found, place = [], 0
    while len(received) >= place + 9:
        if int.from_bytes(received[place + 5 : place + 9], "big") == 1:
            found.append(received[place + 3])
        place += 9 + int.from_bytes(received[place : place + 3], "big")
    return found


def test_who_is_not_known_is_refused_before_the_message_is_there(server):
    with begin(server, GENERATE) as connection:
        end_s = time.monotonic() + 5
        while HEADERS not in kinds(connection):
            assert time.monotonic() < end_s


def test_few_messages_are_held_of_what_needs_no_token(server):
    """Each may become 32 MiB: forty took 1.2 GiB."""
    held = [begin(server, HEALTH) for _ in range(3 * MAX_OPEN_AWAITED)]
    try:
        time.sleep(0.5)
        ended = [RST_STREAM in kinds(connection) for connection in held]
        assert sum(ended) == 2 * MAX_OPEN_AWAITED
        with grpc.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        with Client(server.address, access=Access(TOKEN)) as client:
            assert [model.id for model in client.models()] == ["tiny"]
    finally:
        for connection in held:
            connection.close()
    assert "Traceback" not in server.errors()


def test_a_message_that_unpacks_to_more_than_is_taken_is_refused(server):
    """128 MiB in 128 KB: unpacked by gRPC, which has to stop at 32 MiB."""
    with grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        for path, metadata in ((HEALTH, ()), (GENERATE, (("authorization", f"Bearer {TOKEN}"),))):
            call = channel.unary_stream(path)
            with pytest.raises(grpc.RpcError) as caught:
                list(call(bytes(2**27), timeout=60, compression=grpc.Compression.Gzip, metadata=metadata))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in caught.value.details()
