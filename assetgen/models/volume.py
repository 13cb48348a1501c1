"""Networks over coloured distance grids: a class-conditional generator of planes, a critic and an encoder; torch only.

A volume is ``[n, 4, d, h, w]`` in [-1, 1], axes z, y (up), x: a truncated signed distance, negative inside, and sRGB
colours. The generator paints three planes in two dimensions and adds them up along the third each: a place of the
volume has the features ``xy[y, x] + zy[z, y] + zx[z, x]``, which a small network turns into distance and colour. So the
cost is that of a picture and of a few numbers a place (planes: Chan et al. 2022; added, not sampled: broadcasting
exports to any runtime).

Differs from the paper: dense volumes, no rendering; the critic sees the volume itself and its slopes, without which
surfaces come out blobby (Zheng et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.models.layers import LEAK, Conv, Dense, activate
from assetgen.models.parts import ClassEmbedding, batch_deviation, nearest_up, pixel_norm

CHANNELS = 4  # distance and colours
SEEN_CHANNELS = 7  # distance, its slopes, colours near the surface
PLANES = 3
LARGEST_FIRST = 6  # cells along an edge of the first feature map, and of the critic's last
MOST = 8  # times ``width``
SLOPE_GAIN = 3.0  # cells in which the distance goes from 0 to 1: slopes near the surface have length 1


@dataclass(frozen=True)
class VolumeConfig:
    """Size and conditioning of the networks.

    Attributes:
        edge: cells along each axis: 3 to 6 times a power of two, such as 24, 32, 48 or 64.
        latent: dimension of z.
        style: dimension of the style that z and class become.
        width: channels of the planes' network at full resolution; twice as many at half of it, at most 8 times.
        features: of each place of a plane.
        hidden: channels of the network that reads them.
        critic_width: channels of the critic and the encoder at half resolution.
        stride: the critic sees every ``stride``-th cell along each axis, the encoder the means of as many.
    """

    classes: int
    edge: int = 48
    latent: int = 64
    style: int = 128
    width: int = 32
    features: int = 16
    hidden: int = 32
    critic_width: int = 24
    stride: int = 1

    @property
    def judged(self) -> VolumeConfig:
        """The size that critic and encoder are built for."""
        return replace(self, edge=self.edge // self.stride)

    @property
    def levels(self) -> int:
        """Doublings from the first feature map to the volume."""
        return levels_of(self.edge)

    @property
    def first(self) -> int:
        """Cells along an edge of the first feature map."""
        return self.edge >> self.levels


def levels_of(edge: int) -> int:
    """Halvings of ``edge`` until it is at most ``LARGEST_FIRST``."""
    levels = 0
    while edge % 2 == 0 and edge > LARGEST_FIRST:
        edge //= 2
        levels += 1
    return levels


def fits(edge: int) -> bool:
    """Whether networks can be built for volumes of ``edge`` cells."""
    return 16 <= edge <= 128 and 3 <= edge >> levels_of(edge) <= LARGEST_FIRST


class StyledConv(nn.Module):
    """Convolution whose output, of unit length at each place, is scaled and shifted by a style."""

    def __init__(self, inputs: int, outputs: int, kernel: int, style: int) -> None:
        super().__init__()
        self.conv = Conv(inputs, outputs, kernel, wrap=False)
        self.affine = Dense(style, 2 * outputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        gain, shift = self.affine(w)[:, :, None, None].chunk(2, dim=1)
        return activate(pixel_norm(self.conv(x)) * (1 + gain) + shift)


class VolumeGenerator(nn.Module):
    """Volumes ``[n, 4, edge, edge, edge]`` from z ``[n, latent]`` and ``class_weights`` ``[n, classes]``."""

    def __init__(self, config: VolumeConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(2 ** (config.levels - i), MOST) for i in range(config.levels + 1)]
        self.embed = ClassEmbedding(config.classes, config.latent)
        self.mapping = nn.ModuleList([Dense(2 * config.latent, config.style), Dense(config.style, config.style)])
        self.start = Dense(config.style, widths[0] * config.first**2)
        self.blocks = nn.ModuleList(
            StyledConv(a, b, 3, config.style) for a, b in zip([widths[0], *widths], widths, strict=False)
        )
        self.planes = Conv(widths[-1], PLANES * config.features, 1, wrap=False)
        self.read = Dense(config.features, config.hidden)
        self.write = Dense(config.hidden, CHANNELS)
        with torch.no_grad():  # mostly outside
            self.write.bias[0] = 1.0

    def style(self, z: Tensor, class_weights: Tensor) -> Tensor:
        """The style ``[n, style]``."""
        w = torch.cat([z, self.embed(class_weights)], dim=1)
        for layer in self.mapping:
            w = activate(layer(w))
        return w

    def forward(
        self, z: Tensor, class_weights: Tensor, start: tuple[int, int, int] = (0, 0, 0), stride: int = 1
    ) -> Tensor:
        """The volume, or of it every ``stride``-th cell along each axis from ``start`` on."""
        w, first = self.style(z, class_weights), self.config.first
        x = activate(self.start(w)).reshape(-1, self.start.bias.shape[0] // first**2, first, first)
        for number, block in enumerate(self.blocks):
            x = block(nearest_up(x) if number else x, w)
        # Features last, and no style beyond the planes: what is done to every place of a volume is most of a step.
        xy, zy, zx = self.planes(x).permute(0, 2, 3, 1).chunk(PLANES, dim=3)
        if stride > 1:
            along_z, along_y, along_x = (slice(first_cell, None, stride) for first_cell in start)
            xy, zy, zx = xy[:, along_y, along_x], zy[:, along_z, along_y], zx[:, along_z, along_x]
        volume = xy[:, None, :, :] + zy[:, :, :, None] + zx[:, :, None, :]
        x = F.leaky_relu(self.read(F.leaky_relu(volume, LEAK)), LEAK)
        return torch.tanh(self.write(x)).permute(0, 4, 1, 2, 3)


class Conv3(nn.Module):
    """Convolution in three dimensions with equalised learning rate; stride 2 halves each edge."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool) -> None:
        super().__init__()
        kernel = 4 if halve else 3
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1.0 / math.sqrt(inputs * kernel**3)
        self.stride = 2 if halve else 1

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(x, self.weight * self.scale, self.bias, self.stride, padding=1)


