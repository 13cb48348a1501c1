"""Graphs that are not ours: one process checks all, the graph that ends it is named, and the caller needs no onnx."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from assetgen import foreign
from assetgen.errors import PolicyViolated
from assetgen.foreign import check_graphs
from assetgen.package import verify_package, write_manifest
from tests.helpers.tiny_package import tiny_manifest, tiny_model, write_tiny_package

ROOT = Path(__file__).parents[1]


@pytest.fixture
def packages(tmp_path):
    """Three, all different."""
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        write_tiny_package(folder)
        write_manifest(folder, replace(tiny_manifest(), id=folder.name))
    return [verify_package(folder) for folder in folders]


@pytest.fixture
def started(monkeypatch):
    """The commands of the processes that were started; nothing has passed before."""
    commands = []
    real = subprocess.run

    def run(command, **rest):
        commands.append(command)
        return real(command, **rest)

    monkeypatch.setattr(foreign, "_passed", set())
    monkeypatch.setattr(foreign.subprocess, "run", run)
    return commands


def test_one_process_checks_all_and_once(packages, started):
    check_graphs([])
    assert started == []
    check_graphs(packages)
    check_graphs(packages)
    assert len(started) == 1
    check_graphs([replace(packages[0], manifest=replace(packages[0].manifest, version="9.9.9"))])
    assert len(started) == 2, "another manifest may allow another graph"


def test_the_graph_that_breaks_a_rule_is_named_and_checked_again_next_time(packages, started):
    model = tiny_model()
    model.graph.node[0].domain = "com.evil"
    folder = packages[1].folder
    (folder / "generator.onnx").write_bytes(model.SerializeToString())
    write_manifest(folder, replace(tiny_manifest(), id="b"))
    packages[1] = verify_package(folder)
    for _ in range(2):
        with pytest.raises(PolicyViolated, match=r"b.generator\.onnx: .*com\.evil") as caught:
            check_graphs(packages)
        assert caught.value.hint
    assert len(started) == 2


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGABRT)", r"status -6"),
        ("os._exit(0)", r"status 0"),
        ("print('null'); sys.exit(1)", r"status 1"),
        ("print('{', flush=True); os._exit(3)", r"status 3"),
        ("raise MemoryError('no memory')", r"status 1\): MemoryError: no memory"),
    ],
)
def test_a_graph_that_ends_the_process_is_named_and_we_live(packages, started, monkeypatch, ends, said):
    monkeypatch.setattr(foreign, "_CODE", f"import os, signal, sys; print(chr(34) * 2, flush=True); {ends}")
    with pytest.raises(PolicyViolated, match=r"b.generator\.onnx: ended the process that checked it \(" + said):
        check_graphs(packages)
    assert foreign._passed == set()


def test_a_graph_that_keeps_the_process_busy_is_named(packages, started, monkeypatch):
    monkeypatch.setattr(foreign, "_CODE", "import time; print(chr(34) * 2, flush=True); time.sleep(60)")
    monkeypatch.setattr(foreign, "TIMEOUT_S", 0.5)
    with pytest.raises(PolicyViolated, match=r"b.generator\.onnx: was not checked after 1.5 s"):
        check_graphs(packages)


def test_who_opens_packages_of_others_needs_no_onnx(packages):
    code = (
        "import sys; from pathlib import Path; from assetgen.store import open_store; "
        f"print(len(open_store([Path({str(packages[0].folder.parent)!r})])), 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
