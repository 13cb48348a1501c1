"""The networks in checkpoints/ fit the recipes that ship beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from assetgen.models.texture import TextureGenerator
from assetgen.training import checkpoint
from assetgen.training.cli import RECIPES
from assetgen.training.detail import detail_network
from assetgen.training.recipe import DetailRecipe, TextureRecipe, recipe_from_toml
from assetgen.training.texture import texture_config

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def texture_generator() -> nn.Module:
    recipe = recipe_from_toml(TextureRecipe, RECIPES / "starter.toml")
    return TextureGenerator(texture_config(recipe, len(recipe.classes)))


def starter_detail() -> nn.Module:
    recipe = recipe_from_toml(DetailRecipe, RECIPES / "starter-detail.toml")
    return detail_network(recipe, recipe.classes)


@pytest.mark.parametrize(
    ("folder", "name", "make"),
    [("starter-texture", "generator", texture_generator), ("starter-detail", "network", starter_detail)],
)
def test_every_tensor_fits(folder, name, make):
    saved = checkpoint.load(CHECKPOINTS / folder / "checkpoint")
    network = make()
    checkpoint.restore_module(network, saved, name)
    assert saved.facts["licenses"] == {"CC0-1.0": saved.facts["items"]}
