"""The loop: exact resume, budgets, stopping, statistics, and what happens when numbers or the disk break."""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from assetgen.errors import CheckpointInvalid, OutputUnwritable
from assetgen.training import checkpoint, loop
from assetgen.training.loop import Budget, train
from assetgen.training.recipe import LOSS_NAMES
from tests.helpers.tiny_runs import DETAIL, TEXTURE, make_task

SILENT = 1e9  # seconds: no statistics before the end
TASKS = ["texture", "detail"]
TOTAL = {"total_kimg": 0.048}  # 12 steps


def steps(run, task, count, *, resume=False, **options):
    return train(run, task, Budget(tick_s=SILENT, steps=count), resume=resume, **options)


def tensors(run):
    return checkpoint.load(run / "checkpoint").tensors


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """Final tensors of runs of 12 steps in one go, by task and precision."""
    done = {}

    def get(what, precision):
        if (what, precision) not in done:
            run = tmp_path_factory.mktemp("unbroken")
            progress = train(run, make_task(what, data, precision=precision, **TOTAL), Budget(tick_s=SILENT))
            assert progress.step == 12
            done[what, precision] = tensors(run)
        return done[what, precision]

    return get


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("what", TASKS)
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(data, tmp_path, unbroken, what, precision):
    changes = {"precision": precision, **TOTAL}
    steps(tmp_path, make_task(what, data, **changes), 5)
    steps(tmp_path, make_task(what, data, **changes), 4, resume=True)
    progress = train(tmp_path, make_task(what, data, **changes), Budget(tick_s=SILENT), resume=True)
    assert progress.step == 12
    assert_same(tensors(tmp_path), unbroken(what, precision))


@pytest.mark.parametrize("what", TASKS)
def test_training_changes_every_network(data, tmp_path, unbroken, what):
    fresh = make_task(what, data)
    trained = unbroken(what, "fp32")
    for name, module in fresh.modules.items():
        same = [key for key, value in module.named_parameters() if torch.equal(trained[f"{name}.{key}"], value)]
        assert same == [], name


def test_the_report_is_there_from_the_first_tick(data, tmp_path):
    there = []
    budget = Budget(tick_s=0.0, sheet_ticks=1000, steps=2)
    train(
        tmp_path, make_task("texture", data), budget, notify=lambda _: there.append((tmp_path / "report.html").exists())
    )
    assert there[:2] == [False, True], "what the second line finds, the first has left"


