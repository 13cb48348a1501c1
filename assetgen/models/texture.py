"""The texture generator: class-conditional, style-based, tileable by construction; torch only.

Differs from StyleGAN2 (Karras et al. 2020): no learned constant but toroidal noise, a layout of cells to paint at every
resolution (the pattern-conditioned generator of TileGen, Zhou et al. 2022, had its patterns drawn by hand), per-class
mean latents, everything wraps, any size. No code of either was used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assetgen import check
from assetgen.manifest import LAYOUT_CHANNELS
from assetgen.models.layers import Dense, ModulatedConv, activate, upsample


@dataclass(frozen=True)
class TextureConfig:
    """Size of a texture generator.

    Attributes:
        classes: number of classes.
        latent: dimension of z and of w.
        grid_channels: channels of the noise it starts from.
        layout_channels: channels of the layout at each resolution.
        widths: channels at grid resolution, then after each doubling.
        grid_layers: 3x3 layers at grid resolution; the others have two.
    """

    classes: int
    latent: int = 128
    grid_channels: int = 16
    layout_channels: int = LAYOUT_CHANNELS
    widths: tuple[int, ...] = (128, 64, 32)
    grid_layers: int = 4

    @property
    def stride(self) -> int:
        """Output pixels per grid cell."""
        return int(2 ** (len(self.widths) - 1))


class Mapping(nn.Module):
    """From (z, class weights) to the style w, with a running mean of w per class for truncation."""

    class_means: Tensor

    def __init__(self, config: TextureConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Dense(config.classes, config.latent)
        self.layers = nn.ModuleList(
            Dense(2 * config.latent if i == 0 else config.latent, config.latent, lr_scale=0.01) for i in range(2)
        )
        self.register_buffer("class_means", torch.zeros(config.classes, config.latent))

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        x = torch.cat([_unit(z), _unit(self.embed(class_weights))], dim=1)
        for layer in self.layers:
            x = activate(layer(x))
        return x

    def truncated(self, z: Tensor, class_weights: Tensor, truncation: Tensor) -> Tensor:
        """Pull w towards the mean of its class: 1 leaves it, 0 gives the mean. ``truncation`` is ``[n, 1]``."""
        mean = class_weights @ self.class_means
        truncated: Tensor = mean + truncation * (self(z, class_weights) - mean)
        return truncated


class TextureGenerator(nn.Module):
    """Base colour from a style, a layout of cells and toroidal noise.

    Shapes: z ``[n, latent]``, class_weights ``[n, classes]`` adding up to 1, grid ``[n, grid_channels, h, w]``, layouts
    and noises ``[n, layout_channels or 1, h 2^i, w 2^i]``, one for each resolution i. Output
    ``[n, 3, h stride, w stride]`` about [-1, 1], sRGB-coded.
    """

    def __init__(self, config: TextureConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.enter = ModulatedConv(config.grid_channels + config.layout_channels, config.widths[0], 1, config.latent)
        self.stages = nn.ModuleList()
        self.colors = nn.ModuleList()
        previous = config.widths[0]
        for i, width in enumerate(config.widths):
            layers = config.grid_layers if i == 0 else 2
            if i:
                previous += config.layout_channels
            self.stages.append(
                nn.ModuleList(
                    ModulatedConv(previous if j == 0 else width, width, 3, config.latent, noise=True)
                    for j in range(layers)
                )
            )
            self.colors.append(ModulatedConv(width, 3, 1, config.latent, demodulate=False))
            previous = width

    @property
    def layers(self) -> list[ModulatedConv]:
        """Every layer that takes a style, in the order of the computation; their number is that of the rows of ws."""
        layers = [self.enter]
        for stage, color in zip(self.stages, self.colors, strict=True):
            layers += [*stage, color]  # type: ignore[misc, list-item]
        return layers

    def forward(
        self, z: Tensor, class_weights: Tensor, grid: Tensor, layouts: list[Tensor], noises: list[Tensor]
    ) -> Tensor:
        return self.synthesize(self.mapping(z, class_weights), grid, layouts, noises)

    def synthesize(self, w: Tensor, grid: Tensor, layouts: list[Tensor], noises: list[Tensor]) -> Tensor:
        """Paint the style ``w``: ``[n, latent]``, or ``[n, layers, latent]`` with one of its own for every layer."""
        check.shape(grid, f"n {self.config.grid_channels} h w", "grid")
        count = len(self.layers)
        if w.dim() == 3:
            check.shape(w, f"n {count} {self.config.latent}", "w")
        styles = iter(w.unbind(1) if w.dim() == 3 else [w] * count)
        x = self.enter(torch.cat([grid, layouts[0]], dim=1), next(styles))
        image: Tensor | None = None
        for i, (stage, color) in enumerate(zip(self.stages, self.colors, strict=True)):
            if i:
                x = upsample(x)
                x = torch.cat([x, layouts[i].to(x.dtype)], dim=1)
            for layer in stage:  # type: ignore[attr-defined]
                x = layer(x, next(styles), noises[i])
            painted = color(x, next(styles))
            image = painted if image is None else upsample(image) + painted
        assert image is not None  # noqa: S101 -- widths is never empty
        return image


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + 1e-8)