class VolumeDiscriminator(nn.Module):
    """Logits ``[n]`` of volumes ``[n, 4, edge, edge, edge]`` given labels ``[n]``, by projection."""

    def __init__(self, config: VolumeConfig) -> None:
        super().__init__()
        config = config.judged
        self.gain = SLOPE_GAIN / config.stride
        self.body = _body(config)
        last, cells = _last_width(config), config.first**3
        self.mix = Conv3(last + 1, last, halve=False)
        self.dense = Dense(last * cells, 2 * last)
        self.score = Dense(2 * last, 1)
        self.embed = nn.Parameter(torch.randn(config.classes, 2 * last))

    def forward(self, volume: Tensor, labels: Tensor) -> Tensor:
        x = seen(volume, self.gain)
        for layer in self.body:
            x = activate(layer(x))
        deviation = batch_deviation(x.flatten(2)[..., None]).reshape(-1, 1, *x.shape[2:])
        x = activate(self.mix(torch.cat([x, deviation], dim=1))).flatten(1)
        x = activate(self.dense(x)).float()
        score: Tensor = self.score(x)[:, 0] + (x * self.embed[labels]).sum(dim=1) / math.sqrt(x.shape[1])
        return score


class VolumeEncoder(nn.Module):
    """Mean and log variance of z, each ``[n, latent]``, of volumes given labels (Kingma and Welling 2014)."""

    def __init__(self, config: VolumeConfig) -> None:
        super().__init__()
        config = config.judged
        self.gain = SLOPE_GAIN / config.stride
        self.body = _body(config)
        self.embed = ClassEmbedding(config.classes, config.latent)
        self.dense = Dense(_last_width(config) * config.first**3 + config.latent, 2 * config.latent)
        self.config = config

    def forward(self, volume: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
        x = seen(volume, self.gain)
        for layer in self.body:
            x = activate(layer(x))
        mean, log_variance = self.dense(torch.cat([x.flatten(1), self.embed(class_weights)], dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-8, 8)


def seen(volume: Tensor, gain: float = SLOPE_GAIN) -> Tensor:
    """Distance, slopes, and colours that fade away from the surface, where they do not matter; ``[n, 7, d, h, w]``."""
    distance, colors = volume[:, :1], volume[:, 1:]
    slopes = [_slope(distance, axis) * gain for axis in (2, 3, 4)]
    return torch.cat([distance, *slopes, colors * (1 - distance.abs())], dim=1)


def _slope(x: Tensor, axis: int) -> Tensor:
    """Central differences, halved at the border."""
    last = x.shape[axis] - 1
    ahead = torch.cat([x.narrow(axis, 1, last), x.narrow(axis, last, 1)], dim=axis)
    behind = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, last)], dim=axis)
    return (ahead - behind) / 2


def _body(config: VolumeConfig) -> nn.ModuleList:
    widths = [config.critic_width * min(2**i, MOST) for i in range(config.levels)]
    return nn.ModuleList(Conv3(a, b, halve=True) for a, b in zip([SEEN_CHANNELS, *widths], widths, strict=False))


def _last_width(config: VolumeConfig) -> int:
    return config.critic_width * min(1 << (config.levels - 1), MOST)
