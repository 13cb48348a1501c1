"""Sliders: directions in the style space that change one property of a picture and leave the others; torch.

Directions are found for every class by itself: one direction for all explains half as much (docs/latents.md). First a
linear regression from styles to measured properties, made orthogonal; the result is then moved by gradient so that the
slider does in pictures what it promises (in the spirit of GANalyze, Goetschalckx et al. 2019). Differs from the usual
hyperplanes (InterFaceGAN, Shen et al. 2020): scalars instead of labels, and no slider is offered that fails on seeds it
was not made from (``judge``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from assetgen.models.texture import TextureGenerator
from assetgen.training.recipe import TextureRecipe
from export.properties import PROPERTIES
from export.studio import CHUNK, LAYOUTS, Samples, Studio, within_layout

# What a full slider changes: deviations of the property within the class, up to a limit in its own unit. The next is
# tried where one is more than the network has in it.
REACHES = (1.5, 1.0, 0.7)
LIMITS = (22.0, 16.0, 12.0, 16.0, 1.2, 1.0)
# What each slider is to leave alone. Saturation moves warmth and tint by its nature; contrast and fineness go together.
HELD = {
    "brightness": ("warmth", "tint", "contrast", "fineness"),
    "warmth": ("brightness", "tint", "contrast", "fineness"),
    "tint": ("brightness", "warmth", "contrast", "fineness"),
    "saturation": ("brightness", "contrast", "fineness"),
    "contrast": ("brightness", "warmth", "tint"),
    "fineness": ("brightness", "warmth", "tint", "contrast"),
}
STOPS = (-1.0, -0.5, 0.0, 0.5, 1.0)
# The rule: a slider is offered if a straight line explains some of its property on held-out styles, nearly every step
# between STOPS rises on held-out seeds, and a full slider keeps most of its promise both ways.
LEAST_R2 = 0.1
LEAST_RISING = 0.9
LEAST_KEPT = 0.5
RIDGE = 0.3
HELD_WEIGHT = 0.5
LENGTH_WEIGHT = 0.001
LEARNING_RATE = 0.05


@dataclass(frozen=True)
class Effort:
    """How much is spent on finding sliders; ``samples`` a class, and none at all with 0."""

    samples: int = 512
    steps: int = 600
    checks: int = 8
    seed: int = 0


DEFAULT_EFFORT = Effort()


@dataclass(frozen=True)
class Slider:
    """What is known of one slider.

    Attributes:
        name: the property.
        r2: share of the property's variance within class and layout that a linear function of the style explains, on
            styles kept out; mean over the classes.
        rising: share of the steps between ``STOPS`` that rise, over classes and seeds kept out.
        down, up: change at -1 and at 1 as a share of what was promised, mean over the classes.
        effect: change at 1 less that at -1, halved, in the property's unit; mean over the classes.
        reach: deviations of the property that were promised, or the limit in its unit where that is less.
    """

    name: str
    r2: float
    rising: float
    down: float
    up: float
    effect: float
    reach: float = REACHES[0]

    @property
    def offered(self) -> bool:
        """Whether it keeps the rule."""
        kept = self.down >= LEAST_KEPT and self.up >= LEAST_KEPT
        return kept and self.r2 >= LEAST_R2 and self.rising >= LEAST_RISING


@dataclass(frozen=True)
class Sliders:
    """Sliders and their directions ``[sliders, classes, latent]``."""

    sliders: tuple[Slider, ...]
    directions: Tensor

    @property
    def offered(self) -> Sliders:
        """Only those that keep the rule."""
        kept = [i for i, slider in enumerate(self.sliders) if slider.offered]
        return Sliders(tuple(self.sliders[i] for i in kept), self.directions[kept])


def find_sliders(
    texture: TextureGenerator, classes: Sequence[str], recipe: TextureRecipe, effort: Effort = DEFAULT_EFFORT
) -> Sliders:
    """Directions for every property and class, each with what it was seen to do; the same for the same arguments."""
    if effort.samples == 0:
        return Sliders((), torch.zeros(0, len(classes), texture.config.latent))
    texture = texture.eval().requires_grad_(False)
    studio = Studio(texture, classes, recipe, effort.seed)
    with torch.no_grad():
        samples = studio.sample(effort.samples)
        spread = within_layout(samples).std(dim=1)
    found, left = Sliders((), torch.zeros(0)), list(range(len(PROPERTIES)))
    for reach in REACHES:
        with torch.no_grad():
            units = torch.minimum(reach * spread, spread.new_tensor(LIMITS)).clamp(min=1e-3)
            directions, r2 = regress(samples.w, within_layout(samples) / units[:, None])
        directions = _refine(studio, samples, directions, units, left, effort)
        with torch.no_grad():
            found = _better(found, _judge(studio, directions, units, r2, reach, effort))
        left = [i for i, slider in enumerate(found.sliders) if not slider.offered]
        if not left:
            break
    return found


def _better(first: Sliders, second: Sliders) -> Sliders:
    """Of each property the first slider, or the second where only that one is offered."""
    if not first.sliders:
        return second
    taken = [b.offered and not a.offered for a, b in zip(first.sliders, second.sliders, strict=True)]
    sliders = zip(first.sliders, second.sliders, taken, strict=True)
    directions = torch.where(torch.tensor(taken)[:, None, None], second.directions, first.directions)
    return Sliders(tuple(b if other else a for a, b, other in sliders), directions)


def regress(w: Tensor, properties: Tensor) -> tuple[Tensor, Tensor]:
    """Orthogonal directions from styles ``[classes, n, latent]`` to centred properties ``[classes, n, p]``.

    The direction of a property is the shortest, in deviations of the style, that changes it by 1 and what it is to hold
    by 0 where properties are linear in the style.

    Returns:
        Directions ``[p, classes, latent]``, and R^2 ``[p]`` of the linear functions on every fourth sample, kept out.
    """
    names = list(PROPERTIES)
    kept_out = torch.arange(w.shape[1]) % 4 == 3
    directions, r2 = [], []
    for styles, targets in zip(w, properties, strict=True):
        centred = styles - styles.mean(dim=0)
        covariance, slopes = _slopes(centred[~kept_out], targets[~kept_out])
        left = (centred[kept_out] @ slopes - targets[kept_out]).square().mean(dim=0)
        r2.append(1 - left / targets[kept_out].square().mean(dim=0).clamp(min=1e-12))
        covariance, slopes = _slopes(centred, targets)
        rows = []
        for i, name in enumerate(names):
            together = slopes[:, [i, *map(names.index, HELD[name])]]
            first = torch.eye(together.shape[1])[0]
            gram = together.T @ covariance @ together
            gram = gram + 1e-6 * gram.trace() * torch.eye(len(gram))
            rows.append(covariance @ together @ torch.linalg.solve(gram, first))
        directions.append(torch.stack(rows))
    return torch.stack(directions, dim=1), torch.stack(r2).mean(dim=0)


def _slopes(centred: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Covariance of the styles, and ridge regression from them to the targets."""
    covariance = centred.T @ centred / len(centred)
    latent = len(covariance)
    ridge = RIDGE * covariance.trace() / latent * torch.eye(latent)
    return covariance, torch.linalg.solve(covariance + ridge, centred.T @ targets / len(centred))


