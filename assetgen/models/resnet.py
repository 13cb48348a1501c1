"""The residual networks of WGAN-GP (Gulrajani et al. 2017) and SNGAN (Miyato et al. 2018); torch only.

With the Wasserstein loss and its penalty, the gap between the logits of reals and fakes is the one curve of a GAN that
follows quality; the choice for odd data sets, where one must see whether a run still gets better.

``width`` is the channels at the edge of the picture in the generator, and at half of it in the discriminator.

Differs from the papers: no norm in the discriminator, as the penalty is a sample's own, and no spectral norm, whose
work the penalty does (``biggan`` has it); widths double with each halving; the tileable variant. The class enters as
in Miyato and Koyama 2018, through the norms of the generator; under "concat" beside z. The blocks are BigGAN's, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

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
    plain_dense,
    spectral_dense,
    with_label_planes,
)

CONDITIONINGS = ("projection", "none", "concat", "auxiliary")
MOST = 8


class ConditionalNorm(nn.Module):
    """Batch norm whose gains and biases are linear in a condition ``[n, k]``; a plain one where ``k`` is 0."""

    def __init__(self, channels: int, k: int, dense: Callable[[int, int, bool], nn.Module]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not k)
        self.gain = dense(k, channels, False) if k else None
        self.shift = dense(k, channels, False) if k else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        if self.gain is None or self.shift is None:
            return y
        conditioned: Tensor = y * (1 + self.gain(condition))[:, :, None, None] + self.shift(condition)[:, :, None, None]
        return conditioned


class UpBlock(nn.Module):
    """Residual block of a generator that doubles the edge (Gulrajani et al. 2017, Miyato et al. 2018).

    No biases: the batch norm behind each layer would take them out again.

    Args:
        k: length of the condition of its norms; 0 for none.
    """

    def __init__(self, inputs: int, outputs: int, *, wrap: bool, k: int = 0, spectral_norm: bool = False) -> None:
        super().__init__()
        dense = spectral_dense if spectral_norm else plain_dense
        padding = "wrap" if wrap else "zeros"
        self.norm = ConditionalNorm(inputs, k, dense)
        self.conv = PaddedConv(inputs, outputs, 3, padding=padding, bias=False, spectral_norm=spectral_norm)
        self.second_norm = ConditionalNorm(outputs, k, dense)
        self.second_conv = PaddedConv(outputs, outputs, 3, padding=padding, bias=False, spectral_norm=spectral_norm)
        self.skip = PaddedConv(inputs, outputs, 1, bias=False, spectral_norm=spectral_norm)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv(nearest_up(F.relu(self.norm(x, condition))))
        y = self.second_conv(F.relu(self.second_norm(y, condition)))
        result: Tensor = y + nearest_up(self.skip(x))
        return result


class DownBlock(nn.Module):
    """Residual block of a discriminator, without norm of activations, zero-padded (Miyato et al. 2018).

    Args:
        first: it takes the picture, which no ReLU may cut.
        halve: average-pool at its end.
    """

    def __init__(
        self, inputs: int, outputs: int, *, first: bool = False, halve: bool = True, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        self.first = first
        self.halve = halve
        self.conv = PaddedConv(inputs, outputs, 3, spectral_norm=spectral_norm)
        self.second_conv = PaddedConv(outputs, outputs, 3, spectral_norm=spectral_norm)
        self.skip = PaddedConv(inputs, outputs, 1, spectral_norm=spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_conv(F.relu(self.conv(x if self.first else F.relu(x))))
        if self.halve:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        result: Tensor = y + self.skip(x)
        return result


class ResnetGenerator(nn.Module):
    """Pictures ``[n, channels, edge, edge]`` in [-1, 1]; raises ConfigInvalid for a config that it cannot build."""

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "resnet", CONDITIONINGS, wraps=True)
        self.config = config
        widths = channels_by_level(config, MOST)
        self.latent = LatentWithClass(config) if config.conditioning == "concat" else None
        self.enter = nn.Linear(config.latent if self.latent is None else self.latent.dimension, widths[0] * FIRST_PX**2)
        k = config.classes if config.conditioning in {"auxiliary", "projection"} else 0
        self.blocks = nn.ModuleList(UpBlock(a, b, wrap=config.wrap, k=k) for a, b in pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.color = PaddedConv(widths[-1], config.channels, 3, padding="wrap" if config.wrap else "zeros")
        _initialise(self)

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        return self.paint(self.start(z, class_weights), z, class_weights)

    def start(self, z: Tensor, class_weights: Tensor) -> Tensor:
        """The first feature map ``[n, c, 4, 4]``."""
        x = z if self.latent is None else self.latent(z, class_weights)
        return first_map(self.enter(x))

    def paint(self, x: Tensor, _z: Tensor, class_weights: Tensor) -> Tensor:
        """From the first feature map to the picture; commutes with rolling where pictures tile."""
        for block in self.blocks:
            x = block(x, class_weights)
        return torch.tanh(self.color(F.relu(self.norm(x))))


class ResnetDiscriminator(nn.Module):
    """Logits ``[n]`` and class logits or None; raises ConfigInvalid for a config that it cannot build."""

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "resnet", CONDITIONINGS, wraps=True)
        self.classes = config.classes if config.conditioning == "concat" else 0
        widths = channels_by_level(config, MOST)[::-1]
        self.blocks = nn.ModuleList([DownBlock(config.channels + self.classes, widths[0], first=True)])
        for i in range(config.levels):
            self.blocks.append(DownBlock(widths[i], widths[i + 1], halve=i < config.levels - 1))
        self.head = Head(widths[-1], config)
        _initialise(self)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.classes:
            x = with_label_planes(x, labels, self.classes)
        for block in self.blocks:
            x = block(x)
        result: tuple[Tensor, Tensor | None] = self.head(F.relu(x).mean(dim=(2, 3)), labels)
        return result


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            # Behind a ReLU its inputs have half their power; a skip and the colours see no such loss.
            gain = math.sqrt(2.0) if module.kernel_size[0] == 3 else 1.0
            nn.init.xavier_uniform_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
