"""What does not belong together never becomes a package."""

import pytest

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from export import cli
from tests.export.test_export import copy_of, package


def test_runs_of_different_classes_are_refused(runs, tmp_path):
    other = copy_of(runs[1], tmp_path / "detail", facts={"classes": ["metal", "stone"]})
    with pytest.raises(CheckpointInvalid, match="knows brick, metal; the detail run does not know brick") as caught:
        package((runs[0], other), tmp_path / "p")
    assert "--like brick=CLASS" in caught.value.hint


def test_runs_of_different_texel_densities_are_refused(runs, tmp_path):
    other = copy_of(runs[1], tmp_path / "detail", recipe={"scan_px": 64})
    with pytest.raises(CheckpointInvalid, match="texel densities differ: scan_px 32 and 64"):
        package((runs[0], other), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_what_is_no_run_is_refused(runs, tmp_path):
    with pytest.raises(CheckpointInvalid, match="is not a checkpoint"):
        package((tmp_path, runs[1]), tmp_path / "p")


def test_runs_in_the_wrong_order_are_refused(runs, tmp_path):
    with pytest.raises(ConfigInvalid, match=r"recipe key .* is not known"):
        package((runs[1], runs[0]), tmp_path / "p")


def test_a_licence_needs_its_text(runs, tmp_path):
    arguments = [str(runs[0]), "--detail", str(runs[1]), "-o", str(tmp_path / "p")]
    with pytest.raises(ConfigInvalid, match=r"no text for licence CC-BY-4\.0"):
        cli.main([*arguments, "--license", "CC-BY-4.0"])
    with pytest.raises(ConfigInvalid, match=r"no text for licence Apache-2\.0"):
        cli.main([*arguments, "--license-file", str(tmp_path / "nothing")])
    with pytest.raises(ConfigInvalid, match="nothing cannot be read"):
        cli.main([*arguments, "--notes", str(tmp_path / "nothing")])
    assert list(tmp_path.iterdir()) == []
