"""From (seed, index) to a graph's inputs: golden values, and everything that makes them tile."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen import latents

SEEDS = st.integers(0, 2**32 - 1)


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


def test_the_key_of_the_generator_is_seed_and_index():
    key = np.array([2**32 - 1, 3], dtype=np.uint64)
    expected = np.random.Generator(np.random.Philox(key=key))
    assert (latents.generator(2**32 - 1, 3).random(100) == expected.random(100)).all()


def test_noise_has_the_shapes_asked_for():
    shapes = [(1, 3, 6, 10), (5,), (0, 4), (1, 1)]
    made = latents.noises(latents.generator(1, 1), shapes)
    assert [noise.shape for noise in made] == shapes
    assert {noise.dtype for noise in made} == {np.dtype(np.float32)}
    (whole,) = latents.noises(latents.generator(1, 1), [(186,)])
    assert np.array_equal(np.concatenate([noise.ravel() for noise in made]), whole), "drawn in order"
    assert latents.noises(latents.generator(1, 1), []) == []


def test_noise_is_noise() -> None:
    (noise,) = latents.noises(latents.generator(5, 0), [(2, 256, 255)])
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.var()) - 1) < 0.02
    assert float(np.abs(noise).max()) < 3.5
    for axis in (0, 1, 2):
        assert abs(float((noise * np.roll(noise, 1, axis)).mean())) < 0.02
