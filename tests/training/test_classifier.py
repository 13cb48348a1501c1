"""Training the classifier that judges."""

import json

import numpy as np
import pytest

from assetgen.datasets.pack import pack
from assetgen.errors import ConfigInvalid, DataInvalid
from assetgen.metrics.features import examine, load_classifier
from assetgen.training.batches import Reals
from assetgen.training.classifier import ClassifierRecipe, balanced_crops, train_classifier
from assetgen.training.recipe import TextureRecipe
from tests.helpers.tiny_runs import picture, save

RECIPE = ClassifierRecipe(
    TextureRecipe(min_contrast=0, scan_px=40, trim_px=1, crop_px=32, batch=8, precision="fp32"),
    widths=(8, 16),
    learning_rate=0.01,
    validation_crops=4,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    for hue, name in enumerate(("brick", "metal")):
        for n in range(8):
            save(folder / "pictures" / name / f"p{n}.png", picture(10 * hue + n, 40, hue))
    save(folder / "pictures" / "wood" / "p.png", picture(99, 40, 2))
    pack(folder / "pictures", folder / "data.zip", license="CC0-1.0", validation_share=0.3)
    return folder / "data.zip"


def test_what_it_learns_it_tells_apart_and_the_file_says_how(data, tmp_path):
    said = []
    output = tmp_path / "own.safetensors"
    facts = train_classifier(data, output, 1, steps=60, recipe=RECIPE, notify=said.append)
    assert facts["classes"] == ["brick", "metal"], "wood has no picture for validation"
    assert facts["accuracy"]["mean"] > 0.9
    assert "accuracy on validation crops" in said[-1]
    known = json.loads(output.with_suffix(".json").read_text("utf-8"))
    assert known["data"]["licenses"] == {"CC0-1.0": known["data"]["train_pictures"]}
    assert known["recipe"]["learning_rate"] == 0.01
    instrument = load_classifier(output)
    new = np.stack([picture(500 + n, 32, hue) for n in range(8) for hue in (0, 1)])
    assert (examine(instrument, new)[1].argmax(axis=1) == np.tile([0, 1], 8)).mean() > 0.9


def test_the_same_seed_and_steps_give_the_same_file(data, tmp_path):
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for file in files:
        train_classifier(data, file, 1, steps=3, recipe=RECIPE)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_crops_take_every_picture_equally_often_and_follow_the_seed():
    pictures = tuple(np.full((40, 40, 3), 10 * n, np.uint8) for n in range(4))
    reals = Reals(("a",), (pictures,), (("",) * 4,), np.ones(1))
    crops = balanced_crops(reals, 0, 12, 32, seed=1)
    assert sorted(crops[:, 0, 0, 0].tolist()) == sorted([0, 10, 20, 30] * 3)
    assert np.array_equal(crops, balanced_crops(reals, 0, 12, 32, seed=1))
    assert not np.array_equal(crops, balanced_crops(reals, 0, 12, 32, seed=2))


def test_bad_input_is_refused(data, tmp_path):
    output = tmp_path / "own.safetensors"
    with pytest.raises(ConfigInvalid, match="must end in"):
        train_classifier(data, tmp_path / "own.pth", 1)
    with pytest.raises(ConfigInvalid, match="--minutes 0"):
        train_classifier(data, output, 0)
    with pytest.raises(DataInvalid, match="wood: no picture"):
        train_classifier(data, output, 1, classes=("brick", "wood"), recipe=RECIPE)
    with pytest.raises(DataInvalid, match="1 classes"):
        train_classifier(data, output, 1, classes=("brick",), recipe=RECIPE)
    with pytest.raises(DataInvalid, match="'glass' is not in"):
        train_classifier(data, output, 1, classes=("glass",), recipe=RECIPE)
    assert list(tmp_path.iterdir()) == []
