"""What one step of texture training does; needs torch.

discriminator    real and fake crops, fakes rolled at random, both augmented; gradient penalty now and then
generator        fool the discriminator
average          move the averaged generator
adapt            move the augmentation probability
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assetgen.models.discriminator import Discriminator, DiscriminatorConfig
from assetgen.models.texture import TextureConfig, TextureGenerator
from assetgen.training import batches, losses
from assetgen.training.augment import augment
from assetgen.training.batches import FakeInputs, Reals
from assetgen.training.checkpoint import Progress
from assetgen.training.loop import Sums, adam, autocast, learning_rate, move_average, set_learning_rate
from assetgen.training.recipe import TextureRecipe
from assetgen.training.sheet import class_means, write_sheet

ADAPT_STEPS = 4


def texture_config(recipe: TextureRecipe, classes: int) -> TextureConfig:
    """The generator that a recipe asks for."""
    return TextureConfig(
        classes=classes,
        latent=recipe.latent,
        grid_channels=recipe.grid_noise_channels,
        widths=recipe.widths,
        grid_layers=recipe.grid_layers,
    )


class TextureTask:
    """A texture generator, its average and its discriminator in training; the same for the same recipe."""

    def __init__(self, recipe: TextureRecipe, reals: Reals, facts: Mapping[str, Any], device: str = "cpu") -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.reals = reals
        self.facts = facts
        self.device = device
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

    def step(self, progress: Progress, done: float, sums: Sums) -> Progress:
        """Train both networks on one batch each."""
        recipe = self.recipe
        rate = learning_rate(recipe, done)
        set_learning_rate(self.optimisers["generator_adam"], rate)
        set_learning_rate(self.optimisers["discriminator_adam"], rate, every=recipe.r1_interval)
        signs = self._discriminator_step(progress, sums)
        self._generator_step(progress, sums)
        move_average(self.average, self.generator, recipe, progress.pictures)
        return replace(
            _adapt(progress, recipe, signs), step=progress.step + 1, pictures=progress.pictures + recipe.batch
        )

    def snapshot(self, path: Path) -> None:
        """Measure the class means of the averaged generator and draw its sheet."""
        self.average.mapping.class_means.copy_(class_means(self.average.mapping))
        write_sheet(path, self.average, self.recipe, self.reals)

    def _discriminator_step(self, progress: Progress, sums: Sums) -> float:
        """Returns the mean sign of the logits on reals."""
        recipe, step, loss_of = self.recipe, progress.step, losses.LOSSES[self.recipe.loss]
        pictures, labels = batches.real_batch(self.reals, recipe, step)
        paired = labels.numpy() if loss_of.paired else None
        inputs = batches.fake_batch(self.reals, recipe, step, stream=0, device=self.device, labels=paired)
        pictures, labels = pictures.to(self.device), labels.to(self.device)
        with torch.no_grad():
            fakes = self._fakes(inputs)
        rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        pictures = augment(pictures, progress.augment, rng)
        fakes = augment(fakes, progress.augment, rng)
        logits = self._score(torch.cat([pictures, fakes]), torch.cat([labels, inputs.labels]))
        real_logits, fake_logits = logits.chunk(2)
        loss = loss_of.discriminator(real_logits, fake_logits)
        adam_d = self.optimisers["discriminator_adam"]
        adam_d.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if step % recipe.r1_interval == 0:
            self._penalise(pictures, labels, fakes, inputs.labels, rng, sums)
        adam_d.step()
        sums.add("loss_d", loss)
        sums.add("real_score", real_logits.mean())
        sums.add("fake_score", fake_logits.mean())
        return float(real_logits.detach().sign().mean())

    def _penalise(
        self,
        pictures: Tensor,
        labels: Tensor,
        fakes: Tensor,
        fake_labels: Tensor,
        rng: torch.Generator,
        sums: Sums,
    ) -> None:
        """Add the gradients of the penalties, in fp32 and of the augmented pictures, never through the augmentation."""
        recipe = self.recipe
        penalties: dict[str, tuple[float, Tensor]] = {}
        for name, weight, shown, told in (
            ("r1", recipe.r1_gamma, pictures, labels),
            ("r2", recipe.r2_gamma, fakes, fake_labels),
        ):
            if weight:
                leaf = shown.detach().requires_grad_(True)
                penalties[name] = weight, losses.zero_centred_penalty(self.discriminator(leaf, told), leaf)
        if recipe.gradient_penalty:
            score = partial(self.discriminator, labels=labels)
            penalty = losses.one_centred_penalty(score, pictures, fakes, rng)
            penalties["gradient_penalty"] = recipe.gradient_penalty, penalty
        for name, (weight, penalty) in penalties.items():
            (penalty * weight * recipe.r1_interval).backward()  # type: ignore[no-untyped-call]
            sums.add(name, penalty)

    def _generator_step(self, progress: Progress, sums: Sums) -> None:
        recipe, step, loss_of = self.recipe, progress.step, losses.LOSSES[self.recipe.loss]
        rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step + (1 << 40))
        self.discriminator.requires_grad_(False)
        real_logits = torch.zeros(0)
        labels = None
        if loss_of.paired:
            pictures, real_labels = batches.real_batch(self.reals, recipe, step, stream=1)
            labels = real_labels.numpy()
            with torch.no_grad():
                pictures = augment(pictures.to(self.device), progress.augment, rng)
                real_logits = self._score(pictures, real_labels.to(self.device))
        inputs = batches.fake_batch(self.reals, recipe, step, stream=1, device=self.device, labels=labels)
        fakes = augment(self._fakes(inputs), progress.augment, rng)
        loss = loss_of.generator(real_logits, self._score(fakes, inputs.labels))
        adam_g = self.optimisers["generator_adam"]
        adam_g.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam_g.step()
        self.discriminator.requires_grad_(True)
        sums.add("loss_g", loss)

    def _score(self, pictures: Tensor, labels: Tensor) -> Tensor:
        with autocast(self.recipe, self.device):
            logits: Tensor = self.discriminator(pictures, labels)
        return logits

    def _fakes(self, inputs: FakeInputs) -> Tensor:
        """Pictures in fp32, each rolled at random so that no position is special to the discriminator."""
        with autocast(self.recipe, self.device):
            pictures: Tensor = self.generator(
                inputs.z, inputs.class_weights, inputs.grid, inputs.layouts, inputs.noises
            )
        rolled = [
            torch.roll(picture, (int(rows), int(columns)), dims=(1, 2))
            for picture, (rows, columns) in zip(pictures.float(), inputs.rolls, strict=True)
        ]
        return torch.stack(rolled).contiguous(memory_format=torch.channels_last)


def _adapt(progress: Progress, recipe: TextureRecipe, signs: float) -> Progress:
    """Augment more while the discriminator is surer of reals than the target, less otherwise (ADA)."""
    total, count = progress.sign_sum + signs, progress.sign_count + 1
    if count < ADAPT_STEPS:
        return replace(progress, sign_sum=total, sign_count=count)
    move = recipe.batch * ADAPT_STEPS / (recipe.augment_kimg * 1000)
    moved = progress.augment + (move if total / count > recipe.augment_target else -move)
    return replace(progress, sign_sum=0.0, sign_count=0, augment=min(max(moved, 0.0), recipe.augment_max))
