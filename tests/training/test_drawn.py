"""Pictures of a texture run for the detail network: the same for a run, of the right class, refused if strange."""

import json
from dataclasses import replace

import numpy as np
import pytest

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.training import checkpoint, cli, loop
from assetgen.training.drawn import drawn_sets, read_artist
from tests.helpers.tiny_runs import CLASSES, TEXTURE, make_task
from tests.training.test_cli import train


@pytest.fixture(scope="module")
def artist(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("artist")
    loop.train(run, make_task("texture", data, total_kimg=0.008), loop.Budget(), notify=lambda _: None)
    return run


def test_every_class_is_drawn_with_its_number(artist):
    classes = ("wood", *CLASSES)
    saved = read_artist(artist, classes, TEXTURE.scan_px)
    sets = drawn_sets(saved, classes, 32, per_class=2)
    assert [entry.label for entry in sets] == [1, 1, 2, 2]
    assert all(entry.small.shape == (32, 32, 3) and entry.large is None and not entry.targets for entry in sets)
    assert not np.array_equal(sets[0].small, sets[1].small)
    again = drawn_sets(saved, classes, 32, per_class=2)
    assert all(np.array_equal(a.small, b.small) for a, b in zip(sets, again, strict=True))


def test_a_run_that_was_given_away_draws_the_same(artist):
    saved = read_artist(artist, CLASSES, TEXTURE.scan_px)
    given = {f"generator.{key}": value for key, value in checkpoint.module_tensors(saved, "average").items()}
    for own, other in zip(
        *(drawn_sets(s, CLASSES, 32, 1) for s in (saved, replace(saved, tensors=given))), strict=True
    ):
        assert np.array_equal(own.small, other.small)


def test_what_the_network_would_not_be_given_is_refused(artist, tmp_path):
    with pytest.raises(ConfigInvalid, match=r"scan_px 32 of .* and 128"):
        read_artist(artist, CLASSES, 128)
    with pytest.raises(ConfigInvalid, match="draws metal, which the detail network is not told of") as caught:
        read_artist(artist, ("brick", "wood"), 32)
    assert "brick, wood" in caught.value.hint
    with pytest.raises(CheckpointInvalid):
        read_artist(tmp_path, CLASSES, 32)


def test_detail_learns_on_drawn_pictures_and_says_so(data, artist, tmp_path):
    drawn = ("--drawn", str(artist))
    assert train("detail", data, tmp_path / "run", *drawn) == 0
    saved = checkpoint.load(tmp_path / "run" / "checkpoint")
    assert saved.facts["drawn_by"]["kimg"] == 0.008
    with pytest.raises(ConfigInvalid, match="not what the run began with"):
        train("detail", data, tmp_path / "run", "--resume", total_kimg=0.008)
    assert train("detail", data, tmp_path / "run", "--resume", *drawn, total_kimg=0.008) == 0


def test_drawn_pictures_go_with_an_adversarial_detail_run_only(data, artist, tmp_path):
    with pytest.raises(ConfigInvalid, match="while adversarial is 0"):
        train("detail", data, tmp_path / "run", "--drawn", str(artist), adversarial=0)
    with pytest.raises(ConfigInvalid, match="--drawn goes with detail"):
        cli.main(["texture", "--data", str(data), "--drawn", str(artist)])


def test_a_dry_run_checks_the_artist_and_draws_nothing(data, artist, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise AssertionError("something is drawn")

    monkeypatch.setattr("assetgen.training.drawn.drawn_sets", refuse)
    assert train("detail", data, tmp_path / "run", "--drawn", str(artist), "--dry-run") == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["adversarial"]
    with pytest.raises(CheckpointInvalid):
        train("detail", data, tmp_path / "run", "--drawn", str(tmp_path), "--dry-run")
