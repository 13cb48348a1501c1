"""The classifier's file and what it says."""

import hashlib
import json

import numpy as np
import pytest
import torch

from assetgen.errors import ConfigInvalid
from assetgen.metrics.features import SHIPPED, examine, load_classifier, save_classifier
from assetgen.models.classifier import Classifier, ClassifierConfig
from tests.helpers.hostile_tensors import HOSTILE
from tests.metrics.synthetic import blotches, waves

FACTS = {"classes": ["waves", "blotches"], "crop_px": 64, "scan_px": 128}


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "c.safetensors"
    save_classifier(path, Classifier(ClassifierConfig(2, (8, 8))), FACTS)
    return path


def test_a_file_is_read_as_it_was_written(file):
    instrument = load_classifier(file)
    assert instrument.classes == ("waves", "blotches")
    assert (instrument.crop_px, instrument.scan_px) == (64, 128)
    features, chances = examine(instrument, waves(5))
    assert features.shape == (5, 16)
    assert np.allclose(chances.sum(axis=1), 1)
    assert sorted(path.name for path in file.parent.iterdir()) == ["c.json", "c.safetensors"]


def test_what_is_said_of_a_picture_does_not_depend_on_the_others(file):
    instrument = load_classifier(file)
    together = examine(instrument, waves(6))
    alone = examine(instrument, waves(6)[2:3])
    for many, one in zip(together, alone, strict=True):
        assert np.allclose(many[2], one[0], atol=1e-5)


def test_an_altered_file_is_refused(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ConfigInvalid, match="was altered"):
        load_classifier(file)


@pytest.mark.parametrize(("data", "rule"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_tensors_are_refused_though_their_hash_is_right(file, data, rule):
    file.write_bytes(data)
    facts = json.loads(file.with_suffix(".json").read_text("utf-8"))
    facts["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    file.with_suffix(".json").write_text(json.dumps(facts), "utf-8")
    with pytest.raises(ConfigInvalid, match=rf"is not a classifier: .*{rule}"):
        load_classifier(file)


def test_facts_nested_without_end_are_refused(file):
    file.with_suffix(".json").write_text("[" * 100_000 + "]" * 100_000, "utf-8")
    with pytest.raises(ConfigInvalid, match="nested deeper than 16 levels"):
        load_classifier(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 9}, "format 9"),
        ({"classes": ["waves"]}, "names 1 classes but scores 2"),
        ({"config": {"classes": 2, "widths": [8, 16], "dropout": 0}}, "not a classifier"),
        ({"config": {"classes": 2}}, "not a classifier"),
    ],
)
def test_facts_that_do_not_fit_are_refused(file, changes, message):
    facts = json.loads(file.with_suffix(".json").read_text("utf-8"))
    file.with_suffix(".json").write_text(json.dumps({**facts, **changes}), "utf-8")
    with pytest.raises(ConfigInvalid, match=message):
        load_classifier(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigInvalid, match=r"none\.safetensors is not a classifier"):
        load_classifier(tmp_path / "none.safetensors")


def test_other_sizes_are_refused(file):
    with pytest.raises(ValueError, match="64 64 3"):
        examine(load_classifier(file), waves(1, edge_px=32))


def test_the_shipped_classifier_is_small_tells_classes_apart_and_says_where_it_comes_from():
    instrument = load_classifier()
    assert SHIPPED.stat().st_size < 2 * 2**20
    assert len(instrument.classes) == 12
    assert instrument.facts["accuracy"]["mean"] > 0.5
    assert instrument.facts["data"]["licenses"].keys() == {"CC0-1.0"}
    assert len(instrument.facts["data"]["data_sha256"]) == 64
    assert instrument.facts["data"]["authors"]
    _, chances = examine(instrument, np.concatenate([waves(4), blotches(4)]))
    assert chances[:4].argmax(axis=1).tolist() != chances[4:].argmax(axis=1).tolist()
