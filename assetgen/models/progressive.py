"""Progressive GAN (Karras et al. 2018): both networks grow from 4x4 to the full edge; torch only.

A stable start on few pictures: coarse structure is learned first, and details fade in.

Both networks hold ``stage``: 0 is 4x4 alone, 1.5 has 16x16 half faded in, ``log2(edge / 4)`` is fully grown, the
default. At stage s a picture has the edge ``4 * 2**ceil(s)``; ``at_stage`` brings reals there. ``width`` is the
channels at the full edge.

Differs from the paper: a hyperbolic tangent on the colours, before the fade; no latent of 512; projection; the tileable
variant. No code of its authors was used.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.errors import ConfigInvalid
from assetgen.models.layers import Conv, Dense, activate
from assetgen.models.parts import (
    FIRST_PX,
    Head,
    LatentWithClass,
    PictureConfig,
    batch_deviation,
    channels_by_level,
    check_config,
    first_map,
    nearest_up,
    pixel_norm,
    with_label_planes,
)

CONDITIONINGS = ("projection", "none", "concat", "auxiliary")
MOST = 8


def at_stage(pictures: Tensor, stage: float) -> Tensor:
    """Reals of the full edge as a discriminator at ``stage`` expects them.

    Shrunk by means to ``[n, c, e, e]`` of that stage's edge e, and as coarse as the fakes: what fades in there is as
    faint.

    Raises:
        ConfigInvalid: ``stage`` is below 0 or beyond the edge of ``pictures``.
    """
    full = (pictures.shape[-1] // FIRST_PX).bit_length() - 1
    top, fade = _top_and_fade(_checked(stage, full))
    if top < full:
        pictures = F.avg_pool2d(pictures, 2 ** (full - top))
    return pictures if fade == 1.0 else _mix(nearest_up(F.avg_pool2d(pictures, 2)), pictures, fade)


class ProgressiveGenerator(nn.Module):
    """Pictures ``[n, channels, e, e]`` in [-1, 1], e of the stage; raises ConfigInvalid for an impossible config."""

    stage: Tensor

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "progressive", CONDITIONINGS, wraps=True)
        self.config = config
        widths = channels_by_level(config, MOST)
        self.latent = LatentWithClass(config)
        self.enter = Dense(self.latent.dimension, widths[0] * FIRST_PX**2)
        self.first = Conv(widths[0], widths[0], 3, wrap=config.wrap)
        self.convs = nn.ModuleList(Conv(a, b, 3, wrap=config.wrap) for a, b in pairwise(widths))
        self.second_convs = nn.ModuleList(Conv(b, b, 3, wrap=config.wrap) for b in widths[1:])
        self.colors = nn.ModuleList(Conv(width, config.channels, 1, wrap=False) for width in widths)
        self.register_buffer("stage", torch.tensor(float(config.levels)))
        self.fixed_stage: float | None = None

    def set_stage(self, stage: float) -> None:
        """Grow to ``stage``, 0 to log2(edge / 4), else ConfigInvalid is raised."""
        self.stage.fill_(_checked(stage, self.config.levels))

    def bake(self) -> None:
        """Keep the stage for good, so that the graph has no choice in it, for export."""
        self.fixed_stage = float(self.stage)

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        return self.paint(self.start(z, class_weights), z, class_weights)

    def start(self, z: Tensor, class_weights: Tensor) -> Tensor:
        """The first feature map ``[n, c, 4, 4]``."""
        return pixel_norm(first_map(activate(self.enter(pixel_norm(self.latent(z, class_weights))))))

    def paint(self, x: Tensor, _z: Tensor, _class_weights: Tensor) -> Tensor:
        """From the first feature map to the picture; commutes with rolling where pictures tile."""
        top, fade = _top_and_fade(float(self.stage) if self.fixed_stage is None else self.fixed_stage)
        x = coarser = pixel_norm(activate(self.first(x)))
        for level in range(top):
            coarser = x
            x = pixel_norm(activate(self.convs[level](nearest_up(x))))
            x = pixel_norm(activate(self.second_convs[level](x)))
        picture = torch.tanh(self.colors[top](x))
        if fade == 1.0:
            return picture
        return _mix(nearest_up(torch.tanh(self.colors[top - 1](coarser))), picture, fade)


class ProgressiveDiscriminator(nn.Module):
    """Pictures of the stage's edge to logits ``[n]`` and class logits or None.

    Raises:
        ConfigInvalid: for a config that it cannot build.
        ValueError: pictures of another edge than the stage's.
    """

    stage: Tensor

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        check_config(config, "progressive", CONDITIONINGS, wraps=True)
        self.config = config
        self.classes = config.classes if config.conditioning == "concat" else 0
        widths = channels_by_level(config, MOST)
        self.enters = nn.ModuleList(Conv(config.channels + self.classes, width, 1, wrap=False) for width in widths)
        self.convs = nn.ModuleList(Conv(b, b, 3, wrap=False) for b in widths[1:])
        self.second_convs = nn.ModuleList(Conv(b, a, 3, wrap=False) for a, b in pairwise(widths))
        self.last = Conv(widths[0] + 1, widths[0], 3, wrap=False)
        self.dense = Dense(widths[0] * FIRST_PX**2, widths[0])
        self.head = Head(widths[0], config, dense=Dense)
        self.register_buffer("stage", torch.tensor(float(config.levels)))

    def set_stage(self, stage: float) -> None:
        """Grow to ``stage``, 0 to log2(edge / 4), else ConfigInvalid is raised."""
        self.stage.fill_(_checked(stage, self.config.levels))

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        stage = float(self.stage)
        top, fade = _top_and_fade(stage)
        edge = FIRST_PX * 2**top
        if tuple(x.shape[2:]) != (edge, edge):
            raise ValueError(f"pictures: got {tuple(x.shape)}, expected edges of {edge} px at stage {stage:g}")
        y = self._entered(x, top, labels)
        for level in range(top, 0, -1):
            y = self._halved(y, level)
            if level == top and fade < 1.0:
                y = _mix(self._entered(F.avg_pool2d(x, 2), top - 1, labels), y, fade)
        y = activate(self.last(torch.cat([y, batch_deviation(y)], dim=1)))
        result: tuple[Tensor, Tensor | None] = self.head(activate(self.dense(y.flatten(1))), labels)
        return result

    def _entered(self, x: Tensor, level: int, labels: Tensor) -> Tensor:
        return activate(self.enters[level](with_label_planes(x, labels, self.classes) if self.classes else x))

    def _halved(self, x: Tensor, level: int) -> Tensor:
        x = activate(self.convs[level - 1](x))
        return F.avg_pool2d(activate(self.second_convs[level - 1](x)), 2)


def _checked(stage: float, full: int) -> float:
    if not 0 <= stage <= full:
        raise ConfigInvalid(f"stage {stage} is not allowed", hint=f"give 0 to {full}")
    return torch.tensor(stage, dtype=torch.float32).item()  # as the networks keep it, or edges could disagree


def _top_and_fade(stage: float) -> tuple[int, float]:
    """The finest level, and how much of it shows: (0, 1]."""
    top = math.ceil(stage)
    return top, 1.0 - (top - stage)


def _mix(coarse: Tensor, fine: Tensor, fade: float) -> Tensor:
    return coarse * (1.0 - fade) + fine * fade
