"""Mode capture on mixtures of Gaussians: every recipe, several runs at once; torch only."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from assetgen.errors import ConfigInvalid
from assetgen.training.experiments.mixtures import Coverage, Mixture, coverage
from assetgen.training.experiments.recipes import Recipe, discriminator_loss
from assetgen.training.experiments.stacked import Draws, Perceptrons
from assetgen.training.losses import LOSSES

Notify = Callable[[str], None]

# The zero-centred weights suit coordinates of about unit deviation.
RECIPES = {
    "saturating": Recipe("saturating"),
    "ns_logistic": Recipe("ns_logistic"),
    "hinge": Recipe("hinge"),
    "least_squares": Recipe("least_squares"),
    "wasserstein_gp": Recipe("wasserstein", one_centred=0.1),
    "relativistic": Recipe("relativistic"),
    "ns_logistic_pack2": Recipe("ns_logistic", pack=2),
    "ns_logistic_r1": Recipe("ns_logistic", r1=0.05),
    "ns_logistic_r1_deviation": Recipe("ns_logistic", r1=0.05, group=4),
    "relativistic_r1_r2": Recipe("relativistic", r1=0.05, r2=0.05),
}


@dataclass(frozen=True)
class Settings:
    """What all recipes of a comparison share.

    Attributes:
        steps: of both networks.
        batch: points a step; a multiple of 8, so that packs and groups come out even.
        latent, width, depth: size of the noise, and of the hidden layers of both networks.
        lr: at the start; falls to 0 along a cosine.
        betas: of Adam.
        ema_share: half-life of the averaged generator as a share of the steps so far.
        samples: points that a generator is judged by; 2500 in both papers.
        seed: of the first run; run k has ``seed + k``.
    """

    steps: int = 2000
    batch: int = 64
    latent: int = 2
    width: int = 64
    depth: int = 4
    lr: float = 2e-3
    betas: tuple[float, float] = (0.5, 0.9)
    ema_share: float = 0.02
    samples: int = 2500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.samples < 1 or self.seed < 0:
            raise ConfigInvalid(f"steps {self.steps}, samples {self.samples}, seed {self.seed}: use 1, 1, 0 or more")
        if self.batch < 8 or self.batch % 8:
            raise ConfigInvalid(f"batch {self.batch} is not allowed; use a multiple of 8")


@dataclass(frozen=True)
class Outcome:
    """Result of one recipe.

    Attributes:
        last, averaged: coverage of each run by the generator of the last step, and by its running average.
        samples: of the averaged generators, ``[runs, n, 2]``.
    """

    last: tuple[Coverage, ...]
    averaged: tuple[Coverage, ...]
    samples: Tensor


def train(recipe: Recipe, mixture: Mixture, settings: Settings, runs: int, notify: Notify | None = None) -> Outcome:
    """Train ``runs`` pairs of networks side by side; each is what it would be alone, to rounding."""
    if runs < 1:
        raise ConfigInvalid(f"{runs} runs are not allowed; use 1 or more")
    game = Game(recipe, mixture, settings, runs)
    for step in range(settings.steps):
        game.step(step)
        if notify and (step + 1) % max(1, settings.steps // 10) == 0:
            notify(f"step {step + 1} of {settings.steps}")
    z = game.draws.normal(settings.samples, settings.latent)
    with torch.no_grad():
        last, averaged = (network(z) * mixture.scale for network in (game.generator, game.average))
    return Outcome(
        tuple(coverage(points, mixture) for points in last),
        tuple(coverage(points, mixture) for points in averaged),
        averaged,
    )


class Game:
    """Generators and discriminators of several runs with their optimisers."""

    def __init__(self, recipe: Recipe, mixture: Mixture, settings: Settings, runs: int) -> None:
        self.recipe, self.mixture, self.settings, self.runs = recipe, mixture, settings, runs
        self.draws = Draws(range(settings.seed, settings.seed + runs))
        hidden = [settings.width] * settings.depth
        self.generator = Perceptrons([settings.latent, *hidden, 2], self.draws)
        self.discriminator = Perceptrons([2 * recipe.pack, *hidden, 1], self.draws, group=recipe.group)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.loss = LOSSES[recipe.loss]
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=settings.lr, betas=settings.betas, fused=True)
            for network in (self.generator, self.discriminator)
        ]

    def step(self, step: int) -> None:
        """One update of the discriminators, then one of the generators, on the same reals and fakes."""
        rate = self.settings.lr * 0.5 * (1 + math.cos(math.pi * step / self.settings.steps))
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate
        of_generator, of_discriminator = self.optimizers
        fakes = self.generator(self._noise())
        of_discriminator.zero_grad()
        reals = self._reals()
        share = self.draws.uniform(self.settings.batch // self.recipe.pack).flatten()
        # The mean over all runs times their number is the sum of their means: each run gets its own gradient.
        loss = discriminator_loss(self.recipe, self.score, self._packs(reals), self._packs(fakes), share)
        (loss * self.runs).backward()  # type: ignore[no-untyped-call]
        of_discriminator.step()

        self.discriminator.requires_grad_(False)
        real = self.score(reals) if self.loss.paired else fakes.new_zeros(0)
        of_generator.zero_grad()
        loss = self.loss.generator(real, self.score(fakes)) * self.runs
        loss.backward()  # type: ignore[no-untyped-call]
        self.discriminator.requires_grad_(True)
        of_generator.step()
        keep = 0.5 ** (1 / max(self.settings.ema_share * step, 1e-8))
        for mean, now in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(now.detach(), 1 - keep)

    def score(self, points: Tensor) -> Tensor:
        """Logits ``[runs, packs]`` of points of all runs in a row; neighbours share a pack."""
        packs = points.reshape(self.runs, -1, 2 * self.recipe.pack)
        logits: Tensor = self.discriminator(packs)[:, :, 0]
        return logits

    def _noise(self) -> Tensor:
        return self.draws.normal(self.settings.batch, self.settings.latent)

    def _reals(self) -> Tensor:
        return self.draws.stack(lambda rng: self.mixture.sample(self.settings.batch, rng)) / self.mixture.scale

    def _packs(self, points: Tensor) -> Tensor:
        """In the form of pictures, ``[runs n / pack, 2 pack, 1, 1]``."""
        return points.reshape(-1, 2 * self.recipe.pack, 1, 1)
