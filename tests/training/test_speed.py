"""The bench trains, forgets, and says what minutes will buy."""

import json
import time
from dataclasses import asdict

from assetgen.training import cli, speed
from assetgen.training.speed import Speed
from tests.helpers.tiny_runs import TEXTURE, make_task


def test_speed_is_time_by_pictures(data):
    task = make_task("texture", data)
    measured = speed.measure(task, "cpu", 0.05)
    assert measured.s_per_kimg > 0
    assert measured.plain_s_per_kimg > 0
    assert speed.measure(make_task("detail", data), "cpu", 0.05).plain_s_per_kimg is None
    assert measured.peak_bytes > 1 << 20


def test_the_first_round_never_counts_however_long_it_took(data):
    """On a GPU it takes half a minute, in which kernels are chosen and worker processes start."""
    task = make_task("texture", data)
    step, taken = task.step, []

    def slow_at_first(*told):
        if not taken:
            time.sleep(2.0)
        taken.append(1)
        return step(*told)

    task.step = slow_at_first
    measured = speed.measure(task, "cpu", 0.05)
    assert len(taken) == 2 * task.recipe.r1_interval
    assert measured.s_per_kimg < 2.0 / (task.recipe.batch * task.recipe.r1_interval) * 1000


def test_the_table_is_arithmetic():
    lines = speed.table(Speed(s_per_kimg=6.0, peak_bytes=3 << 29)).splitlines()
    assert lines[0] == "6 s a thousand pictures, 1.50 GiB at most"
    assert "0.75 of it" in speed.table(Speed(s_per_kimg=6.0, peak_bytes=0, plain_s_per_kimg=8.0))
    assert lines[1] == "  10 minutes: about 100 thousand pictures"


def test_from_the_command_line_it_leaves_nothing_behind(data, tmp_path, capsys):
    options = [f"--set={key}={json.dumps(value)}" for key, value in asdict(TEXTURE).items()]
    run = tmp_path / "run"
    assert cli.main(["bench", "texture", "--data", str(data), "--run", str(run), "--minutes", "0.001", *options]) == 0
    assert "thousand pictures" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
