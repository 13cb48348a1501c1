"""The families of GANs that make pictures from z, by name; torch only.

All generators share one signature and so do all discriminators: see ``assetgen.models.parts``. ``baked`` there makes
the copy of a generator that can be exported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from assetgen.models import biggan, dcgan, progressive, resnet, vanilla
from assetgen.models.parts import PictureConfig, baked, standing_statistics

__all__ = ["FAMILIES", "Family", "PictureConfig", "baked", "standing_statistics"]


@dataclass(frozen=True)
class Family:
    """A pair of networks.

    Attributes:
        generator: its ``forward(z [n, latent], class_weights [n, classes])`` gives ``[n, channels, edge, edge]`` in
            [-1, 1]; where it wraps, ``paint(start(z, class_weights), z, class_weights)`` is the same in two steps.
        discriminator: its ``forward(x [n, channels, edge, edge], labels [n])`` gives logits ``[n]`` and, for the
            conditioning "auxiliary" alone, class logits ``[n, classes]``, else None.
        conditionings: those it supports; the first is its default.
        wraps: it has a tileable variant.
    """

    generator: Callable[[PictureConfig], nn.Module]
    discriminator: Callable[[PictureConfig], nn.Module]
    conditionings: tuple[str, ...]
    wraps: bool


FAMILIES: dict[str, Family] = {
    "vanilla": Family(vanilla.VanillaGenerator, vanilla.VanillaDiscriminator, vanilla.CONDITIONINGS, wraps=False),
    "dcgan": Family(dcgan.DcganGenerator, dcgan.DcganDiscriminator, dcgan.CONDITIONINGS, wraps=True),
    "resnet": Family(resnet.ResnetGenerator, resnet.ResnetDiscriminator, resnet.CONDITIONINGS, wraps=True),
    "progressive": Family(
        progressive.ProgressiveGenerator, progressive.ProgressiveDiscriminator, progressive.CONDITIONINGS, wraps=True
    ),
    "biggan": Family(biggan.BigganGenerator, biggan.BigganDiscriminator, biggan.CONDITIONINGS, wraps=True),
}
