"""A student learns its teacher's pictures, from the same inputs, and says whose student it is."""

import pytest
import torch

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.training import checkpoint, cli, distil
from assetgen.training.checkpoint import Progress
from assetgen.training.loop import Budget, train
from assetgen.training.sums import Sums
from tests.helpers.tiny_runs import make_task
from tests.training.test_cli import train as command


def noise(seed, n=2, edge=16):
    return torch.rand(n, 3, edge, edge, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_distance_is_nothing_for_equals_and_grows_with_what_differs():
    first = noise(0)
    assert float(distil.distance(first, first)) == 0
    near, far = (float(distil.distance(first, first + amount)) for amount in (0.1, 0.2))
    assert near == pytest.approx(0.1, rel=1e-4)  # a shift has no slopes: the mean over scales is the shift itself
    assert far == pytest.approx(0.2, rel=1e-4)
    assert float(distil.distance(first, noise(1))) > 0.5


def test_distance_hears_slopes():
    flat, striped = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    striped[:, :, :, ::2], striped[:, :, :, 1::2] = 0.1, -0.1
    # full size: level 0.1, slope across 0.2, slope down 0; below, stripes are averaged away
    assert float(distil.distance(striped, flat)) == pytest.approx(0.3 / 3, rel=1e-4)


@pytest.fixture(scope="module")
def teachers(data, tmp_path_factory):
    """Run folders of teachers, by what they are."""
    made = {}
    for what in ("texture", "detail", "biggan"):
        made[what] = tmp_path_factory.mktemp(what)
        train(made[what], make_task(what, data, total_kimg=0.008), Budget(tick_s=1e9))
    return made


@pytest.mark.parametrize(
    ("what", "changes"),
    [("texture", {"widths": [8, 4, 4]}), ("detail", {"widths": [8, 4, 4], "blocks": 0}), ("biggan", {"width": 2})],
)
def test_a_student_comes_closer(data, teachers, what, changes):
    task = make_task(what, data, distil=1000.0, learning_rate=0.005, **changes)
    task.learn_from(checkpoint.load(teachers[what] / "checkpoint"))
    distances = []
    for _ in range(20):  # of one batch
        sums = Sums()
        task.step(Progress(), 0.0, sums)
        distances.append(sums.means()["distance"])
    assert distances[-1] < 0.8 * distances[0]


def test_a_teacher_does_not_change(data, teachers):
    task = make_task("texture", data)
    task.learn_from(checkpoint.load(teachers["texture"] / "checkpoint"))
    before = [value.clone() for value in task.teacher.state_dict().values()]
    for step in range(3):
        task.step(Progress(step=step), 0.0, Sums())
    assert all(torch.equal(*pair) for pair in zip(before, task.teacher.state_dict().values(), strict=True))


def test_from_the_command_line_a_student_is_told_as_such_and_resumes_with_its_teacher(data, teachers, tmp_path):
    run, teacher = tmp_path / "run", str(teachers["texture"])
    command("texture", data, run, "--distil", teacher, widths=[8, 4, 4])
    saved = checkpoint.load(run / "checkpoint")
    assert [teacher["kimg"] for teacher in saved.facts["distilled_from"]] == [0.008]
    resumed = ["texture", "--data", str(data), "--run", str(run), "--resume", "--set", "total_kimg=0.008"]
    with pytest.raises(CheckpointInvalid, match="that of a student"):
        cli.main(resumed)
    with pytest.raises(ConfigInvalid, match="2 teachers are named; one is allowed"):
        command("texture", data, tmp_path / "two", "--distil", teacher, "--distil", teacher)
    assert cli.main([*resumed, "--distil", teacher]) == 0
    again = checkpoint.load(run / "checkpoint")
    assert again.progress.step == 2
    assert again.facts["distilled_from"] == saved.facts["distilled_from"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"latent": 8}, "latent: the teacher was trained with 16, not 8"),
        ({"widths": [8, 8]}, "widths: 2 of them; the teacher has 3"),
        ({"classes": ["brick"]}, "the teacher knows brick, metal; the student brick"),
    ],
)
def test_a_student_must_be_fed_as_its_teacher_was(data, teachers, tmp_path, changes, text):
    with pytest.raises(ConfigInvalid, match=text):
        command("texture", data, tmp_path / "run", "--distil", str(teachers["texture"]), **changes)
