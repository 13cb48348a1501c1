"""Words for figures."""

from dataclasses import fields, replace

import pytest

from assetgen.metrics.figures import Figures, Report
from assetgen.metrics.verdict import as_text, judge

FINE = Figures(
    **{
        **{field.name: (1.0, 1.0) for field in fields(Figures)},
        "accuracy": (0.6, 0.7),
        "ms_ssim": (0.3, 0.28),
        "copied": (0.06, 0.05),
    }
)


def report(classes=4, by_class=None, **changes):
    everything = replace(FINE, **changes)
    return Report({f"c{n}": replace(FINE, **(by_class or {}).get(n, changes)) for n in range(classes)}, everything, [])


def test_a_model_that_misses_nothing_is_good():
    verdict = judge(report())
    assert verdict.good
    assert as_text(verdict) == "verdict: good, no aim is missed"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"accuracy": (0.5, 0.7)}, "missed: accuracy 0.50, aim: at least 0.56 (0.8 x real 0.70)"),
        ({"swd": (210.0, 100.0)}, "missed: SWD 210, aim: at most 200 (2 x real 100)"),
        ({"ms_ssim": (0.4, 0.3)}, "more alike than real ones"),
        ({"ms_ssim": (0.2, 0.3)}, "less alike than real ones"),
        ({"copied": (0.2, 0.05)}, "missed: nearer to training pictures 0.20, aim: at most 0.15"),
        ({"grid": (3.4, 1.2)}, "missed: grid artefact of c0 3.4, aim: at most 3 (real pictures 1.2)"),
        ({"accuracy": (0.27, 0.7)}, "labels are ignored: 27% are of their class"),
    ],
)
def test_a_missed_aim_is_said_with_its_figures(changes, text):
    verdict = judge(report(**changes))
    assert not verdict.good
    assert text in as_text(verdict)


def test_labels_are_judged_by_the_classes_that_the_classifier_knows():
    unknown = {"accuracy": (None, None)}
    one = {0: {"accuracy": (0.0, 0.7)}, **dict.fromkeys((1, 2, 3), unknown)}
    assert "labels are ignored" not in as_text(judge(report(by_class=one, accuracy=(0.0, 0.7))))
    two = {**one, 1: {"accuracy": (0.5, 0.7)}}
    assert "labels are ignored" in as_text(judge(report(by_class=two, accuracy=(0.3, 0.7))))
    assert "labels are ignored" not in as_text(judge(report(by_class=two, accuracy=(0.68, 0.7))))


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": (0.56, 0.7)},
        {"swd": (200.0, 100.0)},
        {"ms_ssim": (0.34, 0.3)},
        {"copied": (0.15, 0.05)},
        {"grid": (3.0, 1.0)},
        {"grid": (6.0, 4.0)},
    ],
)
def test_an_aim_that_is_just_met_is_not_missed(changes):
    assert judge(report(**changes)).good


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pair_distance": (0.1, 0.4)}, "collapsed to few pictures: c2"),
        ({"pair_distance": (0.2, 0.4)}, "little variety: c2"),
        ({"copied": (0.6, 0.05)}, "training pictures repeated: c2"),
        ({"accuracy": (0.3, 0.7)}, "not told to be of their class: c2"),
        ({"swd": (300.0, 100.0)}, "far from real pictures: c2"),
        ({"spectrum": (5.0, 1.5)}, "blurred or noisy: c2"),
    ],
)
def test_a_class_that_is_wrong_is_named_though_the_mean_is_fine(changes, text):
    verdict = judge(report(by_class={0: {}, 1: {}, 2: changes, 3: {}}))
    assert verdict.findings == (text,)
    assert not verdict.missed
    assert not verdict.good


def test_a_grid_that_reals_have_does_not_hide_a_smaller_one_that_they_have_not():
    verdict = judge(report(by_class={0: {"grid": (9.0, 10.0)}, 1: {"grid": (4.0, 1.0)}, 2: {}, 3: {}}))
    assert verdict.findings == ("grid artefacts: c1",)
    assert verdict.missed == ("grid artefact of c1 4.0, aim: at most 3 (real pictures 1.0)",)


def test_what_is_not_known_is_not_judged_but_said():
    verdict = judge(report(accuracy=(None, None)))
    assert verdict.good
    assert "not judged: accuracy" in as_text(verdict)
