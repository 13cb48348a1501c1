"""Comparing models by their figures."""

import json

import pytest

from assetgen.errors import ConfigInvalid
from assetgen.training import evaluate
from assetgen.training.compare import COLUMNS, comparison


def write(folder, stem, swd=200.0, real=150.0, classes=("brick",), **changes):
    figures = {key: {"fake": 0.5, "real": 0.6} for key, _, _ in COLUMNS}
    figures |= {"swd": {"fake": swd, "real": real}, "kid": {"fake": None, "real": None}}
    report = {"classes": {name: {} for name in classes}, "all": figures, "weights": 1_500_000, "ms_per_picture": 12.34}
    (folder / f"{stem}.json").write_text(json.dumps(report | changes))
    return folder / f"{stem}.json"


def test_a_row_a_model_and_one_of_reals(tmp_path, capsys):
    files = [write(tmp_path, "teacher"), write(tmp_path, "student", 234.4)]
    assert evaluate.main(["compare", *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| model | weights | ms a picture | accuracy | SWD |")
    assert "KID" not in lines[0], "nobody has it"
    assert lines[2].startswith("| teacher | 1.50 M | 12.3 | 0.50 | 200 |")
    assert "| 234 |" in lines[3]
    assert lines[4].startswith("| real pictures |  |  | 0.60 | 150 |")


def test_reals_that_differ_are_left_out(tmp_path):
    files = [write(tmp_path, "a"), write(tmp_path, "b", real=170.0)]
    assert "real pictures" not in comparison(files)


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(ConfigInvalid, match="different classes"):
        comparison([write(tmp_path, "a"), write(tmp_path, "b", classes=("wood",))])
    (tmp_path / "c.json").write_text("{}")
    for path in (tmp_path / "c.json", tmp_path / "none.json"):
        with pytest.raises(ConfigInvalid, match="holds no figures"):
            comparison([path])
