"""What one step of training style transfer between n domains in one network does; needs torch.

generator        lead crops to domains drawn at random: fool the discriminator, be told the domain, find the way back
discriminator    reals and fakes without their borders, the domain of reals, R1 now and then
average          move the averaged generator

Differs from the paper (Choi et al. 2018): the non-saturating loss with R1 in place of Wasserstein's with a penalty
between reals and fakes, which takes five steps of the discriminator, each with a second derivative, for one of the
generator; crops are cut as in style.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.errors import ConfigInvalid
from assetgen.models.cyclegan import CycleganGenerator
from assetgen.models.parts import standing_statistics
from assetgen.models.patches import cut_border
from assetgen.models.stargan import StarganConfig, StarganDiscriminator, StarganGenerator
from assetgen.training import distil, parallel, style
from assetgen.training.adversarial import Adversary, Shown, descend
from assetgen.training.batches import Reals
from assetgen.training.checkpoint import Checkpoint, Progress
from assetgen.training.loop import learning_rate, move_average, players, set_learning_rate
from assetgen.training.precision import autocast
from assetgen.training.recipe import recipe_from_values
from assetgen.training.style import GENERATOR_SHARES, MORE, STANDING_BATCHES
from assetgen.training.style_batches import dither, domain_batch, mixed_batch
from assetgen.training.style_look import SHOWN, change, figures, looked_at, write_rows
from assetgen.training.style_recipe import PAIR_METHODS, StyleRecipe
from assetgen.training.style_terms import beside, seen
from assetgen.training.sums import Sums


def generator_config(recipe: StyleRecipe, domains: int) -> StarganConfig:
    """The generator that a recipe asks for."""
    return StarganConfig(
        domains, width=recipe.width, blocks=recipe.blocks, style=recipe.style, wrap=recipe.wrap, norm=recipe.norm
    )


class StarTask:
    """A generator for all domains, its average and its discriminator; the same for the same recipe."""

    def __init__(
        self,
        recipe: StyleRecipe,
        reals: Reals,
        facts: Mapping[str, Any],
        device: str = "cpu",
        held_out: Reals | None = None,
    ) -> None:
        if recipe.method != "stargan":
            raise ConfigInvalid(f"method: {recipe.method} is trained by style.StyleTask")
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.share = parallel.share(recipe)
        self.reals = reals
        self.held_out = held_out
        self.facts = facts
        self.device = device
        self.domains = len(reals.classes)
        self.teacher: nn.Module | None = None
        self.ways: dict[int, nn.Module] = {}  # teachers of one domain each, by its number
        self.generator = StarganGenerator(generator_config(recipe, self.domains))
        self.discriminator = StarganDiscriminator(self.domains, recipe.inner_px, width=recipe.discriminator_width)
        self.modules, self.optimisers = players(self.generator, self.discriminator, recipe, device)
        self.average = self.modules["average"]
        self.adversary = Adversary(
            module=self.discriminator,
            optimiser=self.optimisers["discriminator_adam"],
            objective=recipe,
            judge=self._judge,
            judge_exactly=self._judge_exactly,
        )

    def learn_from(self, saved: Checkpoint) -> None:
        """Have a teacher of the same method, or one of a single way, which others may join; see ``distil``."""
        recipe = recipe_from_values(StyleRecipe, saved.recipe)
        if recipe.method in PAIR_METHODS:
            target = self.reals.classes.index(recipe.target)
            self.ways[target] = distil.taught(CycleganGenerator(style.generator_config(recipe)).to(self.device), saved)
            return
        teacher = StarganGenerator(generator_config(recipe, self.domains)).to(self.device)
        self.teacher = distil.taught(teacher, saved)

    def step(self, progress: Progress, done: float, sums: Sums) -> Progress:
        """Train the generator, then the discriminator on what it made."""
        recipe = self.recipe
        share = learning_rate(recipe, done) / recipe.learning_rate * progress.rate_scale
        set_learning_rate(self.optimisers["generator_adam"], recipe.learning_rate * share)
        set_learning_rate(self.optimisers["discriminator_adam"], recipe.discriminator_rate * share)
        rng = torch.Generator().manual_seed(self.share.seed * 1_000_003 + progress.step)
        drawn = mixed_batch(self.reals, self.share, progress.step)
        crops, labels, targets = (tensor.to(self.device) for tensor in drawn)
        if recipe.compares_spread or self.ways:  # a few pictures tell little of a spread: all go to one look
            targets = targets[:1].expand_as(targets)
        made = self._generator_step(crops, labels, targets, progress.step, rng, sums)
        reals, fakes = (seen(recipe, self._inner(pictures)) for pictures in (crops, made))
        shown = Shown(reals, labels, fakes, targets)
        self.adversary.learn(shown, progress.step, progress.penalty_scale, rng, sums)
        move_average(self.average, self.generator, recipe, progress.pictures)
        return replace(progress, step=progress.step + 1, pictures=progress.pictures + recipe.batch)

    def monitor(self) -> dict[str, float]:
        """Figures of the averaged generator, by the domain that pictures of all others are led to; see ``style_look``.

        ``cycle_error``: mean error of a value after the way there and back; ``domain_share``: how many fakes the
        discriminator takes for their domain; ``label_effect``: mean change of a value by another domain.
        """
        self._settle()
        found: dict[str, float] = {}
        befores = [self._looked_at(label) for label in range(self.domains)]
        errors, told, effects = [], [], []
        for target, name in enumerate(self.reals.classes):
            others = [label for label in range(self.domains) if label != target]
            before = torch.cat([befores[label] for label in others])
            labels = torch.tensor(others, device=self.device).repeat_interleave(SHOWN)
            after = self._made(before, torch.full_like(labels, target))
            found |= figures(self._inner(before), self._inner(after), self._inner(befores[target]), name)
            errors.append(change(self._inner(self._made(after, labels)), self._inner(before)))
            effects.append(change(self._made(before, labels), after))
            with torch.no_grad():
                classes = self._judge_exactly(self._inner(after), labels)[1]
            told.append(float((classes.argmax(dim=1) == target).float().mean()))
        means = {"cycle_error": errors, "domain_share": told, "label_effect": effects}
        return found | {name: round(sum(values) / len(values), 5) for name, values in means.items()}

    def snapshot(self, path: Path) -> None:
        """Draw a row a picture: before, and led to every domain."""
        self._settle()
        rows = max(1, SHOWN // self.domains)
        before = torch.cat([self._looked_at(label, rows) for label in range(self.domains)])
        asked = (torch.full((len(before),), target, device=self.device) for target in range(self.domains))
        columns = [before, *(self._made(before, targets) for targets in asked)]
        write_rows(path, ["before", *(f"to {name}" for name in self.reals.classes)], columns)

    def _generator_step(
        self, crops: Tensor, labels: Tensor, targets: Tensor, step: int, rng: torch.Generator, sums: Sums
    ) -> Tensor:
        """Returns the fakes, without gradients."""
        recipe = self.recipe
        self.discriminator.requires_grad_(False)
        made = self._paint(crops, targets, rng)
        verdict = self.adversary.verdict(seen(recipe, self._inner(made)), targets, None, sums)
        loss = GENERATOR_SHARES.get(recipe.loss, 1.0) * verdict
        if recipe.cycle:
            cycle = F.l1_loss(self._inner(self._paint(made, labels, rng)), self._inner(crops))
            sums.add("cycle", cycle)
            loss = loss + recipe.cycle * cycle
        loss = loss + self._beside(crops, made, targets, step, rng, sums)
        wanted = self._wanted(crops, labels, targets)
        if wanted is not None:
            distance = distil.distance(self._inner(made), self._inner(wanted))
            sums.add("distance", distance)
            loss = loss + recipe.distil * distance
        descend(self.generator, self.optimisers["generator_adam"], loss, "g", sums)
        self.discriminator.requires_grad_(True)
        return made.detach()

    def _wanted(self, crops: Tensor, labels: Tensor, targets: Tensor) -> Tensor | None:
        """What the teachers make of a batch, if they know its way; one of a single way leaves its own look as it is."""
        with torch.no_grad():
            if self.teacher is not None:
                made: Tensor = self.teacher(crops, self._weights(targets)).float()
                return made
            way = self.ways.get(int(targets[0]))
            if way is None:
                return None
            return torch.where((labels == targets)[:, None, None, None], crops, way(crops).float())

    def _beside(
        self, crops: Tensor, made: Tensor, targets: Tensor, step: int, rng: torch.Generator, sums: Sums
    ) -> Tensor:
        """The terms beside the game; with patches or colours all pictures are led to one look."""
        reals = None
        if self.recipe.compares_spread:
            batch = domain_batch(self.reals, int(targets[0]), self.share, step, times=MORE)
            reals = self._inner(batch.to(self.device))
        return beside(self.recipe, self._inner(crops), self._inner(made), reals, rng, sums)

    def _settle(self) -> None:
        """Statistics of batch norms belong to weights; those of the averaged network are its own."""
        if self.recipe.norm != "batch":
            return
        batches = []
        for step in range(STANDING_BATCHES):
            crops, _, targets = mixed_batch(self.reals, self.share, step)
            batches.append((crops.to(self.device), self._weights(targets.to(self.device))))
        standing_statistics(self.average, batches)

    def _weights(self, labels: Tensor) -> Tensor:
        return F.one_hot(labels, self.domains).float()

    def _paint(self, x: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        with autocast(self.recipe, self.device):
            made: Tensor = self.generator(dither(x, rng), self._weights(labels))
        return made.float()

    def _made(self, x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            made: Tensor = self.average(x, self._weights(labels))
        return made

    def _inner(self, x: Tensor) -> Tensor:
        return cut_border(x, self.recipe.border_px)

    def _looked_at(self, label: int, count: int = SHOWN) -> Tensor:
        return looked_at(self.reals, self.held_out, label, self.recipe.crop_px, count).to(self.device)

    def _judge(self, pictures: Tensor, _labels: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(self.recipe, self.device):
            logits, classes = self.discriminator(pictures)
        return logits.float().flatten(1), classes.float()

    def _judge_exactly(self, pictures: Tensor, _labels: Tensor) -> tuple[Tensor, Tensor]:
        logits, classes = self.discriminator(pictures)
        return logits.mean(dim=(1, 2, 3)), classes
