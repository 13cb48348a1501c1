"""Steps made ahead by other processes: the same as made at once, wherever one begins or goes back to."""

import functools

import pytest
import torch

from assetgen.errors import ConfigInvalid
from assetgen.training import checkpoint
from assetgen.training.cli import _workers, main
from assetgen.training.feed import Feed
from assetgen.training.loop import Budget, train
from assetgen.training.texture import TextureTask, feed
from tests.helpers.tiny_runs import TEXTURE, make_task


def test_workers_make_every_step_once_in_order_and_go_back_when_asked():
    ahead = Feed(make=torch.arange, workers=1)  # a function that can be sent to another process
    try:
        for step in (5, 6, 7, 2, 3):
            assert torch.equal(ahead.at(step), torch.arange(step))
    finally:
        ahead.close()


def test_a_run_fed_by_workers_is_the_run_without_bit_for_bit(data, tmp_path):
    tasks = [make_task("texture", data) for _ in range(2)]
    tasks[1].feed = Feed(functools.partial(feed, tasks[1].reals, tasks[1].share), workers=1)
    for number, task in enumerate(tasks):
        assert isinstance(task, TextureTask)
        train(tmp_path / str(number), task, Budget(tick_s=1e9, steps=3))
        task.feed.close()
    first, second = (checkpoint.load(tmp_path / str(number) / "checkpoint").tensors for number in range(2))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_paired_loss_gives_both_networks_fakes_of_the_labels_of_reals(data):
    task = make_task("texture", data, loss="relativistic")
    fed = feed(task.reals, task.recipe, 4)
    assert torch.equal(fed.fakes.labels, fed.real_labels)
    assert fed.generator_reals is not None
    assert fed.generator_reals.shape == fed.reals.shape
    assert not torch.equal(fed.generator_reals, fed.reals)
    assert feed(task.reals, TEXTURE, 4).generator_reals is None


def test_workers_are_for_gpus_unless_asked_for():
    assert (_workers(None, "cpu"), _workers(3, "cpu"), _workers(0, "cuda")) == (0, 3, 0)
    assert 0 <= _workers(None, "cuda") <= 8
    with pytest.raises(ConfigInvalid, match="--workers 65 is not allowed; use 0 to 64"):
        _workers(65, "cpu")


def test_the_command_line_takes_workers(data, tmp_path, capsys):
    options = ["--data", str(data), "--run", str(tmp_path / "run"), "--dry-run", "--workers", "-1"]
    with pytest.raises(ConfigInvalid, match="--workers -1"):
        main(["texture", *options, "--set", "crop_px=16", "--set", "scan_px=32"])