def test_other_seeds_train_other_networks(data, tmp_path, unbroken):
    train(tmp_path, make_task("texture", data, seed=2, **TOTAL), Budget(tick_s=SILENT))
    name = "average.enter.weight"
    assert not torch.equal(tensors(tmp_path)[name], unbroken("texture", "fp32")[name])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_leaves_a_checkpoint(data, tmp_path, unbroken, number):
    before = signal.getsignal(number)

    def stop_at_third(line):
        if line["step"] == 3:
            os.kill(os.getpid(), number)

    progress = train(tmp_path, make_task("texture", data, **TOTAL), Budget(tick_s=0.0), notify=stop_at_third)
    assert progress.step == 4, "the step under way is finished"
    assert signal.getsignal(number) is before, "the signal is given back"
    train(tmp_path, make_task("texture", data, **TOTAL), Budget(tick_s=SILENT), resume=True)
    assert_same(tensors(tmp_path), unbroken("texture", "fp32"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
def test_a_terminated_process_can_be_resumed_exactly(data, tmp_path):
    recipe = {**asdict(TEXTURE), "total_kimg": 1.2}  # 300 steps
    command = [
        sys.executable,
        "-m",
        "assetgen",
        "train",
        "texture",
        "--data",
        str(data),
        "--run",
        str(tmp_path / "run"),
    ]
    command += ["--threads", "1", "--device", "cpu", "--tick", "0", "--sheet-ticks", "1000000"]
    command += [f"--set={key}={json.dumps(value)}" for key, value in recipe.items()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("step 3 "):
                process.send_signal(signal.SIGTERM)
                break
        said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "stopped at" in said
    stopped = checkpoint.load(tmp_path / "run" / "checkpoint")
    assert 3 <= stopped.progress.step < 300
    more = 5  # as many steps as are needed to see a difference
    steps(tmp_path / "run", make_task("texture", data, total_kimg=1.2), more, resume=True)
    steps(tmp_path / "whole", make_task("texture", data, total_kimg=1.2), stopped.progress.step + more)
    assert_same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))


def test_training_works_outside_the_main_thread(data, tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(steps(tmp_path, make_task("texture", data), 1)))
    thread.start()
    thread.join()
    assert found[0].step == 1


def test_the_time_budget_counts_all_sittings(data, tmp_path):
    assert train(tmp_path, make_task("texture", data), Budget(minutes=1e-9)).step == 1
    progress = train(tmp_path, make_task("texture", data), Budget(minutes=1e-9), resume=True)
    assert progress.step == 1, "the budget was spent in the first sitting"
    assert progress.elapsed_s > 0


def test_the_picture_budget_counts_all_sittings(data, tmp_path):
    for _ in range(2):
        task = make_task("texture", data, total_kimg=0.009)
        assert train(tmp_path, task, Budget(tick_s=SILENT), resume=tmp_path.joinpath("checkpoint").exists()).step == 3


def test_the_learning_rate_falls_at_the_end():
    rates = [loop.learning_rate(TEXTURE, done) / TEXTURE.learning_rate for done in (0, 0.7, 0.85, 1.0, 1.5)]
    assert rates == pytest.approx([1, 1, 0.55, 0.1, 0.1])


def test_a_lazy_penalty_slows_its_optimiser():
    adam = loop.adam(torch.nn.Linear(2, 2), 0.1, every=16)
    assert adam.param_groups[0]["lr"] == pytest.approx(0.1 * 16 / 17)
    assert adam.param_groups[0]["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_the_average_follows_with_its_half_life():
    average, network = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    average.weight.data.fill_(0.0)
    network.weight.data.fill_(1.0)
    recipe = replace(TEXTURE, ema_kimg=0.04, ema_rampup=1.0)
    for _ in range(10):  # 40 pictures: one half-life
        loop.move_average(average, network, recipe, 10_000)
    assert average.weight.item() == pytest.approx(0.5, abs=1e-5)


def test_statistics_are_json_lines(data, tmp_path):
    train(tmp_path, make_task("texture", data, total_kimg=0.02), Budget(tick_s=0.0, sheet_ticks=100))
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert lines[-1]["kimg"] == 0.02
    assert lines[-1]["done"] == 1
    assert {"loss_g", "loss_d", "real_score", "fake_score", "augment"} <= lines[-1].keys()
    assert "r1" in lines[1]
    assert "r1" not in lines[2], "taken every second step only"


@pytest.mark.parametrize("what", TASKS)
def test_the_recipe_and_a_sheet_are_left_in_the_run(data, tmp_path, what):
    steps(tmp_path, make_task(what, data), 1)
    assert json.loads((tmp_path / "recipe.json").read_text())["classes"] == ["brick", "metal"]
    (file,) = tmp_path.glob("sheet-*.png")
    with Image.open(file) as sheet:
        sheet.load()
        assert np.asarray(sheet.convert("L")).std() > 5, "something is to be seen"
        if what == "texture":
            assert sheet.size == (120 + 10 * 130, 2 * 130), "a row a class: two reals, eight samples"
        else:
            assert sheet.width == 7 * 192
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint", "recipe.json", "report.html", file.name, "stats.jsonl"]  # fmt: skip


def test_sheets_of_a_young_run_are_all_kept(data, tmp_path):
    steps(tmp_path, make_task("texture", data), 1)
    steps(tmp_path, make_task("texture", data), 1, resume=True)
    assert len(list(tmp_path.glob("sheet-*.png"))) == 2


@pytest.mark.parametrize("what", TASKS)
def test_numbers_that_break_stop_the_run_and_keep_the_checkpoint(data, tmp_path, what):
    steps(tmp_path, make_task(what, data), 1)
    good = tensors(tmp_path)
    task = make_task(what, data)

    def poison(line):
        if line["step"] == 2:
            network = next(iter(task.modules.values()))
            next(network.parameters()).data.fill_(float("nan"))

    with pytest.raises(CheckpointInvalid, match="values are no longer finite") as caught:
        train(tmp_path, task, Budget(tick_s=0.0, sheet_ticks=10**6, steps=9), resume=True, notify=poison)
    assert "resume from the last checkpoint" in caught.value.hint
    assert_same(tensors(tmp_path), good)
    lines = [
        json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "stats.jsonl").read_text().splitlines()
    ]
    assert None in lines[-1].values(), "JSON has no NaN"


def test_resuming_nothing_is_an_error(data, tmp_path):
    with pytest.raises(CheckpointInvalid, match="is not a checkpoint"):
        steps(tmp_path, make_task("texture", data), 1, resume=True)


def test_resuming_with_other_classes_is_an_error(data, tmp_path):
    steps(tmp_path, make_task("texture", data), 1)
    with pytest.raises(CheckpointInvalid, match=r"the run knows \['brick', 'metal'\], the data \['metal', 'brick'\]"):
        steps(tmp_path, make_task("texture", data, classes=["metal", "brick"]), 1, resume=True)


def test_resuming_with_other_widths_is_an_error(data, tmp_path):
    steps(tmp_path, make_task("texture", data), 1)
    with pytest.raises(CheckpointInvalid, match="tensors of generator do not fit the recipe"):
        steps(tmp_path, make_task("texture", data, widths=[8, 8, 12]), 1, resume=True)


def test_a_run_that_cannot_be_written_is_an_error(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable):
        steps(tmp_path / "file" / "run", make_task("texture", data), 1)


def test_a_full_disk_keeps_the_former_checkpoint(data, tmp_path, monkeypatch):
    steps(tmp_path, make_task("texture", data), 1)
    good = tensors(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputUnwritable, match="No space left on device"):
        steps(tmp_path, make_task("texture", data), 1, resume=True)
    assert_same(tensors(tmp_path), good)


def test_a_new_run_may_start_from_another(data, tmp_path):
    steps(tmp_path, make_task("texture", data), 3)
    saved = checkpoint.load(tmp_path / "checkpoint")
    task = make_task("texture", data, discriminator_widths=[8, 12])
    loop.transfer(task, saved)
    assert torch.equal(task.generator.enter.weight, saved.tensors["generator.enter.weight"])
    assert not torch.equal(task.discriminator.embed[:, :8], saved.tensors["discriminator.embed"])
    with pytest.raises(CheckpointInvalid, match="no tensor of that run fits"):
        loop.transfer(make_task("detail", data, discriminator_widths=[12, 12], widths=[12, 12, 12]), replace(
            saved, tensors={"generator.x": torch.zeros(1)}))  # fmt: skip


@pytest.mark.parametrize(("what", "trained"), [("texture", "generator"), ("detail", "network")])
def test_a_checkpoint_that_holds_one_generator_gives_both(data, tmp_path, what, trained):
    steps(tmp_path, make_task(what, data), 1)
    saved = checkpoint.load(tmp_path / "checkpoint")
    given = {key: value for key, value in saved.tensors.items() if key.startswith(f"{trained}.")}
    task = make_task(what, data, seed=5)
    copied = loop.transfer(task, replace(saved, tensors=given))
    assert copied["average"] == copied[trained] == len(task.modules[trained].state_dict())
    assert torch.equal(task.average.enter.weight, task.modules[trained].enter.weight)


@pytest.mark.parametrize("loss", ["ns_logistic", "relativistic"])
def test_a_fixed_augmentation_counts_from_the_first_step(data, tmp_path, loss):
    made = []
    for chance in (0.0, 1.0):
        task = make_task("texture", data, augment_fixed=chance, loss=loss)
        steps(tmp_path / str(chance), task, 1)
        made.append([parameter.clone() for parameter in task.discriminator.parameters()])
    assert not all(torch.equal(a, b) for a, b in zip(*made, strict=True))


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_every_loss_and_penalty_trains_both_networks(data, tmp_path, loss):
    weights = {"r1_gamma": 0.1, "r2_gamma": 0.1}
    if loss == "wasserstein":
        weights = {"r1_gamma": 0.0, "gradient_penalty": 10.0}
    task = make_task("texture", data, loss=loss, r1_interval=1, **weights)
    before = [parameter.clone() for module in (task.generator, task.discriminator) for parameter in module.parameters()]
    steps(tmp_path, task, 2)
    after = [parameter for module in (task.generator, task.discriminator) for parameter in module.parameters()]
    moved = sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert moved > 0.8 * len(before)
    line = json.loads((tmp_path / "stats.jsonl").read_text().splitlines()[-1])
    penalties = {"r1", "r2", "gradient_penalty"} & line.keys()
    assert penalties == ({"gradient_penalty"} if loss == "wasserstein" else {"r1", "r2"})
    assert all(math.isfinite(value) for value in line.values())


def test_where_a_run_began_is_remembered_when_it_is_resumed(data, tmp_path):
    task = make_task("texture", data)
    task.facts = {**task.facts, "transferred_from": {"kimg": 1.0}}
    steps(tmp_path, task, 1)
    steps(tmp_path, make_task("texture", data), 1, resume=True)
    assert checkpoint.load(tmp_path / "checkpoint").facts["transferred_from"] == {"kimg": 1.0}


def test_checkpoints_come_with_the_sheets(data, tmp_path):
    seen = []
    notify = lambda line: seen.append((line["step"], (tmp_path / "checkpoint").exists()))  # noqa: E731
    train(tmp_path, make_task("texture", data), Budget(tick_s=0.0, sheet_ticks=2, steps=4), notify=notify)
    assert seen == [(0, False), (1, False), (2, True), (3, True), (4, True)]


def test_finished_runs_remember_their_data(data, tmp_path):
    shutil.copy(data, tmp_path / "d.zip")
    steps(tmp_path / "run", make_task("detail", tmp_path / "d.zip"), 1)
    facts = checkpoint.load(tmp_path / "run" / "checkpoint").facts
    assert facts["classes"] == list(DETAIL.classes)
    assert set(facts["licenses"]) == {"CC0-1.0"}
    assert len(facts["data_sha256"]) == 64
    assert facts["validation"]["items"] > 0
    assert facts["relief_px"].keys() == set(DETAIL.classes)