def _refine(
    studio: Studio, samples: Samples, directions: Tensor, units: Tensor, chosen: Sequence[int], effort: Effort
) -> Tensor:
    """Move directions until pictures change by what the slider says: its own property by its unit, what it holds by 0.

    Every step takes a chunk of all pairs of slider and class, so that each comes up as often.

    Args:
        chosen: numbers of the sliders; the others stay as they are.
    """
    names = list(PROPERTIES)
    held = torch.tensor([[HELD_WEIGHT * (other in HELD[name]) for other in names] for name in names])
    covariances = [torch.cov(styles.T) for styles in samples.w]
    eye = torch.eye(directions.shape[2])
    inverses = torch.stack([torch.linalg.inv(c + 0.03 * c.trace() / len(c) * eye) for c in covariances])
    pairs = torch.cartesian_prod(torch.tensor(chosen, dtype=torch.int64), torch.arange(studio.count))
    moved = directions.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([moved], lr=LEARNING_RATE, betas=(0.8, 0.98))
    queue = torch.empty(0, dtype=torch.int64)
    steps = -(-effort.steps * len(chosen) // len(names))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
        while len(queue) < CHUNK:
            queue = torch.cat([queue, torch.randperm(len(pairs), generator=studio.rng)])
        (slider, label), queue = pairs[queue[:CHUNK]].unbind(1), queue[CHUNK:]
        pick = torch.randint(samples.w.shape[1], (CHUNK,), generator=studio.rng)
        # More of the far ends, where the straight line is furthest from the truth.
        value = torch.rand(CHUNK, generator=studio.rng) * 2 - 1
        value = value.sign() * value.abs().sqrt()
        direction = moved[slider, label]
        after = studio.measure(samples.w[label, pick] + value[:, None] * direction, label, samples.place[label, pick])
        change = (after - samples.properties[label, pick]) / units[label]
        wanted = F.one_hot(slider, len(names)) * value[:, None]
        weight = held[slider] + F.one_hot(slider, len(names))
        loss = (weight * F.smooth_l1_loss(change, wanted, reduction="none")).sum()
        loss = loss + LENGTH_WEIGHT * torch.einsum("ni,nij,nj->", direction, inverses[label], direction)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return moved.detach()


def _judge(studio: Studio, directions: Tensor, units: Tensor, r2: Tensor, reach: float, effort: Effort) -> Sliders:
    """Measure every slider on new styles."""
    labels = torch.arange(studio.count).repeat_interleave(effort.checks)
    places = torch.arange(effort.checks).repeat(studio.count) % LAYOUTS
    w = studio.styles(labels)
    found = []
    for i, name in enumerate(PROPERTIES):
        values = torch.stack([studio.measure(w + stop * directions[i, labels], labels, places)[:, i] for stop in STOPS])
        unit = units[labels, i]
        down, up = ((values[2] - values[0]) / unit).mean(), ((values[4] - values[2]) / unit).mean()
        figures = {
            "r2": r2[i],
            "rising": (values.diff(dim=0) > 0).float().mean(),
            "down": down,
            "up": up,
            "effect": (values[4] - values[0]).mean() / 2,
        }
        found.append(Slider(name, reach=reach, **{key: round(float(value), 3) for key, value in figures.items()}))
    return Sliders(tuple(found), directions)
