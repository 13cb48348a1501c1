"""The detail network: from a small base colour to a material four times as large; torch only.

Many base colours are known at low resolution and few full map sets at high resolution, so the two are learned apart:
the texture generator paints the layout, this network adds texels and predicts height, roughness and metallic from what
it sees. Everything wraps. Joined with the generator it is one graph and one forward pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen import check
from assetgen.models.layers import GAIN, LEAK, Conv, Dense, DoublingConv, activate, upsample, wrap_pad

SCALE = 4
# Of the logit of height, whose deviation is about 0.7: what joints lie lower by in classes that have them.
JOINT_DEPTH = 1.5
# What the convolutions may add to the logit of height; at 1 they learn the few scans by heart.
CORRECTION = 0.3
# How loud noise is at first: a network that starts without it never learns to use it, and repeats one mark instead.
NOISE = 0.3


@dataclass(frozen=True)
class DetailConfig:
    """Size of a detail network.

    Attributes:
        classes: number of classes.
        widths: channels at 1x, 2x and 4x.
        blocks: residual blocks at 1x, where the network looks around.
    """

    classes: int
    widths: tuple[int, int, int] = (48, 24, 16)
    blocks: int = 4


@dataclass(frozen=True)
class Maps:
    """What the network predicts, each ``[n, c, 4h, 4w]``: base colour about [-1, 1]; the others in [0, 1]."""

    base_color: Tensor
    height: Tensor
    roughness: Tensor
    metallic: Tensor


class Residual(nn.Module):
    """Two wrapped convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv(width, width, 3, wrap=True)
        self.second = Conv(width, width, 3, wrap=True)
        self.baked = False

    def forward(self, x: Tensor) -> Tensor:
        if self.baked:
            return (x + F.leaky_relu(_at_once(self.first, self.second, x), LEAK)) * 0.7071
        return (x + activate(_in_turn(self.first, self.second, x))) * 0.7071

    def bake(self) -> None:
        """Fold the gains of activations into the weights before them, for export."""
        if not self.baked:
            self.first.absorb(GAIN)
            self.second.absorb(GAIN)
        self.baked = True


