"""The Blender add-on when things go wrong, in real Blender: `python plugins/blender/test.py`."""

import errno
import hashlib
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import pytest

bpy = pytest.importorskip("bpy", reason="BLENDER NOT TESTED: run `python plugins/blender/test.py`")

import grpc  # noqa: E402 -- after bpy, as in Blender

from tests.helpers.blender import choose, contents, point_at, refused, start  # noqa: E402

pytestmark = pytest.mark.blender


def cancel_when(running, addon):
    def wait_and_cancel():
        while not running(addon.operators.running):
            time.sleep(0.005)
        addon.operators.running.cancel()

    thread = threading.Thread(target=wait_and_cancel)
    thread.start()
    return thread


def test_cancel_in_the_middle_frees_the_server(addon, checkout, models, tmp_path):
    with start(models) as own:
        point_at(checkout, own.address)
        bpy.ops.assetgen.connect()
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
        choose("slow", 1024)
        thread = cancel_when(lambda job: job is not None and job.stage == "generating", addon)
        assert bpy.ops.assetgen.generate() == {"CANCELLED"}
        thread.join()
        assert addon.operators.running is None
        assert contents(tmp_path) == {}
        assert len(bpy.data.materials) == 0
        choose("tiny", 64)
        assert bpy.ops.assetgen.generate() == {"FINISHED"}
        own.process.terminate()
        own.process.wait()
        log = own.errors()
    assert '"code": "CANCELLED"' in log
    assert "draining: 0 calls under way" in log


def test_a_server_killed_midway_is_told_and_leaves_no_file(addon, checkout, models, tmp_path):
    with start(models) as own:
        point_at(checkout, own.address)
        bpy.ops.assetgen.connect()
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
        choose("slow", 1024)

        def kill():
            while (job := addon.operators.running) is None or job.stage != "generating":
                time.sleep(0.005)
            own.process.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        said = refused(bpy.ops.assetgen.generate)
        thread.join()
        assert own.address in said
        assert "assetgen serve" in said
        assert contents(tmp_path) == {}
        assert len(bpy.data.materials) == 0
        assert "assetgen serve" in refused(bpy.ops.assetgen.connect)
        assert addon.forms.server is None
        assert "assetgen serve" in addon.forms.problem.hint


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1"])
def test_an_absent_server_is_told_with_the_command_to_start_one(addon, checkout, target):
    point_at(checkout, target)
    said = refused(bpy.ops.assetgen.connect)
    assert target in said
    assert "assetgen serve" in said
    assert "no model is chosen" in refused(bpy.ops.assetgen.generate)


def test_other_machines_need_online_access(addon, checkout):
    point_at(checkout, "no-such-host.invalid:50051")
    assert "offline" in refused(bpy.ops.assetgen.connect)
    bpy.context.preferences.system.use_online_access = True
    try:
        said = refused(bpy.ops.assetgen.connect)
    finally:
        bpy.context.preferences.system.use_online_access = False
    assert "no-such-host.invalid" in said


@pytest.mark.parametrize("target", ["", "localhost", "http://localhost:50051", "a b:1", "localhost:65536"])
def test_addresses_that_are_none_are_told(addon, checkout, target):
    point_at(checkout, target)
    bpy.context.preferences.system.use_online_access = True
    try:
        assert "preferences" in refused(bpy.ops.assetgen.connect)
    finally:
        bpy.context.preferences.system.use_online_access = False


@contextmanager
def server_that_says(pb2, asset_pb2, *events):
    """A real gRPC server whose every stream is ``events``."""
    answer = [pb2.GenerateResponse(**event).SerializeToString() for event in events]
    handler = grpc.unary_stream_rpc_method_handler(lambda _request, _context: iter(answer))
    generic = grpc.method_handlers_generic_handler("assetgen.v1.GenerationService", {"Generate": handler})
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def artifact(data=b"abcd", **changes):
    facts = {"role": "height", "name": "x_Height.png", "media_type": "image/png", "size_bytes": len(data)}
    return {"artifact": facts | {"sha256": hashlib.sha256(data).digest()} | changes}


STARTED, FINISHED, BYTES = {"started": {"seed": 1}}, {"finished": {}}, {"chunk": b"abcd"}
DAMAGED = {
    "other bytes": [STARTED, artifact(), BYTES, artifact(b"abce"), BYTES, FINISHED],
    "too many bytes": [STARTED, artifact(b"abc"), BYTES, FINISHED],
    "no end": [STARTED, artifact(), BYTES],
    "half a file": [STARTED, artifact(), {"chunk": b"ab"}, FINISHED],
    "a file cut by another": [STARTED, artifact(), artifact(), BYTES, FINISHED],
    "bytes of no file": [STARTED, BYTES, FINISHED],
    "nothing": [],
    "no file": [STARTED, FINISHED],
    "a huge file": [STARTED, artifact(size_bytes=2**40), BYTES, FINISHED],
    "a path": [STARTED, artifact(name="../x.png"), BYTES, FINISHED],
    "a script": [STARTED, artifact(name="x.py"), BYTES, FINISHED],
    "not a picture": [STARTED, artifact(media_type="text/plain"), BYTES, FINISHED],
}


@pytest.mark.parametrize("events", DAMAGED.values(), ids=DAMAGED)
def test_damaged_answers_are_told_and_leave_no_file(saved, connected, checkout, events):
    from bl_ext.checkout.assetgen_blender import client

    with server_that_says(client.generation_service_pb2, client.asset_pb2, *events) as target:
        point_at(checkout, target)
        refused(bpy.ops.assetgen.generate)
    assert contents(saved) == {}
    assert len(bpy.data.materials) == 0


def test_a_sound_answer_of_that_server_is_taken(connected, checkout):
    from bl_ext.checkout.assetgen_blender import client, job

    with server_that_says(client.generation_service_pb2, None, STARTED, artifact(), BYTES, FINISHED) as target:
        recipe = connected.forms.recipe_of(bpy.context.scene.assetgen)
        done = job.Job(lambda job: client.generate(target, recipe, "x", job))
        assert done.poll(60) or done.poll(60)
    assert [(file.role, file.data) for file in done.result] == [("height", b"abcd")]


def test_a_folder_that_cannot_be_written_is_told(saved, checkout):
    (saved / "taken").write_text("a file")
    preferences = bpy.context.preferences.addons[checkout.MODULE].preferences
    preferences.folder = "//taken"
    assert "taken" in refused(bpy.ops.assetgen.generate)
    assert set(contents(saved)) == {"taken"}


def test_a_full_disk_is_told_and_leaves_nothing(saved, monkeypatch):
    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:10])
        if "Normal" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left" in refused(bpy.ops.assetgen.generate)
    assert contents(saved) == {}
    assert len(bpy.data.materials) == 0


def test_a_second_job_waits_its_turn(connected):
    connected.operators.running = connected.operators.Job(lambda job: job.cancelled.wait())
    assert "busy" in refused(bpy.ops.assetgen.generate)
    job = connected.operators.running
    bpy.ops.assetgen.cancel()
    while not job.poll(1.0):
        pass
    connected.operators.running = None
    assert bpy.ops.assetgen.generate() == {"FINISHED"}
