"""The preview of a model that takes a picture."""

import numpy as np
import pytest
from PIL import Image

from assetgen.errors import ConfigInvalid
from assetgen.runtime import open_session
from export.image_preview import preview_of, read_examples
from tests.helpers.style_package import photo, saved, style_manifest, write_style_package


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    manifests = [style_manifest(), style_manifest("photo", maps=True)]
    return [(open_session(write_style_package(folder, m), "cpu", threads=1), m) for m in manifests]


def drawn(path, session, manifest, examples):
    preview_of(examples)(path, session, manifest)
    with Image.open(path) as preview:
        return np.asarray(preview.convert("RGB"))


def test_every_look_stands_beside_its_picture(sessions, tmp_path):
    pixels = drawn(tmp_path / "preview.png", *sessions[0], [saved(photo(64)), saved(photo(64, seed=3))])
    assert pixels.shape == (2 * 85, 3 * 85, 3)  # two pictures, two looks
    first, pixel, retro = (pixels[:85, 85 * n : 85 * (n + 1)].astype(int) for n in range(3))
    expected = np.asarray(Image.fromarray(photo(64)).resize((85, 85), Image.Resampling.NEAREST))
    assert np.array_equal(first, expected)
    assert np.abs(first - pixel).mean() > 2
    assert np.abs(pixel - retro).mean() > 2
    assert (pixels[:85] != pixels[85:]).any()


def test_maps_stand_beside_their_photo(sessions, tmp_path):
    pixels = drawn(tmp_path / "preview.png", *sessions[1], [saved(photo(48, 64))])
    assert pixels.shape == (64, 4 * 64, 3)
    assert pixels[:, 64:128, 2].mean() > 200  # normals are blue


def test_without_examples_a_drawn_picture_is_shown(sessions, tmp_path):
    pixels = drawn(tmp_path / "preview.png", *sessions[0], [])
    assert pixels.shape == (85, 3 * 85, 3)
    assert pixels[:, :85].std() > 20


def test_pictures_that_no_model_takes_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(photo(16)))
    (tmp_path / "text.png").write_bytes(b"no picture")
    (tmp_path / "large.png").write_bytes(saved(photo(16, 520)))
    assert read_examples([tmp_path / "a.png"]) == (saved(photo(16)),)
    for name, message in (("text.png", "none of PNG"), ("large.png", "too large"), ("none.png", "cannot be read")):
        with pytest.raises(ConfigInvalid, match=message):
            read_examples([tmp_path / name])
    with pytest.raises(ConfigInvalid, match="use 4 at most"):
        read_examples([tmp_path / "a.png"] * 5)
