"""Files in shared memory: a budget, owner only, used again only when nobody holds them, and gone after a crash."""

import gc
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from assetgen import handover
from assetgen.client import Client
from assetgen.errors import ConfigInvalid, FieldInvalid, RuntimeMissing
from assetgen.launch import ServerProcess
from assetgen.server import shared as module
from assetgen.server.shared import MIN_BYTES, SharedFiles, sweep
from assetgen.types import Artifact, Encoding, OutputSpec, Request
from assetgen.v1 import generation_service_pb2
from tests.helpers.serving import files, write_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are handed over on Linux only")

SIZE = MIN_BYTES
LARGE = Request("tiny", seed=3, width_px=1024, height_px=512, output=OutputSpec(encoding=Encoding.RAW))


@pytest.fixture
def shared(tmp_path):
    files = SharedFiles(4 * SIZE, tmp_path)
    yield files
    files.close()
    assert list(tmp_path.iterdir()) == []


def data(number, size=SIZE):
    return np.random.default_rng(number).bytes(size)


def offer(shared, content):
    return shared.offer(content, hashlib.sha256(content).hexdigest())


def take(shared, name, content, root):
    return handover.take(name, len(content), hashlib.sha256(content).hexdigest(), root)


def test_what_is_taken_is_what_was_offered_and_stays_so(shared, tmp_path):
    contents = [data(number) for number in range(12)]
    held = [take(shared, offer(shared, content), content, tmp_path) for content in contents[:4]]
    assert [bytes(view) for view in held] == contents[:4]
    assert offer(shared, contents[4]) == ""  # the budget is what clients hold
    held[1] = None
    view = take(shared, offer(shared, contents[5]), contents[5], tmp_path)
    assert bytes(view) == contents[5]
    assert [bytes(held[number]) for number in (0, 2, 3)] == [contents[number] for number in (0, 2, 3)]
    assert shared.held_bytes == 4 * SIZE


def test_memory_is_used_again_for_a_file_of_the_same_size_only(shared, tmp_path):
    first = data(1)
    del_me = take(shared, offer(shared, first), first, tmp_path)
    del del_me
    second = data(2)
    assert bytes(take(shared, offer(shared, second), second, tmp_path)) == second
    assert shared.held_bytes == SIZE
    smaller = data(3, SIZE + 1)
    assert bytes(take(shared, offer(shared, smaller), smaller, tmp_path)) == smaller
    assert shared.held_bytes == 2 * SIZE + 1
    third = data(4, 4 * SIZE)
    gc.collect()
    assert bytes(take(shared, offer(shared, third), third, tmp_path)) == third  # idle ones made room
    assert shared.held_bytes == 4 * SIZE


def test_small_files_and_those_beyond_the_budget_are_not_offered(shared, tmp_path):
    assert offer(shared, data(1, SIZE - 1)) == ""
    assert offer(shared, data(1, 4 * SIZE + 1)) == ""
    assert [path.name for path in tmp_path.glob("*/*")] == ["alive"]


def test_files_of_many_sizes_do_not_eat_up_descriptors(tmp_path, monkeypatch):
    """PNG files hardly ever have the same size twice; the oldest that nobody holds make room."""
    monkeypatch.setattr(module, "MAX_SLOTS", 4)
    shared = SharedFiles(2**30, tmp_path)
    before = psutil.Process().num_fds()
    for number in range(40):
        content = data(number, SIZE + number)
        assert bytes(take(shared, offer(shared, content), content, tmp_path)) == content
    assert psutil.Process().num_fds() <= before + 2 * 4
    contents = [data(number, SIZE + number) for number in range(5)]
    held = [take(shared, offer(shared, content), content, tmp_path) for content in contents[:4]]
    assert offer(shared, contents[4]) == "", "all are held: it comes in the stream"
    held.pop(0)
    assert bytes(take(shared, offer(shared, contents[4]), contents[4], tmp_path)) == contents[4]
    del held
    shared.close()


def test_a_file_that_nobody_takes_goes_and_its_memory_is_used_again(shared, tmp_path, monkeypatch):
    names = [offer(shared, data(number)) for number in range(4)]
    assert offer(shared, data(9)) == ""
    monkeypatch.setattr(module, "TAKE_S", 0.0)
    content = data(10)
    view = take(shared, offer(shared, content), content, tmp_path)
    assert not any((tmp_path / name).exists() for name in names)
    assert bytes(view) == content
    assert shared.held_bytes == 4 * SIZE


