"""PatchNCE of CUT (Park et al. 2020): what a place shows before and after must resemble each other; torch only.

The generator's own encoder tells what a place shows, at five depths. A place of the result must be told apart from the
other places of the same picture as the one that it was made of.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.models.cyclegan import STRIDE, CycleganGenerator, TransferConfig

DIMENSION = 256
POSITIONS = 256
TEMPERATURE = 0.07


def encoded_blocks(config: TransferConfig) -> tuple[int, ...]:
    """Residual blocks whose results are compared: the first and that in the middle, the fifth of nine in the paper."""
    return tuple(sorted({0, config.blocks // 2}))


def encode(generator: CycleganGenerator, x: Tensor) -> list[Tensor]:
    """Features ``[n, c, h, w]`` of pictures: themselves, of both halvings, and of ``encoded_blocks``."""
    chosen = encoded_blocks(generator.config)
    features = [x]
    first, *rest = generator.norms
    x = F.relu(first(generator.enter(x)))
    for down, norm in zip(generator.downs, rest, strict=False):
        x = down(x)
        features.append(x)
        x = F.relu(norm(x))
    for number, block in enumerate(list(generator.blocks)[: chosen[-1] + 1]):
        x = block(x)
        if number in chosen:
            features.append(x)
    return features


def cut_border(x: Tensor, border: int) -> Tensor:
    """``[n, c, h, w]`` without ``border`` places on every side."""
    return x[:, :, border : x.shape[2] - border, border : x.shape[3] - border]


def patch_nce(query: Tensor, key: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean cross entropy of finding, for each place, its own among all places of the same picture.

    Args:
        query, key: unit vectors ``[n, places, d]`` of results and of what they were made of; no gradient flows to keys.
    """
    logits = torch.einsum("npd,nqd->npq", query, key.detach()) / temperature
    places = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[0], -1)
    return F.cross_entropy(logits.flatten(0, 1), places.flatten())


class PatchHeads(nn.Module):
    """A perceptron of two layers for each depth of ``encode``: features of chosen places to unit vectors.

    Differs from the paper's code: built at once, not by the first batch, so that optimiser and checkpoint know it.
    """

    def __init__(self, config: TransferConfig, dimension: int = DIMENSION) -> None:
        super().__init__()
        width = config.width
        channels = [config.channels, 2 * width, 4 * width, *(4 * width for _ in encoded_blocks(config))]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, dimension), nn.ReLU(), nn.Linear(dimension, dimension)) for c in channels
        )

    def forward(self, features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Features ``[n, c, h, w]`` and places ``[p]`` of the flattened maps to unit vectors ``[n, p, dimension]``."""
        found = []
        for feature, chosen, head in zip(features, places, self.heads, strict=True):
            rows: Tensor = head(feature.flatten(2)[:, :, chosen].transpose(1, 2))
            found.append(F.normalize(rows, dim=2, eps=1e-7))
        return found


def draw_places(features: Sequence[Tensor], rng: torch.Generator, count: int = POSITIONS) -> list[Tensor]:
    """Up to ``count`` different places of each map ``[n, c, h, w]``, of its flattened rows.

    Args:
        rng: on the CPU.
    """
    sizes = (feature.shape[2] * feature.shape[3] for feature in features)
    return [torch.randperm(size, generator=rng)[:count].to(features[0].device) for size in sizes]


def nce_distance(
    generator: CycleganGenerator,
    heads: PatchHeads,
    before: Tensor,
    after: Tensor,
    rng: torch.Generator,
    *,
    border_px: int = 0,
    flipped: bool = False,
) -> Tensor:
    """PatchNCE between pictures ``before`` and what was made of them, mean over the depths.

    Args:
        border_px: not looked at, a multiple of 4.
        flipped: ``after`` was made of ``before`` flipped left to right.
    """
    queries = encode(generator, after)
    if flipped:
        queries = [feature.flip(3) for feature in queries]
    with torch.no_grad():
        keys = encode(generator, before)
    # Features at half and quarter size have half and a quarter of the border.
    borders = [border_px, border_px // 2, *[border_px // STRIDE] * (len(queries) - 2)]
    queries = [cut_border(feature, border).float() for feature, border in zip(queries, borders, strict=True)]
    keys = [cut_border(feature, border).float() for feature, border in zip(keys, borders, strict=True)]
    places = draw_places(queries, rng)
    with torch.no_grad():
        wanted = heads(keys, places)
    losses = [patch_nce(query, key) for query, key in zip(heads(queries, places), wanted, strict=True)]
    return torch.stack(losses).mean()
