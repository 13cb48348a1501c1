"""What one step of training meshes does; needs torch.

critic           real and fake volumes, augmented; gradient penalty now and then
generator        fool the critic; with its encoder, rebuild real volumes (VAE-GAN, Larsen et al. 2016)
average          move the averaged generator
adapt            move the augmentation probability
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen import latents
from assetgen.datasets.tiles import ByteArray
from assetgen.errors import ConfigInvalid
from assetgen.models.mixture import MixturePrior
from assetgen.models.volume import CHANNELS, VolumeConfig, VolumeDiscriminator, VolumeEncoder, VolumeGenerator
from assetgen.postprocess import mesh as meshes
from assetgen.postprocess.mesh_preview import picture_of_mesh
from assetgen.training import parallel
from assetgen.training.adversarial import Adversary, Shown, anchors, descend, sanitise
from assetgen.training.batches import Reals
from assetgen.training.checkpoint import Checkpoint, Progress
from assetgen.training.loop import adam, adapt_augmentation, learning_rate, move_average, set_learning_rate
from assetgen.training.precision import autocast
from assetgen.training.rebuild import divergence, drawn_code
from assetgen.training.sheet import write_sheet
from assetgen.training.sums import Sums
from assetgen.training.volume_batches import (
    Volumes,
    as_values,
    augment_volumes,
    fake_latents,
    real_volumes,
)
from assetgen.training.volume_recipe import VolumeRecipe
from assetgen.types import FloatArray

GENERATOR_STREAM = 1
SAMPLES = 8  # a class, to look at
POOLED = 8  # cells along an edge that variety is judged by
BACKGROUND = 72
SHEET_PX, SHEET_COLUMNS, SHEET_TRIANGLES = 96, 6, 3000


def volume_config(recipe: VolumeRecipe, classes: int) -> VolumeConfig:
    """The networks that a recipe asks for."""
    return VolumeConfig(
        classes=classes,
        edge=recipe.volume_edge,
        latent=recipe.latent,
        style=recipe.style,
        width=recipe.width,
        features=recipe.features,
        hidden=recipe.hidden,
        critic_width=recipe.critic_width,
        stride=recipe.stride,
    )


class VolumeTask:
    """A generator of volumes, its average, its critic and its encoder; the same for the same recipe."""

    def __init__(self, recipe: VolumeRecipe, volumes: Volumes, facts: Mapping[str, Any], device: str = "cpu") -> None:
        meshes.check_libraries()  # or the first sheet would fail, minutes into the run
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.share = parallel.share(recipe)
        self.volumes = volumes
        self.facts = facts
        self.device = device
        config = volume_config(recipe, len(volumes.classes))
        self.generator = VolumeGenerator(config).to(device)
        self.critic = VolumeDiscriminator(config).to(device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.prior = MixturePrior(config.classes, config.latent).to(device)
        self.modules: dict[str, nn.Module] = {
            "generator": self.generator,
            "average": self.average,
            "prior": self.prior,
            "discriminator": self.critic,
        }
        self.optimisers = {
            "generator_adam": adam(self.generator, recipe.learning_rate),
            "discriminator_adam": adam(self.critic, recipe.discriminator_rate, every=recipe.r1_interval),
        }
        self.encoder: VolumeEncoder | None = None
        if recipe.rebuild:
            self.encoder = self.modules["encoder"] = VolumeEncoder(config).to(device)
            self.optimisers["encoder_adam"] = adam(self.encoder, recipe.learning_rate, betas=(0.9, 0.99))
        self.adversary = Adversary(
            module=self.critic,
            optimiser=self.optimisers["discriminator_adam"],
            objective=recipe,
            judge=self._judge,
            judge_exactly=self._judge_exactly,
            anchors=anchors(self.modules, recipe.lecam, device),
        )

    def learn_from(self, _saved: Checkpoint) -> None:
        """Meshes have no teachers."""
        raise ConfigInvalid("--distil is not for meshes", hint="train with smaller widths instead")

    def step(self, progress: Progress, done: float, sums: Sums) -> Progress:
        """Train the critic, then generator and encoder."""
        recipe, step = self.recipe, progress.step
        share = learning_rate(recipe, done) / recipe.learning_rate * progress.rate_scale
        for name, rate in (("generator", recipe.learning_rate), ("encoder", recipe.learning_rate)):
            if name in self.modules:
                set_learning_rate(self.optimisers[f"{name}_adam"], rate * share)
        critic_adam = self.optimisers["discriminator_adam"]
        set_learning_rate(critic_adam, recipe.discriminator_rate * share, every=recipe.r1_interval)
        reals, labels = real_volumes(self.volumes, self.share, step, self.device)
        judged = recipe.adversarial > 0 and done >= recipe.adversarial_from
        adapted = progress
        if judged:
            adapted = adapt_augmentation(progress, recipe, self._critic_step(reals, labels, progress, sums))
        self._generator_step(reals, labels, progress, sums, judged=judged)
        move_average(self.average, self.generator, recipe, progress.pictures)
        return replace(adapted, step=step + 1, pictures=progress.pictures + recipe.batch)

    def monitor(self) -> dict[str, float]:
        """``diversity.CLASS``, ``latent_effect`` and ``label_effect``; see ``monitor.look``, of which these are kin."""
        found = {}
        count = len(self.volumes.classes)
        for label, name in enumerate(self.volumes.classes):
            grids = self.volumes.grids[label]
            if len(grids) < SAMPLES:
                continue
            chosen = np.stack([grids[n * len(grids) // SAMPLES] for n in range(SAMPLES)])
            real = _spread(as_values(torch.from_numpy(chosen)))
            found[f"diversity.{name}"] = round(_spread(self._volumes([label] * SAMPLES, seed=1)) / max(real, 1e-6), 3)
        labels = list(range(count))
        first = self._volumes(labels, seed=2)
        found["latent_effect"] = round(float((self._volumes(labels, seed=3) - first).abs().mean()), 5)
        if count > 1:
            others = self._volumes(labels[1:] + labels[:1], seed=2)
            found["label_effect"] = round(float((others - first).abs().mean()), 5)
        return found

    def snapshot(self, path: Path) -> None:
        """Draw the surfaces of real volumes and of samples."""
        reals = (
            tuple(picture_of(grid.astype(np.float32) / np.float32(255)) for grid in grids[:2])
            for grids in self.volumes.grids
        )
        shown = Reals(
            classes=self.volumes.classes,
            pictures=tuple(reals),
            groups=tuple(("", "") for _ in self.volumes.classes),
            class_chances=self.volumes.class_chances,
        )

        def draw(label: int, seed: int) -> ByteArray:
            return picture_of(self.sample(label, seed) * np.float32(0.5) + np.float32(0.5))

        write_sheet(path, shown, draw, columns=SHEET_COLUMNS, edge_px=SHEET_PX)

    def sample(self, label: int, seed: int) -> FloatArray:
        """One volume ``[4, edge, edge, edge]`` in [-1, 1] by the averaged generator."""
        draws = latents.generator(seed, label).standard_normal((1, self.recipe.latent), dtype=np.float32)
        weights = torch.eye(len(self.volumes.classes))[label : label + 1].to(self.device)
        with torch.no_grad():
            made: Tensor = self.average(self.prior(torch.from_numpy(draws).to(self.device), weights), weights)
        return made[0].float().cpu().numpy()

    def _volumes(self, labels: list[int], seed: int) -> Tensor:
        draws = latents.generator(seed, 0).standard_normal((len(labels), self.recipe.latent), dtype=np.float32)
        weights = F.one_hot(torch.tensor(labels), len(self.volumes.classes)).float().to(self.device)
        with torch.no_grad():
            made: Tensor = self.average(self.prior(torch.from_numpy(draws).to(self.device), weights), weights)
        return made.float().cpu()

    def _critic_step(self, reals: Tensor, labels: Tensor, progress: Progress, sums: Sums) -> float:
        """Returns the mean sign of the logits on reals."""
        step = progress.step
        drawn = fake_latents(self.volumes, self.share, step, device=self.device)
        with torch.no_grad(), autocast(self.recipe, self.device):
            z = self.prior(drawn.z, drawn.class_weights)
            fakes = self.generator(z, drawn.class_weights, self._start(step), self.recipe.stride).float()
        rng = torch.Generator().manual_seed(self.share.seed * 1_000_003 + step)
        reals = every(reals, self._start(step), self.recipe.stride)
        shown = Shown(
            reals=_folded(augment_volumes(reals, progress.augment, self.recipe.augment_shift, rng)),
            real_labels=labels,
            fakes=_folded(augment_volumes(fakes, progress.augment, self.recipe.augment_shift, rng)),
            fake_labels=drawn.labels,
        )
        return self.adversary.learn(shown, step, progress.penalty_scale, rng, sums)

    def _generator_step(self, reals: Tensor, labels: Tensor, progress: Progress, sums: Sums, *, judged: bool) -> None:
        recipe, step = self.recipe, progress.step
        loss = torch.zeros((), device=self.device)
        if judged:
            drawn = fake_latents(self.volumes, self.share, step, GENERATOR_STREAM, self.device)
            rng = torch.Generator().manual_seed(self.share.seed * 1_000_003 + step + (GENERATOR_STREAM << 40))
            self.critic.requires_grad_(False)
            with autocast(recipe, self.device):
                z = self.prior(drawn.z, drawn.class_weights)
                fakes = self.generator(z, drawn.class_weights, self._start(step), recipe.stride).float()
            fakes = augment_volumes(fakes, progress.augment, recipe.augment_shift, rng)
            loss = loss + recipe.adversarial * self.adversary.verdict(_folded(fakes), drawn.labels, None, sums)
            self.critic.requires_grad_(True)
        if self.encoder is not None:
            loss = loss + self._rebuild_loss(self.encoder, reals, labels, step, sums)
            self.optimisers["encoder_adam"].zero_grad(set_to_none=True)
        descend(self.generator, self.optimisers["generator_adam"], loss, "g", sums)
        if self.encoder is not None:
            sanitise(self.encoder, "e", sums)
            self.optimisers["encoder_adam"].step()

    def _start(self, step: int) -> tuple[int, int, int]:
        """The cell along z, y and x from which on a step looks at every ``stride``-th."""
        rng = torch.Generator().manual_seed(self.share.seed * 1_000_003 + step + (3 << 40))
        z, y, x = torch.randint(self.recipe.stride, (3,), generator=rng).tolist()
        return z, y, x

    def _rebuild_loss(self, encoder: VolumeEncoder, reals: Tensor, labels: Tensor, step: int, sums: Sums) -> Tensor:
        """How far reals are from what becomes of them by way of z, and z from a normal distribution.

        The prior learns what z is like.
        """
        weights = F.one_hot(labels, len(self.volumes.classes)).float()
        rng = torch.Generator().manual_seed(self.share.seed * 1_000_003 + step + (2 << 40))
        with autocast(self.recipe, self.device):
            mean, log_variance = (x.float() for x in encoder(F.avg_pool3d(reals, self.recipe.stride), weights))
            z = drawn_code(mean, log_variance, rng)
            self.prior.learn(mean, log_variance, labels)
            rebuilt = self.generator(z, weights, self._start(step), self.recipe.stride).float()
        distance, colors = rebuild_distances(rebuilt, every(reals, self._start(step), self.recipe.stride))
        away = divergence(mean, log_variance)
        for name, value in (("rebuild", distance), ("rebuild_color", colors), ("divergence", away)):
            sums.add(name, value)
        loss: Tensor = self.recipe.rebuild * (distance + colors) + self.recipe.rebuild_kl * away
        return loss

    def _judge(self, folded: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        with autocast(self.recipe, self.device):
            return self.critic(_unfolded(folded), labels).float(), None

    def _judge_exactly(self, folded: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        return self.critic(_unfolded(folded), labels), None


def every(volumes: Tensor, start: tuple[int, int, int], stride: int) -> Tensor:
    """Every ``stride``-th cell of ``[n, c, z, y, x]`` along each axis from ``start`` on."""
    z, y, x = start
    return volumes[:, :, z::stride, y::stride, x::stride]


def rebuild_distances(made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared difference of distances, and mean difference of colours near the surface of ``wanted``.

    Squares: without them it is best, until shapes are told apart, to have nothing anywhere, which most places are.
    """
    near = 1 - wanted[:, :1].abs()
    colors = ((made[:, 1:] - wanted[:, 1:]).abs() * near).sum() / (3 * near.sum() + 1)
    return F.mse_loss(made[:, :1], wanted[:, :1]), colors