def test_a_withdrawn_file_cannot_be_taken_and_a_taken_one_not_withdrawn(shared, tmp_path):
    content = data(1)
    name = offer(shared, content)
    view = take(shared, name, content, tmp_path)
    shared.withdraw(name)
    assert bytes(view) == content
    name = offer(shared, content)
    shared.withdraw(name)
    assert not (tmp_path / name).exists()


def test_idle_memory_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TICK_S", 0.01)
    monkeypatch.setattr(module, "IDLE_S", 0.0)
    shared = SharedFiles(4 * SIZE, tmp_path)
    try:
        content = data(1)
        view = take(shared, offer(shared, content), content, tmp_path)
        time.sleep(0.1)
        assert (shared.held_bytes, bytes(view)) == (SIZE, content)
        del view
        end_s = time.monotonic() + 60
        while shared.held_bytes:
            assert time.monotonic() < end_s
            time.sleep(0.01)
    finally:
        shared.close()


def test_what_was_taken_outlives_the_server(tmp_path):
    shared = SharedFiles(4 * SIZE, tmp_path)
    content = data(1)
    view = take(shared, offer(shared, content), content, tmp_path)
    shared.close()
    assert list(tmp_path.iterdir()) == []
    assert bytes(view) == content


def test_only_the_owner_may_look(shared, tmp_path):
    offer(shared, data(1))
    folder = tmp_path / shared.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_sees_nothing():
    with SharedServer() as server:
        folder = handover.ROOT / server.folder
        for command in (["ls", str(folder)], ["cat", str(folder / "alive")], ["rm", "-rf", str(folder)]):
            done = subprocess.run(command, capture_output=True, user=65534, group=65534, extra_groups=[], check=False)
            assert done.returncode != 0
            assert b"Permission denied" in done.stderr or b"not permitted" in done.stderr
        assert folder.is_dir()


