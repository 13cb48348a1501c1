"""The network that is served: texture generator and detail network as one module with flat inputs; torch only."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from assetgen.models.detail import SCALE, DetailNetwork
from assetgen.models.texture import TextureGenerator

OUTPUTS = ("base_color", "height", "roughness", "metallic")


class MaterialGraph(nn.Module):
    """From latents and toroidal noise to the maps of a material.

    Inputs: z ``[n, latent]``, class_weights ``[n, classes]`` adding up to 1, truncation ``[n, 1]``, grid
    ``[n, g, h, w]``, noise_i ``[n, 1, h 2^i, w 2^i]``. Outputs in the order of ``OUTPUTS``,
    ``[n, c, h stride, w stride]`` in [0, 1]; base colour sRGB-coded.
    """

    def __init__(self, texture: TextureGenerator, detail: DetailNetwork) -> None:
        super().__init__()
        self.texture = copy.deepcopy(texture).eval().requires_grad_(False)
        self.detail = copy.deepcopy(detail).eval().requires_grad_(False)

    @property
    def stride(self) -> int:
        """Output pixels per grid cell."""
        return self.texture.config.stride * SCALE

    @property
    def noise_strides(self) -> tuple[int, ...]:
        """Output pixels per cell of each noise input."""
        return tuple(self.stride >> i for i in range(len(self.texture.config.widths) + 2))

    @property
    def halo_px(self) -> int:
        """How far an output pixel can see, in output pixels, rounded up to whole grid cells.

        A 3x3 convolution sees one cell of its resolution further, a doubling one cell of the lower one.
        """
        texture = sum(
            len(list(stage.children())) * (self.stride >> i) + (self.stride >> (i - 1) if i else 0)
            for i, stage in enumerate(self.texture.stages)
        )
        layers = 1 + 2 * self.detail.config.blocks
        detail = layers * SCALE + (SCALE + 2 * 2) + (2 + 2 * 1) + 1
        return -(-(texture + detail) // self.stride) * self.stride

    def forward(
        self, z: Tensor, class_weights: Tensor, truncation: Tensor, grid: Tensor, *noises: Tensor
    ) -> list[Tensor]:
        """Return the maps in the order of ``OUTPUTS``."""
        w = self.texture.mapping.truncated(z, class_weights, truncation)
        split = len(self.texture.config.widths)
        picture = self.texture.synthesize(w, grid, list(noises[:split])).clamp(-1, 1)
        maps = self.detail(picture, class_weights, list(noises[split:]))
        return [(maps.base_color * 0.5 + 0.5).clamp(0, 1), maps.height, maps.roughness, maps.metallic]

    def baked(self) -> MaterialGraph:
        """A copy with constants folded, for export."""
        graph = MaterialGraph(self.texture, self.detail)
        for module in graph.modules():
            bake = getattr(module, "bake", None)
            if callable(bake):
                bake()
        return graph

    def example(self, n: int, height_px: int, width_px: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs of the right shapes."""
        rng = torch.Generator().manual_seed(seed)
        config = self.texture.config
        rows, columns = height_px // self.stride, width_px // self.stride
        return (
            torch.randn(n, config.latent, generator=rng),
            torch.eye(config.classes)[torch.randint(config.classes, (n,), generator=rng)],
            torch.full((n, 1), 0.8),
            torch.randn(n, config.grid_channels, rows, columns, generator=rng),
            *(
                torch.randn(n, 1, height_px // stride, width_px // stride, generator=rng)
                for stride in self.noise_strides
            ),
        )
