"""From a run of a detail network to the parts of a package: a photo in, the maps of a material out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assetgen.manifest import ClassSpec, InputSpec, Manifest, OutputMap
from assetgen.models.detail import DetailNetwork
from assetgen.runtime import Session
from assetgen.training import checkpoint
from assetgen.training.checkpoint import Checkpoint, module_tensors
from assetgen.training.detail import detail_network
from assetgen.training.recipe import DetailRecipe, recipe_from_values
from export.assemble import GRAPH_NAME, Notify, Parts, assemble, made_with, run_facts
from export.image_card import photo_card
from export.image_graph import example_pictures
from export.image_parameters import parameters_of_photo
from export.image_parity import image_parity
from export.image_preview import preview_of, read_examples
from export.onnx_from_module import onnx_of_images
from export.package_from_runs import TOLERANCE, _relief_px
from export.package_from_style import TRACED, golden_requests, image_sizes
from export.photo_graph import PhotoGraph


def package_from_photo(
    run: Path,
    output: Path,
    *,
    id: str,
    version: str,
    display_name: str,
    license: str,
    license_file: Path,
    notes: str = "",
    examples: Sequence[Path] = (),
    notify: Notify = lambda _line: None,
) -> str:
    """Write the package ``output``; returns its digest. Arguments are those of ``package_from_style``.

    Raises:
        CheckpointInvalid, ParityFailed, PolicyViolated, PackageInvalid, OutputUnwritable: see there.
    """
    saved = checkpoint.load(run / "checkpoint")
    recipe = recipe_from_values(DetailRecipe, saved.recipe)
    classes = tuple(saved.facts["classes"])
    graph = PhotoGraph(_network(saved, recipe, classes))
    inputs = (
        InputSpec("image", "image", ("n", 3, "h", "w"), stride_px=1),
        InputSpec("class_weights", "class_weights", ("n", len(classes))),
    )
    names = [spec.name for spec in inputs]
    manifest = Manifest(
        schema=1,
        id=id,
        version=version,
        kind="style",
        display_name=display_name,
        description=f"Maps of a material from a photo of one of {len(classes)} materials; tiles stay tiles.",
        license=license,
        graph=GRAPH_NAME,
        inputs=inputs,
        outputs=tuple(OutputMap(name, name, 1) for name in graph.outputs),
        latent_dimension=0,
        classes=tuple(_class(name, recipe, saved.facts["relief_px"]) for name in classes),
        parameters=parameters_of_photo(classes),
        size=image_sizes(graph.stride, graph.halo_px),
        files=(),
        tolerance={"fp32": dict.fromkeys(graph.outputs, TOLERANCE)},
    )
    pictures = read_examples(examples)

    def compare(session: Session) -> Mapping[str, Any]:
        return {
            **made_with(),
            "detail": run_facts(saved.facts, saved.recipe, saved.progress.pictures),
            "validation": saved.facts["validation"],
            "parity": image_parity(graph, session, names),
        }

    parts = Parts(
        manifest=manifest,
        write_graph=lambda path: onnx_of_images(
            graph.baked(), example_pictures(*TRACED, graph.classes), names, graph.outputs, graph.stride, path
        ),
        compare=compare,
        requests=golden_requests(classes, {"relief": 2.0}),
        card=lambda described, provenance: photo_card(described, provenance, notes),
        preview=preview_of(pictures),
    )
    return assemble(output, parts, license_file, notify)


def _network(saved: Checkpoint, recipe: DetailRecipe, classes: Sequence[str]) -> DetailNetwork:
    """The averaged network; a checkpoint that was cut down to ship holds no other."""
    network = detail_network(recipe, classes)
    checkpoint.restore_module(network, saved, "average" if module_tensors(saved, "average") else "network")
    return network


def _class(name: str, recipe: DetailRecipe, relief_px: Mapping[str, float]) -> ClassSpec:
    return ClassSpec(
        name,
        name.replace("_", " ").capitalize(),
        _relief_px(relief_px[name], name in recipe.jointed_classes),
        name in recipe.metal_classes,
    )
