"""The network that is served: texture generator and detail network as one module with flat inputs; torch only."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assetgen.manifest import PARTS, InputRole, InputSpec
from assetgen.models.detail import SCALE, DetailNetwork
from assetgen.models.texture import TextureGenerator

OUTPUTS = ("base_color", "height", "roughness", "metallic")


class MaterialGraph(nn.Module):
    """From latents and toroidal noise to the maps of a material.

    Inputs: z ``[n, latent]``, class_weights ``[n, classes]`` adding up to 1, truncation ``[n, 1]``, grid
    ``[n, g, h, w]``, layout_i and noise_i ``[n, c, h 2^i, w 2^i]``, z_2 ``[n, latent]``, mix ``[n, 2]``: how far each
    of ``manifest.PARTS`` goes over to the style of z_2, and a number ``[n, 1]`` for every slider. Outputs in the order
    of ``OUTPUTS``, ``[n, c, h stride, w stride]`` in [0, 1]; base colour sRGB-coded.

    Args:
        sliders: names of the sliders.
        directions: what one unit of a slider adds to the style of a class, ``[sliders, classes, latent]``.
    """

    directions: Tensor
    part_of_layer: Tensor

    def __init__(
        self,
        texture: TextureGenerator,
        detail: DetailNetwork,
        sliders: Sequence[str] = (),
        directions: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.texture = copy.deepcopy(texture).eval().requires_grad_(False)
        self.detail = copy.deepcopy(detail).eval().requires_grad_(False)
        self.sliders = tuple(sliders)
        config = texture.config
        shape = (len(self.sliders), config.classes, config.latent)
        given = torch.zeros(shape) if directions is None else directions.detach().float().clone()
        if tuple(given.shape) != shape:
            raise ValueError(f"directions: got shape {tuple(given.shape)}, expected {shape}")
        self.register_buffer("directions", given)
        self.register_buffer("part_of_layer", torch.tensor(parts_of_layers(texture)))

    @property
    def stride(self) -> int:
        """Output pixels per grid cell."""
        return self.texture.config.stride * SCALE

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """All inputs in order; those with a stride are spatial."""
        config = self.texture.config
        levels = len(config.widths)

        def spatial(name: str, role: InputRole, channels: int, i: int) -> InputSpec:
            sizes = (f"h{i}", f"w{i}") if i else ("h", "w")
            return InputSpec(name, role, ("n", channels, *sizes), self.stride >> i)

        return (
            InputSpec("z", "latent", ("n", config.latent)),
            InputSpec("class_weights", "class_weights", ("n", config.classes)),
            InputSpec("truncation", "truncation", ("n", 1)),
            spatial("grid", "grid", config.grid_channels, 0),
            *(spatial(f"layout_{i}", "layout", config.layout_channels, i) for i in range(levels)),
            *(spatial(f"noise_{i}", "noise", 1, i) for i in range(levels + 2)),
            InputSpec("z_2", "second_latent", ("n", config.latent)),
            InputSpec("mix", "mix", ("n", len(PARTS))),
            *(InputSpec(name, "slider", ("n", 1)) for name in self.sliders),
        )

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
        convolutions = layers * SCALE + (SCALE + 2 * 2) + (2 + 2 * 1) + 1
        # Height from the brightness of that: within a block of 4, the blocks beside it, enlarged twice.
        detail = convolutions + (SCALE - 1) + SCALE + 2
        return -(-(texture + detail) // self.stride) * self.stride

    def forward(
        self, z: Tensor, class_weights: Tensor, truncation: Tensor, grid: Tensor, *rest: Tensor
    ) -> list[Tensor]:
        """Return the maps in the order of ``OUTPUTS``; ``rest`` are the inputs after grid, in order."""
        levels = len(self.texture.config.widths)
        layouts, noises = list(rest[:levels]), list(rest[levels : 2 * levels + 2])
        second, mix, *sliders = rest[2 * levels + 2 :]
        ws = self.styles(z, class_weights, truncation, second, mix, sliders)
        picture = self.texture.synthesize(ws, grid, layouts, noises[:levels]).clamp(-1, 1)
        maps = self.detail(picture, class_weights, noises[levels:], layouts[-1][:, :1])
        return [(maps.base_color * 0.5 + 0.5).clamp(0, 1), maps.height, maps.roughness, maps.metallic]

    def styles(
        self,
        z: Tensor,
        class_weights: Tensor,
        truncation: Tensor,
        second: Tensor,
        mix: Tensor,
        sliders: Sequence[Tensor],
    ) -> Tensor:
        """Styles of all layers, ``[n, layers, latent]``; with mix and sliders 0 exactly those of z alone."""
        w = self.texture.mapping.truncated(z, class_weights, truncation)
        away = self.texture.mapping.truncated(second, class_weights, truncation) - w
        if sliders:
            # A row for every slider and class: what blended classes move by is blended like them.
            amounts = (torch.cat(list(sliders), dim=1)[:, :, None] * class_weights[:, None, :]).flatten(1)
            w = w + amounts @ self.directions.flatten(0, 1)
        by_part = w[:, None] + mix[:, :, None] * away[:, None]
        return by_part.index_select(1, self.part_of_layer)

    def baked(self) -> MaterialGraph:
        """A copy with constants folded, for export."""
        graph = MaterialGraph(self.texture, self.detail, self.sliders, self.directions)
        for module in graph.modules():
            bake = getattr(module, "bake", None)
            if callable(bake):
                bake()
        return graph

    def example(self, n: int, height_px: int, width_px: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs of the right shapes."""
        rng = torch.Generator().manual_seed(seed)
        config = self.texture.config
        return (
            torch.randn(n, config.latent, generator=rng),
            torch.eye(config.classes)[torch.randint(config.classes, (n,), generator=rng)],
            torch.full((n, 1), 0.8),
            *(
                torch.randn(
                    n, int(spec.shape[1]), height_px // spec.stride_px, width_px // spec.stride_px, generator=rng
                )
                for spec in self.inputs
                if spec.stride_px
            ),
            torch.randn(n, config.latent, generator=rng),
            torch.rand(n, len(PARTS), generator=rng),
            *(torch.rand(n, 1, generator=rng) * 2 - 1 for _ in self.sliders),
        )


def parts_of_layers(texture: TextureGenerator) -> list[int]:
    """Index into ``manifest.PARTS`` for every layer: at the resolution of the grid coarse, above it fine."""
    parts = [0]
    for i, stage in enumerate(texture.stages):
        parts += [min(i, 1)] * (len(list(stage.children())) + 1)
    return parts
