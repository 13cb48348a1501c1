"""Frequencies: profile, grid and repetition."""

import numpy as np
import pytest

from assetgen.metrics.spectrum import grid_artefact, power_spectrum, radial_profile, repetition, spectrum_distance
from tests.metrics.synthetic import EDGE_PX, blotches, blurred, bytes_of, noise


def cosine(cycles, n=1, edge_px=EDGE_PX):
    columns = np.arange(edge_px) * 2 * np.pi * cycles / edge_px
    return bytes_of(np.broadcast_to((128 + 60 * np.cos(columns))[None, None, :, None], (n, edge_px, edge_px, 3)))


def test_a_wave_is_a_peak_at_its_frequency():
    profile = radial_profile(power_spectrum(cosine(10)))
    assert profile.argmax() + 1 == 10
    assert len(profile) == EDGE_PX // 2


def test_noise_has_a_flat_profile():
    profile = radial_profile(power_spectrum(noise(64)))
    assert profile[3:].max() < 1.5 * profile[3:].min()


def test_contrast_does_not_count_but_sharpness_does():
    pictures = noise(16)
    assert spectrum_distance(pictures, pictures) == 0
    assert spectrum_distance(bytes_of(128 + (pictures - 128.0) / 2), pictures) < 0.1
    assert spectrum_distance(blurred(pictures), pictures) > 3


@pytest.mark.parametrize("period", [2, 4, 8])
@pytest.mark.parametrize("axis", [1, 2])
def test_a_faint_grid_is_found_in_noise(period, axis):
    clean = noise(64)
    assert grid_artefact(clean) < 1.8
    shape = [1, 1, 1, 1]
    shape[axis] = EDGE_PX
    lines = (np.arange(EDGE_PX) % period == 0).reshape(shape) * 24
    assert grid_artefact(bytes_of(clean + lines)) > 3


def test_a_grid_in_one_of_many_pictures_is_no_artefact():
    pictures = noise(64)
    pictures[0] = cosine(16)[0]
    assert grid_artefact(pictures) < 2


def test_a_broad_ridge_along_an_axis_is_no_artefact():
    stripes = np.random.default_rng(0).integers(60, 180, (64, 1, EDGE_PX, 1))
    assert grid_artefact(bytes_of(np.broadcast_to(stripes, (64, EDGE_PX, EDGE_PX, 3)))) < 2


def test_what_repeats_has_a_peak_of_one():
    tile = blotches(4, edge_px=16, cells=4)
    assert (repetition(np.tile(tile, (1, 4, 4, 1))) > 0.95).all()


def test_what_does_not_repeat_has_none():
    assert (repetition(noise(8)) < 0.3).all()
    assert (repetition(np.full((2, 64, 64, 3), 90, np.uint8)) == 0).all()


@pytest.mark.parametrize("shape", [(1, 64, 32, 3), (1, 16, 16, 3), (1, 36, 36, 3)])
def test_sizes_without_these_frequencies_are_refused(shape):
    with pytest.raises(ValueError, match="squares of 32, 40"):
        power_spectrum(np.zeros(shape, np.uint8))
