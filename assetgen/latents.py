"""From (seed, index) to a graph's inputs, by numpy's counter-based Philox generator; pure, numpy only.

One generator an asset, keyed by (seed, index), draws in a fixed order: z, wave phases, wave jitter, grid noise, then
the noise maps in manifest order. That order is part of the contract: asset i does not depend on the count, and z and
phases do not depend on the size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assetgen.types import FloatArray


def generator(seed: int, index: int) -> np.random.Generator:
    """The random generator of asset ``index`` of ``seed``, both 0 to 2**32 - 1."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


def wave_numbers(
    wave_vectors: NDArray[np.int64], jitter: FloatArray, cells: tuple[int, int], base_cells: int
) -> NDArray[np.int64]:
    """Integer wave numbers on a torus of ``cells`` (rows, columns) that keep the wavelengths of the base torus.

    Args:
        wave_vectors: ``[V, 2]`` wave numbers (rows, columns) on the base torus of ``base_cells`` squared.
        jitter: ``[V, 2]`` in [-0.5, 0.5], in base wave numbers: on larger tori it breaks the period of the base torus.
        cells: size of the torus.

    Returns:
        ``[V, 2]`` integers, at most half the number of cells, so every wave closes and none is aliased.
    """
    scale = np.array(cells, dtype=np.float64) / base_cells
    moved = wave_vectors + jitter * (wave_vectors != 0)
    limit = (np.array(cells) - 1) // 2
    return np.clip(np.rint(moved * scale).astype(np.int64), -limit, limit)


def toroidal_grid(
    rng: np.random.Generator,
    wave_vectors: NDArray[np.int64],
    noise_channels: int,
    cells: tuple[int, int],
    base_cells: int,
) -> FloatArray:
    """Spatial input of a tileable generator: noise and waves that close on the torus.

    Independent noise has no border, integer wave numbers are periodic; so is everything computed from them by
    operations that wrap.

    Returns:
        ``[noise_channels + 2 V, rows, columns] float32``: N(0, 1) noise, then V cosines, then V sines, each scaled to
        unit variance.
    """
    rows, columns = cells
    phases = rng.random((len(wave_vectors), 1, 1), dtype=np.float32) * np.float32(2 * np.pi)
    jitter = rng.random((len(wave_vectors), 2), dtype=np.float32) - np.float32(0.5)
    noise = rng.standard_normal((noise_channels, rows, columns), dtype=np.float32)
    waves = wave_numbers(wave_vectors, jitter, cells, base_cells)
    # exp(i (row part + column part)) as an outer product: V (rows + columns) sines instead of V rows columns.
    row_angle = 2 * np.pi / rows * (waves[:, :1] * np.arange(rows) % rows)
    column_angle = 2 * np.pi / columns * (waves[:, 1:] * np.arange(columns) % columns)
    row_wave = np.exp(1j * row_angle).astype(np.complex64)[:, :, None] * np.exp(1j * phases)
    column_wave = np.exp(1j * column_angle).astype(np.complex64)[:, None, :]
    wave = row_wave * column_wave * np.float32(np.sqrt(2))
    return np.concatenate([noise, wave.real, wave.imag]).astype(np.float32, copy=False)


def noise_map(rng: np.random.Generator, cells: tuple[int, int]) -> FloatArray:
    """One layer's noise, ``[1, rows, columns] float32`` ~ N(0, 1)."""
    return rng.standard_normal((1, *cells), dtype=np.float32)


def latent(rng: np.random.Generator, dimension: int) -> FloatArray:
    """The global latent z, ``[dimension] float32`` ~ N(0, 1)."""
    return rng.standard_normal(dimension, dtype=np.float32)
