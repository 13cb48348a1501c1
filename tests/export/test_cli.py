"""The command line of export: what is asked of it is done, and what makes no sense is told before anything is."""

import shutil

import pytest

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from export import cli, package_from_runs
from tests.helpers.tiny_package import write_tiny_package


def test_a_run_needs_a_place_for_its_package(tmp_path):
    with pytest.raises(ConfigInvalid, match="-o is missing"):
        cli.main([str(tmp_path)])


@pytest.mark.parametrize("more", [[], ["--precision", "fp32"], ["-o", "elsewhere"]])
def test_a_package_that_nothing_is_asked_of_is_told_what_could_be(tmp_path, more):
    write_tiny_package(tmp_path / "tiny")
    with pytest.raises(ConfigInvalid, match="is a package already, and nothing is asked of it") as caught:
        cli.main([str(tmp_path / "tiny"), *more])
    assert "--triton" in caught.value.hint


def test_students_get_packages_of_their_own_beside_the_first(runs, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(package_from_runs, "package_from_runs", lambda *runs, **told: made.append((runs, told)))
    texture, detail = runs
    for name in ("small", "tiny"):
        shutil.copytree(detail, tmp_path / name)
    arguments = [str(texture), "--detail", str(detail), "--students", str(tmp_path / "small"), str(tmp_path / "tiny")]
    assert cli.main([*arguments, "-o", str(tmp_path / "mine"), "--name", "Mine"]) == 0
    assert [(given, told["id"], told["display_name"]) for given, told in made] == [
        ((texture, detail, tmp_path / "mine"), "mine", "Mine"),
        ((texture, tmp_path / "small", tmp_path / "mine-small"), "mine-small", "Mine, small"),
        ((texture, tmp_path / "tiny", tmp_path / "mine-tiny"), "mine-tiny", "Mine, tiny"),
    ]
    with pytest.raises(ConfigInvalid, match="'mine-No id' is no id of a model"):
        cli.main([str(texture), "--detail", str(detail), "-o", str(tmp_path / "mine"), "--students", "No id"])
    with pytest.raises(CheckpointInvalid):
        cli.main(
            [str(texture), "--detail", str(detail), "-o", str(tmp_path / "mine"), "--students", str(tmp_path / "none")]
        )
    assert len(made) == 3, "both were refused before anything was exported"
