"""The process that runs models: what it loads, what it heeds, and when it ends."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from assetgen.errors import InternalError
from tests.helpers.faulty_device import NO_MEMORY, RAISE
from tests.helpers.processes import has_ended, inputs_of, until

ROOT = Path(__file__).resolve().parents[2]


def test_the_child_imports_no_grpc_no_protobuf_and_no_torch():
    code = "import json, sys, assetgen.process.child; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "numpy" in loaded
    assert not loaded & {"grpc", "google", "torch", "multiprocessing"}


@pytest.mark.skipif(sys.platform != "linux", reason="others have no glibc")
@pytest.mark.parametrize(
    ("told", "given"),
    [
        ("", [b"glibc.malloc.hugetlb=1"]),
        ("glibc.malloc.arena_max=3", [b"glibc.malloc.hugetlb=1", b"glibc.malloc.arena_max=3"]),
        ("glibc.malloc.hugetlb=0", [b"glibc.malloc.hugetlb=0"]),
    ],
)
def test_it_asks_for_huge_pages_unless_the_user_says_otherwise(make, packages, monkeypatch, told, given):
    monkeypatch.setenv("GLIBC_TUNABLES", told)
    process = make()
    process.open(packages["a"])
    kept = Path(f"/proc/{process.pid}/environ").read_bytes()
    # glibc ends each setting where it stands, with a zero in place of the colon.
    assert re.findall(rb"glibc[.][a-z_.]+=[0-9]", kept.partition(b"GLIBC_TUNABLES=")[2]) == given


def test_the_process_heeds_neither_ctrl_c_nor_sigterm(make, packages):
    process = make()
    session, pid = process.open(packages["a"]), process.pid
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert session.run(inputs_of(packages["a"]))
    assert process.pid == pid


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such score")
def test_when_memory_is_short_the_system_ends_it_before_its_parent(make, packages):
    process = make()
    process.open(packages["a"])
    mine, its = (int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (os.getpid(), process.pid))
    if mine > 500:
        pytest.skip("the tests themselves are to be ended first, and who is may not lower it")
    assert its == 500


@pytest.mark.parametrize("stopped", [False, True], ids=["runs", "stands still"])
def test_it_ends_with_its_parent_however_that_ends(packages, stopped):
    code = (
        "import sys, time; from pathlib import Path; from assetgen.package import verify_package\n"
        "from assetgen.process.supervisor import DeviceProcess\n"
        "process = DeviceProcess('cpu', 1); process.open(verify_package(Path(sys.argv[1])))\n"
        "print(process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(packages["a"].folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        child = psutil.Process(pid)
        assert child.ppid() == parent.pid
        if stopped:
            child.suspend()
        parent.kill()
    until(lambda: has_ended(child))


def test_a_session_that_raises_is_told_and_stays(make, packages, caplog):
    process = make()
    session, pid = process.open(packages["a"]), process.pid
    with pytest.raises(InternalError) as caught:
        session.run(inputs_of(packages["a"], RAISE))
    assert "fault of ours" not in str(caught.value)
    until(lambda: "a fault of ours" in caplog.text)  # in the log, and there only
    with pytest.raises(MemoryError):
        session.run(inputs_of(packages["a"], NO_MEMORY))
    assert session.run(inputs_of(packages["a"]))
    assert process.pid == pid
