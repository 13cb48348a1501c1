"""Whether the edges of pictures with alpha suit any ground: halos and colours without cover; numpy only.

A pixel that is partly covered should be as much of its thing's colour as it is covered. What it has too much or too
little shows as a light or dark rim, the same on white, black and magenta, since the ground's share depends on alpha
alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assetgen.metrics.pictures import ByteArray
from assetgen.types import FloatArray

REACH_PX = 2  # that the colour of a thing is looked for
SOLID = 230  # alpha from which a pixel shows the colour of its thing
FAINT = 12  # below this, and what lies under counts as nothing


@dataclass(frozen=True)
class Halos:
    """Figures of pictures with alpha.

    Attributes:
        rim: mean distance of partly covered pixels to what they should be, by the nearest solid pixels, of 255.
        uncovered: share of pixels with more colour than cover, by more than 2 of 255: they would glow on black.
        partly: share of pixels that are partly covered.
        dust: share of partly covered pixels with nothing solid near.
    """

    rim: float
    uncovered: float
    partly: float
    dust: float


def halos(pictures: ByteArray) -> Halos:
    """Measure pictures ``[n, h, w, 4]``, colours times alpha and alpha; raises ValueError for another shape."""
    if pictures.ndim != 4 or pictures.shape[3] != 4:
        raise ValueError(f"pictures of shape {pictures.shape}; [n, h, w, 4] is needed")
    alpha = pictures[..., 3].astype(np.float32)
    color = pictures[..., :3].astype(np.float32)
    partly = (alpha >= FAINT) & (alpha < SOLID)
    straight = (color / np.maximum(alpha, 1)[..., None]).astype(np.float32)
    near, found = _nearest_solid(straight, alpha >= SOLID)
    judged = partly & found
    wrong = np.abs(color - near * alpha[..., None]).mean(axis=3)
    return Halos(
        rim=float(wrong[judged].mean()) if judged.any() else 0.0,
        uncovered=float((color.max(axis=3) > alpha + 2).mean()),
        partly=float(partly.mean()),
        dust=float(1 - judged.sum() / partly.sum()) if partly.any() else 0.0,
    )


def _nearest_solid(straight: FloatArray, solid: np.ndarray) -> tuple[FloatArray, np.ndarray]:
    """Mean straight colour of the solid pixels around, ring by ring, and where there are any within reach."""
    near, found = np.where(solid[..., None], straight, 0), solid
    for _ in range(REACH_PX):
        total, count = _around(near * found[..., None]), _around(found[..., None].astype(np.float32))
        mean = total / np.maximum(count, 1)
        near = np.where(found[..., None], near, mean)
        found = found | (count[..., 0] > 0)
    return near.astype(np.float32), found


def _around(x: FloatArray) -> FloatArray:
    """Sum over 3 x 3 pixels of ``[n, h, w, c]``; outside is 0."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = x.shape[1:3]
    total = sum(padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3))
    return np.asarray(total, dtype=np.float32)
