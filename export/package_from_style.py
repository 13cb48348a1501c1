"""From a run of style transfer to the parts of a package: a picture in, the same picture in another look out."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.golden import GoldenRequest
from assetgen.manifest import ClassSpec, InputSpec, Manifest, OutputMap, SizeSpec
from assetgen.models.cyclegan import CycleganGenerator
from assetgen.models.stargan import StarganGenerator
from assetgen.runtime import Session
from assetgen.training import checkpoint, star, style
from assetgen.training.checkpoint import Checkpoint
from assetgen.training.recipe import recipe_from_values
from assetgen.training.runlog import STATISTICS, read_lines
from assetgen.training.style_recipe import StyleRecipe
from assetgen.types import ParameterValue
from export.assemble import GRAPH_NAME, Notify, Parts, assemble, made_with, run_facts
from export.image_card import style_card
from export.image_graph import OUTPUT, StyleGraph, example_pictures
from export.image_parameters import parameters_of_style
from export.image_parity import image_parity
from export.image_preview import preview_of, read_examples
from export.onnx_from_module import onnx_of_images

TRACED = (2, 64, 96)  # batch, height and width: all different, so that no free size is mistaken for another
GOLDEN_SIZES = ((64, 64), (96, 160), (256, 256))
MIN_PX, DEFAULT_PX = 16, 256
LARGEST_PX = 4096
# Channels times pixels where a picture cannot be computed in windows: 16 at 2048 px took 3.5 GB in ONNX Runtime.
LARGEST_WHOLE, LARGEST_WHOLE_PX = 16 * 2048**2, 2048
WINDOW_PX = 1024
TOLERANCE = 5e-3
FIGURES = ("change", "structure", "diversity", "cycle_error", "domain_share", "label_effect")
BACK = "back"


@dataclass(frozen=True)
class _Way:
    """What a package does of what a run has learned.

    Attributes:
        looks: what it can go over to, by name of the domain; one for a run between two.
        prefix: of the names of the network in the checkpoint.
    """

    sources: tuple[str, ...]
    looks: tuple[str, ...]
    prefix: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What ``assetgen eval style`` calls it."""
        return tuple(f"{source} to {look}" for source in self.sources for look in self.looks if source != look)


def package_from_style(
    run: Path,
    output: Path,
    *,
    id: str,
    version: str,
    display_name: str,
    license: str,
    license_file: Path,
    notes: str = "",
    direction: str | None = None,
    examples: Sequence[Path] = (),
    palette: int = 0,
    pixel_size: int = 1,
    figures_file: Path | None = None,
    notify: Notify = lambda _line: None,
) -> str:
    """Write the package ``output``; returns its digest. Arguments not told here are those of ``package_from_runs``.

    Args:
        direction: ``there`` or ``back``, for a run of cyclegan; ``None`` is there.
        examples: pictures that the preview shows with their results; a drawn one if there are none.
        palette, pixel_size: what the parameters of these names are unless asked otherwise.
        figures_file: JSON with more figures, for provenance and card; see ``read_figures``.

    Raises:
        ConfigInvalid: the run's pictures do not tile, or it has no such direction.
        CheckpointInvalid, ParityFailed, PolicyViolated, PackageInvalid, OutputUnwritable: see there.
    """
    saved = checkpoint.load(run / "checkpoint")
    recipe = recipe_from_values(StyleRecipe, saved.recipe)
    if not recipe.wrap:
        raise ConfigInvalid(f"{run}: it was trained with wrap = false, and would break tiles")
    way = _way(recipe, saved, direction)
    graph = StyleGraph(_generator(saved, recipe, way), len(way.looks) if recipe.method == "stargan" else 0)
    inputs = [InputSpec("image", "image", ("n", 3, "h", "w"), stride_px=1)]
    if graph.classes:
        inputs.append(InputSpec("class_weights", "class_weights", ("n", graph.classes)))
    names = [spec.name for spec in inputs]
    looks = way.looks if graph.classes else ()
    manifest = Manifest(
        schema=1,
        id=id,
        version=version,
        kind="style",
        display_name=display_name,
        description=_description(way),
        license=license,
        graph=GRAPH_NAME,
        inputs=tuple(inputs),
        outputs=(OutputMap(OUTPUT, OUTPUT, 3),),
        latent_dimension=0,
        classes=tuple(ClassSpec(name, name.replace("_", " ").capitalize()) for name in looks),
        parameters=parameters_of_style(looks, palette=palette, pixel_size=pixel_size),
        size=image_sizes(graph.stride, graph.halo_px, 0 if graph.is_local else recipe.width),
        files=(),
        tolerance={"fp32": {OUTPUT: TOLERANCE}},
    )
    pictures = read_examples(examples)
    figures = _trained(run, way) | (read_figures(figures_file, way.names) if figures_file else {})

    def compare(session: Session) -> Mapping[str, Any]:
        return {
            **made_with(),
            "style": run_facts(saved.facts, saved.recipe, saved.progress.pictures),
            "sources": list(way.sources),
            "looks": list(way.looks),
            "figures": figures,
            "parity": image_parity(graph, session, names),
        }

    parts = Parts(
        manifest=manifest,
        write_graph=lambda path: onnx_of_images(
            graph.baked(), example_pictures(*TRACED, graph.classes), names, graph.outputs, graph.stride, path
        ),
        compare=compare,
        requests=golden_requests(looks, {"strength": 0.5, "palette": 16}),
        card=lambda described, provenance: style_card(described, provenance, notes),
        preview=preview_of(pictures),
    )
    return assemble(output, parts, license_file, notify)


