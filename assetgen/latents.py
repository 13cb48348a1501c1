"""From (seed, index) to a graph's inputs, by numpy's counter-based Philox generator; pure, numpy only.

One generator an asset, keyed by (seed, index), draws in a fixed order: z, the layout, its cells, grid noise, then the
noise maps in manifest order. That order is part of the contract: asset i does not depend on the count, and z and layout
do not depend on the size.
"""

from __future__ import annotations

import math

import numpy as np

from assetgen.types import FloatArray


def generator(seed: int, index: int) -> np.random.Generator:
    """The random generator of asset ``index`` of ``seed``, both 0 to 2**32 - 1."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


def noise(rng: np.random.Generator, channels: int, cells: tuple[int, int]) -> FloatArray:
    """Independent noise, ``[channels, rows, columns] float32``, mean 0, variance 1, within 3.5.

    The sum of four uniform bytes: as good as a normal for noise that is filtered at once, in a fifth of the time, which
    is most of what a small request costs beside the graph.
    """
    shape = (channels, *cells)
    count = math.prod(shape)
    words = np.asarray(rng.bit_generator.random_raw((count + 1) // 2), dtype="<u8")
    quarters = words.view(np.uint8)[: 4 * count].reshape(4, count)
    total = quarters[0].astype(np.uint16)
    for quarter in quarters[1:]:
        total += quarter
    normal: FloatArray = (total.astype(np.float32) - np.float32(510)) * np.float32(1 / np.sqrt((256**2 - 1) / 3))
    return normal.reshape(shape)


def latent(rng: np.random.Generator, dimension: int) -> FloatArray:
    """The global latent z, ``[dimension] float32`` ~ N(0, 1)."""
    return rng.standard_normal(dimension, dtype=np.float32)
