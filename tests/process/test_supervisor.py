"""A device in a process of its own: real processes that are killed, stopped, crash, hang and grow."""

import gc
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from assetgen.errors import Cancelled, ConfigInvalid, InternalError, PackageInvalid, WorkerLost
from assetgen.process import supervisor
from assetgen.process.supervisor import DEVICE, DeviceProcess, Limits
from assetgen.runtime import open_session
from tests.helpers.faulty_device import CRASH, HANG, LEAK, LEAK_BYTES, RAISE, SLOW
from tests.helpers.processes import SOON_S, inputs_of, stand_still, until
from tests.helpers.serving import write_model


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """About a second a run at 1024 px."""
    return write_model(tmp_path_factory.mktemp("slow"), "slow", channels=96)


def same(first, second):
    return list(first) == list(second) and all(first[name].tobytes() == second[name].tobytes() for name in first)


@contextmanager
def impatient(process):
    """What the process is given here may take a second; what comes after it as long as this machine stands still."""
    limits, process._limits = process._limits, Limits(hang_s=1.0)
    yield
    process._limits = limits


def test_a_run_gives_the_bytes_of_a_session_in_this_process(make, packages):
    here = open_session(packages["a"], "cpu", 2)
    session = make(threads=2).open(packages["a"])
    assert (session.backend, session.device, session.splits) == (here.backend, here.device, here.splits)
    for edge_px in (32, 256, 64, 32):
        inputs = inputs_of(packages["a"], edge_px=edge_px)
        wanted = here.run(inputs)
        assert same(session.run(inputs), wanted)
        assert same(session.run(inputs, half=True), wanted)


def test_later_runs_write_at_once_where_the_parent_reads(make, packages):
    """The first run of a size tells how large its outputs are; bytes are the same whatever memory the next ones get."""
    session = make(threads=2).open(packages["a"])
    here = open_session(packages["a"], "cpu", 2)
    kept = []
    for number in range(40):
        inputs = inputs_of(packages["a"], fault=number % 5 / 5, edge_px=32 + 32 * (number % 3))
        kept.append((session.run(inputs, half=number % 2 == 1), here.run(inputs)))
        if number % 7 == 6:
            del kept[::2]  # their memory is used again
    assert all(same(outputs, wanted) for outputs, wanted in kept)


def test_outputs_stay_while_others_run(make, packages):
    session = make().open(packages["a"])
    kept = [session.run(inputs_of(packages["a"], fault=number / 8)) for number in range(8)]
    copies = [{name: values.copy() for name, values in outputs.items()} for outputs in kept]
    for _ in range(8):
        session.run(inputs_of(packages["a"]))
    assert all(same(outputs, copy) for outputs, copy in zip(kept, copies, strict=True))


def test_runs_at_once_get_each_its_own(make, packages):
    process = make(threads=2)
    sessions = {name: process.open(packages[name]) for name in ("a", "b")}
    work = [(name, edge_px) for name in sessions for edge_px in (32, 64, 96, 128)] * 4
    alone = {(name, edge): sessions[name].run(inputs_of(packages[name], edge_px=edge)) for name, edge in work}

    def run(job):
        name, edge_px = job
        return same(sessions[name].run(inputs_of(packages[name], edge_px=edge_px), half=True), alone[job])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(run, work))


def test_a_killed_process_loses_its_run_only(make, slow, packages):
    process = make()
    session, other = process.open(slow), process.open(packages["a"])
    wanted = session.run(inputs_of(slow))
    pid = process.pid
    stand_still(pid)
    with ThreadPoolExecutor(2) as pool:
        under_way = pool.submit(session.run, inputs_of(slow, edge_px=1024))
        until(lambda: any(run.sent for run in process._runs))
        os.kill(pid, signal.SIGKILL)
        until(lambda: process.pid != pid)
        waiting = pool.submit(other.run, inputs_of(packages["a"]))  # came while there was no process
        with pytest.raises(WorkerLost) as caught:
            under_way.result(SOON_S)
        assert waiting.result(SOON_S)
    assert caught.value.retry_after_s is not None
    assert caught.value.metadata == {"model": "slow"}
    assert same(session.run(inputs_of(slow)), wanted)
    assert process.ends == {"crash": 1}
    assert process.pid != pid
    assert not psutil.pid_exists(pid), "it was not reaped"


def test_what_was_open_is_open_again_before_anybody_asks(make, packages):
    process = make()
    sessions = [process.open(packages[name]) for name in ("a", "b")]
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.ends and process._handle and process._handle.models == {one.number for one in sessions})