def image_sizes(stride_px: int, halo_px: int, whole_width: int = 0) -> SizeSpec:
    """Sizes of a model that takes a picture.

    Args:
        whole_width: channels at full resolution of a network that looks at the whole picture, which is not computed in
            windows; 0 for one that looks at a neighbourhood.
    """
    largest_px = LARGEST_WHOLE_PX if whole_width else LARGEST_PX
    while whole_width * largest_px**2 > LARGEST_WHOLE:
        largest_px //= 2
    return SizeSpec(
        stride_px=stride_px,
        min_px=MIN_PX,
        max_px=largest_px,
        default_px=DEFAULT_PX,
        window_px=0 if whole_width else WINDOW_PX,
        halo_px=halo_px,
    )


def golden_requests(classes: Sequence[str], last: Mapping[str, ParameterValue]) -> tuple[GoldenRequest, ...]:
    """Requests for the drawn picture at several sizes, of several classes; ``last``: parameters of the last one."""
    requests = []
    for number, (height_px, width_px) in enumerate(GOLDEN_SIZES):
        given: dict[str, ParameterValue] = {"class": classes[number % len(classes)]} if classes else {}
        given |= last if number == len(GOLDEN_SIZES) - 1 else {}
        requests.append(GoldenRequest(0, 0, width_px, height_px, given))
    return tuple(requests)


def _way(recipe: StyleRecipe, saved: Checkpoint, direction: str | None) -> _Way:
    domains = tuple(saved.facts["classes"])
    if direction is not None and recipe.method != "cyclegan":
        raise ConfigInvalid(f"--direction {direction}: not for a run of {recipe.method}, which knows one way only")
    if recipe.method == "stargan":
        return _Way(domains, domains)
    source, target = domains
    return _Way((target,), (source,), "back_") if direction == BACK else _Way((source,), (target,))


def _generator(saved: Checkpoint, recipe: StyleRecipe, way: _Way) -> CycleganGenerator | StarganGenerator:
    """The averaged generator; raises CheckpointInvalid if its batch norms were never measured."""
    generator: CycleganGenerator | StarganGenerator
    if recipe.method == "stargan":
        generator = StarganGenerator(star.generator_config(recipe, len(way.looks)))
    else:
        generator = CycleganGenerator(style.generator_config(recipe))
    checkpoint.restore_module(generator, saved, f"{way.prefix}average")
    counts = [int(value) for name, value in generator.state_dict().items() if name.endswith("num_batches_tracked")]
    if not all(counts):
        raise CheckpointInvalid("the statistics of the batch norms were never measured", hint="train the run further")
    return generator


def _description(way: _Way) -> str:
    looks = ", ".join(name.replace("_", " ") for name in way.looks)
    if len(way.looks) > 1:
        return f"Repaints pictures in one of {len(way.looks)} looks ({looks}); tiles stay tiles."
    return f"Repaints {way.sources[0].replace('_', ' ')} pictures in the look of {looks}; tiles stay tiles."


def read_figures(path: Path, ways: Collection[str]) -> dict[str, float]:
    """Figures by name from a JSON file: an object of numbers, or what ``assetgen eval style --json`` writes.

    Args:
        ways: of the latter, those that count, such as "photo to retro".

    Raises:
        ConfigInvalid: it holds neither.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"--figures {path} cannot be read: {error}") from error
    if isinstance(values, dict) and isinstance(values.get("ways"), dict):
        measured = {name: figures for name, figures in values["ways"].items() if name in ways}
        if not measured:
            raise ConfigInvalid(f"--figures {path}: it tells of {', '.join(values['ways'])}, not of {', '.join(ways)}")
        values = measured | {"told right by the judge": values.get("judge_accuracy", {})}
    found = _flat(values)
    if not found or not all(map(math.isfinite, found.values())):
        raise ConfigInvalid(
            f"--figures {path}: it holds no object of numbers", hint="write it with assetgen eval style --json"
        )
    return found


def _flat(values: Any, name: str = "") -> dict[str, float]:
    """Numbers by the names that lead to them; NaN where something else stands."""
    if isinstance(values, dict):
        inner = [_flat(value, f"{name}: {key}" if name else str(key)) for key, value in values.items()]
        return {key: value for part in inner for key, value in part.items()}
    fits = isinstance(values, int | float) and not isinstance(values, bool)
    return {name: float(values) if fits else math.nan}


def _trained(run: Path, way: _Way) -> dict[str, float]:
    """The last figures that training has measured of what the package does."""
    wanted = set(FIGURES[4:]) | {f"{name}.{look}" for name in FIGURES[:3] for look in way.looks}
    wanted |= {f"cycle_error.{source}" for source in way.sources}
    found: dict[str, float] = {}
    for line in read_lines(run / STATISTICS):
        found |= {name: value for name, value in line.items() if name in wanted and math.isfinite(value)}
    return found
