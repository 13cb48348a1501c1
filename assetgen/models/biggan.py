"""BigGAN (Brock et al. 2019) in small: props by class, with truncation; torch and numpy.

z is cut into chunks, one for the first feature map and one for each block, which its batch norms see beside the class.
Reading order after training: ``standing_statistics`` on the averaged network, then ``truncated_latent`` for z.

``width`` is the channels of the finest features in the generator, and at half their edge in the discriminator.

Differs from the paper: pixels may be taken in groups, as a smooth picture and detail for each pixel of a group, which
starts at nothing, and which the discriminator is shown apart and larger: else groups stayed a grid of coloured dots,
even if they started alike (Aitken et al. 2017); pictures with alpha start transparent, and their last layer counts
more, or they are long in getting there; any latent size, the first chunk takes what is left over; attention at half the
edge, at most 64 px; the class embedding starts with unit variance, to be heard early; the tileable variant; sizes for
minutes on one GPU. All other weights start orthogonal and are under spectral norm.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from assetgen.errors import ConfigInvalid
from assetgen.models.layers import upsample
from assetgen.models.mixture import MixturePrior
from assetgen.models.parts import (
    FIRST_PX,
    ClassEmbedding,
    Head,
    PaddedConv,
    PictureConfig,
    bake_spectral_norm,
    channels_by_level,
    check_config,
    first_map,
    spectral_dense,
    standing_statistics,
)
from assetgen.models.resnet import DownBlock, UpBlock

__all__ = [
    "BigganDiscriminator",
    "BigganEncoder",
    "BigganGenerator",
    "orthogonal_penalty",
    "standing_statistics",
    "truncated_latent",
]

CONDITIONINGS = ("projection",)
MOST = 16
# Features of a group of pixels for each of the finest features: an edge may cross it at any place and in any direction.
DRAWN = 3
LARGEST_ATTENTION_PX = 64
SMALLEST_BOUND = 0.01
# Of the last layer of pictures with alpha: spectral norm and small steps would keep it from -1, which most of them is.
ALPHA_STRENGTH = 3.0
ALPHA_BIAS = -0.5


def truncated_latent(rng: np.random.Generator, n: int, dimension: int, bound: float) -> NDArray[np.float32]:
    """Normal z ``[n, dimension]``, drawn anew wherever ``|z| > bound``: fewer surprises, less variety.

    Raises:
        ConfigInvalid: ``bound`` is below 0.01, where nearly every draw would be in vain.
    """
    if not bound >= SMALLEST_BOUND:
        raise ConfigInvalid(f"truncation {bound} is not allowed", hint=f"give {SMALLEST_BOUND} or more")
    z = rng.standard_normal((n, dimension), dtype=np.float32)
    while (outside := np.abs(z) > bound).any():
        z[outside] = rng.standard_normal(int(outside.sum()), dtype=np.float32)
    return z


def orthogonal_penalty(module: nn.Module) -> Tensor:
    """Sum of squared inner products of different filters, over all layers but embeddings.

    It lets the generator answer to truncated z; the paper weighs it with 1e-4.
    """
    total = torch.zeros((), device=next(module.parameters()).device)
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            rows = _trained_weight(layer).flatten(1)
            products = rows @ rows.t()
            total = total + products.square().sum() - products.diagonal().square().sum()
    return total


class Attention(nn.Module):
    """Every place looks at every place (Zhang et al. 2019).

    It knows no positions, so it commutes with rolling by even steps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(channels // 8, 1), max(channels // 2, 1)
        self.query = PaddedConv(channels, narrow, 1, bias=False, spectral_norm=True)
        self.key = PaddedConv(channels, narrow, 1, bias=False, spectral_norm=True)
        self.value = PaddedConv(channels, half, 1, bias=False, spectral_norm=True)
        self.result = PaddedConv(half, channels, 1, bias=False, spectral_norm=True)
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        share = torch.softmax(query.transpose(1, 2) @ key, dim=2)
        seen = (value @ share.transpose(1, 2)).reshape(-1, value.shape[1], x.shape[2], x.shape[3])
        result: Tensor = x + self.strength * self.result(seen)
        return result


class BigganGenerator(nn.Module):
    """Pictures ``[n, channels, edge, edge]`` in [-1, 1]; raises ConfigInvalid for a config that it cannot build."""

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "biggan", CONDITIONINGS, wraps=True, groups=True)
        chunk = config.latent // (config.levels + 1)
        if chunk == 0:
            raise ConfigInvalid(
                f"latent {config.latent} is too small for biggan at {config.edge_px} px",
                hint=f"give {config.levels + 1} or more",
            )
        self.config = config
        self.chunks = [config.latent - chunk * config.levels, *[chunk] * config.levels]
        widths = channels_by_level(config, MOST)
        self.prior = MixturePrior(config.classes, config.latent) if config.coded else None
        self.embed = ClassEmbedding(config.classes, config.latent)
        self.enter = spectral_dense(self.chunks[0], widths[0] * FIRST_PX**2)
        self.blocks = nn.ModuleList(
            UpBlock(a, b, wrap=config.wrap, k=config.latent + chunk, spectral_norm=True) for a, b in pairwise(widths)
        )
        self.attended_px = min(config.inner_px // 2, LARGEST_ATTENTION_PX)
        self.attention = Attention(widths[(self.attended_px // FIRST_PX).bit_length() - 1])
        self.norm = nn.BatchNorm2d(widths[-1])
        padding = "wrap" if config.wrap else "zeros"
        self.color = PaddedConv(widths[-1], config.channels, 3, padding=padding, spectral_norm=True)
        if config.groups > 1:
            colors = config.channels * config.groups**2
            drawn = DRAWN * widths[-1]
            self.draw = PaddedConv(widths[-1], drawn, 3, padding=padding, spectral_norm=True)
            self.detail = PaddedConv(drawn, colors, 1, bias=False, spectral_norm=True)
            self.detail_strength = nn.Parameter(torch.zeros(()))
        self.strength = 1.0
        if config.channels == 4:
            self.strength = ALPHA_STRENGTH
            nn.init.constant_(next(p for name, p in self.color.named_parameters() if name.endswith("bias")), ALPHA_BIAS)

    def bake(self) -> None:
        """Make the weights constants, for export."""
        bake_spectral_norm(self)

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        return self.decode(z if self.prior is None else self.prior(z, class_weights), class_weights)

    def decode(self, code: Tensor, class_weights: Tensor) -> Tensor:
        """Pictures of codes ``[n, latent]``, which are z themselves where there is no encoder."""
        return self.paint(self.start(code, class_weights), code, class_weights)

    def start(self, z: Tensor, _class_weights: Tensor) -> Tensor:
        """The first feature map ``[n, c, 4, 4]``."""
        return first_map(self.enter(z[:, : self.chunks[0]]))

    def paint(self, x: Tensor, z: Tensor, class_weights: Tensor) -> Tensor:
        """From the first feature map to the picture; commutes with rolling where pictures tile."""
        embedded = self.embed(class_weights)
        for block, chunk in zip(self.blocks, torch.split(z, self.chunks, dim=1)[1:], strict=True):
            x = block(x, torch.cat([embedded, chunk], dim=1))
            if x.shape[2] == self.attended_px:
                x = self.attention(x)
        x = F.relu(self.norm(x))
        colors = self.color(x)
        if self.config.groups > 1:
            for _ in range(self.config.groups.bit_length() - 1):
                colors = upsample(colors)
            detail = F.pixel_shuffle(self.detail(F.relu(self.draw(x))), self.config.groups)
            colors = colors + self.detail_strength * detail
        colors = torch.tanh(colors * self.strength)
        if self.config.channels == 4:  # no more colour than cover: it would glow on black
            colors = torch.cat([torch.minimum(colors[:, :3], colors[:, 3:]), colors[:, 3:]], dim=1)
        return colors


class BigganDiscriminator(nn.Module):
    """Logits ``[n]`` and None; raises ConfigInvalid for a config that it cannot build."""

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "biggan", CONDITIONINGS, wraps=True, groups=True)
        self.groups = config.groups
        widths = channels_by_level(config, MOST)[::-1]
        colors = _seen_channels(config)
        self.blocks = nn.ModuleList([DownBlock(colors, widths[0], first=True, spectral_norm=True)])
        for i in range(config.levels):
            halve = i < config.levels - 1
            self.blocks.append(DownBlock(widths[i], widths[i + 1], halve=halve, spectral_norm=True))
        self.attended_px = min(config.inner_px // 2, LARGEST_ATTENTION_PX)
        halvings = (config.inner_px // self.attended_px).bit_length() - 1
        self.attention = Attention(widths[halvings - 1])
        self.head = Head(widths[-1], config, dense=spectral_dense, spectral_norm=True)

    def bake(self) -> None:
        """Make the weights constants, for export."""
        bake_spectral_norm(self)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        x = _in_groups(x, self.groups) if self.groups > 1 else x
        for block in self.blocks:
            x = block(x)
            if x.shape[2] == self.attended_px:
                x = self.attention(x)
        result: tuple[Tensor, Tensor | None] = self.head(F.relu(x).sum(dim=(2, 3)), labels)
        return result


class BigganEncoder(nn.Module):
    """Mean and log variance of a code, each ``[n, latent]``, of pictures and ``class_weights`` ``[n, classes]``.

    For a generator that rebuilds pictures from their codes as well (VAE-GAN, Larsen et al. 2016). Its trunk is that of
    the discriminator without spectral norm, and places are kept apart to the end.
    """

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        self.groups = config.groups
        widths = channels_by_level(config, MOST)[::-1]
        colors = _seen_channels(config)
        self.blocks = nn.ModuleList([DownBlock(colors, widths[0], first=True, halve=False)])
        self.blocks += [DownBlock(a, b) for a, b in pairwise(widths)]
        self.embed = ClassEmbedding(config.classes, config.latent)
        self.dense = nn.Linear(widths[-1] * FIRST_PX**2 + config.latent, 2 * config.latent)

    def forward(self, x: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
        x = _in_groups(x, self.groups) if self.groups > 1 else x
        for block in self.blocks:
            x = block(x)
        told = torch.cat([F.relu(x).flatten(1), self.embed(class_weights)], dim=1)
        mean, log_variance = self.dense(told).chunk(2, dim=1)
        return mean, log_variance.clamp(-8, 8)


def _seen_channels(config: PictureConfig) -> int:
    """Channels of a picture as discriminator and encoder see it, see ``_in_groups``."""
    return config.channels * (config.groups**2 + (config.groups > 1))


def _in_groups(x: Tensor, groups: int) -> Tensor:
    """Means of groups of pixels ``[n, c, h, w]`` and what each pixel is off, enlarged ``[n, c + c groups^2, ...]``.

    Spectral norm measures a filter by what it answers to most, which is what pixels of a group have in common; it left
    next to nothing for a grid.
    """
    means = F.avg_pool2d(x, groups)
    off = F.pixel_unshuffle(x, groups) - means.repeat_interleave(groups**2, dim=1)
    return torch.cat([means, groups * off], dim=1)


def _trained_weight(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """What the optimiser moves; ``layer.weight`` may be that divided by its spectral norm."""
    for name, parameter in layer.named_parameters():
        if name in {"weight", "parametrizations.weight.original"}:
            return parameter
    raise ValueError(f"{layer} has no weight")
