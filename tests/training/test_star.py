"""Style transfer between n domains in one network: resumes exactly, learns with all it has, hears the domain."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.training import checkpoint, cli, distil
from assetgen.training.checkpoint import Progress
from assetgen.training.loop import Budget, train
from assetgen.training.star import StarTask
from assetgen.training.style import StyleTask
from assetgen.training.style_batches import mixed_batch
from assetgen.training.sums import Sums
from tests.helpers.tiny_styles import make_style_task, style_recipe

SILENT = 1e9
TOTAL = {"total_kimg": 0.012}  # 6 steps


def tensors(run):
    return checkpoint.load(run / "checkpoint").tensors


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(data, tmp_path):
    train(tmp_path / "whole", make_style_task("stargan", data, **TOTAL), Budget(tick_s=SILENT))
    train(tmp_path / "parts", make_style_task("stargan", data, **TOTAL), Budget(tick_s=SILENT, steps=3))
    train(tmp_path / "parts", make_style_task("stargan", data, **TOTAL), Budget(tick_s=SILENT), resume=True)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def test_training_moves_every_parameter_and_leaves_figures_and_a_sheet(data, tmp_path):
    fresh = make_style_task("stargan", data)
    train(tmp_path, make_style_task("stargan", data, **TOTAL), Budget(tick_s=SILENT))
    trained = tensors(tmp_path)
    for module, network in fresh.modules.items():
        for key, value in network.named_parameters():
            assert not torch.equal(trained[f"{module}.{key}"], value), f"{module}.{key}"
    (sheet,) = tmp_path.glob("sheet-*.png")
    with Image.open(sheet) as picture:
        assert picture.width == 3 * 130  # before, and each of two domains
        assert np.asarray(picture).std() > 0
    (line,) = [json.loads(text) for text in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert {"change.brick", "structure.metal", "cycle_error", "class_loss_real", "class_loss_fake", "r1"} <= line.keys()
    assert 0 <= line["domain_share"] <= 1


def test_the_domain_makes_a_difference_from_the_start(data):
    task = make_style_task("stargan", data)
    assert task.monitor()["label_effect"] > 1e-3


def test_batch_norms_of_the_average_have_statistics_of_their_own(data):
    task = make_style_task("stargan", data, norm="batch")
    task.step(task.step(Progress(), 0.0, Sums()), 0.0, Sums())
    before = {key: value.clone() for key, value in task.average.named_buffers() if key.endswith("running_mean")}
    figures = task.monitor()
    assert before
    assert all(not torch.equal(dict(task.average.named_buffers())[key], value) for key, value in before.items())
    assert not task.average.training
    assert task.monitor() == figures


def test_with_patches_all_pictures_of_a_step_are_led_to_one_look(data):
    task, sums = make_style_task("stargan", data, batch=8, crop_px=40, patches=1.0, structure=1.0, color=1.0), Sums()
    asked = []
    task.generator.register_forward_pre_hook(lambda _module, given: asked.append(given[1].argmax(dim=1)))
    for step in range(4):
        task.step(Progress(step=step), 0.0, sums)
    assert {"patches", "kept_structure", "color_excess", "cycle"} <= sums.means().keys()
    there = asked[::2]  # every other time the way back is asked for
    assert [len(targets.unique()) for targets in there] == [1] * 4
    assert len(torch.cat(there).unique()) == 2


def test_domains_come_to_be_told_apart(data):
    task, progress = make_style_task("stargan", data, batch=8, discriminator_rate=0.01), Progress()
    losses = []
    for _ in range(40):
        sums = Sums()
        progress = task.step(progress, 0.0, sums)
        losses.append(sums.means()["class_loss_real"])
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_a_narrower_student_comes_closer(data, tmp_path):
    train(tmp_path, make_style_task("stargan", data, total_kimg=0.004), Budget(tick_s=SILENT))
    task = make_style_task("stargan", data, width=2, distil=1000.0, learning_rate=0.01)
    task.learn_from(checkpoint.load(tmp_path / "checkpoint"))
    distances = []
    for _ in range(15):  # of one batch
        sums = Sums()
        task.step(Progress(), 0.0, sums)
        distances.append(sums.means()["distance"])
    assert distances[-1] < 0.9 * distances[0]


def test_each_task_sends_the_methods_of_the_other_away():
    with pytest.raises(ConfigInvalid, match=r"cut is trained by style\.StyleTask"):
        StarTask(style_recipe("cut"), None, {})
    with pytest.raises(ConfigInvalid, match=r"stargan is trained by star\.StarTask"):
        StyleTask(style_recipe("stargan"), None, {})


@pytest.fixture(scope="module")
def ways(data, tmp_path_factory):
    """Runs of one way each, by the look that they lead to."""
    made = {}
    for source, target in (("brick", "metal"), ("metal", "brick")):
        made[target] = tmp_path_factory.mktemp(target)
        task = make_style_task("cut", data, source=source, target=target, total_kimg=0.002)
        train(made[target], task, Budget(tick_s=SILENT))
    return made


def test_teachers_of_one_way_each_teach_one_network_and_leave_their_own_look_alone(data, ways):
    task = make_style_task("stargan", data, crop_px=40, distil=1000.0, learning_rate=0.005, batch=4, cycle=0.0)
    for run in ways.values():
        task.learn_from(checkpoint.load(run / "checkpoint"))
    crops, labels, _ = mixed_batch(task.reals, task.share, 0)
    wanted = task._wanted(crops, labels, torch.zeros_like(labels))
    assert (labels == 0).any()
    assert (labels == 1).any()
    assert torch.equal(wanted[labels == 0], crops[labels == 0])
    assert torch.equal(wanted[labels == 1], task.ways[0](crops)[labels == 1])
    distances = []
    for _ in range(12):  # of one batch
        sums = Sums()
        task.step(Progress(), 0.0, sums)
        distances.append(sums.means()["distance"])
    assert distances[-1] < 0.9 * distances[0]
    assert "cycle" not in sums.means()


def test_a_look_without_a_teacher_is_left_to_the_game(data, ways):
    task = make_style_task("stargan", data)
    task.learn_from(checkpoint.load(ways["metal"] / "checkpoint"))
    crops, labels, _ = mixed_batch(task.reals, task.share, 0)
    assert task._wanted(crops, labels, torch.zeros_like(labels)) is None


def test_several_teachers_are_named_from_the_command_line(data, ways, tmp_path):
    recipe = asdict(style_recipe("stargan", crop_px=40, total_kimg=0.004))
    options = [f"--set={key}={json.dumps(value)}" for key, value in recipe.items()]
    teachers = [option for run in ways.values() for option in ("--distil", str(run))]
    command = ["style", "--family", "stargan", "--data", str(data), "--run", str(tmp_path / "run"), *options]
    assert cli.main([*command, *teachers]) == 0
    told = checkpoint.load(tmp_path / "run" / "checkpoint").facts["distilled_from"]
    assert [teacher["recipe"]["target"] for teacher in told] == ["metal", "brick"]
    with pytest.raises(CheckpointInvalid, match="a student of 2, and 1 are named"):
        cli.main([*command, *teachers[:2], "--resume"])
    with pytest.raises(ConfigInvalid, match="the teacher leads to metal; the student to brick, wood"):
        distil.read_teacher(ways["metal"], recipe, ("brick", "wood"))