@pytest.mark.parametrize(
    ("in_place", "rule"), [(False, "the digest is"), (True, r"generator\.onnx: has .* the manifest says")]
)
def test_what_became_other_bytes_meanwhile_is_not_opened_again_and_others_are(
    make, packages, tmp_path, caplog, in_place, rule
):
    process = make()
    changed = write_model(tmp_path, "changed")
    session, other = process.open(changed), process.open(packages["a"])
    wanted, pid = other.run(inputs_of(packages["a"])), process.pid
    newer = write_model(tmp_path / "aside", "changed", channels=12)
    if in_place:
        shutil.copy(newer.folder / "generator.onnx", changed.folder)
    else:
        shutil.rmtree(changed.folder)
        newer.folder.rename(changed.folder)
    assert session.run(inputs_of(changed)), "what runs does not need its files"
    os.kill(pid, signal.SIGKILL)
    until(lambda: process.ends)
    for _ in range(2):
        with pytest.raises(PackageInvalid, match=rule):
            session.run(inputs_of(changed))
    assert same(other.run(inputs_of(packages["a"])), wanted)
    until(lambda: "model changed is not open again" in caplog.text)
    assert process.ends == {"crash": 1}
    assert process._handle.models == {other.number}


def test_a_crash_inside_a_run_is_told_and_survived(make, packages, caplog):
    session = make().open(packages["a"])
    with pytest.raises(WorkerLost):
        session.run(inputs_of(packages["a"], CRASH))
    assert session.run(inputs_of(packages["a"]))
    until(lambda: "SIGSEGV" in caplog.text)
    assert "running a; a new one follows" in caplog.text


def test_a_run_that_hangs_ends_with_its_process(make, packages, caplog):
    process = make()
    session = process.open(packages["a"])
    session.run(inputs_of(packages["a"]))
    with impatient(process), pytest.raises(WorkerLost):
        session.run(inputs_of(packages["a"], HANG))
    assert session.run(inputs_of(packages["a"]))
    assert process.ends == {"hang": 1}
    until(lambda: "it hung" in caplog.text)


def test_a_process_that_stands_still_is_replaced(make, packages):
    process = make()
    session = process.open(packages["a"])
    stand_still(process.pid)
    with impatient(process), pytest.raises(WorkerLost):
        session.run(inputs_of(packages["a"]))
    assert session.run(inputs_of(packages["a"]))


def test_a_run_that_does_not_heed_its_stop_is_ended(make, packages, monkeypatch, caplog):
    monkeypatch.setattr(supervisor, "STOP_S", 0.2)
    monkeypatch.setattr(supervisor, "AGAIN_S", 0.05)
    process = make()
    session, owner = process.open(packages["a"]), object()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(session.run, inputs_of(packages["a"], HANG), owner=owner)
        until(lambda: "a run hangs" in caplog.text)
        session.terminate(owner)
        with pytest.raises(WorkerLost):
            hanging.result(SOON_S)
    assert process.ends == {"hang": 1}


def test_a_stop_ends_the_run_of_its_owner_and_no_other(make, slow):
    process = make(threads=2)
    session, owner = process.open(slow), object()
    child = stand_still(process.pid)
    with ThreadPoolExecutor(2) as pool:
        mine = pool.submit(session.run, inputs_of(slow, edge_px=1024), half=True, owner=owner)
        others = pool.submit(session.run, inputs_of(slow, edge_px=512), half=True, owner=object())
        until(lambda: [run.sent for run in process._runs] == [True, True])
        session.terminate(owner)
        child.resume()
        with pytest.raises(Cancelled):
            mine.result(SOON_S)
        assert others.result(SOON_S)
    assert not process.ends


def test_a_stop_ends_the_wait_for_a_process(make, packages):
    process = make()
    session, owner = process.open(packages["a"]), object()
    with process._changed:
        process._handle.retiring = True  # it lets nobody in
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.run, inputs_of(packages["a"]), owner=owner)
        until(lambda: process._runs)
        session.terminate(owner)
        with pytest.raises(Cancelled):
            waiting.result(SOON_S)


def test_who_crashes_again_and_again_is_refused_and_others_are_served(make, packages):
    process = make(threads=2)
    bad, good = process.open(packages["a"]), process.open(packages["b"])
    assert bad.splits
    for _ in range(3):
        with pytest.raises(WorkerLost, match="was lost"):
            bad.run(inputs_of(packages["a"], CRASH))
        assert not bad.splits, "it must run alone, so that nobody else is blamed"
    with pytest.raises(WorkerLost, match="3 times within 60 s") as caught:
        bad.run(inputs_of(packages["a"]))
    assert 0 < caught.value.retry_after_s <= supervisor.Breaker().pause_s("") + 30
    assert process.breaker.paused() == [packages["a"].digest]
    assert good.splits
    assert good.run(inputs_of(packages["b"]))
    assert process.problem == ""
    until(lambda: process._handle and process._handle.models == {good.number})


