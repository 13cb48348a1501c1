"""The critic of texture crops: residual, with projection of the class; torch only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.models.layers import Conv, Dense, activate
from assetgen.models.parts import batch_deviation


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Size of a discriminator.

    Attributes:
        channels: channels of the pictures.
        widths: channels at half the crop's resolution, then after each halving.
        wrap: pad periodically; only where all reals tile, or "no seam" would mean "fake".
    """

    classes: int
    channels: int = 3
    edge_px: int = 64
    widths: tuple[int, ...] = (64, 96, 128, 192)
    wrap: bool = False


class Block(nn.Module):
    """Residual block that halves the resolution."""

    def __init__(self, inputs: int, outputs: int, *, wrap: bool) -> None:
        super().__init__()
        self.first = Conv(inputs, inputs, 3, wrap=wrap)
        self.second = Conv(inputs, outputs, 3, wrap=wrap)
        self.skip = Conv(inputs, outputs, 1, wrap=wrap, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = activate(self.first(x))
        y = activate(self.second(F.avg_pool2d(y, 2)))
        halved: Tensor = (y + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)
        return halved


class Discriminator(nn.Module):
    """Scores crops ``[n, channels, edge, edge]`` in about [-1, 1] given labels ``[n]``; returns ``[n]`` logits.

    Differs from StyleGAN2's: the first layer works on 2x2 pixel groups, which halves the cost at little loss on
    textures.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        first, last = config.widths[0], config.widths[-1]
        self.enter = Conv(4 * config.channels, first, 3, wrap=config.wrap)
        self.blocks = nn.ModuleList(
            Block(a, b, wrap=config.wrap) for a, b in zip(config.widths, config.widths[1:], strict=False)
        )
        cells = config.edge_px // 2 ** len(config.widths)
        self.mix = Conv(last + 1, last, 3, wrap=config.wrap)
        self.dense = Dense(last * cells * cells, last)
        self.score = Dense(last, 1)
        self.embed = nn.Parameter(torch.randn(config.classes, last))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = activate(self.enter(F.pixel_unshuffle(x, 2)))
        for block in self.blocks:
            x = block(x)
        x = activate(self.mix(torch.cat([x, batch_deviation(x)], dim=1))).flatten(1)
        x = activate(self.dense(x)).float()
        match = (x * self.embed[labels]).sum(dim=1) / math.sqrt(x.shape[1])
        score: Tensor = self.score(x)[:, 0] + match
        return score
