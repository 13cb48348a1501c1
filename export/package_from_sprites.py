"""From a run of RGBA pictures to a package of kind ``sprite``: graph, parity, preview on a chequered ground, card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from assetgen.errors import ConfigInvalid
from assetgen.golden import GoldenRequest
from assetgen.kinds import KINDS
from assetgen.manifest import InputSpec, Manifest, OutputMap
from assetgen.models.families import baked
from assetgen.postprocess.sprites import on_squares
from assetgen.runtime import Session
from assetgen.training import checkpoint
from assetgen.training.recipe import PictureRecipe, recipe_from_values
from assetgen.types import Encoding, OutputSpec, Request
from export.assemble import (
    Notify,
    Parts,
    assemble,
    made_with,
    manifest_of_one_size,
    preview_of_tiles,
    run_facts,
)
from export.card import sprite_card
from export.onnx_from_module import onnx_of_pictures
from export.package_from_picture import TOLERANCE, trained_generator
from export.parameters import parameters_of_sprites
from export.parity import parity_of_pictures
from export.sliders import Sliders
from export.sprite_figures import figures_from_reports
from export.sprite_sliders import PROPERTIES, find_sliders, moved

OUTPUT = "sprite"
CHANNELS = 4
BATCHES = (1, 3, 5)  # not the one that was traced
TRACED_BATCH = 2
LARGEST_TILE_PX = 64


@dataclass(frozen=True)
class SpriteModel:
    """A trained generator, and what a package says of it.

    Attributes:
        generator: ``forward(z [n, latent], class_weights [n, classes])`` gives ``[n, 4, edge, edge]`` in [-1, 1],
            premultiplied: transparent is -1 in all channels. In evaluation mode, batch statistics settled.
        edge_px: of its pictures.
        palette: colours of its pixel art; 0 if it makes none.
        facts: of its training, see ``run_facts``.
        figures: of ``figures_from_reports``.
        sliders: those found, offered or not.
    """

    generator: nn.Module
    latent: int
    classes: tuple[str, ...]
    edge_px: int
    palette: int
    facts: Mapping[str, Any]
    figures: Mapping[str, Any]
    sliders: Sliders | None = None


class Chosen(nn.Module):
    """A generator that is told of some of its classes only.

    Args:
        places: of these, in their order, among the ``count`` classes it learned.
    """

    rows: Tensor

    def __init__(self, generator: nn.Module, places: Sequence[int], count: int) -> None:
        super().__init__()
        self.generator = generator
        self.places = tuple(places)
        self.register_buffer("rows", torch.eye(count)[list(places)])

    @property
    def prior(self) -> Chosen | None:
        """What knows the kinds of a class; none if the generator knows none."""
        return None if getattr(self.generator, "prior", None) is None else self

    def kind_of(self, z: Tensor, label: int) -> Tensor:
        """See ``MixturePrior.kind_of``."""
        kinds: Tensor = self.generator.prior.kind_of(z, self.places[label])  # type: ignore[operator, union-attr]
        return kinds

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        """Return the pictures of weights ``[n, chosen]``."""
        picture: Tensor = self.generator(z, class_weights @ self.rows)
        return picture


class SpriteGraph(nn.Module):
    """Latent, class weights and sliders ``[n, 1]`` to premultiplied RGBA ``[n, 4, edge, edge]`` in [0, 1].

    It has no truncation: BigGAN draws z anew where it lies too far out, which the host does.

    Args:
        directions: ``[sliders, classes, latent]``.
    """

    directions: Tensor

    def __init__(self, generator: nn.Module, directions: Tensor) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("directions", directions)

    def forward(self, z: Tensor, class_weights: Tensor, *sliders: Tensor) -> Tensor:
        """Return the sprite."""
        if sliders:
            z = moved(z, class_weights, self.directions, torch.cat(sliders, dim=1))
        picture: Tensor = self.generator(z, class_weights)
        return (picture * 0.5 + 0.5).clamp(0, 1)


def package_from_sprites(
    run: Path,
    output: Path,
    *,
    palette: int = 0,
    reports: Sequence[Path] = (),
    samples: int = 512,
    chosen: Sequence[str] = (),
    **told: Any,
) -> str:
    """Write the package ``output`` from the run of a picture family with alpha; returns its digest.

    Args:
        palette: see ``SpriteModel``.
        reports: of ``assetgen eval`` of this run, see ``figures_from_reports``.
        samples: sprites a class to find sliders with; 0 makes none.
        chosen: classes to offer, in this order; none given: all that the run learned.
        told: as ``package_of_model`` takes it.

    Raises:
        ConfigInvalid: the run's pictures have no alpha or no classes, or the reports are not of it or of other classes.
        CheckpointInvalid, ParityFailed, PolicyViolated, PackageInvalid, OutputUnwritable: see there.
    """
    saved = checkpoint.load(run / "checkpoint")
    recipe = recipe_from_values(PictureRecipe, saved.recipe)
    if not recipe.alpha:
        raise ConfigInvalid(f"{run}: its pictures have no alpha (alpha = false), and sprites need it")
    if recipe.conditioning == "none":
        raise ConfigInvalid(f"{run}: it was told no classes (conditioning = none), and props are chosen by class")
    learned = tuple(saved.facts["classes"])
    classes = _chosen(chosen, learned)
    reported = figures_from_reports(reports, run.resolve().name, classes)
    generator: nn.Module = trained_generator(saved, recipe, len(learned))
    facts = run_facts(saved.facts, saved.recipe, saved.progress.pictures)
    if classes != learned:
        generator = Chosen(generator, [learned.index(name) for name in classes], len(learned))
        facts["learned_classes"] = list(learned)
    model = SpriteModel(
        generator=generator,
        latent=recipe.latent,
        classes=classes,
        edge_px=recipe.crop_px,
        palette=palette,
        facts=facts,
        figures=reported,
        sliders=find_sliders(generator, recipe.latent, classes, samples),
    )
    return package_of_model(model, output, **told)


def package_of_model(
    model: SpriteModel,
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
    """Write the package ``output``; returns its digest; arguments as ``package_from_runs``."""
    found = model.sliders or find_sliders(model.generator, model.latent, model.classes, 0)
    names_of_sliders = [slider.name for slider in found.offered.sliders]
    graph = SpriteGraph(baked(model.generator), found.offered.directions)
    inputs = (
        InputSpec("z", "latent", ("n", model.latent)),
        InputSpec("class_weights", "class_weights", ("n", len(model.classes))),
        *(InputSpec(name, "slider", ("n", 1)) for name in names_of_sliders),
    )
    edge, count = model.edge_px, len(model.classes)
    what = f"Pixel-art sprites of {model.palette} colours" if model.palette else "Sprites"
    manifest = manifest_of_one_size(
        "sprite",
        f"{what} of {count} classes at {edge} px, with transparency.",
        inputs,
        OutputMap(OUTPUT, OUTPUT, CHANNELS),
        model.classes,
        parameters_of_sprites(model.classes, model.palette, names_of_sliders),
        edge,
        TOLERANCE,
        id=id,
        version=version,
        display_name=display_name,
        license=license,
    )
    names = [spec.name for spec in inputs]

    def compare(session: Session) -> Mapping[str, Any]:
        examples = (_example(n, model, len(names) - 2, seed) for seed, n in enumerate(BATCHES))
        parity = parity_of_pictures(graph, session, names, OUTPUT, examples)
        provenance = {
            **made_with(),
            "sprite": dict(model.facts),
            "parity": {"graph_against_network": float(f"{parity:.3g}")},
            "sliders": [
                asdict(slider) | {"unit": PROPERTIES[slider.name], "offered": slider.offered}
                for slider in found.sliders
            ],
        }
        return provenance | ({"figures": dict(model.figures)} if model.figures else {})

    parts = Parts(
        manifest=manifest,
        write_graph=lambda path: onnx_of_pictures(
            graph, _example(TRACED_BATCH, model, len(names) - 2), names, [OUTPUT], path, named=2
        ),
        compare=compare,
        # Without palette: another version of Pillow may choose other colours.
        requests=tuple(
            GoldenRequest(7 + i, i, edge, edge, {"class": name, "palette": 0})
            for i, name in enumerate(model.classes[:3])
        ),
        card=lambda described, provenance: sprite_card(described, provenance, notes),
        preview=write_preview,
    )
    return assemble(output, parts, license_file, notify)


def write_preview(path: Path, session: Session, manifest: Manifest) -> None:
    """A sprite of every class on a chequered ground, at most 256 x 256 px."""
    kind, edge = KINDS[manifest.kind], manifest.size.default_px

    def tile(class_name: str, tile_px: int) -> Image.Image:
        given = Request(manifest.id, seed=1, parameters={"class": class_name}, output=OutputSpec(encoding=Encoding.RAW))
        plan = kind.resolve(manifest, given)
        artifact = next(iter(kind.finish(manifest, plan, 0, session.run(kind.prepare(manifest, plan, 0)))))
        sprite = np.frombuffer(artifact.data, np.uint8).reshape(edge, edge, CHANNELS)
        filter_used = Image.Resampling.NEAREST if tile_px >= edge else Image.Resampling.BOX
        return Image.fromarray(on_squares(sprite)).resize((tile_px, tile_px), filter_used)

    preview_of_tiles(path, manifest, tile, LARGEST_TILE_PX)


def _chosen(names: Sequence[str], learned: tuple[str, ...]) -> tuple[str, ...]:
    if strange := [name for name in names if name not in learned]:
        raise ConfigInvalid(f"--classes: the run did not learn {', '.join(strange)}; it learned {', '.join(learned)}")
    if len(set(names)) < len(names):
        raise ConfigInvalid(f"--classes {','.join(names)}: one is named twice")
    return tuple(names) or learned


def _example(n: int, model: SpriteModel, sliders: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Latents, class weights of which every second is a blend, and sliders."""
    rng = torch.Generator().manual_seed(seed)
    count = len(model.classes)
    first, second = (torch.eye(count)[torch.randint(count, (n,), generator=rng)] for _ in range(2))
    share = torch.rand(n, 1, generator=rng) * (torch.arange(n) % 2)[:, None]
    amounts = (torch.rand(n, 1, generator=rng) * 2 - 1 for _ in range(sliders))
    return torch.randn(n, model.latent, generator=rng), first + share * (second - first), *amounts
