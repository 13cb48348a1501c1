"""What a report shows of a request, by kind: maps, sprites on their ground, meshes as they look."""

import importlib.util

import numpy as np
import pytest

from assetgen.deploy_pictures import ALPHA, COLOR, DISTANCE, MESH, NORMALS, pictures_of
from assetgen.postprocess.sprites import DARK_SQUARE, LIGHT_SQUARE
from tests.helpers.mesh_package import ball, write_mesh_package
from tests.helpers.tiny_package import OUTPUTS, tiny_manifest
from tests.helpers.tiny_sprites import EDGE_PX, sprite_manifest

INPUTS = {"class_weights": np.float32([[0.0, 1.0]])}


def flat_maps():
    return {name: np.full((1, channels, 8, 8), 0.25, np.float32) for name, channels in OUTPUTS}


def test_maps_come_as_they_are_with_normals_of_the_height():
    found = pictures_of(tiny_manifest(), INPUTS, flat_maps())
    assert list(found) == ["base_color", "height", NORMALS, "roughness", "metallic"]
    assert np.array_equal(found["base_color"], flat_maps()["base_color"][0])
    assert np.allclose(found[NORMALS], np.float32([0.5, 0.5, 1.0])[:, None, None]), "level ground"


def test_numbers_that_are_not_finite_are_shown_as_they_are():
    maps = flat_maps()
    maps["height"][0, 0, 0, 0] = np.nan
    assert NORMALS not in pictures_of(tiny_manifest(), INPUTS, maps)
    sprite = np.full((1, 4, EDGE_PX, EDGE_PX), np.nan, np.float32)
    assert list(pictures_of(sprite_manifest(), {}, {"sprite": sprite})) == ["sprite"]


def test_sprites_lie_on_squares():
    """The left half is opaque red, the right half is not there."""
    sprite = np.zeros((1, 4, EDGE_PX, EDGE_PX), np.float32)
    sprite[0, [0, 3], :, : EDGE_PX // 2] = 1
    found = pictures_of(sprite_manifest(), {}, {"sprite": sprite})
    assert found["sprite"].shape == (3, EDGE_PX, EDGE_PX)
    left, right = np.split(np.rint(found["sprite"] * 255), 2, axis=2)
    assert {tuple(color) for color in left.reshape(3, -1).T} == {(255, 0, 0)}
    assert {tuple(color) for color in right.reshape(3, -1).T} == {(value,) * 3 for value in (LIGHT_SQUARE, DARK_SQUARE)}
    assert np.array_equal(found[ALPHA], sprite[0, 3:])


@pytest.fixture
def solids(tmp_path):
    return write_mesh_package(tmp_path).manifest


def test_volumes_are_drawn_as_the_mesh_that_is_in_them(solids):
    pytest.importorskip("skimage")
    pytest.importorskip("fast_simplification")
    volume = ball(6.0)[None].astype(np.float32)
    found = pictures_of(solids, {}, {"volume": volume})
    assert [(name, len(values)) for name, values in found.items()] == [(MESH, 3), (DISTANCE, 1), (COLOR, 3)]
    ground, middle = found[MESH][:, 0, 0], found[MESH][:, 128, 128]
    assert np.ptp(ground) == 0
    assert middle[1] < middle[0], "the ball is red and blue above its middle, not green"
    nothing = np.ones_like(volume)
    assert np.ptp(pictures_of(solids, {}, {"volume": nothing})[MESH]) == 0


def test_without_the_libraries_volumes_are_shown_as_slices(solids, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert list(pictures_of(solids, {}, {"volume": ball(3.0)[None].astype(np.float32)})) == [DISTANCE, COLOR]
