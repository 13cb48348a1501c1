"""Several processes train one run: the same networks everywhere, one writer, other pictures each."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from assetgen.errors import ConfigInvalid
from assetgen.training import checkpoint, parallel
from tests.helpers.tiny_runs import TEXTURE

ROOT = Path(__file__).resolve().parents[2]

# Started as the launcher starts it, with RANK, WORLD_SIZE and the address in the environment.
PROGRAM = """
import sys, hashlib, json, pathlib, torch
from assetgen.training import cli, loop
torch.set_num_threads(1)
train, seen = loop.train, {}
def watched(run, task, budget, **options):
    progress = train(run, task, budget, **options)
    digest = hashlib.sha256()
    for value in [*task.generator.parameters(), *task.discriminator.parameters()]:
        digest.update(value.detach().numpy().tobytes())
    print("NETWORKS", digest.hexdigest(), progress.step, progress.augment, task.share.seed, task.share.batch)
    return progress
loop.train = watched
status = cli.main(sys.argv[1:])
print("THREADS", *[task.read_text().strip() for task in pathlib.Path("/proc/self/task").glob("*/comm")])
sys.exit(status)
"""


def options(**changes):
    recipe = {**asdict(TEXTURE), "batch": 8, "total_kimg": 0.048, **changes}
    return [f"--set={key}={json.dumps(value)}" for key, value in recipe.items()]


def start(data, run, processes, **changes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, "texture", "--data", str(data), "--run", str(run), "--device", "cpu"]
    environment = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [*command, *options(**changes)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def test_two_processes_end_with_the_same_networks(data, tmp_path):
    started = start(data, tmp_path / "run", 2)
    said = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    networks = [next(line for line in out.splitlines() if line.startswith("NETWORKS")).split() for out, _ in said]
    assert networks[0][1:4] == networks[1][1:4], "equal weights, steps and augmentation"
    assert networks[0][4] != networks[1][4], "pictures of their own"
    assert networks[0][5] == networks[1][5] == "4"
    threads = [next(line for line in out.splitlines() if line.startswith("THREADS")) for out, _ in said]
    assert not any("gloo" in line for line in threads), "none is left to meet the end of the interpreter"
    assert "run folder" in said[0][0]
    assert "run folder" not in said[1][0], "one of them speaks"
    saved = checkpoint.load(tmp_path / "run" / "checkpoint")
    assert saved.progress.step == 6
    assert saved.recipe["batch"] == 8, "the recipe is that of the run, not of a share"
    assert len((tmp_path / "run" / "stats.jsonl").read_text().splitlines()) == 1, "one of them writes"


def test_the_command_of_the_documentation_starts_them(data, tmp_path):
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (line,) = (text.removeprefix("$ torchrun ") for text in page.splitlines() if text.startswith("$ torchrun "))
    places = {"4": "2", "my.zip": str(data), "runs/mine": str(tmp_path / "run"), "cuda": "cpu"}
    command = [places.get(word, word) for word in line.split()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, *command, *options(total_kimg=0.016)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "run" / "checkpoint").progress.step == 2


def test_alone_nothing_is_shared():
    tensor = torch.tensor([1.0, 2.0])
    parallel.average([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    assert (parallel.rank(), parallel.size()) == (0, 1)
    assert parallel.share(TEXTURE) is TEXTURE
    assert parallel.agree((1.0, True)) == [1.0, True]
    with parallel.group("cpu") as device:
        assert device == "cpu"


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(parallel, "size", lambda: 3)
    with pytest.raises(ConfigInvalid, match="4 cannot be shared by 3 processes"):
        parallel.share(TEXTURE)
