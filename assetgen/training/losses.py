"""Objectives of adversarial training as pure functions of logits and pictures; torch only."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss (Goodfellow et al. 2014), mean over the batch."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss of the discriminator, mean over the batch."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(real_logits: Tensor, reals: Tensor) -> Tensor:
    """Half the squared gradient on reals (Mescheder et al. 2018), summed over a picture, mean over the batch."""
    (gradient,) = torch.autograd.grad(real_logits.sum(), reals, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()
