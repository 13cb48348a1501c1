"""Variations: directions in the style space that are found without labels, beside what the sliders offer; torch.

Two ways, for every class by itself: GANSpace (Härkönen et al. 2020), the principal components of the styles; and SeFa
(Shen and Zhou 2021), the directions to which the style layers answer most. Differs from both papers: only directions
are taken along which the properties that have a slider stay as they are, to first order; and each is measured in
pictures, named after what it changes most and left out if nobody would see it (``Variation.offered``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assetgen.errors import ConfigInvalid
from assetgen.models.texture import TextureGenerator
from assetgen.training.recipe import TextureRecipe
from export.properties import PROPERTIES, lab, measure
from export.sliders import Sliders
from export.studio import LAYOUTS, Samples, Studio, within_layout

# Deviations of the styles along a direction that a full variation moves by, as in GANSpace. It is as far in the style
# space as the sliders go.
REACH = 2.0
STOPS = (-1.0, -0.5, 0.5, 1.0)
# The rule: pixels change by a just noticeable difference on average (2.3 in CIE L*a*b*, Mahy et al. 1994; the starter
# model's slider of fineness changes them by 2.7), and nearly everywhere more at 1 than at 0.5.
LEAST_CHANGE = 2.3
LEAST_RISING = 0.9
STYLES = 4096
SAMPLES = 32


def ganspace(_texture: TextureGenerator, w: Tensor, taken: Tensor, count: int) -> Tensor:
    """Principal components of the styles ``[classes, n, latent]``; see ``leading``."""
    centred = w - w.mean(dim=1, keepdim=True)
    return leading(centred.mT @ centred / w.shape[1], taken, count)


def sefa(texture: TextureGenerator, w: Tensor, taken: Tensor, count: int) -> Tensor:
    """Directions to which the style layers answer most, whatever the styles are; see ``leading``.

    Channels count alike: the weights of each, ``[latent]``, have length 1.
    """
    weights = torch.cat([layer.affine.weight.detach() for layer in texture.layers])
    weights = weights / weights.norm(dim=1, keepdim=True)
    return leading((weights.T @ weights).expand(len(w), -1, -1), taken, count)


Method = Callable[[TextureGenerator, Tensor, Tensor, int], Tensor]
METHODS: dict[str, Method] = {"ganspace": ganspace, "sefa": sefa}


def leading(matrices: Tensor, taken: Tensor, count: int) -> Tensor:
    """Eigenvectors ``[count, classes, latent]`` of symmetric ``[classes, latent, latent]``, largest eigenvalue first.

    They have length 1, and are orthogonal to ``taken``, ``[directions, classes, latent]``, and to each other.

    Raises:
        ConfigInvalid: ``taken`` leaves fewer than ``count``.
    """
    left = matrices.shape[1] - len(taken)
    if count > left:
        raise ConfigInvalid(f"{count} variations: the styles have room for {left} beside the sliders")
    basis = torch.linalg.qr(taken.permute(1, 2, 0).double()).Q
    complement = torch.eye(matrices.shape[1], dtype=torch.float64) - basis @ basis.mT
    vectors = torch.linalg.eigh(complement @ matrices.double() @ complement).eigenvectors
    found: Tensor = vectors.flip(2)[:, :, :count].permute(2, 0, 1).to(matrices.dtype)
    return found


@dataclass(frozen=True)
class VariationSettings:
    """How many variations are looked for (0 for none), with which of ``METHODS``, and on how many styles a class."""

    count: int = 3
    method: str = "ganspace"
    checks: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ConfigInvalid(f"{self.count} variations are not possible", hint="use 0 for none, or more")
        if self.method not in METHODS:
            raise ConfigInvalid(f"variation method {self.method!r} is not known", hint=f"use {' or '.join(METHODS)}")


DEFAULT_SETTINGS = VariationSettings()


@dataclass(frozen=True)
class Variation:
    """What is known of one variation.

    Attributes:
        name: its parameter.
        method: how it was found.
        change: mean difference of pixels from 0 to 1 and to -1, in units of CIE L*a*b*.
        rising: share of styles and sides, over classes, that change more at 1 than at 0.5.
        new: share of the change of pixels that no linear combination of the sliders' changes at -1 and 1 explains.
        most: the property it changes most, in deviations within the class.
        effect: change of that property at 1 less that at -1, halved, in deviations; mean over the classes.
    """

    name: str
    method: str
    change: float
    rising: float
    new: float
    most: str
    effect: float

    @property
    def offered(self) -> bool:
        """Whether it keeps the rule."""
        return self.change >= LEAST_CHANGE and self.rising >= LEAST_RISING


@dataclass(frozen=True)
class Variations:
    """Variations and their directions ``[variations, classes, latent]``."""

    variations: tuple[Variation, ...]
    directions: Tensor

    @property
    def offered(self) -> Variations:
        """Only those that keep the rule."""
        kept = [i for i, variation in enumerate(self.variations) if variation.offered]
        return Variations(tuple(self.variations[i] for i in kept), self.directions[kept])


def find_variations(
    texture: TextureGenerator,
    classes: Sequence[str],
    recipe: TextureRecipe,
    sliders: Sliders,
    settings: VariationSettings,
) -> Variations:
    """Variations beside ``sliders``, and what each was seen to do; the same for the same arguments.

    Signs are such that the property a variation changes most rises in every class, on the styles that are measured.

    Raises:
        ConfigInvalid: more than the styles have room for.
    """
    if settings.count == 0:
        return Variations((), sliders.directions[:0])
    texture = texture.eval().requires_grad_(False)
    studio = Studio(texture, classes, recipe, settings.seed)
    with torch.no_grad():
        samples = studio.sample(SAMPLES)
        w = studio.styles(torch.arange(studio.count).repeat_interleave(STYLES)).view(studio.count, STYLES, -1)
    taken = mean_gradients(studio, samples, [slider.name for slider in sliders.sliders])
    with torch.no_grad():
        units = METHODS[settings.method](texture, w, taken, settings.count)
        deviations = torch.einsum("cnl,vcl->vcn", w - w.mean(dim=1, keepdim=True), units).std(dim=2)
        directions = REACH * deviations[:, :, None] * units
        spread = within_layout(samples).std(dim=1).clamp(min=1e-3)
        return _judge(studio, directions, sliders.directions, spread, settings)


def mean_gradients(studio: Studio, samples: Samples, names: Sequence[str]) -> Tensor:
    """How properties grow with the style, ``[names, classes, latent]``; means over the samples of a class.

    Being orthogonal to the sliders' own directions is not enough: what changes a property has many directions.
    """
    gradients = samples.w.new_zeros(len(names), *samples.w[:, 0].shape)
    for label, (styles, places) in enumerate(zip(samples.w, samples.place, strict=True)):
        w = styles.clone().requires_grad_(True)
        properties = studio.measure(w, torch.full_like(places, label), places).mean(dim=0)
        for i, name in enumerate(names):
            one = properties[list(PROPERTIES).index(name)]
            gradients[i, label] = torch.autograd.grad(one, w, retain_graph=True)[0].sum(dim=0)
    return gradients


def unexplained(changes: Tensor, known: Tensor) -> Tensor:
    """Share ``[n]`` of changes ``[n, p]``, by squares, that no linear combination of ``known`` ``[n, k, p]`` makes."""
    basis = torch.linalg.qr(known.mT.double()).Q
    changes = changes.double()
    left = changes - (basis @ (basis.mT @ changes[:, :, None]))[:, :, 0]
    share: Tensor = left.square().sum(dim=1) / changes.square().sum(dim=1).clamp(min=1e-12)
    return share.float()


def _judge(
    studio: Studio, directions: Tensor, sliders: Tensor, spread: Tensor, settings: VariationSettings
) -> Variations:
    """Turn directions the right way, and measure each on new styles."""
    labels = torch.arange(studio.count).repeat_interleave(settings.checks)
    places = torch.arange(settings.checks).repeat(studio.count) % LAYOUTS
    w = studio.styles(labels)

    def paint(moved: Tensor) -> Tensor:
        return torch.cat(list(studio.paint(moved, labels, places)))

    still = lab(paint(w))
    known = [lab(paint(w + side * row[labels])) - still for row in sliders for side in (-1.0, 1.0)]
    explained = torch.stack(known, dim=1).flatten(2) if known else still.new_zeros(len(w), 0, still[0].numel())
    turned, found = [], []
    for i, row in enumerate(directions):
        pictures = [paint(w + stop * row[labels]) for stop in STOPS]
        moves = [lab(picture) - still for picture in pictures]
        changes = torch.stack([move.norm(dim=1).mean(dim=(1, 2)) for move in moves])
        effects = (measure(pictures[3]) - measure(pictures[0])) / 2 / spread[labels]
        by_class = effects.view(studio.count, settings.checks, -1).mean(dim=1)
        most = int(by_class.abs().mean(dim=0).argmax())
        turned.append(row * torch.where(by_class[:, most] < 0, -1.0, 1.0)[:, None])
        new = torch.cat([unexplained(moves[side].flatten(1), explained) for side in (0, 3)])
        figures = {
            "change": changes[[0, 3]].mean(),
            "rising": torch.cat([changes[0] > changes[1], changes[3] > changes[2]]).float().mean(),
            "new": new.mean(),
            "effect": by_class[:, most].abs().mean(),
        }
        rounded = {key: round(float(value), 3) for key, value in figures.items()}
        found.append(Variation(f"variation_{i + 1}", settings.method, most=list(PROPERTIES)[most], **rounded))
    return Variations(tuple(found), torch.stack(turned))
