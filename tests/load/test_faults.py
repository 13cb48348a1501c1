"""A network that fails between client and server: what arrives is whole, what is missing is said, places are freed."""

import time

import pytest

from assetgen.client import Client
from assetgen.errors import AssetgenError, TransferDamaged, WorkerLost
from assetgen.launch import ServerProcess
from assetgen.types import Artifact, Encoding, Finished, OutputSpec, Request
from tests.helpers.serving import files, write_model
from tests.load.proxy import Faults, Proxy

REQUEST = Request("tiny", seed=7, count=4, width_px=256, height_px=256, output=OutputSpec(encoding=Encoding.RAW))
ANSWER_BYTES = 4 * 256 * 256 * (3 + 3 + 1 + 1 + 1 + 2)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_model(models)
    with ServerProcess(["--models", str(models), "--device", "cpu", "--threads", "1", "--max-calls", "2"]) as running:
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


def test_broken_connections_leave_no_call_behind(server, unbroken):
    """Only two calls may be under way; eight are cut off while they run."""
    with Proxy(server.address, Faults(cut_after_bytes=50_000, reset=True)) as proxy:
        for _ in range(8):
            with Client(proxy.address) as client, pytest.raises(AssetgenError):
                list(client.generate(REQUEST, 60.0))
    with Client(server.address) as client:
        end_s = time.monotonic() + 60
        while True:
            try:
                assert files(client.generate(REQUEST, 60.0)) == unbroken
                return
            except AssetgenError:
                assert time.monotonic() < end_s
                time.sleep(0.05)


def test_a_black_hole_ends_at_the_deadline(server):
    with Proxy(server.address, Faults(bytes_per_s=100)) as proxy, Client(proxy.address) as client:
        seen = []
        with pytest.raises(AssetgenError):
            seen.extend(client.generate(REQUEST, 1.0))
        assert not any(isinstance(event, Finished) for event in seen)
