"""From run folders back to networks; torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.manifest import Manifest
from assetgen.models.texture import TextureGenerator
from assetgen.training import checkpoint
from assetgen.training.checkpoint import Checkpoint
from assetgen.training.detail import detail_network
from assetgen.training.recipe import DetailRecipe, TextureRecipe, recipe_from_values
from assetgen.training.texture import texture_config
from export.borrow import borrowed
from export.graph import OUTPUTS, MaterialGraph

# Inputs that a package may have more than its networks: at 0 they change nothing.
_OPTIONAL_ROLES = ("slider", "mix", "second_latent")


@dataclass(frozen=True)
class Runs:
    """Two finished runs and the recipes that made them."""

    texture: Checkpoint
    texture_recipe: TextureRecipe
    detail: Checkpoint
    detail_recipe: DetailRecipe
    classes: tuple[str, ...]


def read_runs(texture_run: Path, detail_run: Path, like: Mapping[str, str] | None = None) -> Runs:
    """Load both checkpoints and see that they belong together.

    Args:
        like: which class of the detail network a class of the texture network is like; see ``borrow``.

    Raises:
        CheckpointInvalid: unreadable, or made for different classes or texel densities.
        ConfigInvalid: ``like`` names a class that is not there.
    """
    texture, detail = (checkpoint.load(run / "checkpoint") for run in (texture_run, detail_run))
    classes = tuple(texture.facts["classes"])
    if "relief_px" in detail.facts:  # else it is no run of this kind, which its recipe will tell
        detail = borrowed(detail, classes, like or {})
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


def graph_of_package(manifest: Manifest, texture_run: Path, detail_run: Path) -> MaterialGraph:
    """The networks of two runs for the inputs of a package that was made of them, its sliders left out.

    Raises:
        CheckpointInvalid: see ``read_runs``.
        ConfigInvalid: the package takes other inputs or makes other maps than they do.
    """
    like: Mapping[str, str] = manifest.provenance.get("detail", {}).get("classes_like", {})
    graph = graph_from_runs(read_runs(texture_run, detail_run, like))
    made = [spec.name for spec in manifest.outputs]
    told = {spec.name: spec for spec in manifest.inputs}
    wanted = {spec.name: spec for spec in graph.inputs}
    strange = [name for name, spec in wanted.items() if name not in told or told[name].shape[1] != spec.shape[1]]
    strange += [name for name, spec in told.items() if name not in wanted and spec.role not in _OPTIONAL_ROLES]
    if strange or made != list(OUTPUTS):
        strange = strange or made
        raise ConfigInvalid(
            f"{manifest.id} was not made of {texture_run} and {detail_run}: they differ in {', '.join(strange)}",
            hint="give the two runs that this package of materials was exported from, or leave --runs out",
        )
    return graph


def _averaged(saved: Checkpoint, trained: str) -> str:
    """Under which name the averaged network lies: what is published to go on from has it in the trained one's place."""
    return "average" if checkpoint.module_tensors(saved, "average") else trained
