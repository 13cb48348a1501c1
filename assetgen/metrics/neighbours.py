"""How two clouds of features lie to each other: precision, recall, density, coverage and KID; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assetgen import check
from assetgen.types import FloatArray

PRECISION_K = 3
DENSITY_K = 5


@dataclass(frozen=True)
class Neighbours:
    """Figures of fakes against reals.

    Attributes:
        precision: share of fakes within the reals' reach; recall: share of reals within the fakes' reach.
        density: mean number of reals whose reach a fake is in, by k: above 1 where fakes crowd among the reals.
        coverage: share of reals with a fake within reach. Outliers harm these two less.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbours(fakes: FloatArray, reals: FloatArray) -> Neighbours:
    """Precision and recall (Kynkäänniemi et al. 2019, k 3), density and coverage (Naeem et al. 2020, k 5).

    Args:
        fakes, reals: features ``[n, d]`` and ``[m, d]``; n and m above 5.

    Raises:
        ValueError: too few, or of another dimension.
    """
    _check(fakes, reals)
    smallest = DENSITY_K + 1
    if min(len(fakes), len(reals)) < smallest:
        raise ValueError(f"{len(fakes)} fakes and {len(reals)} reals; {smallest} at least are needed on each side")
    between = distances(fakes, reals)
    real_reach, fake_reach = (_reach(distances(side, side), PRECISION_K) for side in (reals, fakes))
    wide_reach = _reach(distances(reals, reals), DENSITY_K)
    within = between <= wide_reach
    return Neighbours(
        precision=float((between <= real_reach).any(axis=1).mean()),
        recall=float((between <= fake_reach[:, None]).any(axis=0).mean()),
        density=float(within.sum(axis=1).mean() / DENSITY_K),
        coverage=float(within.any(axis=0).mean()),
    )


def kid(fakes: FloatArray, reals: FloatArray) -> float:
    """Squared maximum mean discrepancy with the kernel (x·y / d + 1)³, unbiased: 0 on average for equal distributions.

    Binkowski et al. 2018. Differs from the paper: over all features at once, not the mean over blocks.

    Raises:
        ValueError: fewer than 2 on a side, or of another dimension.
    """
    _check(fakes, reals)
    if min(len(fakes), len(reals)) < 2:
        raise ValueError(f"{len(fakes)} fakes and {len(reals)} reals; 2 at least are needed on each side")
    a, b = fakes.astype(np.float64), reals.astype(np.float64)
    return _mean_off_diagonal(_kernel(a, a)) + _mean_off_diagonal(_kernel(b, b)) - 2 * float(_kernel(a, b).mean())


def distances(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """Euclidean distances ``[n, m]``."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    squared = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    found: NDArray[np.float64] = np.sqrt(np.maximum(squared, 0))
    return found


def _reach(own: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Distance of each point to its k-th neighbour; ``own`` are the distances within its side."""
    away = own.copy()
    np.fill_diagonal(away, np.inf)
    reach: NDArray[np.float64] = np.partition(away, k - 1, axis=1)[:, k - 1]
    return reach


def _kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    kernel: NDArray[np.float64] = (a @ b.T / a.shape[1] + 1) ** 3
    return kernel


def _mean_off_diagonal(kernel: NDArray[np.float64]) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _check(fakes: FloatArray, reals: FloatArray) -> None:
    check.shape(fakes, "n d", "fakes")
    check.shape(reals, f"m {fakes.shape[1]}", "reals")
