"""From a run of meshes to a package of kind ``mesh``: graph of slices, parity, preview of a mesh a class, card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn

from assetgen.errors import CheckpointInvalid
from assetgen.golden import GoldenRequest
from assetgen.kinds import KINDS
from assetgen.kinds.mesh import CHANNELS, FEWEST_TRIANGLES, MOST_TRIANGLES, OUTPUT
from assetgen.manifest import InputSpec, Manifest, OutputMap, ParameterSpec
from assetgen.models.mixture import CHOOSING, MixturePrior
from assetgen.models.parts import baked
from assetgen.models.volume import VolumeGenerator
from assetgen.postprocess import mesh as meshes
from assetgen.postprocess.mesh_preview import picture_of_mesh
from assetgen.postprocess.slices import atlas_edge, columns_of, volume_from_atlas
from assetgen.runtime import Session
from assetgen.training import checkpoint
from assetgen.training.recipe import recipe_from_values
from assetgen.training.volume import volume_config
from assetgen.training.volume_recipe import VolumeRecipe
from assetgen.types import FloatArray, Request
from export.assemble import Notify, Parts, assemble, made_with, manifest_of_one_size, preview_of_tiles, run_facts
from export.card import run_lines
from export.onnx_from_module import onnx_of_pictures
from export.package_from_picture import TOLERANCE
from export.parameters import parameters_of_classes
from export.parity import parity_of_pictures

BATCHES = (1, 3)  # not the one that was traced
TRACED_BATCH = 2
PREVIEW_TRIANGLES = 3000
GROUND = 72
GOLDEN_SEED, TRIED_SEEDS, GOLDEN_REQUESTS = 7, 16, 3
# Depth of the deepest cell, of a value from SURFACE, that thin props are brought to, and by how much at most.
SHOWN_DEPTH, MOST_THICKENED = 0.1, 0.3
CHECKED_SEEDS = 8  # a class, for the figures of the card
CHECKED_TRIANGLES = (2000, 500)


class VolumeGraph(nn.Module):
    """Latent, class weights and truncation ``[n, 1]`` to slices side by side ``[n, 4, atlas, atlas]`` in [0, 1].

    Truncation scales z, before it becomes a code of its class: shorter ones are more typical. What chooses the kind of
    prop it leaves alone, or all would be of a few kinds.
    """

    def __init__(self, generator: VolumeGenerator, prior: MixturePrior) -> None:
        super().__init__()
        self.generator = generator
        self.prior = prior
        self.edge = generator.config.edge
        self.columns = columns_of(self.edge)

    def forward(self, z: Tensor, class_weights: Tensor, truncation: Tensor) -> Tensor:
        """Return the picture of slices; see ``assetgen.postprocess.slices``."""
        code = self.prior(torch.cat([z[:, :CHOOSING], z[:, CHOOSING:] * truncation], dim=1), class_weights)
        volume = _thick_enough((self.generator(code, class_weights) * 0.5 + 0.5).clamp(0, 1))
        edge, columns = self.edge, self.columns
        volume = F.pad(volume, (0, 0, 0, 0, 0, columns**2 - edge), value=1.0)
        tiles = volume.reshape(-1, CHANNELS, columns, columns, edge, edge).permute(0, 1, 2, 4, 3, 5)
        return tiles.reshape(-1, CHANNELS, columns * edge, columns * edge)


def _thick_enough(volume: Tensor) -> Tensor:
    """Volumes whose surface just fails to appear, as that of a leaf or a pole thinner than a cell, made to show it."""
    distance = volume[:, :1]
    lacking = distance.amin(dim=(2, 3, 4), keepdim=True) - (meshes.SURFACE - SHOWN_DEPTH)
    return torch.cat([distance - lacking.clamp(0.0, MOST_THICKENED), volume[:, 1:]], dim=1)


def package_from_volume(
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
        CheckpointInvalid: no usable checkpoint, or one whose volumes are empty.
        ParityFailed, PolicyViolated, PackageInvalid, OutputUnwritable: see there.
        RuntimeMissing: the libraries of the extra ``mesh`` are not installed.
    """
    meshes.check_libraries()
    saved = checkpoint.load(run / "checkpoint")
    recipe = recipe_from_values(VolumeRecipe, saved.recipe)
    classes = tuple(saved.facts["classes"])
    generator = VolumeGenerator(volume_config(recipe, len(classes)))
    checkpoint.restore_module(generator, saved, "average")
    prior = MixturePrior(len(classes), recipe.latent)
    checkpoint.restore_module(prior, saved, "prior")
    graph = VolumeGraph(baked(generator), prior)  # type: ignore[arg-type]
    inputs = (
        InputSpec("z", "latent", ("n", recipe.latent)),
        InputSpec("class_weights", "class_weights", ("n", len(classes))),
        InputSpec("truncation", "truncation", ("n", 1)),
    )
    names, atlas_px = [spec.name for spec in inputs], atlas_edge(recipe.volume_edge)
    manifest = manifest_of_one_size(
        "mesh",
        f"3D props of {len(classes)} classes from grids of {recipe.volume_edge} cells along each axis.",
        inputs,
        OutputMap(OUTPUT, OUTPUT, CHANNELS),
        classes,
        parameters_of_meshes(classes),
        atlas_px,
        TOLERANCE,
        id=id,
        version=version,
        display_name=display_name,
        license=license,
    )

    def compare(session: Session) -> Mapping[str, Any]:
        examples = (_example(n, recipe.latent, len(classes), seed) for seed, n in enumerate(BATCHES))
        parity = parity_of_pictures(graph, session, names, OUTPUT, examples)
        return {
            **made_with(),
            "mesh": run_facts(saved.facts, saved.recipe, saved.progress.pictures),
            "parity": {"graph_against_network": float(f"{parity:.3g}")},
            "figures": check_meshes(session, manifest),
        }

    parts = Parts(
        manifest=manifest,
        write_graph=lambda path: onnx_of_pictures(
            graph, _example(TRACED_BATCH, recipe.latent, len(classes)), names, [OUTPUT], path
        ),
        compare=compare,
        requests=golden_requests(graph, manifest),
        card=lambda described, provenance: mesh_card(described, provenance, notes),
        preview=write_preview,
    )
    return assemble(output, parts, license_file, notify)


