"""StarGAN (Choi et al. 2018) with adaptive norms: one network for pictures of n styles; torch only.

For style transfer to several looks from one file. With ``wrap`` a picture that tiles stays one that tiles.

Differs from the paper: the class sets gains and biases behind instance norms (as AdaIN, Huang and Belongie 2017, and
StarGAN v2 do) and is no label planes beside the picture, which instance norm takes out again wherever padding is
periodic or reflects; the picture goes through to the result as far as the class lets it, since snow hides more of it
than rust; nearest upsampling in place of transposed convolutions. No code of version 2 was used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.errors import ConfigInvalid
from assetgen.models.cyclegan import (
    FIRST_GAIN,
    Affine,
    check_edges,
    initialise,
    initialise_without_norms,
    weaken,
)
from assetgen.models.parts import EnlargingConv, PaddedConv

LEAK = 0.01
MOST = 32  # times the width that a discriminator grows to


@dataclass(frozen=True)
class StarganConfig:
    """Size of a generator for several domains.

    Attributes:
        domains: number of styles.
        width: channels at full resolution; 64 in the paper.
        blocks: residual blocks; 6 in the paper.
        style: dimension of what a class is mapped to.
        wrap: pad periodically, else by reflection.
        norm: "instance", the paper's; "batch", constants once trained, so that neighbouring tiles still match; or
            "none", gains and biases alone.
    """

    domains: int
    channels: int = 3
    width: int = 32
    blocks: int = 6
    style: int = 64
    wrap: bool = True
    norm: str = "instance"


def _no_norm(channels: int, affine: bool) -> nn.Module:
    return Affine(channels) if affine else nn.Identity()


NORMS: dict[str, Callable[..., nn.Module]] = {
    "instance": nn.InstanceNorm2d,
    "batch": nn.BatchNorm2d,
    "none": _no_norm,
}


class AdaptiveNorm(nn.Module):
    """A norm, then gains and biases that are linear in the style ``[n, style]`` (Huang and Belongie 2017)."""

    def __init__(self, channels: int, style: int, norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.norm = norm(channels, affine=False)
        self.gain = nn.Linear(style, channels)
        self.shift = nn.Linear(style, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        conditioned: Tensor = y * (1 + self.gain(style))[:, :, None, None] + self.shift(style)[:, :, None, None]
        return conditioned


class AdaptiveBlock(nn.Module):
    """Residual block under adaptive norms."""

    def __init__(self, width: int, style: int, padding: str, norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.conv = PaddedConv(width, width, 3, padding=padding, bias=False)
        self.norm = AdaptiveNorm(width, style, norm)
        self.second_conv = PaddedConv(width, width, 3, padding=padding, bias=False)
        self.second_norm = AdaptiveNorm(width, style, norm)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        y = self.second_conv(F.relu(self.norm(self.conv(x), style)))
        result: Tensor = x + self.second_norm(y, style)
        return result


class StarganGenerator(nn.Module):
    """Pictures ``[n, channels, h, w]`` in [-1, 1] and class weights ``[n, domains]`` to the same shape and range.

    The weights add up to 1 and may blend styles. Down to a quarter of the edges no layer knows the style.

    Raises:
        ConfigInvalid: an unknown norm.
        ValueError: edges that are no multiples of 4, or below 8.
    """

    def __init__(self, config: StarganConfig) -> None:
        super().__init__()
        if config.norm not in NORMS:
            raise ConfigInvalid(f"there is no norm {config.norm!r}", hint=f"choose from {', '.join(NORMS)}")
        self.config = config
        norm, width, style = NORMS[config.norm], config.width, config.style
        padding = "wrap" if config.wrap else "reflect"
        self.embed = nn.Linear(config.domains, style)
        self.mapping = nn.Linear(style, style)
        self.enter = PaddedConv(config.channels, width, 7, padding=padding, bias=False)
        sizes = [(width, 2 * width), (2 * width, 4 * width)]
        self.downs = nn.ModuleList(PaddedConv(a, b, 3, padding=padding, stride=2, bias=False) for a, b in sizes)
        self.norms = nn.ModuleList(norm(c, affine=True) for c in (width, 2 * width, 4 * width))
        self.blocks = nn.ModuleList(AdaptiveBlock(4 * width, style, padding, norm) for _ in range(config.blocks))
        self.ups = nn.ModuleList(EnlargingConv(b, a, 3, padding=padding, bias=False) for a, b in reversed(sizes))
        self.up_norms = nn.ModuleList(AdaptiveNorm(a, style, norm) for a, _ in reversed(sizes))
        self.color = PaddedConv(width, config.channels, 7, padding=padding)
        self.through = nn.Conv2d(config.channels, config.channels, 1, bias=False)
        self.through_gain = nn.Linear(style, config.channels)
        if config.norm == "none":
            initialise_without_norms(self)
            weaken(self.color)
            for block in self.blocks:
                if isinstance(block, AdaptiveBlock):
                    nn.init.constant_(block.second_norm.gain.bias, FIRST_GAIN - 1)
        else:
            initialise(self)
        nn.init.eye_(self.through.weight[:, :, 0, 0])
        nn.init.zeros_(self.through_gain.weight)
        nn.init.zeros_(self.through_gain.bias)

    def forward(self, x: Tensor, class_weights: Tensor) -> Tensor:
        check_edges(x, self.config.channels)
        given = x
        style = F.relu(self.mapping(F.relu(self.embed(class_weights))))
        for conv, norm in zip([self.enter, *self.downs], self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        for block in self.blocks:
            x = block(x, style)
        for up, norm in zip(self.ups, self.up_norms, strict=True):
            x = F.relu(norm(up(x), style))
        through = self.through(given) * (1 + self.through_gain(style))[:, :, None, None]
        return torch.tanh(self.color(x) + through)


class StarganDiscriminator(nn.Module):
    """Pictures ``[n, channels, edge, edge]`` to logits of patches ``[n, 1, h', w']`` and of domains ``[n, domains]``.

    No norms, zero-padded. At 128 px it is the paper's: six halvings, then heads that see 2x2 places.

    Raises:
        ConfigInvalid: ``edge_px`` is no power of two, or below 16.
    """

    def __init__(self, domains: int, edge_px: int = 128, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        if edge_px < 16 or edge_px & (edge_px - 1):
            raise ConfigInvalid(f"edge_px {edge_px} is not allowed", hint="give a power of two, 16 or more")
        halvings = edge_px.bit_length() - 2
        widths = [channels, *(width * min(2**i, MOST) for i in range(halvings))]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.score = nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False)
        self.classify = nn.Conv2d(widths[-1], domains, edge_px >> halvings, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for conv in self.convs:
            x = F.leaky_relu(conv(x), LEAK)
        return self.score(x), self.classify(x).flatten(1)
