"""Sliders of sprites: directions of z that change one property and leave the others, and what they do; torch.

For every class by itself a ridge regression from z to measured properties; the shortest direction that changes one of
them by its unit and holds the others (after InterFaceGAN, Shen et al. 2020, with scalars instead of labels). Differs
from the sliders of textures: nothing is refined by gradient, since z of BigGAN has no style space of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from assetgen.models.biggan import truncated_latent
from assetgen.models.mixture import CHOOSING
from export.properties import lab
from export.sliders import STOPS, Slider, Sliders

# Name of a property, and the unit it is given in.
PROPERTIES = {
    "size": "share of the picture",
    "tallness": "factor of 2 in height by width",
    "brightness": "L*",
    "warmth": "b*",
    "tint": "a*",
    "saturation": "C*",
}
# What a full slider changes: deviations of the property within the class.
REACH = 1.5
# What each is to leave alone; saturation moves warmth and tint by its nature.
HELD = {
    "size": ("tallness", "brightness"),
    "tallness": ("size", "brightness"),
    "brightness": ("size", "warmth", "tint"),
    "warmth": ("size", "brightness", "tint"),
    "tint": ("size", "brightness", "warmth"),
    "saturation": ("size", "brightness"),
}
BOUND = 1.6  # of z, as requests draw it unless told otherwise
RIDGE = 0.3
ALIKE = 1e-3
LONGEST = 4.0  # a direction beyond this leaves what the network knows
CHUNK = 64
CHECKS = 16
VISIBLE = 0.1


@dataclass(frozen=True)
class _Drawn:
    """Latents ``[classes, n, latent]`` and the properties ``[classes, n, p]`` of what they make."""

    z: Tensor
    properties: Tensor


def measure(pictures: Tensor) -> Tensor:
    """Properties ``[n, 6]`` of premultiplied sprites ``[n, 4, h, w]`` in [-1, 1], in the order of ``PROPERTIES``.

    Colours are means over what is visible, weighted by alpha; tallness compares the spread of alpha down and across.
    """
    coded = pictures.float().clamp(-1, 1) / 2 + 0.5
    alpha = coded[:, 3]
    straight = (coded[:, :3] / alpha.clamp(min=VISIBLE)[:, None]).clamp(0, 1)
    cover = torch.where(alpha > VISIBLE, alpha, 0.0) + 1e-6
    share = cover / cover.sum(dim=(1, 2), keepdim=True)
    lightness, a, b = lab(straight * 2 - 1).unbind(1)
    chroma = (a.square() + b.square() + 1e-6).sqrt()
    means = [(plane * share).sum(dim=(1, 2)) for plane in (lightness, b, a, chroma)]
    down, across = (_spread(share.sum(dim=axis)) for axis in (2, 1))
    tallness = (down / across.clamp(min=1e-3)).clamp(min=1e-3).log2()
    return torch.stack([alpha.mean(dim=(1, 2)), tallness, *means], dim=1)


def find_sliders(generator: nn.Module, latent: int, classes: Sequence[str], samples: int, seed: int = 0) -> Sliders:
    """Directions ``[sliders, classes, latent]`` for every property, each with what it was seen to do.

    Args:
        generator: of the interface of ``SpriteModel``, in evaluation mode.
        samples: sprites a class to find them with; 0 makes none.
    """
    if samples == 0:
        return Sliders((), torch.zeros(0, len(classes), latent))
    with torch.no_grad():
        drawn = _draw(generator, latent, len(classes), samples, seed)
        z, found = _within_kinds(generator, drawn)
        units = (REACH * found.std(dim=1)).clamp(min=1e-4)
        directions, r2 = regress(z, found, units)
        return _judge(generator, directions, units, r2, seed + 1)


def regress(z: Tensor, properties: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest directions that change a property by its unit and what it is to hold by 0, where it is linear in z.

    Args:
        z: ``[classes, n, latent]``; properties: ``[classes, n, p]``; units: ``[classes, p]``.

    Returns:
        Directions ``[p, classes, latent]``, at most ``LONGEST`` long, and R^2 ``[p]`` on every fourth sample, kept out.
    """
    names = list(PROPERTIES)
    kept_out = torch.arange(z.shape[1]) % 4 == 3
    directions, r2 = [], []
    for latents, found, unit in zip(z, properties, units, strict=True):
        targets = (found - found.mean(dim=0)) / unit
        slopes = _slopes(latents[~kept_out], targets[~kept_out])
        left = (latents[kept_out] @ slopes - targets[kept_out]).square().mean(dim=0)
        r2.append(1 - left / targets[kept_out].square().mean(dim=0).clamp(min=1e-12))
        slopes = _slopes(latents, targets)
        rows = []
        for i, name in enumerate(names):
            together = slopes[:, [i, *map(names.index, HELD[name])]]
            goal = torch.zeros(together.shape[1])
            goal[0] = 1
            gram = together.T @ together
            # Held properties that go together in z make it nearly singular.
            gram = gram + ALIKE * gram.trace() * torch.eye(len(gram))
            row = together @ torch.linalg.solve(gram, goal)
            rows.append(row * (LONGEST / row.norm().clamp(min=LONGEST)))
        directions.append(torch.stack(rows))
    return torch.stack(directions, dim=1), torch.stack(r2).mean(dim=0)