def _in_turn(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    made: Tensor = second(activate(first(x)))
    return made


def _at_once(first: Conv, second: Conv, x: Tensor) -> Tensor:
    """The same once gains are folded into weights: for both the picture is continued together, by a border of two.

    What is computed twice at the border is little; the copies that it takes to continue a picture are as much as a
    third of a small convolution.
    """
    return second.inside(F.leaky_relu(first.inside(wrap_pad(x, first.margin + second.margin)), LEAK))


class DetailNetwork(nn.Module):
    """Adds texels and maps to a base colour.

    Few heights are known, so height starts from what holds for most surfaces, with one weight a class and band: what is
    brighter lies higher. The convolutions only correct that. Joints between cells lie lower.

    Shapes: picture ``[n, 3, h, w]`` about [-1, 1], sRGB-coded; class_weights ``[n, classes]``; noises
    ``[n, 1, 2h, 2w]`` and ``[n, 1, 4h, 4w]``; joints ``[n, 1, h, w]`` in [0, 1], or ``None`` where not known; large
    ``[n, 3, 4h, 4w]``, the base colour where it is known and needs no more texels, from which height then starts.

    Args:
        metal: classes in which metallic is learned; jointed: classes whose joints lie lower.
    """

    metal: Tensor
    jointed: Tensor

    def __init__(self, config: DetailConfig, metal: tuple[bool, ...], jointed: tuple[bool, ...]) -> None:
        super().__init__()
        self.config = config
        one, two, four = config.widths
        self.enter = Conv(3, one, 3, wrap=True)
        self.embed = Dense(config.classes, one)
        self.look = nn.Sequential(*(Residual(one) for _ in range(config.blocks)))
        self.twice = nn.ModuleList([DoublingConv(one, two), Conv(two, two, 3, wrap=True)])
        self.fourfold = nn.ModuleList([DoublingConv(two, four), Conv(four, four, 3, wrap=True)])
        # By class: asphalt is all grain, metal hardly any.
        loud = (torch.full((config.classes, width), NOISE) for width in (two, four))
        self.noise_strength = nn.ParameterList(nn.Parameter(strength) for strength in loud)
        self.leave = Conv(four, 6, 3, wrap=True)
        # Metallic is 0 by construction in classes without metal: too few maps exist to learn that.
        self.register_buffer("metal", torch.tensor(metal, dtype=torch.float32))
        self.register_buffer("jointed", torch.tensor(jointed, dtype=torch.float32))
        # By class and band, the finest first.
        self.brightness = nn.Parameter(torch.full((config.classes, 3), 2.0))
        self.baked = False

    def forward(
        self,
        picture: Tensor,
        class_weights: Tensor,
        noises: list[Tensor],
        joints: Tensor | None = None,
        large: Tensor | None = None,
    ) -> Maps:
        check.shape(picture, "n 3 h w", "picture")
        act = functools.partial(F.leaky_relu, negative_slope=LEAK) if self.baked else activate
        pair = _at_once if self.baked else _in_turn
        spread = (class_weights @ strength for strength in self.noise_strength)
        grains = [noise * each[:, :, None, None] for noise, each in zip(noises, spread, strict=True)]
        x = act(self.enter(picture) + self.embed(class_weights)[:, :, None, None])
        x = act(self.twice[0](self.look(x)) + grains[0])
        x = act(pair(self.twice[1], self.fourfold[0], x) + grains[1])  # type: ignore[arg-type]
        maps = pair(self.fourfold[1], self.leave, x).float()  # type: ignore[arg-type]
        base_color = upsample(upsample(picture.float())) + maps[:, :3] if large is None else large
        # Detached: colours are not to be bent for the sake of height.
        height = self._height_of_brightness(base_color.detach(), class_weights.float(), joints)
        height = height + CORRECTION * maps[:, 3:4]
        return Maps(
            base_color=base_color,
            height=torch.sigmoid(height),
            roughness=torch.sigmoid(maps[:, 4:5]),
            metallic=torch.sigmoid(maps[:, 5:6]) * (class_weights.float() @ self.metal)[:, None, None, None],
        )

    def bake(self) -> None:
        """Fold the gains of activations into the weights before them, for export."""
        if self.baked:
            return
        for layer in (self.enter, *self.twice, *self.fourfold):
            layer.absorb(GAIN)
        self.embed.weight.data.mul_(GAIN)
        self.embed.bias.data.mul_(GAIN)
        for strength in self.noise_strength:
            strength.data.mul_(GAIN)
        self.baked = True

    def _height_of_brightness(self, base_color: Tensor, class_weights: Tensor, joints: Tensor | None) -> Tensor:
        """A logit of height ``[n, 1, 4h, 4w]`` from brightness in three bands: two octaves, and what is coarser.

        Bands are what is left of a size when the next one, enlarged, is taken from it, so their weights are multiplied
        with differences. Sizes are weighted and added up before they are enlarged instead, which is linear: twice in
        place of six times.
        """
        weights = (class_weights @ self.brightness)[:, :, None, None]
        fine = base_color.mean(dim=1, keepdim=True)
        middle = F.avg_pool2d(fine, 2)
        # The coarsest band is not closed towards the mean of the picture: nothing here may see all of it.
        coarse = F.avg_pool2d(middle, 2) * (weights[:, 2:3] - weights[:, 1:2])
        if joints is not None:
            coarse = coarse - (JOINT_DEPTH * (class_weights @ self.jointed))[:, None, None, None] * joints
        both = upsample(coarse) + middle * (weights[:, 1:2] - weights[:, 0:1])
        return upsample(both) + fine * weights[:, 0:1]
