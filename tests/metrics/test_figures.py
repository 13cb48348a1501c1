"""All figures together, on sets whose faults are known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from assetgen.metrics.features import Instrument
from assetgen.metrics.figures import Subject, as_json, measure
from assetgen.metrics.table import table
from assetgen.metrics.verdict import as_text, judge
from assetgen.models.classifier import Classifier, ClassifierConfig
from tests.metrics.synthetic import blotches, blurred, bytes_of, waves

KINDS = {"waves": waves, "blotches": blotches}
COUNT = 16


def subject(fakes):
    train = [make(COUNT, 1) for make in KINDS.values()]
    held = [make(COUNT, 2) for make in KINDS.values()]
    return Subject(tuple(KINDS), fakes, train, held, [list(side) for side in train], stride_px=4)


def good():
    return [make(COUNT, 3) for make in KINDS.values()]


def found(fakes, instrument=None):
    return measure(subject(fakes), instrument, pairs=64)


@pytest.fixture(scope="module")
def reference():
    return found(good())


def test_pictures_as_good_as_real_ones_miss_no_aim(reference):
    verdict = judge(reference)
    assert verdict.good, as_text(verdict)
    assert "not judged: accuracy" in as_text(verdict)
    for figures in reference.by_class.values():
        for name in ("swd", "gram", "ms_ssim", "pair_distance", "nearest"):
            fake, real = getattr(figures, name)
            assert fake == pytest.approx(real, rel=0.6, abs=0.05), name


def test_the_same_figures_for_the_same_pictures(reference):
    again = found(good())
    assert as_json(again.all) == as_json(reference.all)
    assert table(again) == table(reference)


def test_classes_in_each_others_place_are_far():
    verdict = judge(found(good()[::-1]))
    assert not verdict.good
    assert any(text.startswith("SWD") for text in verdict.missed)


def test_blurred_pictures_are_far(reference):
    blurry = found([blurred(blurred(side)) for side in good()])
    assert blurry.all.swd[0] > 1.5 * reference.all.swd[0]
    assert blurry.all.spectrum[0] > 2 * reference.all.spectrum[0]
    assert any(text.startswith("blurred or noisy") for text in judge(blurry).findings)


def test_one_picture_repeated_is_a_collapse():
    fakes = good()
    fakes[1] = np.repeat(fakes[1][:1], COUNT, axis=0)
    verdict = judge(found(fakes))
    assert "collapsed to few pictures: blotches" in verdict.findings
    assert any("more alike" in text for text in verdict.missed)


def test_training_pictures_rolled_are_found_to_be_repeated():
    fakes = [np.roll(make(COUNT, 1), (9, 30), (1, 2)) for make in KINDS.values()]
    report = found(fakes)
    assert report.by_class["blotches"].copied[0] == 1
    assert any("blotches" in text for text in judge(report).findings if text.startswith("training pictures repeated"))
    assert report.nearest[1].picture.tolist() == list(range(COUNT))


def test_a_grid_is_found():
    fakes = good()
    fakes[1] = bytes_of(fakes[1] + (np.arange(64) % 4 == 0)[None, None, :, None] * 20.0)
    verdict = judge(found(fakes))
    assert "grid artefacts: blotches" in verdict.findings
    assert any(text.startswith("grid artefact of blotches") for text in verdict.missed)


def test_figures_in_feature_space_and_accuracy_need_a_classifier(reference):
    network = Classifier(ClassifierConfig(2, (8, 8))).eval().requires_grad_(False)
    instrument = Instrument(network, ("waves", "stone"), 64, 128, {}, "")
    report = found(good(), instrument)
    assert report.by_class["waves"].accuracy[0] is not None
    assert report.by_class["blotches"].accuracy == (None, None)
    assert report.all.kid[0] is not None
    assert replace(report.all, kid=(None, None), accuracy=(None, None)).swd == reference.all.swd
    assert reference.all.precision == (None, None)


def test_figures_become_json_and_a_table(reference):
    known = json.loads(json.dumps(as_json(reference.all), allow_nan=False))
    assert known["kid"] == {"fake": None, "real": None}
    assert set(known["swd"]) == {"fake", "real"}
    lines = table(reference).splitlines()
    assert [line.split()[0] for line in lines if line] == 2 * ["generated/real", "waves", "blotches", "ALL"]
    assert max(len(line) for line in lines) <= 140
