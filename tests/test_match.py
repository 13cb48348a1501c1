"""Matching a photo: what counts as near, what the search does, and its answer as a request."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from assetgen import cli, match
from assetgen.errors import ConfigInvalid, ImageInvalid
from assetgen.local import open_local
from assetgen.manifest import ParameterSpec
from assetgen.types import Artifact, Encoding, MapKind, OutputSpec, Request
from tests.helpers.serving import write_model

WARMTH = ParameterSpec("warmth", "Warmth", "Blue or yellow.", "float", "Look", minimum=-1.0, maximum=1.0, default=0.0)
TINT = ParameterSpec("tint", "Tint", "Green or red.", "float", "Look", minimum=-0.5, maximum=0.5, default=0.0)


def noise(seed, *, scale=40, mean=(120, 120, 120), edge=64):
    rng = np.random.default_rng(seed)
    grey = rng.normal(0, scale, (edge, edge, 1))
    return np.clip(np.array(mean) + grey, 0, 255).astype(np.uint8)


def test_equal_pictures_are_at_distance_zero_wherever_they_begin():
    picture = noise(0)
    found = match.features(picture)
    assert match.distance(found, found) == 0
    assert match.distance(found, match.features(np.roll(picture, (16, 32), axis=(0, 1)))) == pytest.approx(0, abs=1e-9)


def test_the_distance_of_flat_colours_is_that_of_their_channels():
    """0.2 in all channels: along the three axes 0.2, along a fixed direction 0.2 times the sum of its parts."""
    dark, light = (match.features(np.full((64, 64, 3), value, np.uint8)) for value in (51, 102))
    axes = np.random.Generator(np.random.Philox(key=[0, 0])).standard_normal((3, match.DIRECTIONS))
    axes /= np.linalg.norm(axes, axis=0)
    expected = 0.2 * (3 + np.abs(axes.sum(axis=0)).sum()) / (3 + match.DIRECTIONS)
    assert match.distance(dark, light) == pytest.approx((1 - match.STRUCTURE_SHARE) * expected)


def test_what_looks_nearer_is_nearer():
    wanted = match.features(noise(0))

    def far(picture):
        return match.distance(wanted, match.features(picture))

    other_seed = far(noise(1))
    assert other_seed < far(noise(1, scale=60))  # contrast
    assert other_seed < far(noise(1, mean=(140, 120, 100)))  # colour
    smooth = np.repeat(np.repeat(noise(1, edge=32), 2, axis=0), 2, axis=1)
    assert other_seed < far(smooth)  # grain


def test_sliders_are_tuned_to_the_nearest_within_their_ranges():
    def judge(seed, parameters):
        missed = abs(parameters.get("warmth", 0.0) - 0.375) + abs(parameters.get("tint", 0.0) + 0.9)
        return match.Candidate(seed, parameters, missed)

    best = match.tune(judge, judge(5, {"class": "clay"}), [WARMTH, TINT])
    assert best.parameters == {"class": "clay", "warmth": 0.375, "tint": -0.5}
    assert best.seed == 5


def test_tuning_keeps_what_cannot_be_improved():
    start = match.Candidate(5, {}, 0.1)
    assert match.tune(lambda seed, parameters: match.Candidate(seed, parameters, 0.1), start, [WARMTH]) is start


def test_the_middle_of_a_photo_counts(tmp_path):
    pixels = np.zeros((128, 384, 3), np.uint8)
    pixels[:, 128:256] = 200
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    assert np.array_equal(match.read_photo(tmp_path / "photo.png"), np.full((128, 128, 3), 200, np.uint8))


def test_what_is_no_photo_is_refused(tmp_path):
    small, text = tmp_path / "small.png", tmp_path / "text.png"
    Image.new("RGB", (500, 127)).save(small)
    text.write_text("no picture")
    with pytest.raises(ImageInvalid, match="500 x 127 px; each edge needs 128"):
        match.read_photo(small)
    with pytest.raises(ImageInvalid, match="none of PNG"):
        match.read_photo(text)
    with pytest.raises(ImageInvalid, match=r"absent\.png cannot be read"):
        match.read_photo(tmp_path / "absent.png")


@pytest.fixture
def photo(tmp_path):
    """A picture that the tiny model itself makes."""
    folder = tmp_path / "models"
    write_model(folder)
    output = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)
    asked = Request("tiny", 12, width_px=256, height_px=256, parameters={"class": "steel"}, output=output)
    with open_local([folder], "cpu", 1) as maker:
        made = next(event for event in maker.generate(asked) if isinstance(event, Artifact))
    Image.frombytes("RGB", (256, 256), made.data).save(tmp_path / "photo.png")
    return folder, tmp_path / "photo.png"


def search(folder, picture, output, **changes):
    options = {"class_name": "", "tries": 3, "seed": 1, "say": lambda _: None} | changes
    with open_local([folder], "cpu", 1) as maker:
        return match.match(maker, maker.model("tiny"), picture, output, **options)


def test_the_answer_is_a_request_and_a_picture(photo, tmp_path):
    first, again = (search(*photo, tmp_path / name) for name in ("a", "b"))
    assert first == again
    result = json.loads((tmp_path / "a" / "match.json").read_text())
    assert (result["model"], result["seed"], result["parameters"]) == ("tiny", first.seed, dict(first.parameters))
    assert result["distance"] <= result["nearest_seed"]["distance"]
    assert (tmp_path / "a" / "match.png").read_bytes() == (tmp_path / "b" / "match.png").read_bytes()


def test_more_tries_never_end_further_away(photo, tmp_path):
    few, many = (search(*photo, tmp_path, class_name="steel", tries=tries) for tries in (1, 8))
    assert many.distance <= few.distance
    assert many.parameters == {"class": "steel"}


def test_no_tries_are_refused(photo, tmp_path):
    with pytest.raises(ConfigInvalid, match="--tries 0 is not allowed"):
        search(*photo, tmp_path, tries=0)


def test_only_models_for_materials_match_a_photo(photo, tmp_path):
    folder, picture = photo
    with open_local([folder], "cpu", 1) as maker:
        other = replace(maker.model("tiny"), kind="sprite")
        with pytest.raises(ConfigInvalid, match="'tiny' is of kind 'sprite'"):
            match.match(maker, other, picture, tmp_path, class_name="", tries=1, seed=1, say=print)


def test_the_command_prints_the_request(photo, tmp_path, capsys):
    folder, picture = photo
    output = tmp_path / "out"
    arguments = ["match", str(picture), "--models", str(folder), "--device", "cpu", "--tries", "1", "-o", str(output)]
    assert cli.main(arguments) == 0
    seed = json.loads((output / "match.json").read_text())["seed"]
    said = capsys.readouterr().out
    assert f"assetgen generate --model tiny --seed {seed} --param class=" in said
    assert said.rstrip().endswith(f' --models "{folder}"'), "without it the command finds no such model"
