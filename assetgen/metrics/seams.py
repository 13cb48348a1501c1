"""Whether a tile shows its border: differences across it against those inside; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assetgen import check
from assetgen.metrics.pictures import ByteArray


def wrap_ratio(pictures: ByteArray, stride_px: int = 1) -> NDArray[np.float64]:
    """Difference across the border by that of neighbours inside, the larger of both axes, ``[n]``; about 1 for a tile.

    Args:
        pictures: ``[n, h, w, 3]``.
        stride_px: pixels a cell of the network that made them. A network leaves faint lines where its cells meet, and
            the border is such a line: it is compared with the lines inside at multiples of the stride.

    Raises:
        ValueError: the stride leaves no line inside.
    """
    check.shape(pictures, "n h w 3", "pictures")
    if stride_px < 1 or any(edge % stride_px or edge < 2 * stride_px for edge in pictures.shape[1:3]):
        raise ValueError(f"stride_px {stride_px} does not divide {pictures.shape[2]} x {pictures.shape[1]} px twice")
    values = pictures.astype(np.int16)
    ratios = []
    for axis in (1, 2):
        steps = np.abs(values - np.roll(values, 1, axis=axis))
        lines = steps.mean(axis=(3, 3 - axis))[:, ::stride_px]
        # Half a grey level keeps pictures of one colour at a ratio of 1.
        ratios.append((lines[:, 0] + 0.5) / (lines[:, 1:].mean(axis=1) + 0.5))
    larger: NDArray[np.float64] = np.maximum(*ratios)
    return larger
