"""CycleGAN's networks (Zhu et al. 2017): pictures of one style into another, same size; torch only.

For style transfer both ways between unpaired collections, and as teacher of a narrower network (24 channels, 6 blocks
run in real time). With ``wrap`` a picture that tiles stays one that tiles.

Differs from the paper: nearest upsampling and a 3x3 convolution in place of a transposed one, against checkerboards;
periodic padding on request; other norms beside instance norm, which takes statistics of the whole picture, so that
neighbouring tiles of a terrain stop matching and a flat map becomes amplified noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.errors import ConfigInvalid
from assetgen.models.layers import LEAK
from assetgen.models.parts import EnlargingConv, PaddedConv, pixel_norm

STRIDE = 4
SMALLEST_PX = 8


@dataclass(frozen=True)
class TransferConfig:
    """Size of a generator from picture to picture.

    Attributes:
        width: channels at full resolution (``ngf``); 64 in the paper, 24 for real time.
        blocks: residual blocks; 9 in the paper at 256 px, 6 at 128 px.
        wrap: pad periodically, else by reflection.
        norm: "instance"; "pixel", the channels of each place to unit power, which looks at no neighbour; "batch",
            constants once trained, folded into the convolutions when exported; or "none", gains and biases alone, which
            begins by handing its input back and is the same in training and in use.
    """

    channels: int = 3
    width: int = 32
    blocks: int = 6
    wrap: bool = True
    norm: str = "instance"


class PixelNorm(nn.Module):
    """Unit power of the channels at each place, then a gain and a bias a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return pixel_norm(x) * self.gain[:, None, None] + self.bias[:, None, None]


class Affine(nn.Module):
    """A gain and a bias a channel, and no norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain[:, None, None] + self.bias[:, None, None]


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": nn.InstanceNorm2d,
    "pixel": PixelNorm,
    "batch": nn.BatchNorm2d,
    "none": Affine,
}
FIRST_GAIN = 0.1  # without norms, of what residual blocks and the colours add at first

PATCH_NORMS = ("instance", "none")


def check_edges(x: Tensor, channels: int) -> None:
    """Raise ValueError unless ``x`` is ``[n, channels, h, w]`` with h and w multiples of 4 and 8 or more.

    Other edges would come back as other sizes, and the strides would break the torus.
    """
    c, h, w = x.shape[1:] if x.ndim == 4 else (0, 0, 0)
    if c != channels or h % STRIDE or w % STRIDE or h < SMALLEST_PX or w < SMALLEST_PX:
        raise ValueError(
            f"pictures: got shape {tuple(x.shape)}, expected [n, {channels}, h, w] with h and w multiples of {STRIDE}, "
            f"{SMALLEST_PX} or more; resize them first"
        )


def initialise(network: nn.Module) -> None:
    """Normal weights of deviation 0.02 and zero biases, as both papers of picture to picture have them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_without_norms(network: nn.Module) -> None:
    """Weights that keep signals alive where nothing normalises them (He et al. 2015), for ReLU."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def weaken(layer: nn.Module) -> None:
    """Let a layer give ``FIRST_GAIN`` of what it would give."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(FIRST_GAIN)


class ResidualBlock(nn.Module):
    """Convolution, norm, ReLU, convolution, norm; added to its input."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module], padding: str) -> None:
        super().__init__()
        self.conv = PaddedConv(width, width, 3, padding=padding, bias=False)
        self.norm = norm(width)
        self.second_conv = PaddedConv(width, width, 3, padding=padding, bias=False)
        self.second_norm = norm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second_conv(F.relu(self.norm(self.conv(x)))))
        result: Tensor = x + y
        return result


class CycleganGenerator(nn.Module):
    """Pictures ``[n, channels, h, w]`` in [-1, 1] to the same shape and range.

    Raises:
        ConfigInvalid: an unknown norm.
        ValueError: edges that are no multiples of 4, or below 8.
    """

    def __init__(self, config: TransferConfig) -> None:
        super().__init__()
        if config.norm not in NORMS:
            raise ConfigInvalid(f"there is no norm {config.norm!r}", hint=f"choose from {', '.join(NORMS)}")
        self.config = config
        norm, width = NORMS[config.norm], config.width
        padding = "wrap" if config.wrap else "reflect"
        self.enter = PaddedConv(config.channels, width, 7, padding=padding, bias=False)
        sizes = [(width, 2 * width), (2 * width, 4 * width)]
        self.downs = nn.ModuleList(PaddedConv(a, b, 3, padding=padding, stride=2, bias=False) for a, b in sizes)
        self.blocks = nn.ModuleList(ResidualBlock(4 * width, norm, padding) for _ in range(config.blocks))
        self.ups = nn.ModuleList(EnlargingConv(b, a, 3, padding=padding, bias=False) for a, b in reversed(sizes))
        self.norms = nn.ModuleList(norm(channels) for channels in (width, 2 * width, 4 * width, 2 * width, width))
        self.color = PaddedConv(width, config.channels, 7, padding=padding)
        self.through = nn.Conv2d(config.channels, config.channels, 1, bias=False)
        if config.norm == "none":
            initialise_without_norms(self)
            weaken(self.color)
            for block in self.blocks:
                if isinstance(block, ResidualBlock) and isinstance(block.second_norm, Affine):
                    nn.init.constant_(block.second_norm.gain, FIRST_GAIN)
        else:
            initialise(self)
        nn.init.eye_(self.through.weight[:, :, 0, 0])

    def forward(self, x: Tensor) -> Tensor:
        check_edges(x, self.config.channels)
        given = x
        first, *rest = self.norms
        x = F.relu(first(self.enter(x)))
        for down, norm in zip(self.downs, rest[:2], strict=True):
            x = F.relu(norm(down(x)))
        for block in self.blocks:
            x = block(x)
        for up, norm in zip(self.ups, rest[2:], strict=True):
            x = F.relu(norm(up(x)))
        return torch.tanh(self.color(x) + self.through(given))


class PatchDiscriminator(nn.Module):
    """Pictures ``[n, channels, h, w]`` to logits ``[n, 1, h', w']``, one for each patch of 70x70 px.

    Of pix2pix (Isola et al. 2017). Zero-padded, since crops of reals do not tile. Edges are 32 px or more.

    Args:
        halvings: 3 in the paper; 2 judges patches of 34x34 px, for pixel art and small crops.
        norm: "instance", the paper's, which hides from it how bright, coloured and contrasted a picture is; or "none",
            which shows it that, and needs a gradient penalty (He et al. 2015's initial weights keep signals alive).

    Raises:
        ConfigInvalid: an unknown norm.
    """

    def __init__(self, channels: int = 3, width: int = 64, halvings: int = 3, norm: str = "instance") -> None:
        super().__init__()
        if norm not in PATCH_NORMS:
            raise ConfigInvalid(f"there is no norm {norm!r}", hint=f"choose from {', '.join(PATCH_NORMS)}")
        plain = norm == "none"
        self.enter = nn.Conv2d(channels, width, 4, 2, 1)
        widths = [width << level for level in range(halvings + 1)]
        strides = [2] * (halvings - 1) + [1]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride, 1, bias=plain) for (a, b), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.norms = nn.ModuleList(nn.Identity() if plain else nn.InstanceNorm2d(b) for b in widths[1:])
        self.score = nn.Conv2d(widths[-1], 1, 4, 1, 1)
        initialise(self)
        if plain:
            for conv in (self.enter, *self.convs, self.score):
                nn.init.kaiming_normal_(conv.weight, a=LEAK)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.enter(x), LEAK)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), LEAK)
        logits: Tensor = self.score(x)
        return logits
