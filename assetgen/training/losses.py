"""Objectives of adversarial training as pure functions of logits and pictures; torch only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """An adversarial loss: both sides take the logits of reals and of fakes ``[n]`` and give a mean over the batch.

    Attributes:
        discriminator, generator: what each side lowers.
        paired: the generator looks at the reals' logits too, and real i stands beside fake i of the same class.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    paired: bool = False


def _logistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _raise_fakes(_real: Tensor, fake: Tensor) -> Tensor:
    return -fake.mean()


LOSSES = {
    # Non-saturating logistic (Goodfellow et al. 2014).
    "ns_logistic": Loss(
        discriminator=_logistic,
        generator=lambda _real, fake: F.softplus(-fake).mean(),
    ),
    # The minimax game of the same paper: its gradient vanishes while the discriminator wins; to show that it does.
    "saturating": Loss(
        discriminator=_logistic,
        generator=lambda _real, fake: -F.softplus(fake).mean(),
    ),
    # Hinge (Lim and Ye 2017), as in SAGAN and BigGAN.
    "hinge": Loss(
        discriminator=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        generator=_raise_fakes,
    ),
    # Least squares (Mao et al. 2017) with targets 1 and 0.
    "least_squares": Loss(
        discriminator=lambda real, fake: 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean(),
        generator=lambda _real, fake: 0.5 * (fake - 1).square().mean(),
    ),
    # Wasserstein (Arjovsky et al. 2017); means little without the gradient penalty below.
    "wasserstein": Loss(
        discriminator=lambda real, fake: fake.mean() - real.mean(),
        generator=_raise_fakes,
    ),
    # Relativistic paired logistic (Jolicoeur-Martineau 2018, Huang et al. 2024).
    "relativistic": Loss(
        discriminator=lambda real, fake: F.softplus(fake - real).mean(),
        generator=lambda real, fake: F.softplus(real - fake).mean(),
        paired=True,
    ),
}


def zero_centred_penalty(logits: Tensor, pictures: Tensor) -> Tensor:
    """Half the squared gradient (Mescheder et al. 2018), summed over a picture, mean over the batch.

    R1 on reals, R2 on fakes; ``logits`` must have been computed from ``pictures``, which require a gradient.
    """
    return 0.5 * _gradients(logits, pictures).square().sum(dim=(1, 2, 3)).mean()


def one_centred_penalty(
    score: Callable[[Tensor], Tensor], reals: Tensor, fakes: Tensor, rng: torch.Generator
) -> Tensor:
    """Squared distance of the gradient's length from 1 between reals and fakes (Gulrajani et al. 2017), mean.

    Args:
        score: the discriminator, pictures ``[n, c, h, w]`` to logits ``[n]``.
        rng: on the CPU; draws one place a pair on the line between real i and fake i.
    """
    share = torch.rand(len(reals), 1, 1, 1, generator=rng).to(reals)
    between = torch.lerp(reals, fakes, share).detach().requires_grad_(True)
    length = _gradients(score(between), between).square().sum(dim=(1, 2, 3)).add(1e-12).sqrt()
    return (length - 1).square().mean()


def lecam(real: Tensor, fake: Tensor, real_mean: Tensor, fake_mean: Tensor) -> Tensor:
    """Squared distance of logits to the running mean of the other side, as far as they lie beyond it.

    It keeps both close to each other where data are few (Tseng et al. 2021).
    """
    return F.relu(real - fake_mean).square().mean() + F.relu(real_mean - fake).square().mean()


def _gradients(logits: Tensor, pictures: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
    return gradient
