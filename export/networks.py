"""From run folders back to networks; torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from assetgen.errors import CheckpointInvalid
from assetgen.models.texture import TextureGenerator
from assetgen.training import checkpoint
from assetgen.training.checkpoint import Checkpoint
from assetgen.training.detail import detail_network
from assetgen.training.recipe import DetailRecipe, TextureRecipe, recipe_from_values
from assetgen.training.texture import texture_config
from export.graph import MaterialGraph


@dataclass(frozen=True)
class Runs:
    """Two finished runs and the recipes that made them."""

    texture: Checkpoint
    texture_recipe: TextureRecipe
    detail: Checkpoint
    detail_recipe: DetailRecipe
    classes: tuple[str, ...]


def read_runs(texture_run: Path, detail_run: Path) -> Runs:
    """Load both checkpoints and see that they belong together.

    Raises:
        CheckpointInvalid: unreadable, or made for different classes or texel densities.
    """
    texture, detail = (checkpoint.load(run / "checkpoint") for run in (texture_run, detail_run))
    classes = tuple(texture.facts["classes"])
    if classes != tuple(detail.facts["classes"]):
        raise CheckpointInvalid(
            f"{texture_run} knows {', '.join(classes)} but {detail_run} knows {', '.join(detail.facts['classes'])}",
            hint="train both with the same classes in the same order",
        )
    runs = Runs(
        texture,
        recipe_from_values(TextureRecipe, texture.recipe),
        detail,
        recipe_from_values(DetailRecipe, detail.recipe),
        classes,
    )
    if runs.texture_recipe.scan_px != runs.detail_recipe.scan_px:
        raise CheckpointInvalid(
            f"texel densities differ: scan_px {runs.texture_recipe.scan_px} and {runs.detail_recipe.scan_px}",
            hint="train both with the same scan_px",
        )
    return runs


def texture_from_runs(runs: Runs) -> TextureGenerator:
    """The averaged texture generator."""
    texture = TextureGenerator(texture_config(runs.texture_recipe, len(runs.classes)))
    checkpoint.restore_module(texture, runs.texture, _averaged(runs.texture, "generator"))
    return texture


def graph_from_runs(runs: Runs, sliders: Sequence[str] = (), directions: Tensor | None = None) -> MaterialGraph:
    """The averaged networks of both runs, joined; sliders and directions are those of ``MaterialGraph``."""
    detail = detail_network(runs.detail_recipe, runs.classes)
    checkpoint.restore_module(detail, runs.detail, _averaged(runs.detail, "network"))
    return MaterialGraph(texture_from_runs(runs), detail, sliders, directions)


def _averaged(saved: Checkpoint, trained: str) -> str:
    """Under which name the averaged network lies: what is published to go on from has it in the trained one's place."""
    return "average" if checkpoint.module_tensors(saved, "average") else trained
