"""Tiny tasks of style transfer for the tests of the training side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assetgen.datasets import tiles
from assetgen.training import cli
from assetgen.training.recipe import recipe_from_toml
from assetgen.training.star import StarTask
from assetgen.training.style import StyleTask
from assetgen.training.style_batches import domains_from_items
from assetgen.training.style_recipe import StyleRecipe

TINY: dict[str, Any] = {
    "min_contrast": 0.0,
    "scan_px": 40,
    "crop_px": 40,
    "border_px": 4,
    "width": 4,
    "blocks": 1,
    "discriminator_width": 4,
    "batch": 2,
    "precision": "fp32",
}
PAIR: dict[str, Any] = {"source": "brick", "target": "metal"}
CHANGES: dict[str, dict[str, Any]] = {
    "cyclegan": {**PAIR, "pool": 3},
    "cut": PAIR,
    "fastcut": PAIR,
    "patches": PAIR,
    "stargan": {"crop_px": 24, "style": 8, "r1_interval": 2},
}


def style_recipe(method: str, /, **changes: Any) -> StyleRecipe:
    """The recipe of a method, small."""
    return recipe_from_toml(StyleRecipe, cli.RECIPES / f"{method}.toml", {**TINY, **CHANGES[method], **changes})


def make_style_task(method: str, data: Path, **changes: Any) -> Any:
    """A task of a method on a training file."""
    recipe = style_recipe(method, **changes)
    reals = domains_from_items(tiles.load(data, classes=recipe.domains), recipe)
    make = StarTask if method == "stargan" else StyleTask
    return make(recipe, reals, {"classes": list(reals.classes)})
