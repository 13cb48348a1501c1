"""What a material's maps are made into by the processor; for devices see tests/runtime/test_finish.py."""

import numpy as np
import pytest

from assetgen.postprocess import pbr
from assetgen.postprocess.finishing import SOURCES, STRANGE, Terms, finished, material
from assetgen.types import MapKind


def maps(edge_px=16):
    rng = np.random.default_rng(1)
    return {kind: rng.random((edge_px, edge_px, channels), dtype=np.float32) for kind, channels in SOURCES.items()}


def test_normal_and_occlusion_are_those_of_height_and_the_rest_is_left_alone():
    given = maps()
    made = finished(given, Terms(4.0)).maps
    assert set(made) == set(MapKind)
    assert np.array_equal(made[MapKind.NORMAL], pbr.normal_from_height(given[MapKind.HEIGHT], 4.0))
    assert np.array_equal(
        made[MapKind.AMBIENT_OCCLUSION], pbr.ambient_occlusion_from_height(given[MapKind.HEIGHT], 4.0)
    )
    assert all(made[kind] is given[kind] for kind in SOURCES)


@pytest.mark.parametrize("kind", MapKind)
def test_only_what_is_wanted_is_made(kind):
    assert finished(maps(), Terms(1.0, wanted=frozenset([kind]))).maps.keys() == {kind}


def test_what_is_no_metal_has_none_and_roughness_moves_within_its_range():
    given = maps()
    made = finished(given, Terms(1.0, roughness_shift=0.5, metal=False)).maps
    assert not made[MapKind.METALLIC].any()
    assert np.array_equal(made[MapKind.ROUGHNESS], np.minimum(given[MapKind.ROUGHNESS] + np.float32(0.5), 1))


def test_pixels_of_a_device_are_a_material_unless_the_network_made_what_is_no_map():
    grey, color = np.zeros((1, 1, 4, 6), dtype=np.uint8), np.zeros((1, 4, 6, 3), dtype=np.uint8)
    outputs = {"roughness": grey, "base_color": color}
    made = material({**outputs, STRANGE: np.zeros(1, dtype=np.float32)}).maps
    assert {kind: pixels.shape for kind, pixels in made.items()} == {
        MapKind.BASE_COLOR: (4, 6, 3),
        MapKind.ROUGHNESS: (4, 6, 1),
    }
    with pytest.raises(ValueError, match=r"3 values are not in \[0, 1\]"):
        material({**outputs, STRANGE: np.float32([3])})
