"""The client against a real server, and against streams that no sound server sends."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from assetgen import wire
from assetgen.client import Client, Priority, write_assets
from assetgen.errors import (
    AssetgenError,
    Cancelled,
    DeadlineTooShort,
    FieldInvalid,
    ModelNotFound,
    OutputUnwritable,
    Superseded,
    TransferDamaged,
    WorkerLost,
)
from assetgen.launch import ServerProcess
from assetgen.types import (
    Artifact,
    ColorSpace,
    Encoding,
    Finished,
    MapKind,
    OutputSpec,
    PixelFormat,
    Progress,
    Request,
    Started,
)
from tests.helpers.serving import files, write_model

REQUEST = Request("tiny", seed=7, width_px=32, height_px=32)
SLOW = Request("slow", seed=7, count=64, width_px=1024, height_px=1024)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_model(models)
    write_model(models, "slow", channels=96)
    with ServerProcess(["--models", str(models), "--device", "cpu", "--threads", "1"]) as running:
        yield running


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


def test_assets_arrive_whole_and_are_written_whole(client, tmp_path):
    seen = []
    paths = write_assets(client.generate(REQUEST), tmp_path / "new" / "folder", seen.append)
    assert [path.name for path in paths] == [event.name for event in seen if isinstance(event, Artifact)]
    assert sorted(tmp_path.rglob("*.png")) == sorted(paths)
    for path, event in zip(paths, (event for event in seen if isinstance(event, Artifact)), strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == event.sha256
    assert len(files(client.generate(REQUEST))) == 6


def test_large_files_come_in_chunks(client):
    request = Request("tiny", seed=1, width_px=1024, height_px=512, output=OutputSpec(encoding=Encoding.RAW))
    sizes = {event.role: len(event.data) for event in client.generate(request) if isinstance(event, Artifact)}
    assert sizes["base_color"] == 1024 * 512 * 3
    assert sizes["height"] == 1024 * 512 * 2


def test_errors_are_those_the_server_raised(client):
    with pytest.raises(ModelNotFound) as missing:
        client.model("absent")
    assert missing.value.hint == "models served: slow, tiny"
    with pytest.raises(FieldInvalid) as invalid:
        list(client.generate(Request("tiny", width_px=33)))
    assert invalid.value.field == "width_px"
    assert invalid.value.metadata["stride"] == "16"
    assert "multiples of 16" in invalid.value.message
    with pytest.raises(DeadlineTooShort):
        list(client.generate(SLOW, deadline_s=0.2))


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"seed": -1}, "seed"), ({"count": 2**32}, "count"), ({"width_px": 1.5}, "width_px"), ({"count": True}, "count")],
)
def test_values_that_do_not_fit_the_wire_name_the_field(client, changes, field):
    with pytest.raises(FieldInvalid) as caught:
        list(client.generate(Request("tiny", **changes)))
    assert caught.value.field == field


def test_no_server_is_said_with_what_to_do():
    with Client("127.0.0.1:1") as client, pytest.raises(WorkerLost) as caught:
        client.models()
    assert "127.0.0.1:1" in caught.value.message
    assert "assetgen serve" in caught.value.hint


def test_closing_the_iterator_cancels(client):
    for _ in range(3):
        events = client.generate(SLOW)
        assert isinstance(next(events), Started)
        events.close()
    assert files(client.generate(REQUEST, deadline_s=60))


def test_closing_the_client_ends_its_calls(server):
    client = Client(server.address)
    events = client.generate(SLOW)
    next(events)
    client.close()
    with pytest.raises(Cancelled):
        list(events)


def test_a_newer_call_of_a_view_ends_the_older_and_others_go_on(client):
    older = client.generate(SLOW, priority=Priority.PREVIEW, supersede_key="view")
    other = client.generate(SLOW, priority=Priority.BATCH, supersede_key="another view")
    assert isinstance(next(older), Started)
    assert isinstance(next(other), Started)
    assert files(client.generate(REQUEST, priority=Priority.PREVIEW, supersede_key="view"))
    with pytest.raises(Superseded, match="newer request"):
        list(older)
    assert not isinstance(next(other), Finished)
    other.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_ends_a_waiting_program_without_partial_files(server, tmp_path):
    command = [sys.executable, "-m", "assetgen", "generate", "--server", server.address, "--model", "slow"]
    command += ["--count", "4", "--size", "1024", "-o", str(tmp_path / "out")]
    # As outside of tests: what is said must come at once, not when a buffer is full or the program ends.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered)
    assert program.stdout.readline().startswith("seed ")
    program.send_signal(signal.SIGINT)
    _, said = program.communicate()
    assert program.returncode == 130
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.part"))


def artifact(data=b"abcd", **changes):
    facts = {
        "index": 0,
        "role": "height",
        "name": "x_height.raw",
        "media_type": "application/octet-stream",
        "pixel_format": PixelFormat.R8,
        "color_space": ColorSpace.LINEAR,
        "width_px": 2,
        "height_px": 2,
        "known_sha256": hashlib.sha256(data).hexdigest(),
        "data": data,
    }
    return Artifact(**facts | changes)


@contextmanager
def server_that_says(*messages, then=lambda context: None):
    """A real gRPC server whose every stream is ``messages``."""

    def answer(_, context):
        yield from messages
        then(context)

    handler = grpc.unary_stream_rpc_method_handler(answer)
    generic = grpc.method_handlers_generic_handler("assetgen.v1.GenerationService", {"Generate": handler})
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as client:
        yield client
    server.stop(None).wait()


def messages(*events):
    return [message for event in events for message in wire.event_to_messages(event)]


STARTED, FINISHED = Started(1, "00" * 32, "test"), Finished(0.0, 1.0)
WHOLE = messages(artifact())
UNKNOWN_EVENT = bytes([0x7A, 1, 0])  # field 15, which no version has


def test_a_sound_stream_with_events_from_the_future_is_read():
    said = [*messages(STARTED), UNKNOWN_EVENT, *WHOLE, *messages(Progress("polishing", 0.5), FINISHED)]
    with server_that_says(*said) as client:
        kinds = [type(event) for event in client.generate(REQUEST)]
    assert kinds == [Started, Artifact, Progress, Finished]


def test_files_that_are_no_pictures_arrive_and_are_written(tmp_path):
    facts = {"pixel_format": None, "color_space": None, "width_px": 0, "height_px": 0}
    sent = [
        artifact(b"{}\n", role="sprite", name="x.json", media_type="application/json", **facts),
        artifact(b"glTF\2\0\0\0", role="mesh", name="x.glb", media_type="model/gltf-binary", **facts),
        artifact(b"v 0 0 0\n", role="mesh", name="x.obj", media_type="model/obj", **facts),
    ]
    seen = []
    with server_that_says(*messages(STARTED, *sent, FINISHED)) as client:
        paths = write_assets(client.generate(REQUEST), tmp_path, seen.append)
    assert [event for event in seen if isinstance(event, Artifact)] == sent
    assert [path.read_bytes() for path in paths] == [file.data for file in sent]


def test_a_whole_answer_is_the_events_it_stands_for():
    with server_that_says(wire.whole_message(STARTED, [artifact(), artifact()], FINISHED)) as client:
        assert list(client.generate(REQUEST)) == [STARTED, artifact(), artifact(), FINISHED]


def test_servers_that_know_no_whole_answers_are_understood(client, monkeypatch):
    whole = list(client.generate(REQUEST))
    monkeypatch.setattr(wire, "INLINE_BYTES", 0)
    assert [event for event in client.generate(REQUEST) if isinstance(event, Artifact)] == whole[1:-1]


DAMAGED = {
    "a whole answer inside a file": [*messages(STARTED), WHOLE[0], wire.whole_message(STARTED, [], FINISHED)],
    "no end": [*messages(STARTED), *WHOLE],
    "nothing": [],
    "a file without bytes": [*messages(STARTED), WHOLE[0], *messages(FINISHED)],
    "a file cut by another": [*messages(STARTED), WHOLE[0], *WHOLE, *messages(FINISHED)],
    "bytes of no file": [*messages(STARTED), WHOLE[1], *messages(FINISHED)],
    "too many bytes": [*messages(STARTED), WHOLE[0], *messages(artifact(b"abcde"))[1:], *messages(FINISHED)],
    "bytes after the end": [*messages(STARTED), *WHOLE, WHOLE[1], *messages(FINISHED)],
    "other bytes": [*messages(STARTED), WHOLE[0], *messages(artifact(b"abce"))[1:], *messages(FINISHED)],
    "a picture of unknown pixels": [*messages(STARTED, artifact(pixel_format=None), FINISHED)],
    "a picture of unknown colours": [*messages(STARTED, artifact(color_space=None), FINISHED)],
    "pixels without a size": [*messages(STARTED, artifact(width_px=0, height_px=0), FINISHED)],
    "pixels without a height": [*messages(STARTED, artifact(height_px=0), FINISHED)],
    "another hash": [*messages(STARTED, artifact(known_sha256="00" * 32), FINISHED)],
}


@pytest.mark.parametrize("said", DAMAGED.values(), ids=DAMAGED)
def test_damaged_streams_are_an_error(said, tmp_path):
    with server_that_says(*said) as client, pytest.raises(TransferDamaged):
        write_assets(client.generate(REQUEST), tmp_path)
    assert {path.read_bytes() for path in tmp_path.iterdir()} <= {b"abcd"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, WorkerLost),
        (grpc.StatusCode.UNIMPLEMENTED, WorkerLost),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineTooShort),
        (grpc.StatusCode.CANCELLED, Cancelled),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, FieldInvalid),
        (grpc.StatusCode.DATA_LOSS, TransferDamaged),
        (grpc.StatusCode.PERMISSION_DENIED, AssetgenError),
    ],
)
def test_bare_statuses_become_our_errors(code, kind):
    with (
        server_that_says(*messages(STARTED), then=lambda context: context.abort(code, "because")) as client,
        pytest.raises(kind),
    ):
        list(client.generate(REQUEST))


@pytest.mark.parametrize("name", ["../x.png", "/etc/x", "a/b.png", "a\\b.png", "C:x", "", "..", "nul.png", "x\0.png"])
def test_names_that_are_paths_are_never_written(tmp_path, name):
    folder = tmp_path / "out"
    with pytest.raises(TransferDamaged, match="file name"):
        write_assets([artifact(name=name)], folder)
    assert not list(tmp_path.rglob("*.*"))


def test_a_file_in_the_folders_place_is_said(tmp_path):
    (tmp_path / "out").write_text("here")
    with pytest.raises(OutputUnwritable, match="out"):
        write_assets([artifact()], tmp_path / "out")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputUnwritable, match="No space left") as caught:
        write_assets([artifact()], tmp_path)
    assert "free some space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(path, data):
        with path.open("wb") as file:
            file.write(data[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_assets([artifact()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_maps_by_name(client):
    request = Request("tiny", seed=7, output=OutputSpec(maps=(MapKind.HEIGHT,), name="rock"))
    found = [event for event in client.generate(request) if isinstance(event, Artifact)]
    assert [(event.role, event.name, event.pixel_format) for event in found] == [
        ("height", "rock_height.png", PixelFormat.R16)
    ]