def test_servers_that_ended_without_notice_leave_nothing_for_long(tmp_path):
    code = "import sys, os; from pathlib import Path; from assetgen.server.shared import SharedFiles\n"
    code += f"s = SharedFiles(2**22, Path({str(tmp_path)!r})); s.offer(b'x' * 2**20, '0' * 64); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    alive = SharedFiles(SIZE, tmp_path)  # it sweeps at its start
    try:
        stranger = tmp_path / "assetgen-notes"
        stranger.mkdir()
        young = tmp_path / f"assetgen-{'0' * 32}"
        young.mkdir()
        sweep(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted((alive.folder, stranger.name, young.name))
        os.utime(young, (1, 1))
        sweep(tmp_path)
        assert not young.exists()
        stranger.rmdir()
    finally:
        alive.close()


def test_a_system_with_less_memory_than_promised_is_asked_once(shared, tmp_path, monkeypatch, caplog):
    content = data(1)
    view = take(shared, offer(shared, content), content, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", full)
    assert [offer(shared, data(number)) for number in range(2, 6)] == [""] * 4
    assert caplog.text.count("No space left on device") == 1
    assert [path.name[:5] for path in (tmp_path / shared.folder).iterdir() if path.name.startswith("slot")] == ["slot-"]
    assert bytes(view) == content
    del view
    assert offer(shared, content)  # what there is can be used again


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    with pytest.raises(ConfigInvalid, match="no folder can be made"):
        SharedFiles(SIZE, tmp_path / "absent")


def test_elsewhere_it_is_said_clearly(monkeypatch):
    monkeypatch.setattr(handover.sys, "platform", "win32")
    with pytest.raises(RuntimeMissing, match="only on Linux"):
        SharedFiles(SIZE)
    assert not handover.is_ours("assetgen-" + "0" * 32)


class SharedServer:
    """A server with a tiny model, and the name of its folder."""

    def __init__(self, *arguments):
        import tempfile

        self._models = tempfile.TemporaryDirectory()
        write_model(Path(self._models.name))
        options = ["--models", self._models.name, "--device", "cpu", "--threads", "1", *arguments]
        self.process = ServerProcess(options)
        self.address = self.process.address
        with Client(self.address) as client:
            self.folder = client.server_info().shared_folder

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()
        self._models.cleanup()


@pytest.fixture(scope="module")
def server():
    with SharedServer() as running:
        yield running
        folder = handover.ROOT / running.folder
        assert folder.is_dir()
    assert not folder.exists()


def made(client, request=LARGE):
    return [event for event in client.generate(request) if isinstance(event, Artifact)]


def test_the_bytes_are_those_that_come_in_the_stream(server):
    with (
        Client(server.address) as by_itself,
        Client(server.address, shared=True) as must,
        Client(server.address, shared=False) as plain,
    ):
        expected = made(plain)
        for client in (by_itself, must):
            found = made(client)
            assert found == expected
            for artifact in found:
                assert hashlib.sha256(artifact.data).hexdigest() == artifact.sha256
        assert not any(isinstance(artifact.data, memoryview) for artifact in expected)
        large = [artifact for artifact in found if len(artifact.data) >= MIN_BYTES]
        assert len(large) == 6
        assert all(isinstance(artifact.data, memoryview) for artifact in large)
        assert [path.name[:5] for path in (handover.ROOT / server.folder).iterdir() if len(path.name) > 64] == []


def test_small_answers_come_as_before(server):
    with Client(server.address, shared=True) as client:
        assert len(files(client.generate(Request("tiny", seed=1, width_px=32, height_px=32)))) == 6


def test_clients_that_hold_on_get_the_rest_in_the_stream():
    with SharedServer("--shared-mb", "3") as server, Client(server.address, shared=True) as client:
        first = made(client)
        second = made(client)
        assert second == first
        kinds = [isinstance(artifact.data, memoryview) for artifact in first + second]
        assert kinds.count(True) >= 2
        assert not all(kinds)
        assert all(hashlib.sha256(artifact.data).hexdigest() == artifact.sha256 for artifact in first + second)


def test_a_client_that_never_takes_and_leaves_gets_its_files_withdrawn(server):
    message = generation_service_pb2.GenerateRequest(model_id="tiny", seed=3, width_px=1024, height_px=1024, count=8)
    message.output.encoding = 2
    message.delivery = generation_service_pb2.DELIVERY_SHARED
    folder = handover.ROOT / server.folder
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_stream(
            "/assetgen.v1.GenerationService/Generate",
            request_serializer=generation_service_pb2.GenerateRequest.SerializeToString,
            response_deserializer=generation_service_pb2.GenerateResponse.FromString,
        )(message)
        names = []
        for response in call:
            if response.WhichOneof("event") == "artifact" and response.artifact.shared:
                names.append(response.artifact.shared)
                assert (handover.ROOT / response.artifact.shared).is_file()
                break
        call.cancel()
    end_s = time.monotonic() + 60
    while any(len(path.name) > 64 for path in folder.iterdir()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    assert len(names) == 1


def test_a_server_without_it_says_so():
    with SharedServer("--shared-mb", "0") as server:
        assert server.folder == ""
        with Client(server.address) as client:
            assert len(made(client)) == 6
        with (
            Client(server.address, shared=True) as client,
            pytest.raises(RuntimeMissing, match="no shared memory that this client"),
        ):
            made(client)
        message = generation_service_pb2.GenerateRequest(model_id="tiny", seed=3, delivery=3)
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
            list(channel.unary_stream("/assetgen.v1.GenerationService/Generate")(message.SerializeToString()))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_killed_server_leaves_nothing_once_another_starts():
    with SharedServer() as server:
        folder = handover.ROOT / server.folder
        with Client(server.address) as client:
            held = made(client)
        server.process.process.kill()
        server.process.process.wait()
        assert folder.is_dir()
        with SharedServer() as second:
            assert second.folder != server.folder
            assert not folder.exists()
        assert all(hashlib.sha256(artifact.data).hexdigest() == artifact.sha256 for artifact in held)


def test_another_server_in_the_same_place_is_found_by_the_same_client(server):
    with Client(server.address) as client:
        made(client)
        client._folder = "assetgen-" + "0" * 32  # that of a server that has gone
        assert any(isinstance(artifact.data, memoryview) for artifact in made(client))


def test_the_delivery_of_a_stranger_is_refused(shared):
    from assetgen.server.delivery import Deliverer

    with pytest.raises(FieldInvalid, match="no shared memory"):
        Deliverer(3, None, None, local=True)
    with pytest.raises(FieldInvalid, match="this client is on another machine") as caught:
        Deliverer(3, None, shared, local=False)
    assert (caught.value.field, bool(caught.value.hint)) == ("delivery", True)
    Deliverer(3, None, shared, local=True)
    with pytest.raises(FieldInvalid, match="unknown"):
        Deliverer(99, None, None, local=True)
