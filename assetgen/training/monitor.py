"""What a look at samples during training tells: variety by class, dead inputs, memorising; torch only.

Losses of GANs say little about progress; these figures say what is wrong with the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.training.adversarial import Judge
from assetgen.training.batches import Reals, all_crops
from assetgen.training.recipe import PictureRecipe, TextureRecipe

SAMPLES = 8  # a class
OCTAVES = 4
FEWEST = 4  # pictures of a class, or their variety says nothing

# Labels [n], a seed of z and one of all else to pictures [n, 3, h, w] by the averaged generator.
Paint: TypeAlias = Callable[[Tensor, int, int], Tensor]


def look(
    paint: Paint,
    discriminator: nn.Module,
    judge: Judge,
    reals: Reals,
    held_out: Reals | None,
    recipe: TextureRecipe | PictureRecipe,
) -> dict[str, float]:
    """Figures of the averaged generator, for the run's log.

    Args:
        discriminator: put in evaluation mode meanwhile, or looking would change it; ``judge`` asks it.
        held_out: pictures that it never saw, if there are any.

    Returns:
        ``diversity.CLASS``: mean distance of two fakes as a share of that of two reals, by colours and grain;
        ``latent_effect`` and, where the generator is told the class, ``label_effect``: mean change of a value in
        [-1, 1] by another z or class;
        ``memorised``: 0 where the discriminator takes held-out pictures for what it was shown, 1 for fakes.
    """
    found = {}
    told = not isinstance(recipe, PictureRecipe) or recipe.conditioning != "none"
    discriminator.eval()
    with torch.no_grad():
        fakes = []
        for label, name in enumerate(reals.classes):
            made = paint(torch.full((SAMPLES,), label), 1, 1)
            shown = all_crops(reals, label, made.shape[-1], SAMPLES, recipe.crop_px).to(made.device)
            if len(reals.pictures[label]) >= FEWEST:
                found[f"diversity.{name}"] = round(variety(made, shown), 3)
            fakes.append(made)
        labels = torch.arange(len(reals.classes))
        first = paint(labels, 2, 2)
        found["latent_effect"] = round(float((paint(labels, 3, 2) - first).abs().mean()), 5)
        if told and len(labels) > 1:
            found["label_effect"] = round(float((paint(labels.roll(1), 2, 2) - first).abs().mean()), 5)
        if held_out is not None:
            found["memorised"] = round(_memorised(judge, fakes, reals, held_out, recipe.crop_px), 3)
    discriminator.train()
    return found


def variety(fakes: Tensor, reals: Tensor) -> float:
    """Mean distance of two ``fakes`` ``[n, 3, h, w]`` as a share of that of two ``reals``, by ``descriptors``."""
    real, fake = descriptors(reals), descriptors(fakes)
    scale = real.std(dim=0) + 1e-3
    real_distance, fake_distance = (torch.pdist(values / scale).mean() for values in (real, fake))
    return float(fake_distance / real_distance.clamp(min=1e-6))


def descriptors(pictures: Tensor) -> Tensor:
    """Colours and grain of ``[n, 3, h, w]``, whatever the place: means, deviations, energy of up to four octaves."""
    grey = pictures.mean(dim=1, keepdim=True)
    bands: list[Tensor] = []
    while grey.shape[-1] > 1 and len(bands) < OCTAVES:
        coarser = F.avg_pool2d(grey, 2)
        bands.append((grey - F.interpolate(coarser, scale_factor=2.0)).square().mean(dim=(1, 2, 3)).add(1e-6).log())
        grey = coarser
    return torch.cat([pictures.mean(dim=(2, 3)), pictures.std(dim=(2, 3)), torch.stack(bands, dim=1)], dim=1)


def _memorised(judge: Judge, fakes: Sequence[Tensor], reals: Reals, held_out: Reals, edge_px: int) -> float:
    """(score of shown - score of held-out) / (score of shown - score of fakes), classes with held-out pictures only.

    A gap smaller than the spread of the scores says nothing, and counts as that spread.
    """
    scores: Mapping[str, list[Tensor]] = {"shown": [], "held_out": [], "fake": []}
    for label, made in enumerate(fakes):
        if not held_out.pictures[label]:
            continue
        labels = torch.full((SAMPLES,), label, device=made.device)
        edge = made.shape[-1]
        shown, unseen = (all_crops(which, label, edge, SAMPLES, edge_px).to(made.device) for which in (reals, held_out))
        for name, pictures in (("shown", shown), ("held_out", unseen), ("fake", made)):
            scores[name].append(judge(pictures, labels)[0].float())
    if not scores["shown"]:
        return 0.0
    joined = [torch.cat(values) for values in scores.values()]
    shown_score, unseen_score, fake_score = (float(values.mean()) for values in joined)
    spread = float(joined[0].std())
    return (shown_score - unseen_score) / max(shown_score - fake_score, spread, 1e-3)
