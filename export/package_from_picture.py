"""From one run of a picture family to the parts of a package: tiles of one size, base colour only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assetgen.errors import CheckpointInvalid, ConfigInvalid, ParityFailed
from assetgen.golden import GoldenRequest
from assetgen.manifest import ClassSpec, InputSpec, Manifest, OutputMap, SizeSpec
from assetgen.models.families import FAMILIES, baked
from assetgen.models.parts import FIRST_PX
from assetgen.runtime import Session
from assetgen.training import checkpoint
from assetgen.training.checkpoint import Checkpoint
from assetgen.training.picture import picture_config
from assetgen.training.recipe import PictureRecipe, recipe_from_values
from export.assemble import GRAPH_NAME, Notify, Parts, assemble, made_with, run_facts
from export.card import picture_card
from export.onnx_from_module import onnx_of_pictures
from export.parameters import parameters_of_pictures
from export.parity import PARITY_LIMIT, ROLL_LIMIT

OUTPUT = "base_color"
BATCHES = (1, 3)  # not the one that was traced
TRACED_BATCH = 2
TOLERANCE = 2e-3


class PictureGraph(nn.Module):
    """Latent, class weights and truncation ``[n, 1]`` to base colour ``[n, 3, edge, edge]`` in [0, 1].

    Truncation scales z: all of them are normal, and shorter ones are more typical.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, class_weights: Tensor, truncation: Tensor) -> Tensor:
        """Return the picture."""
        picture: Tensor = self.generator(z * truncation, class_weights)
        return (picture * 0.5 + 0.5).clamp(0, 1)


def package_from_picture(
    run: Path,
    output: Path,
    *,
    id: str,
    version: str,
    display_name: str,
    license: str,
    license_file: Path,
    notes: str = "",
    notify: Notify = lambda _line: None,
) -> str:
    """Write the package ``output``; returns its digest; arguments as ``package_from_runs``.

    Raises:
        ConfigInvalid: the family's pictures do not tile, and textures must.
        CheckpointInvalid, ParityFailed, PolicyViolated, PackageInvalid, OutputUnwritable: see there.
    """
    saved = checkpoint.load(run / "checkpoint")
    recipe = recipe_from_values(PictureRecipe, saved.recipe)
    if not recipe.wrap:
        raise ConfigInvalid(f"{run}: its pictures do not tile (wrap = false), and textures must")
    classes = tuple(saved.facts["classes"])
    generator = trained_generator(saved, recipe, len(classes))
    graph = PictureGraph(baked(generator))
    inputs = (
        InputSpec("z", "latent", ("n", recipe.latent)),
        InputSpec("class_weights", "class_weights", ("n", len(classes))),
        InputSpec("truncation", "truncation", ("n", 1)),
    )
    names = [spec.name for spec in inputs]
    edge = recipe.crop_px
    manifest = Manifest(
        schema=1,
        id=id,
        version=version,
        kind="texture",
        display_name=display_name,
        description=f"Tileable base colours of {len(classes)} classes at {edge} px by a {recipe.family} GAN.",
        license=license,
        graph=GRAPH_NAME,
        inputs=inputs,
        outputs=(OutputMap(OUTPUT, OUTPUT, 3),),
        latent_dimension=recipe.latent,
        classes=tuple(ClassSpec(name, name.replace("_", " ").capitalize()) for name in classes),
        parameters=parameters_of_pictures(classes, told=recipe.conditioning != "none"),
        size=SizeSpec(stride_px=edge, min_px=edge, max_px=edge, default_px=edge),
        files=(),
        tolerance={"fp32": {OUTPUT: TOLERANCE}},
    )

    def compare(session: Session) -> Mapping[str, Any]:
        parity = _parity(graph, session, names, recipe.latent, len(classes))
        roll = _roll_error(generator, recipe, len(classes))
        facts = run_facts(saved.facts, saved.recipe, saved.progress.pictures)
        return {
            **made_with(),
            "texture": facts,
            "parity": {"graph_against_network": float(f"{parity:.3g}"), "roll_network": float(f"{roll:.3g}")},
        }

    parts = Parts(
        manifest=manifest,
        write_graph=lambda path: onnx_of_pictures(
            graph, _example(TRACED_BATCH, recipe.latent, len(classes)), names, [OUTPUT], path
        ),
        compare=compare,
        requests=tuple(
            GoldenRequest(7 + i, i, edge, edge, {"class": name} if recipe.conditioning != "none" else {})
            for i, name in enumerate(classes[:3])
        ),
        card=lambda described, provenance: picture_card(described, provenance, notes),
    )
    return assemble(output, parts, license_file, notify)


def trained_generator(saved: Checkpoint, recipe: PictureRecipe, classes: int) -> nn.Module:
    """The averaged generator of a run, ready to make pictures; its statistics were settled before it was saved.

    Raises:
        CheckpointInvalid: it has not grown up, or does not fit the recipe.
    """
    generator = FAMILIES[recipe.family].generator(picture_config(recipe, classes))
    checkpoint.restore_module(generator, saved, "average")
    levels = (recipe.crop_px // FIRST_PX).bit_length() - 1
    stage = getattr(generator, "stage", None)
    if stage is not None and float(stage) < levels:
        raise CheckpointInvalid(
            f"the progressive networks have grown to stage {float(stage):.1f} of {levels} only",
            hint="resume the run until it is fully grown",
        )
    return generator.eval().requires_grad_(False)


def _example(n: int, latent: int, classes: int, seed: int = 0) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    return torch.randn(n, latent, generator=rng), torch.eye(classes)[labels], torch.full((n, 1), 0.8)


def _parity(graph: PictureGraph, session: Session, names: list[str], latent: int, classes: int) -> float:
    """Largest difference of the exported graph from the network; raises ParityFailed above its limit."""
    worst = 0.0
    for seed, n in enumerate(BATCHES):
        inputs = _example(n, latent, classes, seed)
        made = session.run({name: value.numpy() for name, value in zip(names, inputs, strict=True)})[OUTPUT]
        with torch.no_grad():
            worst = float(np.maximum(worst, np.abs(graph(*inputs).numpy() - made).max()))  # unlike max(), keeps NaN
    _judge("the graph differs from the network", worst, PARITY_LIMIT)
    return worst


def _roll_error(generator: nn.Module, recipe: PictureRecipe, classes: int) -> float:
    """Roll the first features by one cell and two, and compare with the rolled picture: none of it knows a border."""
    z, weights, _ = _example(2, recipe.latent, classes)
    cell_px = recipe.crop_px // FIRST_PX
    start: Any = generator.start
    paint: Any = generator.paint
    with torch.no_grad():
        features = start(z, weights)
        expected = torch.roll(paint(features, z, weights), (cell_px, 2 * cell_px), dims=(2, 3))
        found = paint(torch.roll(features, (1, 2), dims=(2, 3)), z, weights)
    worst = float((expected - found).abs().max())
    _judge("the network does not tile", worst, ROLL_LIMIT)
    return worst


def _judge(what: str, difference: float, limit: float) -> None:
    if not difference <= limit:
        raise ParityFailed(
            f"{what}: by {difference:.2g}, allowed is {limit:.0e}",
            hint="nothing was written; try another version of torch or onnxruntime",
            metadata={"difference": f"{difference:.3g}", "limit": f"{limit:.0e}"},
        )
