"""Pictures that a texture network has drawn, for the detail network to learn on what it will be given; needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assetgen.datasets.mapsets import MapSet
from assetgen.errors import ConfigInvalid
from assetgen.models.texture import TextureGenerator
from assetgen.training import checkpoint, distil, sheet
from assetgen.training.checkpoint import Checkpoint
from assetgen.training.recipe import TextureRecipe, recipe_from_values
from assetgen.training.texture import texture_config

# Enough that a crop hardly ever comes back: 48 pictures hold a thousand places that share less than half.
PER_CLASS = 48


def read_artist(run: Path, classes: Sequence[str], scan_px: int) -> Checkpoint:
    """The checkpoint of a texture run that draws at this density, of classes that are all known.

    Raises:
        CheckpointInvalid: no checkpoint.
        ConfigInvalid: it draws something else.
    """
    saved = checkpoint.load(run / "checkpoint")
    recipe = recipe_from_values(TextureRecipe, saved.recipe)
    if recipe.scan_px != scan_px:
        raise ConfigInvalid(f"texel densities differ: scan_px {recipe.scan_px} of {run} and {scan_px}")
    if strange := sorted(set(saved.facts["classes"]) - set(classes)):
        raise ConfigInvalid(
            f"{run} draws {', '.join(strange)}, which the detail network is not told of",
            hint=f"its classes are {', '.join(classes)}; add those to classes in the recipe",
        )
    return saved


def drawn_sets(saved: Checkpoint, classes: Sequence[str], edge_px: int, per_class: int = PER_CLASS) -> list[MapSet]:
    """Pictures ``[edge, edge, 3]`` of each class of the artist, numbered as in ``classes``; the same for a run."""
    recipe, known = recipe_from_values(TextureRecipe, saved.recipe), saved.facts["classes"]
    artist = TextureGenerator(texture_config(recipe, len(known)))
    distil.taught(artist, saved)
    return [
        MapSet(
            id=f"{name} {seed}",
            label=list(classes).index(name),
            small=sheet.sample(artist, recipe, known, label, seed, edge_px),
            large=None,
            targets={},
        )
        for label, name in enumerate(known)
        for seed in range(per_class)
    ]
