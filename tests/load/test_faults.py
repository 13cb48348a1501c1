"""A network that fails between client and server: what arrives is whole, what is missing is said, places are freed."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from assetgen.client import Client
from assetgen.errors import AssetgenError, DeadlineTooShort, TransferDamaged, WorkerLost
from assetgen.launch import ServerProcess
from assetgen.server import app
from assetgen.server.exchange import Front
from assetgen.service import Service
from assetgen.types import Artifact, Encoding, Finished, OutputSpec, Progress, Request, Started
from assetgen.worker import Worker
from tests.helpers.figures import assert_no_call_is_left, figure
from tests.helpers.processes import until
from tests.helpers.serving import files, write_model
from tests.load.proxy import Faults, Proxy

REQUEST = Request("tiny", seed=7, count=4, width_px=256, height_px=256, output=OutputSpec(encoding=Encoding.RAW))
ANSWER_BYTES = 4 * 256 * 256 * (3 + 3 + 1 + 1 + 1 + 2)
SMALL = replace(REQUEST, count=2, width_px=64, height_px=64)
# More than all buffers on the way hold: a call that nobody reads does not end by itself.
LARGE = replace(REQUEST, count=8, width_px=1024, height_px=1024)
# One second by what is set, and a minute by what gRPC itself would do.
NOTICED_S = 30.0
# Little work for the server, and minutes for who reads so slowly.
SLOWLY_READ, SLOW_READERS, SLOW_BYTES_PER_S = replace(REQUEST, count=2, width_px=128, height_px=128), 50, 1000.0


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(package):
    options = ["--models", str(package.folder), "--device", "cpu", "--threads", "1", "--metrics-port", "0"]
    with ServerProcess([*options, "--max-calls", "2"]) as running:
        yield running


@pytest.fixture(scope="module")
def unbroken(server):
    with Client(server.address) as client:
        return files(client.generate(REQUEST))


def resumed(client, proxy, request):
    """All files, however often the stream breaks: each time from the first asset that is not whole."""
    found, breaks, end_s = {}, 0, time.monotonic() + 60
    while True:
        begin = request.first_index + sum((index, "height") in found for index in range(request.count))
        left = Request(**vars(request) | {"first_index": begin, "count": request.count - begin})
        try:
            for event in client.generate(left, 60.0):
                if isinstance(event, Artifact):
                    found[event.index, event.role] = event.sha256
            return found, breaks
        except (WorkerLost, TransferDamaged):
            breaks += 1
            assert time.monotonic() < end_s
            proxy.faults = Faults() if breaks > 4 else proxy.faults
            time.sleep(0.1)  # gRPC itself waits before it connects again


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut_after_bytes", [0, 100, 200_000, ANSWER_BYTES // 2])
def test_a_cut_stream_is_resumed_and_gives_the_files_of_an_unbroken_one(server, unbroken, cut_after_bytes, reset):
    faults = Faults(cut_after_bytes=cut_after_bytes, reset=reset)
    with Proxy(server.address, faults) as proxy, Client(proxy.address) as client:
        found, breaks = resumed(client, proxy, REQUEST)
    assert breaks
    assert found == unbroken


@pytest.mark.parametrize("faults", [Faults(latency_s=0.02), Faults(bytes_per_s=8e6)], ids=["latency", "bandwidth"])
def test_a_slow_network_changes_nothing_but_the_time(server, unbroken, faults):
    with Proxy(server.address, faults) as proxy, Client(proxy.address) as client:
        assert files(client.generate(REQUEST, 60.0)) == unbroken


@pytest.mark.parametrize("faults", [Faults(latency_s=0.2), Faults(bytes_per_s=1e6)], ids=["latency", "bandwidth"])
def test_so_does_a_very_slow_one(server, faults):
    """The request is small: each read of the proxy waits."""
    request = SMALL if faults.latency_s else replace(REQUEST, count=2)
    with Client(server.address) as client:
        expected = files(client.generate(request))
    with Proxy(server.address, faults) as proxy, Client(proxy.address, shared=False) as client:
        begun_s = time.monotonic()
        assert files(client.generate(request, 60.0)) == expected
    least_s = 2 * faults.latency_s or ANSWER_BYTES / 2 / 1e6
    assert time.monotonic() - begun_s >= least_s


def test_broken_connections_leave_no_call_behind(server, unbroken):
    """Only two calls may be under way; eight are cut off while they run."""
    with Proxy(server.address, Faults(cut_after_bytes=50_000, reset=True)) as proxy:
        for _ in range(8):
            with Client(proxy.address) as client, pytest.raises(AssetgenError):
                list(client.generate(REQUEST, 60.0))
    assert_no_call_is_left(server)
    with Client(server.address) as client:
        end_s = time.monotonic() + 60
        while True:
            try:
                assert files(client.generate(REQUEST, 60.0)) == unbroken
                return
            except AssetgenError:
                assert time.monotonic() < end_s
                time.sleep(0.05)


def test_what_hardly_arrives_ends_at_the_deadline(server):
    with Proxy(server.address, Faults(bytes_per_s=100)) as proxy, Client(proxy.address) as client:
        seen = []
        with pytest.raises(AssetgenError):
            seen.extend(client.generate(REQUEST, 1.0))
        assert not any(isinstance(event, Finished) for event in seen)


def test_a_black_hole_ends_at_the_deadline_at_both_ends(server):
    with Proxy(server.address) as proxy, Client(proxy.address, shared=False) as client:
        events = client.generate(LARGE, 5.0)
        seen = [next(events)]
        proxy.faults = Faults(hole=True)
        assert figure(server, "assetgen_calls_under_way") == 1
        with pytest.raises(DeadlineTooShort):
            seen.extend(events)
        assert_no_call_is_left(server)
    assert isinstance(seen[0], Started)
    assert not any(isinstance(event, Finished) for event in seen)


@pytest.mark.slow
def test_fifty_who_read_slowly_are_cut_off_at_their_deadline_and_nobody_else_notices(package):
    def read(address):
        with Client(address, shared=False) as client, pytest.raises(DeadlineTooShort):
            list(client.generate(SLOWLY_READ, 5.0))

    options = ["--models", str(package.folder), "--device", "cpu", "--threads", "1", "--metrics-port", "0"]
    with (
        ServerProcess(options) as server,
        Client(server.address) as other,
        Proxy(server.address, Faults(bytes_per_s=SLOW_BYTES_PER_S)) as proxy,
        ThreadPoolExecutor(SLOW_READERS) as pool,
    ):
        expected = files(other.generate(SMALL))
        readers = [pool.submit(read, proxy.address) for _ in range(SLOW_READERS)]
        until(lambda: figure(server, "assetgen_calls_under_way") >= 10)
        served = 0
        while not all(reader.done() for reader in readers):
            assert files(other.generate(SMALL, 60.0)) == expected
            served += 1
        assert served >= 5
        for reader in readers:
            reader.result()
        assert_no_call_is_left(server)


@pytest.fixture
def serve(package, monkeypatch, request):
    """Serves in this process; silent clients are asked after half a second, and have ``request.param`` s to answer."""
    answer_ms = round(request.param * 1000)
    times = {
        "grpc.keepalive_time_ms": 500,
        "grpc.keepalive_timeout_ms": answer_ms,
        "grpc.http2.ping_timeout_ms": answer_ms,
    }
    known = dict(app.OPTIONS)
    assert all(0 < known[name] <= 30_000 for name in times)
    monkeypatch.setattr(app, "OPTIONS", tuple((known | times).items()))
    service = Service({"tiny": package}, Worker("cpu", 1))
    server, _, address = app._grpc_server(Front(service), app.ServerConfig(port=0))
    server.start()
    yield service, address
    server.stop(0).wait()
    service.close()


@pytest.mark.parametrize("serve", [0.5], indirect=True)
@pytest.mark.parametrize("read", ["nothing", "some"])
def test_a_client_whose_cable_is_pulled_is_noticed_long_before_its_deadline(serve, read):
    service, address = serve
    with Proxy(address) as proxy, Client(proxy.address, shared=False) as client:
        events = client.generate(LARGE, 500.0)
        next(events)
        while read == "some" and not isinstance(next(events), Artifact):
            pass
        proxy.faults = Faults(hole=True)
        assert service.calls_under_way == 1
        begun_s = time.monotonic()
        until(lambda: not service.calls_under_way)
        assert time.monotonic() - begun_s < NOTICED_S


@pytest.mark.parametrize("serve", [0.5], indirect=True)
def test_so_is_one_that_waits_for_a_server_with_nothing_to_say_yet(serve, package):
    """No byte is on its way that could get lost: only an answer to the server's question can."""
    service, address = serve
    session, go_on = service.worker.session(package), threading.Event()
    run = session.run
    session.run = lambda inputs, **how: go_on.wait(120) and run(inputs, **how)
    with Proxy(address) as proxy, Client(proxy.address, shared=False) as client:
        events = client.generate(SMALL, 500.0)
        assert [type(next(events)) for _ in range(2)] == [Started, Progress]
        proxy.faults = Faults(hole=True)
        begun_s = time.monotonic()
        until(lambda: not service.calls_under_way)
        go_on.set()
        assert time.monotonic() - begun_s < NOTICED_S


@pytest.mark.parametrize("serve", [4.0], indirect=True)
def test_who_reads_nothing_or_waits_or_says_nothing_for_long_is_not_taken_for_gone(serve, package):
    """One has a call and stands still, one waits for a server that has nothing to say yet, and one has no call."""
    service, address = serve
    session = service.worker.session(package)
    run, waited_for = session.run, replace(SMALL, count=1)

    def run_late(inputs, half=False, owner=None):
        if owner.plan.width_px == waited_for.width_px:
            time.sleep(6.0)
        return run(inputs, half=half, owner=owner)

    session.run = run_late
    lazy, waiting, idle = (Client(address, shared=False) for _ in range(3))
    with lazy, waiting, idle, ThreadPoolExecutor(1) as pool:
        expected = files(idle.generate(REQUEST))
        events = lazy.generate(REQUEST)
        seen = [next(events)]
        answer = pool.submit(lambda: files(waiting.generate(waited_for)))
        time.sleep(6.0)
        assert files([*seen, *events]) == expected
        assert answer.result(60)
        assert files(idle.generate(REQUEST)) == expected
