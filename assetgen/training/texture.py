"""What one step of texture training does; needs torch.

discriminator    real and fake crops, fakes rolled at random, both augmented; gradient penalty now and then
generator        fool the discriminator
average          move the averaged generator
adapt            move the augmentation probability
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assetgen import latents
from assetgen.models.discriminator import Discriminator, DiscriminatorConfig
from assetgen.models.texture import TextureConfig, TextureGenerator
from assetgen.training import batches, distil, losses, parallel
from assetgen.training.adversarial import Adversary, Shown, anchors, descend
from assetgen.training.augment import augment
from assetgen.training.batches import FakeInputs, HostInputs, Reals
from assetgen.training.checkpoint import Checkpoint, Progress
from assetgen.training.feed import Feed
from assetgen.training.loop import (
    adam,
    adapt_augmentation,
    augmentation,
    learning_rate,
    move_average,
    set_learning_rate,
)
from assetgen.training.monitor import look
from assetgen.training.precision import autocast
from assetgen.training.recipe import TextureRecipe, recipe_from_values
from assetgen.training.sheet import class_means, write_texture_sheet
from assetgen.training.sums import Sums

# Of random numbers, beside those of training.
MONITOR_STREAM = 1 << 52


def texture_config(recipe: TextureRecipe, classes: int) -> TextureConfig:
    """The generator that a recipe asks for."""
    return TextureConfig(
        classes=classes,
        latent=recipe.latent,
        grid_channels=recipe.grid_noise_channels,
        widths=recipe.widths,
        grid_layers=recipe.grid_layers,
    )


@dataclass(frozen=True)
class Fed:
    """What the host makes for one step: reals with labels and fakes, of the discriminator and of the generator.

    The generator's reals come with paired losses only.
    """

    reals: Tensor
    real_labels: Tensor
    fakes: HostInputs
    generator_reals: Tensor | None
    generator_fakes: HostInputs


def feed(reals: Reals, recipe: TextureRecipe, step: int) -> Fed:
    """Draw everything that a step needs of the host; with paired losses fakes have the labels of the reals."""
    paired = losses.LOSSES[recipe.loss].paired
    pictures, labels = batches.real_batch(reals, recipe, step)
    fakes = batches.host_batch(reals, recipe, step, stream=0, labels=labels.numpy() if paired else None)
    if not paired:
        return Fed(pictures, labels, fakes, None, batches.host_batch(reals, recipe, step, stream=1))
    more, more_labels = batches.real_batch(reals, recipe, step, stream=1)
    more_fakes = batches.host_batch(reals, recipe, step, stream=1, labels=more_labels.numpy())
    return Fed(pictures, labels, fakes, more, more_fakes)


class TextureTask:
    """A texture generator, its average and its discriminator in training; the same for the same recipe."""

    def __init__(
        self,
        recipe: TextureRecipe,
        reals: Reals,
        facts: Mapping[str, Any],
        device: str = "cpu",
        held_out: Reals | None = None,
        workers: int = 0,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.share = parallel.share(recipe)
        self.feed = Feed(functools.partial(feed, reals, self.share), workers)
        self.reals = reals
        self.held_out = held_out
        self.facts = facts
        self.device = device
        self.teacher: torch.nn.Module | None = None
        classes = len(reals.classes)
        self.generator = TextureGenerator(texture_config(recipe, classes))
        self.discriminator = Discriminator(
            DiscriminatorConfig(classes=classes, edge_px=recipe.crop_px, widths=recipe.discriminator_widths)
        )
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.modules: dict[str, torch.nn.Module] = {
            "generator": self.generator,
            "average": self.average,
            "discriminator": self.discriminator,
        }
        for module in self.modules.values():
            module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisers = {
            "generator_adam": adam(self.generator, recipe.learning_rate),
            "discriminator_adam": adam(self.discriminator, recipe.learning_rate, every=recipe.r1_interval),
        }
        self.adversary = Adversary(
            module=self.discriminator,
            optimiser=self.optimisers["discriminator_adam"],
            objective=recipe,
            judge=self._judge,
            judge_exactly=self._judge_exactly,
            anchors=anchors(self.modules, recipe.lecam, device),
        )

    def learn_from(self, saved: Checkpoint) -> None:
        """Have a teacher; see ``distil``."""
        recipe = recipe_from_values(TextureRecipe, saved.recipe)
        teacher = TextureGenerator(texture_config(recipe, len(self.reals.classes)))
        self.teacher = distil.taught(teacher.to(self.device, memory_format=torch.channels_last), saved)  # type: ignore[call-overload]

    def step(self, progress: Progress, done: float, sums: Sums) -> Progress:
        """Train both networks on one batch each."""
        recipe = self.recipe
        rate = learning_rate(recipe, done) * progress.rate_scale
        set_learning_rate(self.optimisers["generator_adam"], rate)
        set_learning_rate(self.optimisers["discriminator_adam"], rate, every=recipe.r1_interval)
        fed = self.feed.at(progress.step)
        signs = self._discriminator_step(fed, progress, sums)
        self._generator_step(fed, progress, sums)
        move_average(self.average, self.generator, recipe, progress.pictures)
        progress = adapt_augmentation(progress, recipe, signs)
        return replace(progress, step=progress.step + 1, pictures=progress.pictures + recipe.batch)

    def monitor(self) -> dict[str, float]:
        """Figures of the averaged generator for the log; see ``monitor.look``."""
        return look(self._paint, self.discriminator, self._judge_exactly, self.reals, self.held_out, self.recipe)

    def snapshot(self, path: Path) -> None:
        """Measure the class means of the averaged generator and draw its sheet."""
        self.average.mapping.class_means.copy_(class_means(self.average.mapping))
        write_texture_sheet(path, self.average, self.recipe, self.reals)

    def _discriminator_step(self, fed: Fed, progress: Progress, sums: Sums) -> float:
        """Returns the mean sign of the logits on reals."""
        step = progress.step
        inputs = self._on_device(fed.fakes)
        with torch.no_grad():
            fakes = self._fakes(inputs)
        rng = torch.Generator().manual_seed(self.share.seed * 1_000_003 + step)
        chance = augmentation(progress, self.recipe)
        shown = Shown(
            reals=augment(fed.reals.to(self.device), chance, rng),
            real_labels=fed.real_labels.to(self.device),
            fakes=augment(fakes, chance, rng),
            fake_labels=inputs.labels,
        )
        return self.adversary.learn(shown, step, progress.penalty_scale, rng, sums)

    def _generator_step(self, fed: Fed, progress: Progress, sums: Sums) -> None:
        rng = torch.Generator().manual_seed(self.share.seed * 1_000_003 + progress.step + (1 << 40))
        chance = augmentation(progress, self.recipe)
        self.discriminator.requires_grad_(False)
        reals = None
        if fed.generator_reals is not None:
            reals = augment(fed.generator_reals.to(self.device), chance, rng)
        inputs = self._on_device(fed.generator_fakes)
        pictures = self._fakes(inputs)
        fakes = augment(pictures, chance, rng)
        loss = self.adversary.verdict(fakes, inputs.labels, reals, sums)
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self._fakes(inputs, self.teacher)
            distance = distil.distance(pictures, wanted)
            sums.add("distance", distance)
            loss = loss + self.recipe.distil * distance
        descend(self.generator, self.optimisers["generator_adam"], loss, "g", sums)
        self.discriminator.requires_grad_(True)

    def _paint(self, labels: Tensor, latent_seed: int, seed: int) -> Tensor:
        recipe, classes = self.recipe, self.reals.classes
        rng = latents.generator(recipe.seed, MONITOR_STREAM + seed)
        inputs = batches.fake_inputs(rng, labels.numpy(), classes, recipe, recipe.crop_px, self.device)
        draws = latents.generator(latent_seed, 0).standard_normal((len(labels), recipe.latent), dtype=np.float32)
        z = torch.from_numpy(draws).to(self.device)
        made: Tensor = self.average(z, inputs.class_weights, inputs.grid, inputs.layouts, inputs.noises)
        return made.float()

    def _on_device(self, host: HostInputs) -> FakeInputs:
        return batches.on_device(host, self.recipe, len(self.reals.classes), self.device)

    def _judge(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        with autocast(self.recipe, self.device):
            return self.discriminator(pictures, labels), None

    def _judge_exactly(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        return self.discriminator(pictures, labels), None

    def _fakes(self, inputs: FakeInputs, network: torch.nn.Module | None = None) -> Tensor:
        """Pictures in fp32, each rolled at random so that no position is special to the discriminator."""
        with autocast(self.recipe, self.device):
            pictures: Tensor = (network or self.generator)(
                inputs.z, inputs.class_weights, inputs.grid, inputs.layouts, inputs.noises
            )
        return batches.rolled(pictures.float(), inputs.rolls)
