"""DCGAN (Radford et al. 2016): plain convolutions under batch norm; torch only.

A small, fast baseline, and enough for blocks of pixel art at 16 to 64 px.

``width`` is the channels at the edge of the picture in the generator, and at half of it in the discriminator.

Differs from the paper: the generator ends with a 3x3 convolution at full resolution; where pictures tile, a transposed
convolution, which cannot pad periodically, is nearest upsampling and a wrapped 3x3 one; classes; the last features are
summed over places, since projection onto unsummed ones left the class unheard in a trial run. Its discriminator has
batch norm: give it reals and fakes in batches of their own, and no gradient penalty, which needs samples apart.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.models.layers import LEAK
from assetgen.models.parts import (
    FIRST_PX,
    Head,
    LatentWithClass,
    PaddedConv,
    PictureConfig,
    channels_by_level,
    check_config,
    first_map,
    nearest_up,
    with_label_planes,
)

CONDITIONINGS = ("concat", "none", "projection", "auxiliary")  # the first heard classes best in trial runs
MOST = 8


class Enlarge(nn.Module):
    """Double the edge, then batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, wrap: bool) -> None:
        super().__init__()
        self.wrap = wrap
        self.conv = (
            PaddedConv(inputs, outputs, 3, padding="wrap", bias=False)
            if wrap
            else nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(nearest_up(x) if self.wrap else x)))


class DcganGenerator(nn.Module):
    """Pictures ``[n, channels, edge, edge]`` in [-1, 1]; raises ConfigInvalid for a config that it cannot build."""

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "dcgan", CONDITIONINGS, wraps=True)
        self.config = config
        widths = channels_by_level(config, MOST)
        self.latent = LatentWithClass(config)
        self.enter = nn.Linear(self.latent.dimension, widths[0] * FIRST_PX**2)
        self.norm = nn.BatchNorm2d(widths[0])
        self.blocks = nn.ModuleList(Enlarge(a, b, wrap=config.wrap) for a, b in pairwise(widths))
        self.color = PaddedConv(widths[-1], config.channels, 3, padding="wrap" if config.wrap else "zeros")
        self.apply(_initialise)

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        return self.paint(self.start(z, class_weights), z, class_weights)

    def start(self, z: Tensor, class_weights: Tensor) -> Tensor:
        """The first feature map ``[n, c, 4, 4]``."""
        return first_map(self.enter(self.latent(z, class_weights)))

    def paint(self, x: Tensor, _z: Tensor, _class_weights: Tensor) -> Tensor:
        """From the first feature map to the picture; commutes with rolling where pictures tile."""
        x = F.relu(self.norm(x))
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.color(x))


class DcganDiscriminator(nn.Module):
    """Logits ``[n]`` and class logits or None; raises ConfigInvalid for a config that it cannot build."""

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "dcgan", CONDITIONINGS, wraps=True)
        self.classes = config.classes if config.conditioning == "concat" else 0
        widths = channels_by_level(config, MOST)[:0:-1]
        self.enter = nn.Conv2d(config.channels + self.classes, widths[0], 4, 2, 1)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.head = Head(widths[-1], config)
        self.apply(_initialise)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.classes:
            x = with_label_planes(x, labels, self.classes)
        x = F.leaky_relu(self.enter(x), LEAK)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), LEAK)
        result: tuple[Tensor, Tensor | None] = self.head(x.sum(dim=(2, 3)), labels)
        return result


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