def _within_kinds(generator: nn.Module, drawn: _Drawn) -> tuple[Tensor, Tensor]:
    """Latents and properties, where the first of z choose a kind (``MixturePrior``) less the means of each kind.

    A slider that moved those first numbers would jump from kind to kind, so they are to explain nothing.
    """
    prior = getattr(generator, "prior", None)
    if prior is None:
        return drawn.z, drawn.properties
    z, found = drawn.z.clone(), drawn.properties.clone()
    z[..., :CHOOSING] = 0
    for label in range(len(z)):
        kinds = prior.kind_of(drawn.z[label], label)
        for kind in kinds.unique():
            found[label, kinds == kind] -= found[label, kinds == kind].mean(dim=0)
    return z, found


def moved(z: Tensor, class_weights: Tensor, directions: Tensor, amounts: Tensor) -> Tensor:
    """Latents ``[n, latent]`` after sliders ``amounts [n, sliders]``; each class has directions of its own."""
    for number, direction in enumerate(directions):  # no einsum: packages allow none
        z = z + amounts[:, number : number + 1] * (class_weights @ direction)
    return z


def _slopes(latents: Tensor, targets: Tensor) -> Tensor:
    """Ridge regression ``[latent, p]``."""
    covariance = latents.T @ latents / len(latents)
    strength = RIDGE * covariance.diagonal().mean() * latents.shape[1] / len(latents)
    ridged = covariance + strength * torch.eye(latents.shape[1])
    slopes: Tensor = torch.linalg.solve(ridged, latents.T @ targets / len(latents))
    return slopes


def _judge(generator: nn.Module, directions: Tensor, units: Tensor, r2: Tensor, seed: int) -> Sliders:
    """What every slider does to sprites that it was not made from."""
    _, classes, latent = directions.shape
    drawn = _draw(generator, latent, classes, CHECKS, seed)
    sliders = []
    for i, name in enumerate(PROPERTIES):
        made = torch.stack([_after(generator, drawn.z, directions, i, stop) for stop in STOPS])[..., i]
        middle, unit = made[len(STOPS) // 2], units[:, i]
        figures = {
            "r2": r2[i],
            "rising": (made.diff(dim=0) > 0).float().mean(),
            "down": ((middle - made[0]).mean(dim=1) / unit).mean(),
            "up": ((made[-1] - middle).mean(dim=1) / unit).mean(),
            "effect": (made[-1] - made[0]).mean() / 2,
        }
        sliders.append(Slider(name, **{key: float(f"{float(value):.3g}") for key, value in figures.items()}))
    return Sliders(tuple(sliders), directions)


def _after(generator: nn.Module, z: Tensor, directions: Tensor, number: int, stop: float) -> Tensor:
    """Properties ``[classes, n, p]`` of ``z`` with one slider at ``stop``."""
    return torch.stack(
        [
            measure(_made(generator, latents + stop * directions[number, label], label, len(z)))
            for label, latents in enumerate(z)
        ]
    )


def _draw(generator: nn.Module, latent: int, classes: int, samples: int, seed: int) -> _Drawn:
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(truncated_latent(rng, classes * samples, latent, BOUND)).reshape(classes, samples, latent)
    found = [measure(_made(generator, latents, label, classes)) for label, latents in enumerate(z)]
    return _Drawn(z, torch.stack(found))


def _made(generator: nn.Module, z: Tensor, label: int, classes: int) -> Tensor:
    weights = torch.eye(classes)[label].expand(len(z), -1)
    parts = [slice(start, start + CHUNK) for start in range(0, len(z), CHUNK)]
    return torch.cat([generator(z[part], weights[part]) for part in parts])


def _spread(share: Tensor) -> Tensor:
    """Standard deviation of positions ``[n]`` along an axis, of shares ``[n, edge]`` that add up to 1."""
    place = torch.arange(share.shape[1], dtype=share.dtype)
    middle = (share * place).sum(dim=1, keepdim=True)
    return (share * (place - middle).square()).sum(dim=1).sqrt()
