"""Mixtures of Gaussians in the plane and the measures of what a generator caught of them; torch only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# A sample is of high quality within so many standard deviations of a mode (Srivastava et al. 2017).
QUALITY_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Mixture:
    """Equally likely round Gaussians.

    Attributes:
        means: centres of the modes.
        deviation: standard deviation of a mode along each axis.
        scale: the networks see the plane divided by this, about the deviation of the whole mixture.
    """

    means: tuple[tuple[float, float], ...]
    deviation: float
    scale: float

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw ``[count, 2]`` points."""
        chosen = torch.randint(len(self.means), (count,), generator=rng)
        return torch.tensor(self.means)[chosen] + self.deviation * torch.randn(count, 2, generator=rng)


# Places and deviations are those of the published code of PacGAN (Lin et al. 2018).
MIXTURES = {
    "grid": Mixture(tuple((float(x), float(y)) for x in range(-4, 5, 2) for y in range(-4, 5, 2)), 0.05, math.sqrt(8)),
    "ring": Mixture(
        tuple((math.cos(math.tau * k / 8), math.sin(math.tau * k / 8)) for k in range(8)), 0.01, math.sqrt(0.5)
    ),
}


@dataclass(frozen=True)
class Coverage:
    """What samples of one generator cover.

    Attributes:
        modes: modes that are the nearest of at least one sample of high quality.
        quality: share of samples within three standard deviations of a mode, 0 to 1.
        divergence: Kullback-Leibler divergence, in nats, of the modes' shares among the samples of high quality from
            equal shares; infinite where there is no such sample.
    """

    modes: int
    quality: float
    divergence: float


def coverage(samples: Tensor, mixture: Mixture) -> Coverage:
    """Measure ``[n, 2]`` samples as Srivastava et al. (2017) do."""
    distance, nearest = torch.cdist(samples.double(), torch.tensor(mixture.means).double()).min(dim=1)
    good = nearest[distance < QUALITY_DEVIATIONS * mixture.deviation]
    counts = torch.bincount(good, minlength=len(mixture.means))
    divergence = divergence_from_equal(counts) if len(good) else math.inf
    return Coverage(int((counts > 0).sum()), len(good) / len(samples), divergence)


def divergence_from_equal(counts: Tensor) -> float:
    """Kullback-Leibler divergence in nats of the shares ``counts / sum`` from equal shares."""
    shares = counts.double() / counts.sum()
    shares = shares[shares > 0]
    return max(0.0, float((shares * shares.log()).sum() + math.log(len(counts))))
