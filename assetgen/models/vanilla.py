"""The first GAN (Goodfellow et al. 2014), conditional as in Mirza and Osindero 2014: two perceptrons; torch only.

For teaching, and for tests of mode collapse: small enough to fail within seconds. It does not tile.

``width`` is an eighth of the first hidden layer: 32 gives layers of 256, 512 and 1024.

Differs from the paper: leaky ReLU in place of maxout; no dropout, which would draw from a random state that a resumed
run does not have; the last layer of the generator is a hyperbolic tangent.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.models.layers import LEAK
from assetgen.models.parts import Head, LatentWithClass, PictureConfig, check_config

CONDITIONINGS = ("concat", "none")


class VanillaGenerator(nn.Module):
    """Pictures ``[n, channels, edge, edge]`` in [-1, 1]; raises ConfigInvalid for a config that it cannot build."""

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "vanilla", CONDITIONINGS, wraps=False)
        self.config = config
        self.latent = LatentWithClass(config)
        sizes = [self.latent.dimension, *_hidden(config)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.paint = nn.Linear(sizes[-1], config.channels * config.edge_px**2)

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        x = self.latent(z, class_weights)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), LEAK)
        picture = torch.tanh(self.paint(x))
        return picture.reshape(-1, self.config.channels, self.config.edge_px, self.config.edge_px)


class VanillaDiscriminator(nn.Module):
    """Logits ``[n]`` and None; raises ConfigInvalid for a config that it cannot build."""

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "vanilla", CONDITIONINGS, wraps=False)
        self.classes = config.classes if config.conditioning == "concat" else 0
        sizes = [config.channels * config.edge_px**2 + self.classes, *reversed(_hidden(config))]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.head = Head(sizes[-1], config)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        x = x.flatten(1)
        if self.classes:
            x = torch.cat([x, F.one_hot(labels, self.classes).to(x.dtype)], dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), LEAK)
        result: tuple[Tensor, Tensor | None] = self.head(x, labels)
        return result


def _hidden(config: PictureConfig) -> list[int]:
    return [8 * config.width, 16 * config.width, 32 * config.width]
