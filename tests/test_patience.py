"""Asking again: as often as the server says, no longer than allowed, and not where it makes no sense."""

import threading
import time

import pytest

from assetgen.client import Client
from assetgen.errors import FieldInvalid, QueueFull, WorkerLost
from assetgen.launch import ServerProcess
from assetgen.patience import patiently
from assetgen.types import Artifact, Request
from tests.helpers.serving import files, write_model

REQUEST = Request("tiny", seed=7, width_px=32, height_px=32)
LONG = Request("slow", seed=7, count=64, width_px=1024, height_px=1024)


def refusing(times, retry_after_s=2.0):
    """Asks that are refused so many times first, and what they waited for."""
    left, waits = [times], []

    def ask():
        left[0] -= 1
        if left[0] >= 0:
            raise QueueFull("full", retry_after_s=retry_after_s)
        return "made"

    return ask, waits


def test_it_is_asked_again_after_about_the_time_that_is_named():
    ask, waits = refusing(3)
    assert patiently(ask, 100.0, waits.append) == "made"
    assert len(waits) == 3
    assert all(1.5 <= wait <= 2.5 for wait in waits)
    assert len(set(waits)) == 3, "many who were refused at once do not come back at once"


def test_without_patience_it_is_asked_once():
    ask, waits = refusing(1)
    with pytest.raises(QueueFull):
        patiently(ask, 0.0, waits.append)
    assert waits == []


def test_nobody_waits_for_what_will_not_be():
    ask, waits = refusing(5, retry_after_s=30.0)
    with pytest.raises(QueueFull):
        patiently(ask, 10.0, waits.append)
    assert waits == [], "the next time would be too late"

    def wrong():
        raise FieldInvalid("width_px: 33 is not allowed")

    with pytest.raises(FieldInvalid):
        patiently(wrong, 100.0, waits.append)
    assert waits == []


def test_a_client_outwaits_a_full_server_and_gets_the_bytes_of_an_idle_one(tmp_path):
    write_model(tmp_path)
    write_model(tmp_path, "slow", channels=96)
    options = ["--models", str(tmp_path), "--device", "cpu", "--threads", "1", "--max-calls", "1"]
    with ServerProcess(options) as server, Client(server.address) as client, Client(server.address) as other:
        expected = files(client.generate(REQUEST))
        long = other.generate(LONG)
        next(long)
        with pytest.raises(QueueFull):
            list(client.generate(REQUEST))
        threading.Timer(1.0, long.close).start()
        begun_s = time.monotonic()
        assert files(client.generate(REQUEST, patience_s=60.0)) == expected
        assert time.monotonic() - begun_s > 0.3
        closed = client.generate(REQUEST, patience_s=60.0)
        next(closed)
        closed.close()


def test_a_client_waits_for_a_server_that_starts(tmp_path):
    write_model(tmp_path)
    with ServerProcess(["--models", str(tmp_path), "--device", "cpu"]) as server:
        port = server.address.rpartition(":")[2]
    made = []

    def ask():
        with Client(f"127.0.0.1:{port}") as client:
            made.extend(client.generate(REQUEST, patience_s=60.0))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(1.5)
    assert not made
    with ServerProcess(["--models", str(tmp_path), "--device", "cpu", "--port", port]):
        thread.join(60.0)
    assert any(isinstance(event, Artifact) for event in made)
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(WorkerLost):
        list(client.generate(REQUEST))
