"""Figures of a sprite model come from reports of its own run, in order, or not at all."""

import pytest

from assetgen.errors import ConfigInvalid
from export.sprite_figures import figures_from_reports
from tests.helpers.reports import CLASSES, NAMES, write_report


def test_the_curve_goes_from_narrow_to_wide_and_figures_are_the_widest(tmp_path):
    paths = [write_report(tmp_path, "items", bound) for bound in (1.0, None, 0.5)]
    figures = figures_from_reports(paths, "items", CLASSES)
    assert figures["figures"]["accuracy"] == {"fake": 0.6, "real": 0.9}
    assert figures["edges"]["rim"] == {"fake": 3.0, "real": 2.0}
    assert [(point["truncation"], point["accuracy"]) for point in figures["curve"]] == [
        (0.25, pytest.approx(0.9)),
        (0.5, pytest.approx(0.8)),
        (None, pytest.approx(0.6)),
    ]
    assert "seam" not in figures["figures"]


def test_what_was_not_measured_is_left_out(tmp_path):
    unknown = {name: {"fake": None if name == "accuracy" else 0.2, "real": 0.1} for name in NAMES}
    figures = figures_from_reports([write_report(tmp_path, "items", all=unknown, edges={})], "items", CLASSES)
    assert "accuracy" not in figures["figures"]
    assert "accuracy" not in figures["curve"][0]
    assert figures["edges"] == {}
    assert figures_from_reports([], "items", CLASSES) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "others"}, "is of 'others'"),
        ({"schema": 2}, "is no report"),
        ({"truncation": 3.0}, "bounds up to 2"),
        ({"truncation": "half"}, "bounds up to 2"),
        ({"truncation": 0}, "bounds up to 2"),
        ({"classes": {"gem": {}}}, "judges gem; the package offers gem, potion, sword"),
        ({"classes": {}}, "judges ; the package"),
        ({"all": {}}, "lacks"),
        ({"all": None}, "lacks"),
    ],
)
def test_what_is_no_report_of_the_run_is_refused(tmp_path, changes, said):
    with pytest.raises(ConfigInvalid, match=said):
        figures_from_reports([write_report(tmp_path, "items", **changes)], "items", CLASSES)


@pytest.mark.parametrize("text", ["", "[1]", "3", "{}"])
def test_files_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "figures.json").write_text(text)
    with pytest.raises(ConfigInvalid, match=r"figures\.json"):
        figures_from_reports([tmp_path / "figures.json"], "items", CLASSES)


def test_reports_of_one_curve_tell_of_the_same_figures(tmp_path):
    unknown = {name: {"fake": None if name == "accuracy" else 0.2, "real": 0.1} for name in NAMES}
    paths = [write_report(tmp_path, "items", 1.0), write_report(tmp_path, "items", all=unknown)]
    with pytest.raises(ConfigInvalid, match="the same figures"):
        figures_from_reports(paths, "items", CLASSES)


def test_one_truncation_twice_is_refused(tmp_path):
    path = write_report(tmp_path, "items", 1.0)
    with pytest.raises(ConfigInvalid, match="same truncation"):
        figures_from_reports([path, path], "items", CLASSES)
