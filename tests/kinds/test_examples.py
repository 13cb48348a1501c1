"""The drawn picture: the same everywhere, and a tile."""

import hashlib

import numpy as np
import pytest

from assetgen.kinds.examples import example_parameters, example_picture
from assetgen.postprocess.decode import decode_picture
from assetgen.postprocess.tiling import repeats
from tests.helpers.style_package import style_manifest
from tests.helpers.tiny_package import tiny_manifest


def pixels(width_px, height_px):
    return np.round(decode_picture(example_picture(width_px, height_px), 1, 4096).color * 255).astype(np.uint8)


def test_its_pixels_are_what_golden_requests_were_recorded_with():
    digest = hashlib.sha256(pixels(96, 64).tobytes()).hexdigest()
    assert digest == "d76f8a338a7dfe94e000e7966a69ac09e1b050d7f7dcd1af0940125ae07a702b"


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (160, 96), (256, 256)])
def test_it_tiles_and_shows_bricks_and_joints(size):
    found = pixels(*size)
    assert found.shape == (size[1], size[0], 3)
    assert repeats(found.astype(np.float32) / 255) == (True, True)
    assert found.std() > 20


def test_only_models_that_take_a_picture_are_given_one():
    assert example_parameters(tiny_manifest(), 64, 64) == {}
    given = example_parameters(style_manifest(), 0, 32)
    assert given["tiles"] == "yes"
    assert decode_picture(given["image"], 1, 4096).color.shape == (32, 64, 3)
