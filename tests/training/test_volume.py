"""Training meshes: it learns, it resumes bit for bit, and what it draws are meshes."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from assetgen.datasets.volumes import pack_volumes
from assetgen.errors import ConfigInvalid, DataInvalid
from assetgen.training import checkpoint, cli
from assetgen.training.checkpoint import Progress
from assetgen.training.loop import Budget, restore, train
from assetgen.training.sums import Sums
from assetgen.training.volume import BACKGROUND, SHEET_PX, picture_of, rebuild_distances
from tests.helpers.tiny_meshes import CLASSES, EDGE, make_task, write_models, write_volumes


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("volumes"))


def weights(task):
    return torch.cat([p.detach().flatten() for module in task.modules.values() for p in module.parameters()])


def steps(task, count, progress=None, done=0.5):
    sums = Sums()
    progress = progress or Progress()
    for _ in range(count):
        progress = task.step(progress, done, sums)
    return progress, sums.means()


def test_rebuilding_gets_better(volumes):
    task = make_task(volumes, adversarial=0.0, batch=8)
    _, before = steps(task, 1)
    progress, _ = steps(task, 40, Progress(step=1))
    _, after = steps(task, 1, progress)
    assert after["rebuild"] < 0.7 * before["rebuild"]


def test_all_networks_move_and_the_losses_are_told(volumes):
    task = make_task(volumes)
    before = {name: [p.clone() for p in module.parameters()] for name, module in task.modules.items()}
    _, told = steps(task, 2)
    for name in ("generator", "average", "discriminator", "encoder"):
        assert any((p != q).any() for p, q in zip(task.modules[name].parameters(), before[name], strict=True)), name
    assert {"loss_d", "loss_g", "r1", "rebuild", "rebuild_color", "divergence", "gradient_e"} <= told.keys()
    assert all(np.isfinite(value) for value in told.values())


def test_a_step_may_look_at_some_cells_only(tmp_path):
    data = tmp_path / "volumes.zip"
    pack_volumes(write_models(tmp_path / "models"), data, 32, license="CC0-1.0", validation_share=0.0)
    task = make_task(data, adversarial=0.0, batch=8, volume_edge=32, stride=2)
    assert {task._start(step) for step in range(64)} == set(itertools.product(range(2), repeat=3))
    _, before = steps(task, 1)
    progress, _ = steps(task, 40, Progress(step=1))
    _, after = steps(task, 1, progress)
    assert after["rebuild"] < 0.9 * before["rebuild"]
    assert task.sample(0, 1).shape == (4, 32, 32, 32)


def test_strides_leave_enough_to_look_at(volumes):
    with pytest.raises(ConfigInvalid, match="stride: 2 is not allowed"):
        make_task(volumes, stride=2)


def test_samples_are_drawn_where_the_encoder_puts_its_codes(volumes):
    task = make_task(volumes, adversarial=0.0, batch=8)
    steps(task, 30)
    assert task.prior.seen.sum() == 30 * 8
    task.prior.fit()
    assert not torch.equal(task.prior.means[0], task.prior.means[1])
    before = task.sample(0, 1)
    far = torch.full((200, task.recipe.latent), 2.0)
    task.prior.learn(far, torch.full_like(far, -4.0), torch.zeros(200, dtype=torch.int64))
    task.prior.fit()
    assert np.abs(task.sample(0, 1) - before).max() > 1e-3


def test_without_rebuilding_there_is_no_encoder(volumes):
    task = make_task(volumes, rebuild=0.0)
    _, told = steps(task, 1)
    assert "encoder" not in task.modules
    assert "rebuild" not in told


def test_the_critic_waits_for_its_share_of_the_run(volumes):
    task = make_task(volumes, adversarial_from=0.5)
    _, early = steps(task, 1, done=0.4)
    _, late = steps(task, 1, done=0.5)
    assert "loss_d" not in early
    assert "loss_d" in late


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(volumes, tmp_path):
    whole = make_task(volumes)
    steps(whole, 4)
    train(tmp_path / "run", make_task(volumes), Budget(tick_s=1e9, steps=2))
    resumed = make_task(volumes)
    progress = restore(resumed, checkpoint.load(tmp_path / "run" / "checkpoint"))
    assert progress.step == 2
    first = make_task(volumes)
    steps(first, 2, done=0.0)
    assert torch.equal(weights(first), weights(resumed)) or progress.pictures  # schedules follow the share done
    again = make_task(volumes)
    train(tmp_path / "again", again, Budget(tick_s=1e9, steps=2))
    train(tmp_path / "again", again, Budget(tick_s=1e9, steps=2), resume=True)
    straight = make_task(volumes)
    train(tmp_path / "straight", straight, Budget(tick_s=1e9, steps=4))
    assert torch.equal(weights(again), weights(straight))


def test_a_run_leaves_a_sheet_of_surfaces_and_figures(volumes, tmp_path):
    task = make_task(volumes)
    train(tmp_path / "run", task, Budget(tick_s=1e9, steps=2))
    (sheet,) = (tmp_path / "run").glob("sheet-*.png")
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape[0] == len(CLASSES) * (SHEET_PX + 2)
    real = pixels[:SHEET_PX, 120 : 120 + SHEET_PX].astype(int)
    assert (real[:, :, 0] > real[:, :, 2] + 60).mean() > 0.2  # the red ball
    found = task.monitor()
    assert found["latent_effect"] > 0
    assert found["label_effect"] > 0


def test_a_picture_of_nothing_is_plain():
    assert (picture_of(np.ones((4, EDGE, EDGE, EDGE), dtype=np.float32)) == BACKGROUND).all()


def test_colours_are_compared_near_the_surface_only():
    wanted = torch.ones(1, 4, 4, 4, 4)
    wanted[:, 0, 0] = 0.0
    made = wanted.clone()
    made[:, 1:, 1:] = -1.0
    assert float(rebuild_distances(made, wanted)[1]) == 0.0
    made[:, 1:, 0] = 0.0
    assert float(rebuild_distances(made, wanted)[1]) == pytest.approx(48 / 49)


def test_the_command_line_trains_and_refuses(volumes, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["mesh", "--data", str(volumes), "--run", str(run), "--device", "cpu", "--threads", "1"]
    sizes = {"latent": 4, "style": 8, "width": 4, "features": 4, "hidden": 4, "critic_width": 4, "batch": 4}
    keys = [f"--set={key}={value}" for key, value in {**sizes, "volume_edge": EDGE, "total_kimg": 0.004}.items()]
    assert cli.main([*arguments, *keys, "--set=precision=fp32"]) == 0
    assert "8 pictures in 2 classes" in capsys.readouterr().out
    with pytest.raises(DataInvalid, match="16 cells along an edge, the recipe 48"):
        cli.main([*arguments[:3], "--run", str(tmp_path / "other"), "--device", "cpu"])
    with pytest.raises(ConfigInvalid, match="--distil"):
        make_task(volumes).learn_from(checkpoint.load(run / "checkpoint"))
