"""From (seed, index) to a graph's inputs, by numpy's counter-based Philox generator; pure, numpy only.

One generator an asset, keyed by (seed, index), draws in a fixed order: z, the lattices, grid noise, then the noise
maps in manifest order. That order is part of the contract: asset i does not depend on the count, and z and lattices do
not depend on the size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assetgen.types import FloatArray


def generator(seed: int, index: int) -> np.random.Generator:
    """The random generator of asset ``index`` of ``seed``, both 0 to 2**32 - 1."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


def lattice_waves(
    rng: np.random.Generator,
    max_columns: int,
    max_half_rows: int,
    cells: tuple[int, int],
    base_cells: int,
    min_columns: int = 1,
    min_half_rows: int = 1,
) -> NDArray[np.int64]:
    """Wave numbers of one random lattice of staggered rows, as bricks are laid, that closes on a torus of ``cells``.

    A lattice has ``columns`` bricks along a row and twice ``half_rows`` rows: an even number, so that the stagger
    closes. On the base torus both are drawn from their minimum to their maximum; on other tori they are scaled, so that
    a brick keeps its size, and jittered by up to half of a base unit, so that a larger torus does not repeat the base.

    Returns:
        ``[4, 2]`` wave numbers (rows, columns): rows, columns, and the two waves of the stagger. None is aliased.
    """
    drawn = rng.integers((min_half_rows, min_columns), (max_half_rows + 1, max_columns + 1))
    jitter = rng.random(2, dtype=np.float32) - np.float32(0.5)
    scale = np.array(cells, dtype=np.float64) / base_cells
    limit = np.array([(cells[0] - 1) // 4, (cells[1] - 1) // 2])
    half_rows, columns = np.clip(np.rint((drawn + jitter) * scale), 1, np.maximum(limit, 1)).astype(np.int64)
    return np.array([(2 * half_rows, 0), (0, columns), (half_rows, columns), (half_rows, -columns)])


def draw_lattices(
    rng: np.random.Generator,
    *,
    lattices: int,
    max_columns: int,
    max_half_rows: int,
    cells: tuple[int, int],
    base_cells: int,
    min_columns: int = 1,
    min_half_rows: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Wave numbers ``[lattices, 4, 2]`` and shifts ``[lattices, 2]`` (rows, columns; 0 to 1) of random lattices.

    Every other lattice is turned by a quarter. A lattice as a whole is shifted at random: no place is special.
    """
    vectors = np.empty((lattices, 4, 2), dtype=np.int64)
    shifts = np.empty((lattices, 2))
    for number in range(lattices):
        turned = number % 2 == 1
        torus = cells[::-1] if turned else cells
        drawn = lattice_waves(rng, max_columns, max_half_rows, torus, base_cells, min_columns, min_half_rows)
        vectors[number] = drawn[:, ::-1] if turned else drawn
        shifts[number] = rng.random(2)
    return vectors, shifts


def toroidal_grid(
    rng: np.random.Generator,
    *,
    noise_channels: int,
    lattices: int,
    max_columns: int,
    max_half_rows: int,
    cells: tuple[int, int],
    base_cells: int,
    min_columns: int = 1,
    min_half_rows: int = 1,
) -> FloatArray:
    """Spatial input of a tileable generator: noise and the waves of random lattices, all of which close on the torus.

    Independent noise has no border, whole wave numbers are periodic; so is everything computed from them by operations
    that wrap.

    Args:
        cells: rows and columns of the torus; ``base_cells`` is the edge of the torus that the model was trained on.

    Returns:
        ``[noise_channels + 8 lattices, rows, columns] float32`` of unit variance: N(0, 1) noise, then of each lattice
        the four cosines and the four sines.
    """
    rows, columns = cells
    all_vectors, shifts = draw_lattices(
        rng,
        lattices=lattices,
        max_columns=max_columns,
        max_half_rows=max_half_rows,
        cells=cells,
        base_cells=base_cells,
        min_columns=min_columns,
        min_half_rows=min_half_rows,
    )
    waves = []
    for vectors, shift in zip(all_vectors, shifts, strict=True):
        # exp(i (row part + column part)) as an outer product: rows + columns sines a wave instead of rows x columns.
        row_angle = 2 * np.pi * vectors[:, :1] * (np.arange(rows) / rows + shift[0])
        column_angle = 2 * np.pi * vectors[:, 1:] * (np.arange(columns) / columns + shift[1])
        row_wave = np.exp(1j * row_angle).astype(np.complex64)[:, :, None]
        wave = row_wave * np.exp(1j * column_angle).astype(np.complex64)[:, None, :] * np.float32(np.sqrt(2))
        waves += [wave.real, wave.imag]
    noise = rng.standard_normal((noise_channels, rows, columns), dtype=np.float32)
    return np.concatenate([noise, *waves]).astype(np.float32, copy=False)


def noise_map(rng: np.random.Generator, cells: tuple[int, int]) -> FloatArray:
    """One layer's noise, ``[1, rows, columns] float32``, mean 0, variance 1, within 3.5.

    The sum of four uniform bytes: as good as a normal for noise that is filtered at once, in a fifth of the time, which
    is most of what a small request costs beside the graph.
    """
    rows, columns = cells
    words = np.asarray(rng.bit_generator.random_raw((rows * columns + 1) // 2), dtype="<u8")
    quarters = words.view(np.uint8)[: 4 * rows * columns].reshape(4, rows * columns)
    total = quarters[0].astype(np.uint16)
    for quarter in quarters[1:]:
        total += quarter
    noise: FloatArray = (total.astype(np.float32) - np.float32(510)) * np.float32(1 / np.sqrt((256**2 - 1) / 3))
    return noise.reshape(1, rows, columns)


def latent(rng: np.random.Generator, dimension: int) -> FloatArray:
    """The global latent z, ``[dimension] float32`` ~ N(0, 1)."""
    return rng.standard_normal(dimension, dtype=np.float32)
