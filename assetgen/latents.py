"""From (seed, index) to a graph's inputs, by numpy's counter-based Philox generator; pure, numpy only.

One generator an asset, keyed by (seed, index), draws in a fixed order: z, the layout, its cells, then all noise, in
manifest order. That order is part of the contract: asset i does not depend on the count, and z and layout
do not depend on the size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from assetgen.types import FloatArray


def generator(seed: int, index: int) -> np.random.Generator:
    """The random generator of asset ``index`` of ``seed``, both 0 to 2**32 - 1."""
    return np.random.Generator(np.random.Philox(_Key(seed, index)))  # type: ignore[arg-type]


class _Key(ISeedSequence):
    """The same as ``Philox(key=...)``, which gathers entropy from the system first, only to drop it."""

    def __init__(self, seed: int, index: int) -> None:
        self._key = np.array([seed, index], dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[Any]:
        """The key: the two words that Philox asks for."""
        assert (n_words, np.dtype(dtype)) == (2, np.uint64)  # noqa: S101 -- numpy's own call, held by a test
        return self._key


def noises(rng: np.random.Generator, shapes: Sequence[tuple[int, ...]]) -> list[FloatArray]:
    """Arrays of independent noise, float32, mean 0, variance 1, within 3.5; drawn at once, in order.

    The sum of four uniform bytes: as good as a normal for noise that is filtered at once, in a fifth of the time, which
    is most of what a small request costs beside the graph.
    """
    counts = [math.prod(shape) for shape in shapes]
    count = sum(counts)
    words = np.asarray(rng.bit_generator.random_raw((count + 1) // 2), dtype="<u8")
    quarters = words.view(np.uint8)[: 4 * count].reshape(4, count)
    total = quarters[0].astype(np.int16)
    for quarter in quarters[1:]:
        total += quarter
    total -= 510
    normal = np.multiply(total, np.float32(1 / np.sqrt((256**2 - 1) / 3)), dtype=np.float32)
    ends = np.cumsum(counts)
    return [normal[end - count : end].reshape(shape) for end, count, shape in zip(ends, counts, shapes, strict=True)]


def latent(rng: np.random.Generator, dimension: int) -> FloatArray:
    """The global latent z, ``[dimension] float32`` ~ N(0, 1)."""
    return rng.standard_normal(dimension, dtype=np.float32)
