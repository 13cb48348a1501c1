"""The lean connection beside a server of grpcio's, whatever that answers."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.load.generator import Calls, Outcome
from tests.load.lean import Connection, Ended

METHOD = "/test.Echo/Call"


@contextmanager
def served(answer, **options):
    """A server that answers ``METHOD`` by ``answer(data, context)``; yields its address."""
    handler = grpc.unary_stream_rpc_method_handler(answer)
    server = grpc.server(ThreadPoolExecutor(8), **options)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", {"Call": handler})])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield address
    finally:
        server.stop(None).wait()


def wait(connection, count):
    ended = []
    while len(ended) < count:
        ended += connection.ended()
    return ended


def test_answers_are_told_with_their_sizes():
    def twice(data, context):
        yield data
        yield data

    sizes = [0, 1, 1000, 3_000_000]  # the last in many frames
    with served(twice) as address, Connection(address, METHOD, 10.0) as connection:
        calls = {connection.call(bytes(size)): size for size in sizes[:-1]}
        told = {ended.call: ended for ended in wait(connection, len(calls))}
    assert told == {call: Ended(call, "OK", 2 * (size + 5)) for call, size in calls.items()}


def test_more_than_the_first_window_comes():
    whole = bytes(20_000_000)  # a client of grpcio would not take a message of that size
    with served(lambda data, context: iter([whole])) as address, Connection(address, METHOD, 10.0) as connection:
        call = connection.call(b"")
        assert wait(connection, 1) == [Ended(call, "OK", len(whole) + 5)]


@given(st.sampled_from([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]), st.text(max_size=300))
@settings(max_examples=20, deadline=None)
def test_every_status_is_told_whatever_stands_beside_it(code, details):
    def refuse(data, context):
        context.set_trailing_metadata((("x-first", "a" * 200), ("grpc-status-details-bin", bytes(range(256)))))
        context.abort(code, details)
        yield b""

    with served(refuse) as address, Connection(address, METHOD, 10.0) as connection:
        calls = [connection.call(b"x") for _ in range(3)]
        assert sorted((ended.call, ended.status) for ended in wait(connection, 3)) == [(c, code.name) for c in calls]


def test_a_server_meets_the_method_the_body_and_the_deadline():
    met = []

    def note(data, context):
        met.append((data, round(context.time_remaining())))
        yield b""

    with served(note) as address, Connection(address, METHOD, 7.0) as connection:
        for body in (b"first", b"second"):
            connection.call(body)
            wait(connection, 1)
        with Connection(address, "/test.Echo/Other", 7.0) as other:
            other.call(b"")
            assert wait(other, 1)[0].status == "UNIMPLEMENTED"
    assert met == [(b"first", 7), (b"second", 7)]


def test_a_cancelled_call_ends_on_the_server_and_no_more_here():
    begun, left = threading.Event(), threading.Event()

    def hang(data, context):
        if data == b"hang":
            context.add_callback(left.set)
            begun.set()
            left.wait(30)
        yield b""

    with served(hang) as address, Connection(address, METHOD, 30.0) as connection:
        call = connection.call(b"hang")
        assert begun.wait(10)
        connection.cancel(call)
        assert left.wait(10)
        call = connection.call(b"next")
        assert [ended.call for ended in wait(connection, 1)] == [call]


def test_a_server_that_hangs_up_is_told_of():
    with served(lambda data, context: iter([b""])) as address:
        connection = Connection(address, METHOD, 10.0)
        connection.call(b"")
        wait(connection, 1)
    with connection, pytest.raises(ConnectionError):
        wait(connection, math.inf)


def test_calls_are_given_up_at_their_deadline():
    release = threading.Event()

    def hang(data, context):
        release.wait(30)
        yield b""

    outcome = Outcome(1.0)
    # the server is told of a longer deadline: giving up is the client's own
    with served(hang) as address, Connection(address, METHOD, 30.0) as connection:
        calls = Calls([connection], 0.3, outcome)
        begun_s = time.monotonic()
        calls.begin(connection, b"")
        while len(calls):
            calls.wait(math.inf)
        release.set()
        calls.close()
    assert 0.3 <= time.monotonic() - begun_s < 10
    assert outcome.codes == {"DEADLINE_EXCEEDED": 1}
    assert outcome.refused_s == []
