"""A batch that is killed at any moment and begun again: no file is ever seen in part, and the end is as if unbroken."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from assetgen.errors import OutputUnwritable
from assetgen.save import STALE_S, write_assets
from assetgen.types import Artifact
from tests.helpers.serving import write_model

COUNT, MAPS = 12, 6
START_S = 120.0


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_model(models)
    batch = ["--models", str(models), "--local", "--device", "cpu", "--threads", "1", "--model", "tiny", "--seed", "7"]
    form = ["--count", str(COUNT), "--size", "256", "--encoding", "raw"]
    return [sys.executable, "-m", "assetgen", "generate", *batch, *form]


def tree(folder):
    """What a user sees: files by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    subprocess.run([*command, "-o", str(folder)], check=True, capture_output=True)
    files = tree(folder)
    assert len(files) == COUNT * MAPS
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)  # nothing hidden either
    return files


def versions(folder):
    with os.scandir(folder) as entries:
        return {(entry.name, entry.stat().st_mtime_ns) for entry in entries if not entry.name.startswith(".")}


def kill_in_the_middle(command, folder, chance):
    """Begin the batch, and kill it at a random file of it and a random moment of that file."""
    before, wanted = versions(folder), chance.randrange(COUNT * MAPS - 1)
    batch = subprocess.Popen([*command, "-o", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end_s = time.monotonic() + START_S
    while len(versions(folder) - before) <= wanted and batch.poll() is None:
        assert time.monotonic() < end_s, "the batch made nothing"
    time.sleep(chance.uniform(0, 0.003))
    batch.send_signal(signal.SIGKILL)
    return batch.wait() == -signal.SIGKILL


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.slow
@pytest.mark.parametrize("rounds", [5, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_batches_show_no_part_of_a_file_and_the_last_one_makes_all(command, unbroken, tmp_path, rounds):
    chance = random.Random(27)
    killed = 0
    for _ in range(rounds):
        killed += kill_in_the_middle(command, tmp_path, chance)
        for name, data in tree(tmp_path).items():
            assert data == unbroken[name]
    assert killed >= rounds / 2  # the others were done before
    subprocess.run([*command, "-o", str(tmp_path)], check=True, capture_output=True)
    assert tree(tmp_path) == unbroken


def artifact(name):
    return Artifact(0, "data", name, "application/json", None, None, 0, 0, b"new")


def test_what_a_killed_run_left_long_ago_goes_with_the_next_of_its_names_and_nothing_else(tmp_path):
    """What is young may be another's who is writing it now; other names are none of ours."""
    names = {
        "old": ".a.png.0123abcd.part",
        "another": ".a.png.89ef4567.part",
        "young": ".a.png.00000000.part",
        "of another name": ".b.png.0123abcd.part",
        "no digits of ours": ".a.png.0123ABCD.part",
        "seen": "a.png.0123abcd.part",
    }
    for what, name in names.items():
        (tmp_path / name).write_bytes(b"part")
        if what != "young":
            os.utime(tmp_path / name, (time.time() - STALE_S - 60,) * 2)
    (tmp_path / ".a.png.11111111.part").mkdir()
    assert write_assets([artifact("a.png")], tmp_path) == [tmp_path / "a.png"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.png", ".a.png.11111111.part", *names.values()} - {names["old"], names["another"]}
    assert (tmp_path / "a.png").read_bytes() == b"new"


def test_a_run_into_no_folder_or_one_that_cannot_be_listed_is_not_in_the_way(tmp_path):
    assert write_assets([artifact("a.png")], tmp_path / "new" / "deep")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputUnwritable):
        write_assets([artifact("a.png")], tmp_path / "file")
