"""``assetgen eval style`` as it is typed."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from assetgen import cli as assetgen
from assetgen.datasets.pack import pack
from assetgen.errors import CheckpointInvalid, ConfigInvalid, DataInvalid, OutputUnwritable
from assetgen.training import cli, evaluate
from tests.helpers.tiny_runs import TEXTURE, picture, save
from tests.helpers.tiny_styles import CHANGES, TINY

METHODS = ("patches", "cyclegan", "stargan")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A training file with both splits, and a run of each method."""
    folder = tmp_path_factory.mktemp("looks")
    for hue, name in enumerate(("brick", "metal")):
        for n in range(10):
            save(folder / "pictures" / name / f"p{n}.png", picture(10 * hue + n, 48, hue))
    pack(folder / "pictures", folder / "data.zip", license="CC0-1.0", validation_share=0.3)
    for method in METHODS:
        values = {**TINY, **CHANGES[method], "crop_px": 40, "total_kimg": 0.004}
        options = [f"--set={key}={json.dumps(value)}" for key, value in values.items()]
        words = ["style", "--family", method, "--data", str(folder / "data.zip"), "--run", str(folder / method)]
        assert cli.main([*words, *options, "--device", "cpu"]) == 0
    return folder


def judge(place, run, *options, data="data.zip"):
    words = ["style", str(place / run), "--data", str(place / data), "--count", "8", "--judge-steps", "3"]
    return evaluate.main([*words, *options])


@pytest.mark.parametrize(
    ("run", "ways"),
    [
        ("patches", {"brick to metal"}),
        ("cyclegan", {"brick to metal", "metal to brick"}),
        ("stargan", {"brick to metal", "metal to brick"}),
    ],
)
def test_every_way_of_a_run_is_measured(place, tmp_path, capsys, run, ways):
    assert judge(place, run, "--json", str(tmp_path / "a.json"), "--sheet", str(tmp_path / "a.png")) == 0
    said = capsys.readouterr().out
    known = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert known["ways"].keys() == ways
    assert all(way in said for way in ways)
    assert "taken for the target" in said
    assert known["kimg"] == 0.004
    assert known["notes"] == []
    for figures in known["ways"].values():
        assert set(figures["swd"]) == set(figures["gram"]) == set(figures["told"]) == {"results", "inputs", "real"}
        assert figures["swd"]["real"] > 0
        assert 0 <= figures["told"]["results"] <= 1
        assert figures["change"] > 0
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width == (2 + len(ways)) * 130
        pixels = np.asarray(sheet)
    assert min(pixels[16:, column * 130 : column * 130 + 128].std() for column in range(2 + len(ways))) > 5


def test_the_same_seed_gives_the_same_figures_and_another_others(place, tmp_path):
    files = [tmp_path / f"{n}.json" for n in range(3)]
    for file, seed in zip(files, ("5", "5", "6"), strict=True):
        judge(place, "patches", "--seed", seed, "--json", str(file))
    same, again, other = (json.loads(file.read_text("utf-8"))["ways"] for file in files)
    assert same == again
    assert same != other


def test_one_look_can_be_led_alone(place, tmp_path):
    judge(place, "stargan", "--source", "metal", "--json", str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["ways"].keys() == {"metal to brick"}
    with pytest.raises(ConfigInvalid, match="--source slate is no look of this run; it knows brick, metal"):
        judge(place, "stargan", "--source", "slate")
    with pytest.raises(ConfigInvalid, match="this run leads one way only, from brick"):
        judge(place, "patches", "--source", "metal")


def test_another_training_file_is_noted(place, capsys):
    pack(place / "pictures", place / "other.zip", license="CC0-1.0", validation_share=0.4)
    judge(place, "patches", data="other.zip")
    assert "note: the run was trained on another file" in capsys.readouterr().out


def test_pictures_for_validation_are_needed(place):
    pack(place / "pictures", place / "all.zip", license="CC0-1.0", validation_share=0.0)
    with pytest.raises(DataInvalid, match="no validation picture of brick, metal"):
        judge(place, "patches", data="all.zip")


def test_crops_too_small_to_be_measured_are_refused(place, tmp_path):
    values = {**TINY, **CHANGES["stargan"], "total_kimg": 0.002}  # 16 px once the border is cut off
    options = [f"--set={key}={json.dumps(value)}" for key, value in values.items()]
    words = ["style", "--family", "stargan", "--data", str(place / "data.zip"), "--run", str(tmp_path / "small")]
    assert cli.main([*words, *options, "--device", "cpu"]) == 0
    with pytest.raises(ConfigInvalid, match="crops of 16 px; figures need 24 or more"):
        evaluate.main(["style", str(tmp_path / "small"), "--data", str(place / "data.zip")])


def test_what_is_no_run_of_style_transfer_is_refused(place, tmp_path):
    with pytest.raises(CheckpointInvalid, match="holds no checkpoint"):
        judge(place, "pictures")
    options = [f"--set={key}={json.dumps(value)}" for key, value in asdict(replace(TEXTURE, total_kimg=0.004)).items()]
    words = ["texture", "--data", str(place / "data.zip"), "--run", str(tmp_path / "texture"), "--device", "cpu"]
    cli.main([*words, *options])
    with pytest.raises(CheckpointInvalid, match="is not a run of style transfer"):
        evaluate.main(["style", str(tmp_path / "texture"), "--data", str(place / "data.zip")])


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (("--count", "7"), ConfigInvalid, "--count 7 is not allowed; use 8 or more"),
        (("--judge-steps", "0"), ConfigInvalid, "--judge-steps 0"),
        (("--seed", "-1"), ConfigInvalid, "--seed -1"),
        (("--json", "no/where.json"), OutputUnwritable, "its folder does not exist"),
        (("--sheet", "no/where.png"), OutputUnwritable, "its folder does not exist"),
    ],
)
def test_bad_options_are_refused_before_anything_is_done(place, options, kind, text):
    with pytest.raises(kind, match=text):
        judge(place, "patches", *options)


def test_the_command_is_found_from_the_top(place, capsys):
    words = ["eval", "style", str(place / "patches"), "--data", str(place / "data.zip")]
    assert assetgen.main([*words, "--count", "8", "--judge-steps", "2", "--threads", "1"]) == 0
    assert "told right by the judge, of held-back pictures: brick" in capsys.readouterr().out