def test_after_the_pause_it_is_tried_again(make, packages, monkeypatch):
    process = make()
    session = process.open(packages["a"])
    for _ in range(3):
        process.breaker.crashed(packages["a"].digest)
    with pytest.raises(WorkerLost):
        session.run(inputs_of(packages["a"]))
    now_s = time.monotonic()
    monkeypatch.setattr(process.breaker, "_clock", lambda: now_s + 31)
    assert session.run(inputs_of(packages["a"]))


def test_a_model_that_crashes_when_it_opens_is_refused_and_others_open(make, packages):
    process = make()
    for _ in range(3):
        with pytest.raises(WorkerLost, match="was lost"):
            process.open(packages["poison"])
    with pytest.raises(WorkerLost, match="3 times"):
        process.open(packages["poison"])
    assert process.open(packages["a"]).run(inputs_of(packages["a"]))


def test_a_process_that_does_not_stay_up_makes_the_device_rest(packages, capfd):
    process = DeviceProcess("cpu", 1, Limits(), "raise SystemExit(3)  # {arguments}")
    try:
        until(lambda: process.problem)
        with pytest.raises(WorkerLost, match="3 times") as caught:
            process.open(packages["a"])
        assert caught.value.retry_after_s > 0
        assert process.breaker.pause_s(DEVICE) > 0
        assert process.ends == {"crash": 3}
        assert process.pid is None
    finally:
        process.close()


def test_one_that_grows_is_replaced_between_runs(make, packages, caplog):
    process = make(Limits(growth_bytes=2 * LEAK_BYTES))
    session, pid = process.open(packages["a"]), process.pid
    until(lambda: session.run(inputs_of(packages["a"], LEAK)) and process.ends)
    assert process.ends == {"memory": 1}
    assert session.run(inputs_of(packages["a"]))
    assert process.pid != pid
    assert "a new one follows" in caplog.text
    assert not process.breaker.suspects(packages["a"].digest)


def test_after_a_fault_on_a_gpu_there_is_a_new_process_and_three_open_the_breaker(make, packages):
    process = make()
    session = process.open(packages["gpu"])
    assert session.device == "cuda:0 of the tests"
    for number in range(1, 4):
        with pytest.raises(InternalError):
            session.run(inputs_of(packages["gpu"], RAISE))
        until(lambda number=number: process.ends == {"fault": number})
    with pytest.raises(WorkerLost, match="3 times"):
        session.run(inputs_of(packages["gpu"]))
    assert process.open(packages["a"]).run(inputs_of(packages["a"]))


def test_growth_waits_for_the_runs_under_way(make, packages):
    process = make(Limits(growth_bytes=LEAK_BYTES // 2), threads=2)
    session, handle = process.open(packages["a"]), process._handle
    with ThreadPoolExecutor(1) as pool:
        slow_run = pool.submit(session.run, inputs_of(packages["a"], SLOW), half=True)
        until(lambda: any(run.sent for run in process._runs))
        session.run(inputs_of(packages["a"], LEAK), half=True)
        assert handle.retiring
        assert slow_run.result(SOON_S)
    until(lambda: process.ends == {"memory": 1})


def test_errors_of_opening_are_those_of_a_session_here(make, packages, tmp_path):
    with pytest.raises(ConfigInvalid, match="not allowed"):
        make(device="gpu").open(packages["a"])
    gone = write_model(tmp_path, "gone")
    (gone.folder / "generator.onnx").write_bytes(b"\x08 altered")
    with pytest.raises(PackageInvalid, match=r"generator\.onnx"):
        make().open(gone)


def test_a_closed_session_cannot_run_and_leaves_the_process(make, packages):
    process = make()
    session, other = process.open(packages["a"]), process.open(packages["b"])
    session.close()
    session.close()
    assert process._handle.models == {other.number}
    with pytest.raises(RuntimeError, match="closed"):
        session.run(inputs_of(packages["a"]))
    assert other.run(inputs_of(packages["b"]))


def test_nothing_is_left_open_by_processes_that_came_and_went(make, packages):
    me = psutil.Process()
    of_others = set(me.children())
    session = make().open(packages["a"])

    def lose_one():
        with pytest.raises(WorkerLost):
            session.run(inputs_of(packages["a"], CRASH))
        assert session.run(inputs_of(packages["a"]))

    lose_one()
    until(lambda: not any(thread.name.startswith("assetgen-again") for thread in threading.enumerate()))
    gc.collect()
    files, threads = me.num_fds(), me.num_threads()
    lose_one()
    until(lambda: gc.collect() >= 0 and me.num_fds() <= files and me.num_threads() <= threads)
    assert len(set(me.children()) - of_others) == 1
