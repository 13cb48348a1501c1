"""What the families of picture generators share: their size, convolutions, norms, blocks, heads and baking; torch only.

A generator takes ``z`` ``[n, latent]`` and ``class_weights`` ``[n, classes]`` that add up to 1 and may blend classes; a
discriminator takes pictures ``[n, channels, edge, edge]`` and ``labels`` ``[n]`` of int64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from assetgen.errors import ConfigInvalid
from assetgen.models.layers import wrap_pad

FIRST_PX = 4  # edge of the first feature map
GROUPS = (1, 2, 4)


@dataclass(frozen=True)
class PictureConfig:
    """Size and conditioning of the generator and the discriminator of a family.

    Attributes:
        channels: channels of a picture.
        edge_px: edge of a picture; a power of two, 16 or more.
        latent: dimension of z.
        width: channels at the finest resolution; what that is, the docstring of each family says.
        groups: edge of the groups of pixels whose values are channels of one place to the networks (sub-pixel
            convolution, Shi et al. 2016): 2 saves the finest and dearest level, 4 two of them.
        wrap: every picture tiles; the discriminator pads with zeros all the same, since crops of reals do not tile.
        conditioning: "none"; "concat" (Mirza and Osindero 2014: the discriminator sees label planes); "auxiliary"
            (AC-GAN, Odena et al. 2017: it tells the class; little diversity within a class where its weight is large);
            "projection" (Miyato and Koyama 2018).
        coded: the generator has an encoder beside it and paints codes like those that it makes (``prior``).
    """

    classes: int
    channels: int = 3
    edge_px: int = 64
    latent: int = 128
    width: int = 32
    wrap: bool = True
    conditioning: str = "none"
    groups: int = 1
    coded: bool = False

    @property
    def inner_px(self) -> int:
        """Edge of the finest feature map."""
        return self.edge_px // self.groups

    @property
    def levels(self) -> int:
        """Doublings from the first feature map to the finest."""
        return (self.inner_px // FIRST_PX).bit_length() - 1


def check_config(
    config: PictureConfig, family: str, conditionings: tuple[str, ...], *, wraps: bool, groups: bool = False
) -> None:
    """Raise ConfigInvalid unless ``family`` can be built with ``config``.

    Args:
        groups: the family can work on groups of pixels.
    """
    if config.edge_px < 16 or config.edge_px & (config.edge_px - 1):
        raise ConfigInvalid(
            f"edge_px {config.edge_px} is not allowed for {family}", hint="give a power of two, 16 or more"
        )
    for name in ("classes", "channels", "latent", "width"):
        if getattr(config, name) < 1:
            raise ConfigInvalid(f"{name} {getattr(config, name)} is not allowed for {family}", hint="give 1 or more")
    if config.conditioning not in conditionings:
        raise ConfigInvalid(
            f"{family} has no conditioning {config.conditioning!r}", hint=f"choose from {', '.join(conditionings)}"
        )
    if config.groups != 1 and not (groups and config.groups in GROUPS and config.inner_px >= 16):
        raise ConfigInvalid(
            f"{family} cannot work on groups of {config.groups} pixels at edge_px {config.edge_px}",
            hint="set groups = 1; with family biggan 2 or 4, where 16 groups or more fit into the edge",
        )
    if config.wrap and not wraps:
        raise ConfigInvalid(f"{family} has no tileable variant", hint="set wrap = false, or choose another family")


def channels_by_level(config: PictureConfig, most: int) -> list[int]:
    """Channels at 4, 8, ... edge_px pixels: they double with each halving of the edge, up to ``most`` times width."""
    return [config.width * min(2 ** (config.levels - level), most) for level in range(config.levels + 1)]


def pixel_norm(x: Tensor) -> Tensor:
    """Scale the channels of ``[n, c, ...]`` to unit second moment, at each place alone (Karras et al. 2018)."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def first_map(x: Tensor) -> Tensor:
    """Fold ``[n, 16 c]`` into ``[n, c, 4, 4]``."""
    return x.reshape(-1, x.shape[1] // FIRST_PX**2, FIRST_PX, FIRST_PX)


def nearest_up(x: Tensor) -> Tensor:
    """Double height and width by repetition, which commutes with rolling."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def with_label_planes(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Add one plane a class to ``[n, c, h, w]``: 1 in that of the label, else 0."""
    planes = F.one_hot(labels, classes).to(x.dtype)[:, :, None, None]
    return torch.cat([x, planes.expand(-1, -1, *x.shape[2:])], dim=1)


def batch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Mean standard deviation over groups of neighbours, a plane ``[n, 1, h, w]`` (Karras et al. 2018).

    Neighbours, so that a group holds reals or fakes only where both come in one batch. The whole batch is one group
    where groups of ``group`` do not fit.
    """
    n, _, h, w = x.shape
    size = group if n % group == 0 else n
    groups = x.float().reshape(n // size, size, *x.shape[1:])
    deviation = (groups.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return deviation.repeat_interleave(size)[:, None, None, None].expand(n, 1, h, w).to(x.dtype)


def spectral(module: nn.Conv2d | nn.Linear | nn.Embedding) -> nn.Module:
    """Keep the largest singular value of the weight near 1, one power iteration a forward (Miyato et al. 2018).

    It starts orthogonal, before the power vectors are set: they would otherwise belong to another weight.
    """
    nn.init.orthogonal_(module.weight)
    if not isinstance(module, nn.Embedding) and module.bias is not None:
        nn.init.zeros_(module.bias)
    return parametrizations.spectral_norm(module, n_power_iterations=1, eps=1e-6)


def spectral_dense(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    """A linear layer under spectral norm."""
    return spectral(nn.Linear(inputs, outputs, bias))


def plain_dense(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    """A linear layer."""
    return nn.Linear(inputs, outputs, bias)


def bake_spectral_norm(network: nn.Module) -> None:
    """Turn every weight under spectral norm into a constant, with the power vectors as they are."""
    network.eval()  # in training mode reading the weight would move the vectors
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            weight = module.weight.detach().clone()  # type: ignore[operator]
            # Not remove_parametrizations: it takes the property off a class that copies of the network share.
            module.__class__ = type(module).__bases__[0]
            del module.parametrizations
            module.weight = nn.Parameter(weight)


def baked(network: nn.Module) -> nn.Module:
    """A copy for export: evaluation mode, no gradients, every scale and norm of a weight folded into it."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(network.modules()):
        bake = getattr(module, "bake", None)
        if callable(bake):
            bake()
    return network.requires_grad_(False)


def standing_statistics(generator: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Measure the statistics of every batch norm anew, as the mean over forward passes in training mode.

    As BigGAN does (Brock et al. 2019), for an averaged network, whose running statistics belong to other weights. So do
    its power vectors of spectral norm, which settle here, too. Take 16 batches or more, drawn as z will be in use.

    Args:
        batches: pairs of z and class weights.

    Raises:
        ValueError: there are no batches.
    """
    batches = tuple(batches)
    if not batches:
        raise ValueError("batches: got none; statistics need one or more")
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    training, momenta = generator.training, [norm.momentum for norm in norms]
    # While the power vectors settle, activations have other sizes: a first round for them alone.
    rounds = 2 if any(parametrize.is_parametrized(module) for module in generator.modules()) else 1
    generator.train()
    for _ in range(rounds):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean
        with torch.no_grad():
            for z, class_weights in batches:
                generator(z, class_weights)
    generator.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class ClassEmbedding(nn.Module):
    """A vector a class, blended by the weights; not a linear layer, so that no spectral norm or penalty takes it."""

    def __init__(self, classes: int, dimension: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(classes, dimension))

    def forward(self, class_weights: Tensor) -> Tensor:
        return class_weights @ self.table


class LatentWithClass(nn.Module):
    """z, and beside it an embedding of the class as long as z, unless the conditioning is "none".

    Attributes:
        dimension: of the result.
    """

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        self.embed = None if config.conditioning == "none" else ClassEmbedding(config.classes, config.latent)
        self.dimension = config.latent * (1 if self.embed is None else 2)

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        return z if self.embed is None else torch.cat([z, self.embed(class_weights)], dim=1)


class PaddedConv(nn.Module):
    """Convolution that keeps the size, or divides it by ``stride``.

    Args:
        padding: "zeros", "wrap" or "reflect".
        spectral_norm: under spectral norm until baked.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        padding: str = "zeros",
        stride: int = 1,
        bias: bool = True,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.margin = (kernel - 1) // 2
        self.padding = padding if self.margin else "zeros"
        zeros = self.margin if self.padding == "zeros" else 0
        conv = nn.Conv2d(inputs, outputs, kernel, stride, zeros, bias=bias)
        self.conv = spectral(conv) if spectral_norm else conv

    def forward(self, x: Tensor) -> Tensor:
        if self.padding == "wrap":
            x = wrap_pad(x, self.margin)
        elif self.padding == "reflect":
            x = F.pad(x, [self.margin] * 4, mode="reflect")
        y: Tensor = self.conv(x)
        return y

    def bake(self) -> None:
        """Make the weight a constant, for export."""
        bake_spectral_norm(self)


class EnlargingConv(PaddedConv):
    """The same of a picture of twice the edges, which are doubled by repetition."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nearest_up(x))


class Head(nn.Module):
    """The end of a discriminator: features ``[n, f]`` to logits ``[n]`` and, for "auxiliary", ``[n, classes]`` more."""

    def __init__(
        self,
        features: int,
        config: PictureConfig,
        *,
        dense: Callable[[int, int], nn.Module] = nn.Linear,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.score = dense(features, 1)
        self.classify = dense(features, config.classes) if config.conditioning == "auxiliary" else None
        self.embed: nn.Module | None = None
        if config.conditioning == "projection":
            embed = nn.Embedding(config.classes, features)
            nn.init.normal_(embed.weight, std=features**-0.5)
            self.embed = spectral(embed) if spectral_norm else embed

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        logits: Tensor = self.score(x)[:, 0]
        if self.embed is not None:
            logits = logits + (x * self.embed(labels)).sum(dim=1)
        return logits, None if self.classify is None else self.classify(x)
