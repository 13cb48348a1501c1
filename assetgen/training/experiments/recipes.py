"""Objectives that the experiments compare, as data, and the discriminator's side of them; torch only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from assetgen.training.losses import LOSSES, zero_centred_penalty


@dataclass(frozen=True)
class Recipe:
    """An objective.

    Attributes:
        loss: name in ``LOSSES``.
        r1, r2: weight of the zero-centred penalty on reals and on fakes (Mescheder et al. 2018).
        one_centred: weight of the one-centred penalty between them (Gulrajani et al. 2017).
        pack: samples that the discriminator judges together (Lin et al. 2018).
        group: of how many packs it sees the deviation (Karras et al. 2018); 0 for none.
    """

    loss: str
    r1: float = 0.0
    r2: float = 0.0
    one_centred: float = 0.0
    pack: int = 1
    group: int = 0


def discriminator_loss(
    recipe: Recipe, score: Callable[[Tensor], Tensor], reals: Tensor, fakes: Tensor, share: Tensor
) -> Tensor:
    """Loss and penalties, means over the batch.

    Args:
        score: packs ``[n, c, h, w]`` to logits of any shape.
        reals, fakes: packs; nothing flows back to where they came from.
        share: places of the one-centred penalty between each real and fake, ``[n]`` in [0, 1); unused without it.
            Given, not drawn as ``losses`` does, since each of several runs draws its own.
    """
    reals, fakes = reals.detach().requires_grad_(recipe.r1 > 0), fakes.detach().requires_grad_(recipe.r2 > 0)
    real, fake = score(reals), score(fakes)
    loss = LOSSES[recipe.loss].discriminator(real, fake)
    if recipe.r1:
        loss = loss + recipe.r1 * zero_centred_penalty(real, reals)
    if recipe.r2:
        loss = loss + recipe.r2 * zero_centred_penalty(fake, fakes)
    if recipe.one_centred:
        between = torch.lerp(reals, fakes, share[:, None, None, None]).requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
        length = gradient.square().sum(dim=(1, 2, 3)).add(1e-12).sqrt()
        loss = loss + recipe.one_centred * (length - 1).square().mean()
    return loss
