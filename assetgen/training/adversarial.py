"""Both sides of an adversarial step, over any pair of networks; torch only.

What a discriminator learns from reals and fakes, with its penalties, and what it tells the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn, optim
from torch.nn.utils import parametrize

from assetgen.training import losses, parallel
from assetgen.training.sums import Sums

# Gradients beyond this say that training breaks down; they would break Adam's averages for good (StyleGAN 3's limit).
GRADIENT_LIMIT = 1e5
# Of the running mean logits that LeCam holds on to; it begins once they mean something.
LECAM_KEEP = 0.99
LECAM_FROM_STEP = 1000

Judge: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


class Objective(Protocol):
    """The keys of a recipe that decide what is lowered; see the recipes."""

    @property
    def loss(self) -> str: ...
    @property
    def r1_gamma(self) -> float: ...
    @property
    def r2_gamma(self) -> float: ...
    @property
    def gradient_penalty(self) -> float: ...
    @property
    def r1_interval(self) -> int: ...
    @property
    def lecam(self) -> float: ...
    @property
    def auxiliary(self) -> float: ...


@dataclass(frozen=True)
class Shown:
    """What the discriminator sees in one step, reals and fakes alike ``[n, c, h, w]`` with labels ``[n]``."""

    reals: Tensor
    real_labels: Tensor
    fakes: Tensor
    fake_labels: Tensor


class Anchors(nn.Module):
    """Running mean logits of reals and fakes, kept with the networks, for LeCam."""

    real: Tensor
    fake: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def move(self, real: Tensor, fake: Tensor) -> None:
        """Pull both means towards those of a batch."""
        with torch.no_grad():
            self.real.lerp_(real.detach().float().mean(), 1 - LECAM_KEEP)
            self.fake.lerp_(fake.detach().float().mean(), 1 - LECAM_KEEP)


def anchors(modules: dict[str, nn.Module], lecam: float, device: str) -> Anchors | None:
    """New anchors, put among ``modules`` so that checkpoints keep them; none where LeCam is off."""
    if not lecam:
        return None
    made = modules["anchors"] = Anchors().to(device)
    return made


@dataclass(frozen=True)
class Adversary:
    """A discriminator in training.

    Attributes:
        judge: pictures and labels to logits and, for an auxiliary classifier, class logits; mixed precision or not.
        judge_exactly: the same in fp32, for penalties.
        anchors: only where the recipe asks for LeCam.
        apart: judge reals and fakes in batches of their own, as batch norm asks for.
    """

    module: nn.Module
    optimiser: optim.Adam
    objective: Objective
    judge: Judge
    judge_exactly: Judge
    anchors: Anchors | None = None
    apart: bool = False

    def learn(self, shown: Shown, step: int, penalty_scale: float, rng: torch.Generator, sums: Sums) -> float:
        """Take one step; returns the mean sign of the logits on reals.

        Args:
            penalty_scale: multiplies all gradient penalties.
            rng: on the CPU, for the penalty between reals and fakes.
        """
        loss_of = losses.LOSSES[self.objective.loss]
        real_logits, fake_logits, class_logits = self._judged(shown)
        loss = loss_of.discriminator(real_logits, fake_logits)
        sums.add("loss_d", loss)
        if class_logits is not None:
            class_loss = F.cross_entropy(class_logits.float(), shown.real_labels)
            sums.add("class_loss_real", class_loss)
            loss = loss + self.objective.auxiliary * class_loss
        if self.anchors is not None:
            if step >= LECAM_FROM_STEP:
                term = losses.lecam(real_logits, fake_logits, self.anchors.real, self.anchors.fake)
                sums.add("lecam", term)
                loss = loss + self.objective.lecam * term
            self.anchors.move(real_logits, fake_logits)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if step % self.objective.r1_interval == 0:
            self._penalise(shown, penalty_scale, rng, sums)
        sanitise(self.module, "d", sums)
        self.optimiser.step()
        sums.add("real_score", real_logits.mean())
        sums.add("fake_score", fake_logits.mean())
        sign = real_logits.detach().sign().mean()
        parallel.average([sign])
        sums.add("sign", sign)
        return float(sign)

    def verdict(self, fakes: Tensor, labels: Tensor, reals: Tensor | None, sums: Sums) -> Tensor:
        """What the generator lowers; ``reals`` of the same labels only for paired losses."""
        loss_of = losses.LOSSES[self.objective.loss]
        with parametrize.cached():
            with torch.no_grad():
                real_logits = torch.zeros(0) if reals is None else self.judge(reals, labels)[0]
            logits, class_logits = self.judge(fakes, labels)
        loss = loss_of.generator(real_logits, logits)
        sums.add("loss_g", loss)
        if class_logits is not None:
            class_loss = F.cross_entropy(class_logits.float(), labels)
            sums.add("class_loss_fake", class_loss)
            loss = loss + self.objective.auxiliary * class_loss
        return loss

    def _judged(self, shown: Shown) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits of reals, of fakes, and class logits of reals."""
        if self.apart:
            with parametrize.cached():  # spectral norm looks at the weights once, not once a batch
                real_logits, class_logits = self.judge(shown.reals, shown.real_labels)
                return real_logits, self.judge(shown.fakes, shown.fake_labels)[0], class_logits
        logits, class_logits = self.judge(
            torch.cat([shown.reals, shown.fakes]), torch.cat([shown.real_labels, shown.fake_labels])
        )
        real_logits, fake_logits = logits.chunk(2)
        return real_logits, fake_logits, None if class_logits is None else class_logits.chunk(2)[0]

    def _penalise(self, shown: Shown, scale: float, rng: torch.Generator, sums: Sums) -> None:
        """Add the gradients of the penalties, in fp32 and of the augmented pictures, never through the augmentation."""
        objective = self.objective
        penalties: dict[str, tuple[float, Tensor]] = {}
        for name, weight, pictures, told in (
            ("r1", objective.r1_gamma, shown.reals, shown.real_labels),
            ("r2", objective.r2_gamma, shown.fakes, shown.fake_labels),
        ):
            if weight:
                leaf = pictures.detach().requires_grad_(True)
                penalties[name] = weight, losses.zero_centred_penalty(self.judge_exactly(leaf, told)[0], leaf)
        if objective.gradient_penalty:
            score = partial(self._score, labels=shown.real_labels)
            penalty = losses.one_centred_penalty(score, shown.reals, shown.fakes, rng)
            penalties["gradient_penalty"] = objective.gradient_penalty, penalty
        for name, (weight, penalty) in penalties.items():
            (penalty * weight * scale * objective.r1_interval).backward()  # type: ignore[no-untyped-call]
            sums.add(name, penalty)

    def _score(self, pictures: Tensor, labels: Tensor) -> Tensor:
        return self.judge_exactly(pictures, labels)[0]


def descend(module: nn.Module, optimiser: optim.Adam, loss: Tensor, name: str, sums: Sums) -> None:
    """Take one step down ``loss``, by gradients that are sound; see ``sanitise``."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    sanitise(module, name, sums)
    optimiser.step()


def sanitise(module: nn.Module, name: str, sums: Sums) -> None:
    """Average gradients over processes, bound them, put 0 for what is no number; counts length and bad ones."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    parallel.average(gradients)
    length = torch.nn.utils.get_total_norm(gradients)
    bad = not bool(length < GRADIENT_LIMIT)  # true of NaN
    if bad:
        for gradient in gradients:
            torch.nan_to_num(gradient, 0.0, GRADIENT_LIMIT, -GRADIENT_LIMIT, out=gradient)
            gradient.clamp_(-GRADIENT_LIMIT, GRADIENT_LIMIT)
        length = torch.nn.utils.get_total_norm(gradients)
    sums.add(f"gradient_{name}", length)
    sums.add("bad_gradients", torch.tensor(float(bad)))
