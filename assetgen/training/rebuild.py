"""Codes of an encoder and the distance of what is rebuilt from them (VAE-GAN, Larsen et al. 2016); torch only."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

COARSEST_PX = 8


def drawn_code(mean: Tensor, log_variance: Tensor, rng: torch.Generator) -> Tensor:
    """A code ``[n, latent]`` of the distribution that an encoder answered with; ``rng`` on the CPU."""
    noise = torch.randn(mean.shape, generator=rng).to(mean.device)
    return mean + (0.5 * log_variance).exp() * noise


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """How far codes are from a normal distribution: summed over a code, mean over the batch (Kingma and Welling)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()


def picture_distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean difference of pictures ``[n, c, h, w]`` at full size, half, a quarter ... down to 8 px, all alike.

    Of each size and not of its square: an edge that is off by a pixel is not worth a blurred one.
    """
    distances = [F.l1_loss(made, wanted)]
    while made.shape[-1] > COARSEST_PX:
        made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
        distances.append(F.l1_loss(made, wanted))
    return torch.stack(distances).mean()
