"""What one step of training a picture family does; needs torch.

discriminator    real and fake pictures, augmented, as many times as the recipe says; penalties now and then
generator        fool the discriminator; with an encoder, rebuild real pictures (VAE-GAN, Larsen et al. 2016)
average          move the averaged generator
adapt            move the augmentation probability

With an encoder, half of the fakes are rebuilt from the very reals that they stand against: what a rebuilt picture lacks
beside its original is learned sooner than what any picture lacks beside any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assetgen import latents
from assetgen.datasets.tiles import ByteArray
from assetgen.errors import ConfigInvalid
from assetgen.models.biggan import BigganEncoder, orthogonal_penalty, truncated_latent
from assetgen.models.families import FAMILIES, PictureConfig, standing_statistics
from assetgen.models.mixture import MixturePrior
from assetgen.models.progressive import ProgressiveDiscriminator, ProgressiveGenerator, at_stage
from assetgen.training import batches, distil, losses, parallel
from assetgen.training.adversarial import Adversary, Shown, anchors, descend, sanitise
from assetgen.training.augment import augment
from assetgen.training.batches import FAKE_STREAM, Reals
from assetgen.training.checkpoint import Checkpoint, Progress
from assetgen.training.loop import (
    adam,
    adapt_augmentation,
    augmentation,
    learning_rate,
    move_average,
    players,
    set_learning_rate,
)
from assetgen.training.monitor import look
from assetgen.training.precision import autocast
from assetgen.training.rebuild import divergence, drawn_code, picture_distance
from assetgen.training.recipe import PictureRecipe, recipe_from_values
from assetgen.training.sheet import write_sheet
from assetgen.training.sprite_augment import augment_sprites, over_ground
from assetgen.training.sums import Sums

STANDING_BATCHES = 16
# Streams of random numbers: the generator's step has the second, discriminator steps all others.
GENERATOR_STREAM = 1
REBUILD_STREAM = 1 << 7
GROUND_STREAM = 1 << 8


def picture_config(recipe: PictureRecipe, classes: int) -> PictureConfig:
    """The networks that a recipe asks for; raises ConfigInvalid for what its family cannot do."""
    family = FAMILIES[recipe.family]
    if recipe.conditioning not in family.conditionings:
        raise ConfigInvalid(
            f"conditioning: family {recipe.family!r} has no {recipe.conditioning!r}; "
            f"it has {', '.join(family.conditionings)}"
        )
    if recipe.wrap and not family.wraps:
        raise ConfigInvalid(f"wrap: family {recipe.family!r} cannot tile; set wrap = false")
    if recipe.family == "dcgan" and recipe.gradient_penalty:
        raise ConfigInvalid("gradient_penalty: the batch norm of dcgan mixes pictures; use family resnet, or r1_gamma")
    return PictureConfig(
        classes=classes,
        edge_px=recipe.crop_px,
        latent=recipe.latent,
        width=recipe.width,
        wrap=recipe.wrap,
        conditioning=recipe.conditioning,
        channels=4 if recipe.alpha else 3,
        groups=recipe.groups,
        coded=recipe.rebuild > 0,
    )


@dataclass(frozen=True)
class _Latents:
    z: Tensor
    labels: Tensor
    class_weights: Tensor
    rolls: NDArray[np.int64]

    def after(self, count: int) -> _Latents:
        """All but the first ``count``."""
        return _Latents(self.z[count:], self.labels[count:], self.class_weights[count:], self.rolls[count:])


@dataclass(frozen=True)
class _Rebuilt:
    """Reals ``[n, c, h, w]``, and what became of them by way of codes that were drawn with mean and log variance."""

    reals: Tensor
    labels: Tensor
    pictures: Tensor
    mean: Tensor
    log_variance: Tensor


class PictureTask:
    """A generator of one of the families, its average and its discriminator; the same for the same recipe."""

    def __init__(
        self,
        recipe: PictureRecipe,
        reals: Reals,
        facts: Mapping[str, Any],
        device: str = "cpu",
        held_out: Reals | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.share = parallel.share(recipe)
        self.reals = reals
        self.held_out = held_out
        self.facts = facts
        self.device = device
        self.teacher: nn.Module | None = None
        config, family = picture_config(recipe, len(reals.classes)), FAMILIES[recipe.family]
        self.generator, self.discriminator = family.generator(config), family.discriminator(config)
        self.modules, self.optimisers = players(self.generator, self.discriminator, recipe, device)
        self.average = self.modules["average"]
        self.encoder: BigganEncoder | None = None
        if recipe.rebuild:
            self.encoder = BigganEncoder(config).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.modules["encoder"] = self.encoder
            self.optimisers["encoder_adam"] = adam(self.encoder, recipe.learning_rate, betas=(0.9, 0.99))
        self.adversary = Adversary(
            module=self.discriminator,
            optimiser=self.optimisers["discriminator_adam"],
            objective=recipe,
            judge=self._judge,
            judge_exactly=self._judge_exactly,
            anchors=anchors(self.modules, recipe.lecam, device),
            apart=True,
        )

    def learn_from(self, saved: Checkpoint) -> None:
        """Have a teacher; see ``distil``."""
        recipe = recipe_from_values(PictureRecipe, saved.recipe)
        teacher = FAMILIES[recipe.family].generator(picture_config(recipe, len(self.reals.classes)))
        self.teacher = distil.taught(teacher.to(self.device), saved)

    def step(self, progress: Progress, done: float, sums: Sums) -> Progress:
        """Train the discriminator as often as the recipe says, then the generator once."""
        recipe = self.recipe
        share = learning_rate(recipe, done) / recipe.learning_rate * progress.rate_scale
        set_learning_rate(self.optimisers["generator_adam"], recipe.learning_rate * share)
        set_learning_rate(self.optimisers["discriminator_adam"], recipe.discriminator_rate * share)
        if self.encoder is not None:
            set_learning_rate(self.optimisers["encoder_adam"], recipe.learning_rate * share)
        self._grow(done)
        adapted = progress
        judged = recipe.adversarial > 0 and done >= recipe.adversarial_from
        if judged:
            signs = [
                self._discriminator_step(progress, GENERATOR_STREAM + i if i else 0, sums)
                for i in range(recipe.discriminator_steps)
            ]
            adapted = adapt_augmentation(progress, recipe, float(np.mean(signs)))
        self._generator_step(progress, sums, judged=judged)
        move_average(self.average, self.generator, recipe, progress.pictures)
        return replace(
            adapted,
            step=progress.step + 1,
            pictures=progress.pictures + recipe.batch * recipe.discriminator_steps,
        )

    def monitor(self) -> dict[str, float]:
        """Figures of the averaged generator for the log; see ``monitor.look``."""
        self._settle()
        return look(self._paint, self.discriminator, self._judge_exactly, self.reals, self.held_out, self.recipe)

    def snapshot(self, path: Path) -> None:
        """Measure the statistics of the averaged generator anew, and draw its sheet."""
        self._settle()
        write_sheet(path, self.reals, self.sample)

    def _settle(self) -> None:
        """Batch statistics and power vectors belong to weights; those of the averaged network are its own.

        What codes are like, both know.
        """
        for mine, kept in zip(self.average.modules(), self.generator.modules(), strict=True):
            if isinstance(mine, MixturePrior):
                mine.load_state_dict(kept.state_dict())
        draws = (self._latents(-1 - i, GENERATOR_STREAM) for i in range(STANDING_BATCHES))
        standing_statistics(self.average, [(drawn.z, drawn.class_weights) for drawn in draws])

    def sample(self, label: int, seed: int) -> ByteArray:
        """One picture by the averaged generator; see ``sample``."""
        return sample(self.average, self.recipe, len(self.reals.classes), label, seed)

    def _paint(self, labels: Tensor, latent_seed: int, _seed: int) -> Tensor:
        draws = latents.generator(latent_seed, 0).standard_normal((len(labels), self.recipe.latent), dtype=np.float32)
        weights = torch.nn.functional.one_hot(labels, len(self.reals.classes)).float()
        made: Tensor = self.average(torch.from_numpy(draws).to(self.device), weights.to(self.device))
        return made.float()

    def _grow(self, done: float) -> None:
        """Set the stage of progressive networks (Karras et al. 2018)."""
        for module in self.modules.values():
            if isinstance(module, ProgressiveGenerator | ProgressiveDiscriminator):
                module.set_stage(_stage(done / self.recipe.grown_by, module.config.levels))

    def _discriminator_step(self, progress: Progress, stream: int, sums: Sums) -> float:
        """Returns the mean sign of the logits on reals."""
        recipe, step = self.share, progress.step
        pictures, labels = batches.real_batch(self.reals, recipe, step, stream, self.device)
        alike = losses.LOSSES[recipe.loss].paired or self.encoder is not None
        drawn = self._latents(step, stream, labels.numpy() if alike else None)
        with torch.no_grad():
            if self.encoder is None:
                fakes = self._fakes(drawn)
            else:
                half = len(pictures) // 2
                rebuilt = self._rebuilt(self.encoder, pictures[:half], labels[:half], step, stream).pictures
                fakes = torch.cat([rebuilt, self._fakes(drawn.after(half))])
        rng, fakes_rng = self._changes(step, stream)
        shown = Shown(
            reals=self._augmented(self._as_fakes_are(pictures), progress, rng, (step, stream)),
            real_labels=labels.to(self.device),
            fakes=self._augmented(fakes, progress, fakes_rng, (step, stream)),
            fake_labels=drawn.labels,
        )
        return self.adversary.learn(shown, step, progress.penalty_scale, rng, sums)

    def _generator_step(self, progress: Progress, sums: Sums, *, judged: bool) -> None:
        recipe = self.recipe
        loss = torch.zeros((), device=self.device)
        rebuilt = None
        if self.encoder is not None:
            reals = batches.real_batch(self.reals, self.share, progress.step, REBUILD_STREAM, self.device)
            rebuilt = self._rebuilt(self.encoder, *reals, progress.step, REBUILD_STREAM)
            loss = loss + self._rebuild_loss(rebuilt, sums)
            self.optimisers["encoder_adam"].zero_grad(set_to_none=True)
        if judged:
            loss = loss + recipe.adversarial * self._verdict(progress, rebuilt, sums)
        if recipe.orthogonal:
            loss = loss + recipe.orthogonal * orthogonal_penalty(self.generator)
        descend(self.generator, self.optimisers["generator_adam"], loss, "g", sums)
        if self.encoder is not None:
            sanitise(self.encoder, "e", sums)
            self.optimisers["encoder_adam"].step()
        self.discriminator.requires_grad_(True)

    def _verdict(self, progress: Progress, rebuilt: _Rebuilt | None, sums: Sums) -> Tensor:
        """What the discriminator has to say, and a teacher, of one batch."""
        recipe, step = self.share, progress.step
        place = step, GENERATOR_STREAM
        rng, fakes_rng = self._changes(*place)
        self.discriminator.requires_grad_(False)
        reals = labels = None
        paired = losses.LOSSES[recipe.loss].paired
        if rebuilt is not None:
            reals, labels = rebuilt.reals, rebuilt.labels
        elif paired:
            reals, labels = batches.real_batch(self.reals, recipe, *place, self.device)
        drawn = self._latents(*place, None if labels is None else labels.numpy())
        half = 0 if rebuilt is None else len(rebuilt.pictures) // 2
        own = drawn.after(half)
        pictures = self._fakes(own)
        fakes = pictures if rebuilt is None else torch.cat([rebuilt.pictures[:half], pictures])
        beside = None
        if reals is not None and paired:
            beside = self._augmented(self._as_fakes_are(reals), progress, rng, place)
        loss = self.adversary.verdict(self._augmented(fakes, progress, fakes_rng, place), drawn.labels, beside, sums)
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self._as_fakes_are(self._fakes(own, self.teacher))
            distance = distil.distance(pictures, wanted)
            sums.add("distance", distance)
            loss = loss + recipe.distil * distance
        return loss

    def _rebuilt(self, encoder: BigganEncoder, pictures: Tensor, labels: Tensor, step: int, stream: int) -> _Rebuilt:
        """Reals by way of codes, which are drawn by seed, step and stream."""
        generator: Any = self.generator
        weights = torch.nn.functional.one_hot(labels, len(self.reals.classes)).float().to(self.device)
        rng = torch.Generator().manual_seed(self.share.seed * 1_000_003 + step + ((REBUILD_STREAM + stream) << 40))
        with autocast(self.recipe, self.device):
            mean, log_variance = (x.float() for x in encoder(pictures, weights))
            codes = drawn_code(mean, log_variance, rng)
            made = generator.decode(codes, weights).float()
        return _Rebuilt(pictures, labels, made, mean, log_variance)

    def _rebuild_loss(self, rebuilt: _Rebuilt, sums: Sums) -> Tensor:
        """How far reals are from what became of them, and codes from a normal distribution.

        The generator's prior learns what codes are like.
        """
        generator: Any = self.generator
        generator.prior.learn(rebuilt.mean, rebuilt.log_variance, rebuilt.labels)
        distance = picture_distance(rebuilt.pictures, rebuilt.reals)
        away = divergence(rebuilt.mean, rebuilt.log_variance)
        sums.add("rebuild", distance)
        sums.add("divergence", away)
        loss: Tensor = self.recipe.rebuild * distance + self.recipe.rebuild_kl * away
        return loss

    def _changes(self, step: int, stream: int) -> tuple[torch.Generator, torch.Generator]:
        """How reals and fakes are augmented: one after the other, or alike where fakes are rebuilt from reals."""
        seed = self.share.seed * 1_000_003 + step + (stream << 40)
        rng = torch.Generator().manual_seed(seed)
        return rng, rng if self.encoder is None else torch.Generator().manual_seed(seed)

    def _augmented(self, pictures: Tensor, progress: Progress, rng: torch.Generator, place: tuple[int, int]) -> Tensor:
        """Pictures as the discriminator sees them; ``place`` is step and stream, which decide on their ground."""
        chance = augmentation(progress, self.recipe)
        if not self.recipe.alpha:
            return augment(pictures, chance, rng)
        step, stream = place
        ground = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step + ((GROUND_STREAM + stream) << 40))
        return over_ground(augment_sprites(pictures, chance, rng, self.recipe.groups), ground)

    def _as_fakes_are(self, pictures: Tensor) -> Tensor:
        """Reals at the size and coarseness that a growing generator has reached."""
        if isinstance(self.generator, ProgressiveGenerator):
            return at_stage(pictures, float(self.generator.stage))
        return pictures

    def _latents(self, step: int, stream: int, labels: NDArray[np.int64] | None = None) -> _Latents:
        """One batch, a function of seed, step and stream; without ``labels`` they are drawn as those of reals are."""
        rng = latents.generator(self.share.seed, FAKE_STREAM + (stream << 36) + step)
        count, n = len(self.reals.classes), self.share.batch
        drawn = rng.choice(count, size=n, p=self.reals.class_chances)
        index = torch.from_numpy((drawn if labels is None else labels).astype(np.int64)).to(self.device)
        return _Latents(
            z=torch.from_numpy(rng.standard_normal((n, self.recipe.latent), dtype=np.float32)).to(self.device),
            labels=index,
            class_weights=torch.nn.functional.one_hot(index, count).float(),
            rolls=rng.integers(self.recipe.crop_px, size=(n, 2)),
        )

    def _fakes(self, drawn: _Latents, network: nn.Module | None = None) -> Tensor:
        """Pictures in fp32; those that tile are rolled at random, so that no position is special."""
        with autocast(self.recipe, self.device):
            pictures: Tensor = (network or self.generator)(drawn.z, drawn.class_weights).float()
        return batches.rolled(pictures, drawn.rolls) if self.recipe.wrap else pictures

    def _judge(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        with autocast(self.recipe, self.device):
            judged: tuple[Tensor, Tensor | None] = self.discriminator(pictures, labels)
        return judged[0].float(), judged[1]

    def _judge_exactly(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        judged: tuple[Tensor, Tensor | None] = self.discriminator(pictures, labels)
        return judged


def sample(
    generator: nn.Module, recipe: PictureRecipe, classes: int, label: int, seed: int, truncation: float | None = None
) -> ByteArray:
    """One picture ``[edge, edge, c] uint8`` of class ``label``; an averaged generator must have settled statistics.

    With alpha c is 4: colours times alpha, and alpha.

    Args:
        truncation: largest |z|, see ``biggan.truncated_latent``; ``None`` draws as in training.
    """
    device = next(generator.parameters()).device
    rng = latents.generator(seed, label)
    if truncation is None:
        draws = rng.standard_normal((1, recipe.latent), dtype=np.float32)
    else:
        draws = truncated_latent(rng, 1, recipe.latent, truncation)
    weights = torch.eye(classes)[label : label + 1]
    with torch.no_grad():
        picture = generator(torch.from_numpy(draws).to(device), weights.to(device))[0]
    pixels = ((picture.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    made: ByteArray = pixels.cpu().numpy()
    return made


def _stage(grown: float, levels: int) -> float:
    """Stage from 0 to ``levels`` for the share of growing that is done: every doubling rests first, then fades in."""
    if grown >= 1:
        return float(levels)
    place = grown * levels
    whole = int(place)
    return whole + max(0.0, 2 * (place - whole) - 1)
