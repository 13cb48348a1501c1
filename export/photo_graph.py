"""The detail network as a model that makes maps of a photo; torch only."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.models.detail import SCALE, DetailNetwork


class PhotoGraph(nn.Module):
    """From pictures ``[n, 3, h, w]`` in [0, 1], sRGB-coded, and class weights to height, roughness and metallic.

    The picture is what the network was trained to make of a quarter of its size. It is shrunk to that, so that the
    network sees the texel density it knows where a picture shows as much as one of the scans, and height starts from
    the brightness of the picture itself. Noise is 0: maps of a photo shall hang on nothing but the photo.
    """

    outputs: Sequence[str] = ("height", "roughness", "metallic")
    stride = SCALE

    def __init__(self, network: DetailNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.classes = network.config.classes

    def forward(self, image: Tensor, *class_weights: Tensor) -> list[Tensor]:
        """Return the maps in [0, 1]."""
        large = image * 2 - 1
        small = F.avg_pool2d(large, SCALE)
        still = torch.zeros((), dtype=image.dtype, device=image.device)
        maps = self.network(small, class_weights[0], [still, still], None, large)
        return [maps.height, maps.roughness, maps.metallic]

    @property
    def halo_px(self) -> int:
        """How far an output pixel can see, rounded up to whole strides: convolutions and doublings, then brightness.

        See ``MaterialGraph.halo_px``; a pixel belongs to a cell that was averaged, and stands up to SCALE - 1 from its
        other end.
        """
        layers = 1 + 2 * self.network.config.blocks
        convolutions = layers * SCALE + (SCALE + 2 * 2) + (2 + 2 * 1) + 1
        brightness = (SCALE - 1) + SCALE + 2
        return -(-(max(convolutions, brightness) + SCALE - 1) // SCALE) * SCALE

    def baked(self) -> PhotoGraph:
        """A copy with constants folded, for export."""
        graph = copy.deepcopy(self)
        for module in graph.modules():
            bake = getattr(module, "bake", None)
            if callable(bake) and module is not graph:
                bake()
        return graph
