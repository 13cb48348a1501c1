"""The network that tells looks apart, trained on real pictures only, and figures of what was made of others; torch.

A figure of results stands beside the same figure of what they were made of and of real pictures of the look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from assetgen.datasets.tiles import ByteArray
from assetgen.metrics.gram import gram_distance
from assetgen.metrics.swd import mean_distance, sliced_wasserstein
from assetgen.models.classifier import Classifier, ClassifierConfig
from assetgen.models.patches import cut_border
from assetgen.training.augment import augment
from assetgen.training.batches import Reals
from assetgen.training.style_batches import domain_batch
from assetgen.training.style_look import change, diversity, structure
from assetgen.training.style_recipe import StyleRecipe

WIDTHS = (24, 48, 64)
BATCH = 32
LEARNING_RATE = 0.002
AUGMENTED = 0.3  # probability of each change of colour, so that a shift of brightness alone does not give a look away
SMOOTHING = 0.05

Shares: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class StyleFigures:
    """What was made of pictures of one look; each mapping has ``results``, ``inputs`` and ``real``.

    ``real`` are training pictures of the target; all are compared with its validation pictures.

    Attributes:
        swd, gram: distances to the target, 0 for equal distributions.
        told: share that the judge takes for the target; real: of validation pictures.
        structure: correlation of the slopes of luminance with the input.
        change: mean change of a value in [-1, 1].
        diversity: distance of two results as a share of that of two real pictures.
    """

    swd: Shares
    gram: Shares
    told: Shares
    structure: float
    change: float
    diversity: float


def train_judge(
    reals: Reals, recipe: StyleRecipe, steps: int, seed: int, notify: Callable[[str], None] = lambda _: None
) -> Classifier:
    """A classifier of the domains of ``reals`` by crops without their borders; the same for the same seed."""
    torch.manual_seed(seed)
    domains = len(reals.classes)
    drawn = replace(recipe, batch=max(2, BATCH // domains), seed=seed)
    network = Classifier(ClassifierConfig(domains, WIDTHS))
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.02)
    labels = torch.arange(domains).repeat_interleave(drawn.batch)
    network.train()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * math.cos(step / steps * math.pi / 2)
        crops = torch.cat([domain_batch(reals, label, drawn, step) for label in range(domains)])
        pictures = augment(
            cut_border(crops, recipe.border_px), AUGMENTED, torch.Generator().manual_seed(seed * 1_000_003 + step)
        )
        loss = F.cross_entropy(network(pictures), labels, label_smoothing=SMOOTHING)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if (step + 1) % max(1, steps // 5) == 0:
            notify(f"judge: step {step + 1} of {steps}, loss {loss.item():.3f}")
    return network.eval().requires_grad_(False)


def taken_for(judge: Classifier, pictures: Tensor, label: int) -> float:
    """Share of ``[n, 3, h, w]`` in [-1, 1] that the judge takes for that domain."""
    with torch.no_grad():
        logits = torch.cat([judge(part) for part in torch.split(pictures, BATCH)])
    return float((logits.argmax(dim=1) == label).float().mean())


def style_figures(
    before: Tensor, after: Tensor, held: Tensor, train: Tensor, judge: Classifier, label: int
) -> StyleFigures:
    """Figures of ``after``, made of ``before``; all ``[n, 3, h, w]`` in [-1, 1], as many and without borders.

    Args:
        held, train: validation and training pictures of the target, which is domain ``label`` of the judge.
    """
    sides = {"results": after, "inputs": before, "real": train}
    wanted = _bytes(held)
    return StyleFigures(
        swd={name: mean_distance(sliced_wasserstein(_bytes(side), wanted)) for name, side in sides.items()},
        gram={name: gram_distance(_bytes(side), wanted) for name, side in sides.items()},
        told={name: taken_for(judge, side, label) for name, side in (sides | {"real": held}).items()},
        structure=structure(before, after),
        change=change(before, after),
        diversity=diversity(after, held),
    )


def _bytes(pictures: Tensor) -> ByteArray:
    pixels: ByteArray = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return pixels