def picture_of(volume: FloatArray, edge_px: int = SHEET_PX) -> ByteArray:
    """The surface of a volume in [0, 1] as a picture ``[edge, edge, 3]``; an empty volume is plain background."""
    mesh = meshes.mesh_within(volume, SHEET_TRIANGLES)
    if mesh is None:
        return np.full((edge_px, edge_px, 3), BACKGROUND, dtype=np.uint8)
    rgba = picture_of_mesh(mesh, edge_px)
    alpha = rgba[:, :, 3:].astype(np.float32) / 255
    return np.rint(rgba[:, :, :3] * alpha + BACKGROUND * (1 - alpha)).astype(np.uint8)


def _spread(volumes: Tensor) -> float:
    """Mean distance of two of ``[n, 4, d, h, w]`` by coarse shape."""
    coarse = F.adaptive_avg_pool3d(volumes[:, :1], POOLED)
    return float(torch.pdist(coarse.flatten(1)).mean())


def _folded(volumes: Tensor) -> Tensor:
    """As ``[n, 4 d, h, w]``: what is written for pictures takes volumes, too."""
    return volumes.flatten(1, 2)


def _unfolded(folded: Tensor) -> Tensor:
    return folded.reshape(len(folded), CHANNELS, -1, *folded.shape[2:])
