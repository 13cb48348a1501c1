"""Small pictures of random styles on fixed layouts, in which directions of the style space are looked for; torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from assetgen import latents
from assetgen.models.texture import TextureGenerator
from assetgen.training.batches import fake_inputs
from assetgen.training.recipe import TextureRecipe
from export.parameters import VARIETY
from export.properties import measure

LAYOUTS = 8
CHUNK = 24


@dataclass(frozen=True)
class Samples:
    """Styles ``[classes, samples, latent]``, which of ``LAYOUTS`` each was painted on, and properties."""

    w: Tensor
    place: Tensor
    properties: Tensor


def within_layout(samples: Samples) -> Tensor:
    """Properties less their mean on the same layout: a slider leaves the layout as it is."""
    left = samples.properties.clone()
    for rows, places in zip(left, samples.place, strict=True):
        for place in places.unique():
            rows[places == place] -= rows[places == place].mean(dim=0)
    return left


class Studio:
    """Paints styles of every class on a few fixed layouts, and measures what comes out."""

    def __init__(self, texture: TextureGenerator, classes: Sequence[str], recipe: TextureRecipe, seed: int) -> None:
        self.texture = texture
        self.count = len(classes)
        self.rng = torch.Generator().manual_seed(seed)
        # Half of a crop is enough to measure, in a quarter of the time.
        edge_px = max(recipe.crop_px // 2, 2 * texture.config.stride)
        banks = [
            fake_inputs(latents.generator(seed, label), np.full(LAYOUTS, label), classes, recipe, edge_px)
            for label in range(self.count)
        ]
        levels = range(len(texture.config.widths))
        self.grid = torch.cat([bank.grid for bank in banks])
        self.layouts = [torch.cat([bank.layouts[i] for bank in banks]) for i in levels]
        self.noises = [torch.cat([bank.noises[i] for bank in banks]) for i in levels]

    def styles(self, labels: Tensor) -> Tensor:
        """Random styles of the classes ``labels``."""
        z = torch.randn(len(labels), self.texture.config.latent, generator=self.rng)
        weights = torch.eye(self.count)[labels]
        return self.texture.mapping.truncated(z, weights, torch.full((len(labels), 1), VARIETY))

    def paint(self, w: Tensor, labels: Tensor, places: Tensor) -> Iterator[Tensor]:
        """Pictures of the styles ``w`` on layouts ``places`` of the classes ``labels``, chunk by chunk."""
        for start in range(0, len(w), CHUNK):
            part = slice(start, start + CHUNK)
            spots = labels[part] * LAYOUTS + places[part]
            spatial = ([array[spots] for array in arrays] for arrays in (self.layouts, self.noises))
            yield self.texture.synthesize(w[part], self.grid[spots], *spatial)

    def measure(self, w: Tensor, labels: Tensor, places: Tensor) -> Tensor:
        """Properties of the same pictures."""
        return torch.cat([measure(pictures) for pictures in self.paint(w, labels, places)])

    def sample(self, count: int) -> Samples:
        """``count`` styles of every class, on each layout as often."""
        labels = torch.arange(self.count).repeat_interleave(count)
        places = torch.arange(count).repeat(self.count) % LAYOUTS
        w = self.styles(labels)
        properties = self.measure(w, labels, places)
        shape = (self.count, count)
        return Samples(w.view(*shape, -1), places.view(shape), properties.view(*shape, -1))
