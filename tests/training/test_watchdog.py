"""The watchdog sees what goes wrong, lets be what goes well, and does what it says."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assetgen.errors import CheckpointInvalid
from assetgen.training import checkpoint, watchdog
from assetgen.training.checkpoint import Progress
from assetgen.training.loop import Budget, train
from assetgen.training.runlog import RunLog, read_lines
from tests.helpers.tiny_runs import TEXTURE, make_task

WELL = {"loss_d": 1.1, "loss_g": 0.9, "r1": 0.2, "gradient_d": 3.0, "augment": 0.2, "sign": 0.6,
        "diversity.brick": 0.9, "latent_effect": 0.2, "label_effect": 0.2, "memorised": 0.3}  # fmt: skip


def judge(*changed, loss="ns_logistic", times=1):
    lines = [WELL] * 20 + [{**WELL, **line} for line in changed for _ in range(times)]
    return watchdog.judge(lines, loss=loss, augment_max=0.8)


@given(st.lists(st.fixed_dictionaries({name: st.floats(value * 0.8, value * 1.1) for name, value in WELL.items()}),
                min_size=1, max_size=30))  # fmt: skip
def test_a_run_that_goes_well_is_let_be(lines):
    assert watchdog.judge(lines, loss="ns_logistic", augment_max=0.8) == []


def test_no_lines_no_findings():
    assert watchdog.judge([], loss="hinge", augment_max=0.0) == []


@pytest.mark.parametrize(
    ("line", "signal", "remedy"),
    [
        ({"loss_g": math.nan}, "not_finite", "rewind"),
        ({"loss_d": math.inf}, "not_finite", "rewind"),
        ({"diversity.brick": 0.2}, "diversity.brick", "rewind"),
        ({"diversity.brick": 0.44}, "diversity.brick", "more_penalty"),
        ({"latent_effect": 1e-5}, "latent_effect", ""),
        ({"label_effect": 0.0}, "label_effect", ""),
        ({"r1": 2.5}, "r1", "slower"),
        ({"gradient_d": 31.0}, "gradient_d", "slower"),
        ({"memorised": 0.95}, "memorised", ""),
    ],
)
def test_one_line_that_is_wrong(line, signal, remedy):
    (found,) = judge(line)
    assert (found.signal, found.remedy) == (signal, remedy)
    assert len(found.text) > 10


@pytest.mark.parametrize(
    ("line", "signal", "remedy"),
    [
        ({"loss_d": 0.01}, "discriminator_wins", "more_penalty"),
        ({"loss_d": 2 * math.log(2) + 0.005}, "discriminator_blind", "less_penalty"),
        ({"sign": 0.97, "augment": 0.8}, "overfit", "more_penalty"),
    ],
)
def test_what_must_last_before_it_counts(line, signal, remedy):
    assert judge(line, times=5) == []
    (found,) = judge(line, times=20)
    assert (found.signal, found.remedy) == (signal, remedy)


def test_young_runs_are_alike_and_that_is_no_collapse():
    lines = [{**WELL, "diversity.brick": value} for value in (0.05, 0.1, 0.2, 0.3)]
    assert watchdog.judge(lines, loss="ns_logistic", augment_max=0.8) == []


def test_losses_that_are_not_bounded_by_0_are_not_judged_so():
    assert judge({"loss_d": -5.0}, loss="wasserstein", times=20) == []
    assert judge({"loss_d": 2 * math.log(2)}, loss="hinge", times=20) == []


@pytest.mark.parametrize(
    ("remedy", "changed"),
    [
        ("rewind", {"penalty_scale": 2.0, "rate_scale": 0.5, "rewinds": 1}),
        ("more_penalty", {"penalty_scale": 2.0}),
        ("less_penalty", {"penalty_scale": 0.5}),
        ("slower", {"rate_scale": 0.5}),
        ("", {}),
    ],
)
def test_remedies_change_scales(remedy, changed):
    found = watchdog.Finding("x", 0.0, 0.0, "", remedy)
    assert watchdog.act(Progress(step=7), found) == Progress(step=7, **changed)


def log_of(run, stability):
    run.mkdir(exist_ok=True)
    return RunLog(run, TEXTURE.__class__(**{**vars(TEXTURE), "stability": stability}))


def test_off_says_nothing_warn_writes_act_acts(tmp_path):
    for stability in ("off", "warn", "act"):
        log = log_of(tmp_path / stability, stability)
        for _ in range(20):
            log.add(WELL)
            assert log.heed(Progress()) is None
        assert log.good is (stability == "act")
        log.add({**WELL, "diversity.brick": 0.1})
        acted = log.heed(Progress(step=5))
        events = read_lines(tmp_path / stability / "events.jsonl")
        assert not log.good
        assert (acted is not None) is (stability == "act")
        assert [event["action"] for event in events] == {"off": [], "warn": [""], "act": ["rewind"]}[stability]
    assert acted.rewinds == 1
    assert acted.step == 5


def test_no_more_rewinds_than_allowed_and_patience_between_actions(tmp_path):
    log = log_of(tmp_path / "a", "act")
    for _ in range(20):
        log.add(WELL)
    log.add({**WELL, "diversity.brick": 0.1})
    assert log.heed(Progress(rewinds=watchdog.MAX_REWINDS)) is None
    log.add({**WELL, "r1": 9.0})
    assert log.heed(Progress()).rate_scale == 0.5
    log.add({**WELL, "r1": 9.0})
    assert log.heed(Progress()) is None


def test_a_resumed_log_remembers(tmp_path):
    log = log_of(tmp_path / "a", "warn")
    for _ in range(20):
        log.add(WELL)
    again = log_of(tmp_path / "a", "warn")
    again.add({**WELL, "r1": 9.0})
    again.heed(Progress())
    (event,) = read_lines(tmp_path / "a" / "events.jsonl")
    assert event["signal"] == "r1"


def test_a_log_whose_last_line_was_cut_off_can_be_read(tmp_path):
    (tmp_path / "stats.jsonl").write_text('{"a": 1}\n{"a": null}\n{"a"')
    first, second = read_lines(tmp_path / "stats.jsonl")
    assert first == {"a": 1}
    assert math.isnan(second["a"])


def poison(task, at_step):
    """Make a weight NaN once training comes to a step, as a fault of a kernel would."""
    step = task.step

    def poisoned(progress, done, sums):
        if progress.step == at_step and not progress.rewinds:
            with torch.no_grad():
                task.generator.enter.weight[0] = math.nan
        return step(progress, done, sums)

    task.step = poisoned
    return task


def test_act_goes_back_to_the_last_good_checkpoint_and_ends_sound(data, tmp_path):
    task = poison(make_task("texture", data, stability="act", total_kimg=0.048), 6)
    progress = train(tmp_path, task, Budget(tick_s=0.0, sheet_ticks=2))
    assert (progress.rewinds, progress.penalty_scale, progress.rate_scale) == (1, 2.0, 0.5)
    saved = checkpoint.load(tmp_path / "checkpoint")
    assert all(torch.isfinite(value).all() for value in saved.tensors.values())
    assert saved.progress.rewinds == 1
    (event,) = read_lines(tmp_path / "events.jsonl")
    assert (event["signal"], event["action"], event["value"]) == ("not_finite", "rewind", None) or math.isnan(
        event["value"]
    )


def test_warn_stops_at_numbers_that_are_none_and_keeps_the_last_checkpoint(data, tmp_path):
    task = poison(make_task("texture", data, stability="warn", total_kimg=0.048), 6)
    with pytest.raises(CheckpointInvalid, match="no longer finite"):
        train(tmp_path, task, Budget(tick_s=0.0, sheet_ticks=2))
    saved = checkpoint.load(tmp_path / "checkpoint")
    assert all(torch.isfinite(value).all() for value in saved.tensors.values())
    assert json.loads((tmp_path / "stats.jsonl").read_text().splitlines()[-1])["loss_g"] is None


def test_one_bad_step_of_many_ends_no_run(data, tmp_path):
    task = make_task("texture", data, stability="warn", total_kimg=0.048)
    verdict = task.adversary.verdict

    def once_none(fakes, *others):
        return verdict(fakes * (math.nan if len(seen) == 5 else 1.0), *others)

    seen = []
    step = task.step

    def counted(*told):
        seen.append(1)
        return step(*told)

    task.step = counted
    object.__setattr__(task.adversary, "verdict", once_none)
    train(tmp_path, task, Budget(tick_s=1e9))
    (line,) = read_lines(tmp_path / "stats.jsonl")
    assert line["bad_gradients"] > 0
    assert all(map(math.isfinite, line.values()))
    saved = checkpoint.load(tmp_path / "checkpoint")
    assert all(torch.isfinite(value).all() for value in saved.tensors.values())


def test_weights_that_are_no_numbers_are_never_kept(data, tmp_path):
    """Even where they came so late that the means of the log are sound."""
    task = poison(make_task("texture", data, stability="warn", total_kimg=0.048), 11)
    with pytest.raises(CheckpointInvalid, match="no longer finite"):
        train(tmp_path, task, Budget(tick_s=1e9))
    assert not (tmp_path / "checkpoint").exists()


def test_act_before_the_first_checkpoint_says_so(data, tmp_path):
    task = poison(make_task("texture", data, stability="act", total_kimg=0.048), 2)
    with pytest.raises(CheckpointInvalid, match="before the first checkpoint"):
        train(tmp_path, task, Budget(tick_s=0.0, sheet_ticks=100))