def parameters_of_meshes(classes: Sequence[str]) -> tuple[ParameterSpec, ...]:
    """Parameters of a model of meshes, in the order of a form."""
    return (
        *parameters_of_classes(classes, "What the prop is.", "Prop"),
        ParameterSpec(
            "truncation", "Variety", "0 gives the typical prop of its kind, 1 the full variety.", "float", "Prop",
            minimum=0.0, maximum=1.0, default=0.8,
        ),
        ParameterSpec(
            "triangles", "Triangles", "At most so many, in the finest level of detail.", "int", "Mesh",
            minimum=FEWEST_TRIANGLES, maximum=MOST_TRIANGLES, default=2000,
        ),
        ParameterSpec(
            "levels", "Levels of detail", "A file each, with half the triangles of the one before.", "int", "Mesh",
            minimum=1, maximum=4, default=1,
        ),
        ParameterSpec(
            "normals", "Shading", "Flat shows every triangle by itself.", "choice", "Mesh",
            default="flat", values=("flat", "smooth"),
        ),
        ParameterSpec(
            "format", "File format", "glb is binary glTF; obj holds vertex colours as an extension.", "choice", "Mesh",
            default="glb", values=("glb", "obj"),
        ),
        ParameterSpec(
            "size", "Size", "Longest side in metres.", "float", "Mesh", minimum=0.01, maximum=100.0, default=1.0,
        ),
        ParameterSpec(
            "preview", "Preview", "Edge of a picture of the mesh in pixels, 32 or more; 0 makes none.", "int", "Mesh",
            minimum=0, maximum=1024, default=0,
        ),
    )  # fmt: skip


