"""Small calls beside a large one, and beside connections that do nothing: the commands work, and count what was."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import pytest

from assetgen.launch import ServerProcess
from tests.helpers.serving import write_model
from tests.load import generator


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    options = ["--models", str(folder), "--device", "cpu", "--threads", "1", "--log", "error", "--max-calls", "8"]
    with ServerProcess(options) as running:
        yield running


def test_small_calls_are_counted_alone_and_beside_a_large_one(server):
    found = generator.beside(server.address, "tiny", 32, 1024, 0.5, clients=4)
    assert found["large_code"] == "OK"
    assert found["large_ms"] > found["alone"]["good_p50_ms"]
    assert set(found["alone"]["codes"]) == set(found["beside"]["codes"]) == {"OK"}
    assert 0 < found["small_that_met_it"] < found["beside"]["codes"]["OK"]
    assert found["p99_ratio"] == pytest.approx(found["p99_ms_that_met_it"] / found["p99_ms_alone"], abs=0.01)


def test_a_large_call_that_is_refused_is_told(server):
    found = generator.beside(server.address, "tiny", 32, 2048, 0.2, clients=1)
    assert found["large_code"] == "INVALID_ARGUMENT"


def test_idle_connections_stay_open_and_figures_are_medians(server):
    found = generator.beside_idle(server.address, "tiny", 32, 40, 20.0, 0.5, 10.0)
    assert (found["connections"], found["open_at_the_end"]) == (40, 40)
    assert [len(rounds) for rounds in found["rounds"].values()] == [generator.IDLE_ROUNDS] * 2
    for way, rounds in found["rounds"].items():
        assert found["goodput_per_s"][way] == statistics.median(each["goodput_per_s"] for each in rounds) > 0
    p50 = found["good_p50_ms"]
    assert p50["change_percent"] == pytest.approx((p50["with"] / p50["without"] - 1) * 100, abs=0.1)


def test_connections_that_the_server_hung_up_are_counted(tmp_path):
    write_model(tmp_path)
    options = ["--models", str(tmp_path), "--device", "cpu", "--threads", "1"]
    with ServerProcess(options) as running, closing(generator.Idle(running.address, 3)) as idle:
        assert idle.open == 3
        running.process.kill()
        end_s = time.monotonic() + 30
        while idle.open:
            assert time.monotonic() < end_s
            time.sleep(0.05)


def test_more_descriptors_are_allowed_and_too_many_are_refused():
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))
        generator.allow_descriptors(50)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
        generator.allow_descriptors(150)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (350, limits[1])
        if limits[1] != resource.RLIM_INFINITY:
            with pytest.raises(OSError, match="ulimit -Hn"):
                generator.allow_descriptors(limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_idle_connections_answer_what_the_server_asks_them():
    """A server that asks every second, and hangs up whoever says nothing for one."""
    server = grpc.server(
        ThreadPoolExecutor(1),
        options=[
            ("grpc.keepalive_time_ms", 1000),
            ("grpc.keepalive_timeout_ms", 1000),
            ("grpc.http2.ping_timeout_ms", 1000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ],
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with closing(generator.Idle(address, 5)) as idle:
            time.sleep(4)
            assert idle.open == 5
    finally:
        server.stop(None).wait()
