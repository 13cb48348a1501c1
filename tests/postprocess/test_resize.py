"""Wrapped resizing: equivariance, exactness, coding of colours and normals, mips, bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen.postprocess import resize
from assetgen.postprocess.finishing import Terms, finished
from assetgen.types import MapKind, Material


def material(rows: int, columns: int, seed: int = 0) -> Material:
    """A complete material of noise."""
    random = np.random.default_rng(seed)
    maps = {kind: random.random((rows, columns, 1), dtype=np.float32) for kind in MapKind}
    maps[MapKind.BASE_COLOR] = random.random((rows, columns, 3), dtype=np.float32)
    del maps[MapKind.NORMAL], maps[MapKind.AMBIENT_OCCLUSION]
    return finished(maps, Terms(2.0))


def rolled(maps: Material, shift: tuple[int, int]) -> Material:
    return Material({kind: np.roll(values, shift, (0, 1)) for kind, values in maps.maps.items()})


def assert_same(first: Material, second: Material) -> None:
    assert first.maps.keys() == second.maps.keys()
    for kind, values in first.maps.items():
        assert values.dtype == np.float32
        # sRGB's power runs in vectors and remainders, which may differ by an ulp: everything else is bit-exact.
        assert np.abs(values - second.maps[kind]).max() <= (3e-7 if kind is MapKind.BASE_COLOR else 0), kind


FACTORS = st.integers(1, 5)
CELLS = st.integers(1, 9)
SHIFTS = st.tuples(st.integers(-9, 9), st.integers(-9, 9))


@given(FACTORS, st.tuples(CELLS, CELLS), SHIFTS, st.integers(0, 9), st.sampled_from(["mean", "max"]))
def test_shrinking_follows_rolls_by_whole_cells(factor, cells, shift, seed, height_filter):
    maps = material(cells[0] * factor, cells[1] * factor, seed)
    moved = rolled(maps, (shift[0] * factor, shift[1] * factor))
    assert_same(resize.shrink(moved, factor, height_filter), rolled(resize.shrink(maps, factor, height_filter), shift))


@given(FACTORS, CELLS, CELLS, SHIFTS, st.integers(0, 9))
def test_enlarging_follows_rolls(factor, rows, columns, shift, seed):
    maps = material(rows, columns, seed)
    expected = rolled(resize.enlarge(maps, factor), (shift[0] * factor, shift[1] * factor))
    assert_same(resize.enlarge(rolled(maps, shift), factor), expected)


@given(st.integers(0, 4), SHIFTS, st.integers(0, 9))
def test_every_mip_follows_rolls_by_its_cells(number, shift, seed):
    maps = material(32, 16, seed)
    moved = rolled(maps, (shift[0] << number, shift[1] << number))
    assert_same(resize.mip_chain(moved)[number], rolled(resize.mip_chain(maps)[number], shift))


def test_mips_halve_down_to_one_pixel():
    chain = resize.mip_chain(material(32, 16))
    assert [level.maps[MapKind.HEIGHT].shape[:2] for level in chain] == [(32, 16), (16, 8), (8, 4), (4, 2), (2, 1)]


@given(FACTORS, CELLS, CELLS, st.integers(0, 9))
def test_resized_maps_keep_their_ranges_and_unit_normals(factor, rows, columns, seed):
    maps = material(rows * factor, columns * factor, seed)
    for resized in (resize.shrink(maps, factor), resize.enlarge(maps, factor)):
        for kind, values in resized.maps.items():
            assert values.min() >= (-1 if kind is MapKind.NORMAL else 0)
            assert values.max() <= 1
        normal = resized.maps[MapKind.NORMAL]
        assert np.allclose(np.linalg.norm(normal, axis=2), 1, atol=1e-6)
        assert normal[:, :, 2].min() > 0


@given(st.floats(0, 1, width=32), FACTORS)
def test_constant_maps_stay_constant(level, factor):
    maps = Material({MapKind.ROUGHNESS: np.full((factor * 3, factor * 2, 1), level, np.float32)})
    assert np.allclose(resize.shrink(maps, factor).maps[MapKind.ROUGHNESS], level, atol=1e-6)
    assert np.all(resize.enlarge(maps, factor).maps[MapKind.ROUGHNESS] == np.float32(level))


def test_shrinking_is_the_mean_of_the_area():
    values = np.arange(16, dtype=np.float32).reshape(4, 4, 1) / 16
    halved = resize.shrink(Material({MapKind.METALLIC: values}), 2).maps[MapKind.METALLIC]
    assert np.array_equal(halved[:, :, 0] * 16, [[2.5, 4.5], [10.5, 12.5]])


def test_the_height_of_a_mip_can_keep_its_peaks():
    height = np.zeros((4, 4, 1), dtype=np.float32)
    height[1, 2] = 1
    assert resize.shrink(Material({MapKind.HEIGHT: height}), 2, "max").maps[MapKind.HEIGHT][0, 1, 0] == 1
    assert resize.shrink(Material({MapKind.HEIGHT: height}), 2).maps[MapKind.HEIGHT][0, 1, 0] == 0.25


def test_colours_are_averaged_in_linear_light():
    checkers = np.indices((2, 2)).sum(axis=0)[:, :, np.newaxis] % 2 * np.ones(3)
    halved = resize.shrink(Material({MapKind.BASE_COLOR: checkers.astype(np.float32)}), 2)
    assert np.allclose(halved.maps[MapKind.BASE_COLOR], 0.735357, atol=1e-5)  # sRGB of half the light


def test_enlarging_interpolates_across_the_border():
    values = np.array([0, 1], dtype=np.float32).reshape(1, 2, 1)
    doubled = resize.enlarge(Material({MapKind.HEIGHT: values}), 2).maps[MapKind.HEIGHT]
    assert np.array_equal(doubled[0, :, 0], [0.25, 0.25, 0.75, 0.75])


@pytest.mark.parametrize("name", ["linear_from_srgb", "srgb_from_linear"])
def test_srgb_has_its_known_values(name):
    codes = np.float32([0, 0.04045, 0.5, 0.735357, 1])
    light = np.float32([0, 0.0031308, 0.2140411, 0.5, 1])
    given_values, expected = (codes, light) if name == "linear_from_srgb" else (light, codes)
    assert np.allclose(getattr(resize, name)(given_values), expected, atol=2e-6)


def test_a_chain_stops_at_the_first_odd_edge():
    chain = resize.mip_chain(material(12, 20))
    assert [level.maps[MapKind.NORMAL].shape[:2] for level in chain] == [(12, 20), (6, 10), (3, 5)]


@pytest.mark.parametrize("factor", [0, -1])
def test_factors_below_one_are_refused(factor):
    for change in (resize.shrink, resize.enlarge):
        with pytest.raises(ValueError, match="factor"):
            change(material(4, 4), factor)


def test_edges_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"4 x 6 px, expected multiples of 4"):
        resize.shrink(material(4, 6), 4)


@pytest.mark.parametrize("change", [resize.shrink, resize.enlarge])
@pytest.mark.parametrize(
    "maps",
    [
        {MapKind.HEIGHT: np.full((4, 4, 1), 2, np.float32)},
        {MapKind.ROUGHNESS: np.full((4, 4, 1), np.nan, np.float32)},
        {MapKind.BASE_COLOR: np.zeros((4, 4, 1), np.float32)},
        {MapKind.NORMAL: np.zeros((4, 4, 3), np.float32)},
    ],
)
def test_maps_out_of_contract_are_refused(change, maps):
    with pytest.raises(ValueError, match=r"height|roughness|base_color|normals"):
        change(Material(maps), 2)