def golden_requests(graph: VolumeGraph, manifest: Manifest) -> tuple[GoldenRequest, ...]:
    """A request of each of the first classes, of the first seed that makes something.

    Raises:
        CheckpointInvalid: no seed makes anything of a class.
    """
    kind, requests = KINDS[manifest.kind], []
    for known in manifest.classes:
        for seed in range(GOLDEN_SEED, GOLDEN_SEED + TRIED_SEEDS):
            plan = kind.resolve(manifest, Request(manifest.id, seed=seed, parameters={"class": known.name}))
            inputs = kind.prepare(manifest, plan, 0)
            with torch.no_grad():
                made = graph(*(torch.from_numpy(inputs[spec.name]) for spec in manifest.inputs))
            if float(made[:, 0].min()) < meshes.SURFACE - meshes.LEAST_DEPTH:
                requests.append(GoldenRequest(seed, parameters={"class": known.name}))
                break
        else:
            raise CheckpointInvalid(
                f"the run makes nothing of class {known.name!r}, whatever the seed", hint="train it for longer"
            )
    return tuple(requests[:GOLDEN_REQUESTS])


def check_meshes(session: Session, manifest: Manifest) -> dict[str, float]:
    """Shares of ``CHECKED_SEEDS`` meshes a class that are there, closed, and within budgets of triangles."""
    asked = there = closed = within = 0
    for known in manifest.classes:
        for seed in range(CHECKED_SEEDS):
            volume = _volume(session, manifest, known.name, seed)
            for triangles in CHECKED_TRIANGLES:
                mesh = meshes.mesh_within(volume, triangles)
                asked += 1
                if mesh is not None:
                    there += 1
                    closed += meshes.is_closed(mesh.vertices, mesh.faces)
                    within += len(mesh.faces) <= triangles
    return {"meshes": float(asked), "there": there / asked, "closed": closed / asked, "within_budget": within / asked}


def write_preview(path: Path, session: Session, manifest: Manifest) -> None:
    """A mesh of every class on a plain ground, at most 256 x 256 px."""

    def tile(class_name: str, tile_px: int) -> Image.Image:
        mesh = meshes.mesh_within(_volume(session, manifest, class_name, 1), PREVIEW_TRIANGLES)
        nothing = Image.new("RGBA", (tile_px, tile_px))
        return nothing if mesh is None else Image.fromarray(picture_of_mesh(mesh, tile_px), "RGBA")

    preview_of_tiles(path, manifest, tile, ground=GROUND)


def mesh_card(manifest: Manifest, provenance: Mapping[str, Any], notes: str) -> str:
    """The model card: Markdown from the manifest, the provenance and what a person wrote."""
    figures = provenance["figures"]
    classes = ", ".join(f"{known.label} (`{known.name}`)" for known in manifest.classes)
    return f"""# {manifest.display_name}

{manifest.description} Version {manifest.version}, licence {manifest.license}.

{notes.strip()}

Classes: {classes}.

## Training

{run_lines("Meshes", provenance["mesh"])}

## Figures

Of {figures["meshes"]:g} meshes ({CHECKED_SEEDS} seeds a class, budgets of {" and ".join(map(str, CHECKED_TRIANGLES))}
triangles): {figures["there"]:.1%} were not empty, {figures["closed"]:.1%} closed, {figures["within_budget"]:.1%} within
their budget.

Largest difference of the exported graph from PyTorch, at batches that were not traced:
{provenance["parity"]["graph_against_network"]:.1e}.
"""


def _volume(session: Session, manifest: Manifest, class_name: str, seed: int) -> FloatArray:
    kind = KINDS[manifest.kind]
    plan = kind.resolve(manifest, Request(manifest.id, seed=seed, parameters={"class": class_name}))
    return volume_from_atlas(session.run(kind.prepare(manifest, plan, 0))[OUTPUT][0])


def _example(n: int, latent: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    return torch.randn(n, latent, generator=rng), torch.eye(classes)[labels], torch.full((n, 1), 0.8)
