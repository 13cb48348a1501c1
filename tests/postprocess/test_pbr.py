"""Derived maps: equivariance on the torus, geometry, ranges, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from assetgen.postprocess import pbr

EDGES = st.integers(1, 40)
HEIGHTS = st.tuples(EDGES, EDGES, st.just(1)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32), fill=st.just(0.25))
)
RELIEFS = st.floats(0, 64)
SHIFTS = st.tuples(st.integers(-50, 50), st.integers(-50, 50))


def bump(edge_px: int = 64) -> np.ndarray:
    """A smooth hill in the middle, [H, W, 1]."""
    axis = (np.arange(edge_px) + 0.5) / edge_px * 2 - 1
    x, y = np.meshgrid(axis, axis)
    return np.exp(-(x * x + y * y) * 8).astype(np.float32)[:, :, np.newaxis]


@given(HEIGHTS, RELIEFS, SHIFTS)
def test_rolling_the_height_rolls_normals_and_occlusion_bit_for_bit(height, relief_px, shift):
    rolled = np.roll(height, shift, (0, 1))
    for derive in (pbr.normal_from_height, pbr.ambient_occlusion_from_height):
        expected = np.roll(derive(height, relief_px), shift, (0, 1))
        assert derive(rolled, relief_px).tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(512, 384), (192, 320), (3, 700)])
def test_rolling_holds_at_sizes_that_are_worked_on_in_bands(shape):
    height = np.random.default_rng(1).random((*shape, 1), dtype=np.float32)
    rolled = np.roll(height, (17, 101), (0, 1))
    for derive in (pbr.normal_from_height, pbr.ambient_occlusion_from_height):
        assert np.array_equal(derive(rolled, 9.0), np.roll(derive(height, 9.0), (17, 101), (0, 1)))


@given(HEIGHTS, RELIEFS)
def test_normals_have_unit_length_and_face_outwards(height, relief_px):
    normal = pbr.normal_from_height(height, relief_px)
    assert normal.dtype == np.float32
    assert np.allclose(np.linalg.norm(normal, axis=2), 1, atol=1e-6)
    assert normal[:, :, 2].min() > 0
    assert np.abs(normal).max() <= 1


@given(HEIGHTS, RELIEFS)
def test_occlusion_stays_within_its_range(height, relief_px):
    occlusion = pbr.ambient_occlusion_from_height(height, relief_px)
    assert occlusion.dtype == np.float32
    assert occlusion.min() >= 0
    assert occlusion.max() <= 1


@given(st.floats(0, 1, width=32), RELIEFS, EDGES, EDGES)
def test_a_flat_height_is_exactly_flat_and_open(level, relief_px, rows, columns):
    height = np.full((rows, columns, 1), level, dtype=np.float32)
    assert np.array_equal(pbr.normal_from_height(height, relief_px), np.broadcast_to([0, 0, 1], (rows, columns, 3)))
    assert np.all(pbr.ambient_occlusion_from_height(height, relief_px) == 1)


def test_normals_of_a_bump_lean_away_from_its_top():
    normal = pbr.normal_from_height(bump(), 8.0)
    assert normal[20, 32, 1] > 0.1  # the upper slope looks up
    assert normal[44, 32, 1] < -0.1
    assert normal[32, 20, 0] < -0.1  # the left slope looks left
    assert normal[32, 44, 0] > 0.1


def test_a_ramp_has_the_slope_that_relief_says():
    height = np.broadcast_to((np.arange(64, dtype=np.float32) / 64)[np.newaxis, :, np.newaxis], (64, 64, 1)).copy()
    normal = pbr.normal_from_height(height, 64.0)  # rises one pixel a pixel
    assert np.allclose(normal[:, 1:-1], [-math.sqrt(0.5), 0, math.sqrt(0.5)], atol=1e-6)


def test_a_surface_sampled_twice_as_finely_needs_twice_the_relief():
    def hills(edge_px: int) -> np.ndarray:
        axis = (np.arange(edge_px) + 0.5) / edge_px * 2 * math.pi
        return (0.5 + 0.25 * (np.sin(axis)[:, None] + np.cos(2 * axis)[None, :])).astype(np.float32)[:, :, None]

    coarse = pbr.normal_from_height(hills(128), 20.0)
    fine = pbr.normal_from_height(hills(256), 40.0).reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(coarse - fine).max() < 0.01


def test_a_pit_is_dark_and_a_hill_is_open():
    pit, hill = pbr.ambient_occlusion_from_height(1 - bump(), 32.0), pbr.ambient_occlusion_from_height(bump(), 32.0)
    assert pit[32, 32, 0] < 0.6
    assert hill[32, 32, 0] == 1
    assert hill[32, 46, 0] < 0.98  # its foot sees less


def test_the_bottom_of_a_trench_sees_what_geometry_says():
    """Between walls of height 4 at distance 4 the horizon is 45 degrees on six of eight directions."""
    height = np.ones((64, 64, 1), dtype=np.float32)
    height[:, 29:36] = 0  # floor; walls begin 4 px from column 32
    seen = pbr.ambient_occlusion_from_height(height, 4.0, radii_px=(4,))[32, 32, 0]
    diagonal = 1 / (1 + 0.5)  # the wall is 4 * sqrt(2) away
    assert seen == pytest.approx((2 * 1 + 2 * 0.5 + 4 * diagonal) / 8, abs=1e-6)


def test_stronger_relief_occludes_more():
    height = np.random.default_rng(2).random((32, 32, 1), dtype=np.float32)
    faint, strong = (pbr.ambient_occlusion_from_height(height, relief) for relief in (1.0, 4.0))
    assert np.all(strong <= faint)


@pytest.mark.parametrize("derive", [pbr.normal_from_height, pbr.ambient_occlusion_from_height])
@pytest.mark.parametrize(
    ("height", "relief_px"),
    [
        (np.zeros((8, 8), np.float32), 1.0),
        (np.zeros((8, 8, 3), np.float32), 1.0),
        (np.full((8, 8, 1), 1.5, np.float32), 1.0),
        (np.full((8, 8, 1), np.nan, np.float32), 1.0),
        (np.zeros((8, 8, 1), np.float32), -1.0),
        (np.zeros((8, 8, 1), np.float32), math.nan),
        (np.zeros((8, 8, 1), np.float32), math.inf),
    ],
)
def test_bad_heights_and_reliefs_are_refused(derive, height, relief_px):
    with pytest.raises(ValueError, match=r"height|relief_px"):
        derive(height, relief_px)


@pytest.mark.parametrize("radii_px", [(), (0, 1), (2, 2), (4, 1)])
def test_bad_radii_are_refused(radii_px):
    with pytest.raises(ValueError, match="radii_px"):
        pbr.ambient_occlusion_from_height(bump(8), 1.0, radii_px)
