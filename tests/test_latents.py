"""From (seed, index) to a graph's inputs: golden values, and everything that makes them tile."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen import latents

CELLS = st.integers(4, 48)
SEEDS = st.integers(0, 2**32 - 1)


def grid(rng, *, cells, noise_channels=2, lattices=2, base_cells=16, max_columns=6, max_half_rows=3):
    return latents.toroidal_grid(
        rng,
        noise_channels=noise_channels,
        lattices=lattices,
        max_columns=max_columns,
        max_half_rows=max_half_rows,
        cells=cells,
        base_cells=base_cells,
    )


def waves_of(channels):
    """Complex waves ``[4 lattices, rows, columns]`` from cosines and sines."""
    parts = channels.reshape(-1, 2, 4, *channels.shape[1:])
    return (parts[:, 0] + 1j * parts[:, 1]).reshape(-1, *channels.shape[1:])


def wave_number(wave):
    """(rows, columns) of a pure wave, signed, from its only Fourier coefficient."""
    spectrum = np.abs(np.fft.fft2(wave))
    place = np.unravel_index(spectrum.argmax(), spectrum.shape)
    assert spectrum[place] == pytest.approx(np.sqrt(2) * wave.size, rel=1e-4), "not one closed wave"
    return tuple(k - n if k > n // 2 else k for k, n in zip(map(int, place), wave.shape, strict=True))


def test_the_stream_of_numbers_is_the_contract():
    numbers = latents.generator(7, 0).standard_normal(512, dtype=np.float32)
    assert hashlib.sha256(numbers.tobytes()).hexdigest().startswith("2286b64780ace355")


def test_the_latent_is_the_first_draw():
    assert (latents.latent(latents.generator(7, 0), 512) == latents.generator(7, 0).standard_normal(512, "f4")).all()


@given(SEEDS, st.integers(0, 2**32 - 2))
def test_assets_depend_on_seed_and_index_only(seed, index):
    alone = latents.latent(latents.generator(seed, index), 8)
    several = [latents.latent(latents.generator(seed, i), 8) for i in (index, index + 1)]
    assert alone.tobytes() == several[0].tobytes()
    assert alone.tobytes() != several[1].tobytes()
    assert alone.tobytes() != latents.latent(latents.generator((seed + 1) % 2**32, index), 8).tobytes()


@pytest.mark.parametrize(("seed", "index"), [(2**32 - 1, 0), (0, 2**32 - 1), (2**32 - 1, 2**32 - 1)])
def test_the_largest_seed_and_index_work(seed, index):
    assert np.isfinite(latents.latent(latents.generator(seed, index), 8)).all()


def test_the_global_latent_does_not_depend_on_the_size():
    first = []
    for cells in ((4, 4), (16, 12)):
        rng = latents.generator(1, 2)
        first.append(latents.latent(rng, 16))
        grid(rng, cells=cells)
    assert (first[0] == first[1]).all()


@given(SEEDS, CELLS, CELLS)
def test_every_wave_closes_on_the_torus_and_none_is_aliased(seed, rows, columns):
    channels = grid(latents.generator(seed, 0), cells=(rows, columns), noise_channels=0)
    assert channels.shape == (16, rows, columns)
    assert channels.dtype == np.float32
    for wave in waves_of(channels):
        row, column = wave_number(wave)
        assert 2 * abs(row) < max(rows, 5)
        assert 2 * abs(column) < max(columns, 5)


@given(SEEDS, st.integers(4, 16))
def test_channels_have_unit_variance(seed, cells):
    channels = grid(latents.generator(seed, 0), cells=(4 * cells, 4 * cells))
    assert np.square(waves_of(channels[2:]).real).mean() == pytest.approx(1, abs=0.01)
    assert np.abs(channels[2:].mean(axis=(1, 2))).max() < 1e-3
    assert channels[:2].std() == pytest.approx(1, abs=0.2)


@given(SEEDS)
def test_staggered_rows_of_bricks_close(seed):
    """The waves of one lattice: rows, columns, and the two diagonals that shift every other row by half a brick."""
    rows, columns, down, up = latents.lattice_waves(latents.generator(seed, 0), 6, 3, (16, 16), 16)
    assert rows[1] == 0
    assert rows[0] % 2 == 0
    assert columns[0] == 0
    assert (down == (rows[0] // 2, columns[1])).all()
    assert (up == (rows[0] // 2, -columns[1])).all()


@given(SEEDS, st.sampled_from([(32, 32), (64, 64), (32, 64), (128, 32)]))
def test_larger_tori_keep_the_wavelengths(seed, cells):
    drawn = latents.generator(seed, 0).integers((1, 1), (4, 7))
    waves = latents.lattice_waves(latents.generator(seed, 0), 6, 3, cells, 16)
    for (number, half_unit), unit, edge in zip(
        [(waves[0][0], 1.0), (waves[1][1], 0.5)], [2 * drawn[0], drawn[1]], cells, strict=True
    ):
        # In base units, half a unit of jitter and the rounding to whole waves apart, the number is the drawn one.
        assert abs(number * 16 / edge - unit) <= half_unit + 1.01 * half_unit * 2 * 16 / edge


def test_larger_tori_do_not_repeat_the_base_torus():
    numbers = {tuple(latents.lattice_waves(latents.generator(s, 0), 6, 3, (64, 64), 16)[1]) for s in range(60)}
    assert any(column % 4 for _, column in numbers)


def test_no_place_is_special():
    """Random shifts: over many draws, no cell's mean stands out."""
    mean = np.mean([grid(latents.generator(s, 0), cells=(8, 8), noise_channels=0) for s in range(400)], axis=0)
    assert np.abs(mean).max() < 5 / np.sqrt(400)


def test_every_other_lattice_is_turned():
    channels = grid(latents.generator(3, 0), cells=(16, 16), noise_channels=0)
    numbers = [wave_number(wave) for wave in waves_of(channels)]
    assert numbers[0][1] == 0
    assert numbers[4][0] == 0


def test_noise_maps_have_one_channel():
    noise = latents.noise_map(latents.generator(1, 1), (6, 10))
    assert noise.shape == (1, 6, 10)
    assert noise.dtype == np.float32


def test_noise_maps_are_noise() -> None:
    noise = latents.noise_map(latents.generator(5, 0), (256, 255))
    assert noise.shape == (1, 256, 255)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.var()) - 1) < 0.02
    assert float(np.abs(noise).max()) < 3.5
    for axis in (1, 2):
        assert abs(float((noise * np.roll(noise, 1, axis)).mean())) < 0.02


def test_the_coarsest_lattice_can_be_chosen() -> None:
    for seed in range(50):
        waves = latents.lattice_waves(latents.generator(seed, 0), 6, 3, (16, 16), 16, min_columns=4, min_half_rows=2)
        assert 4 <= waves[1, 1] <= 6
        assert 4 <= waves[0, 0] <= 6
