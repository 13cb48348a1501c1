"""From two run folders to the parts of a package: one graph of both networks, its manifest, checks and card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assetgen.errors import ConfigInvalid
from assetgen.golden import GoldenRequest
from assetgen.manifest import PARTS, ClassSpec, LayoutSpec, Manifest, OutputMap, SizeSpec
from assetgen.runtime import Session
from assetgen.types import MapKind, ParameterValue
from export.assemble import GRAPH_NAME, Notify, Parts, assemble, largest, made_with, run_facts
from export.card import model_card
from export.graph import OUTPUTS, MaterialGraph
from export.networks import Runs, graph_from_runs, read_runs, texture_from_runs
from export.onnx_from_module import onnx_from_module
from export.parameters import parameters_of_model
from export.parity import ParityReport, check_parity
from export.properties import PROPERTIES
from export.sliders import DEFAULT_EFFORT, Effort, Sliders, find_sliders
from export.variations import DEFAULT_SETTINGS, Variations, VariationSettings, find_variations

GOLDEN_SIZES = ((256, 256), (192, 320), (512, 512))
# Few normal maps stand behind each class's relief; beyond these it is a chance result. Joints are deeper than the few
# glazed tiles among those maps say.
RELIEF_LIMITS_PX = (0.5, 10.0)
LEAST_JOINTED_RELIEF_PX = 3.0
# Above this a picture is computed in windows: 4096 px at once would take more than 4 GB.
WINDOW_PX = 2048
# Between backends of the same precision: what other processors and runtimes may change.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class _Look:
    """What was found in the style space."""

    sliders: Sliders
    variations: Variations


def package_from_runs(
    texture_run: Path,
    detail_run: Path,
    output: Path,
    *,
    id: str,
    version: str,
    display_name: str,
    license: str,
    license_file: Path,
    notes: str = "",
    layouts: Mapping[str, LayoutSpec] | None = None,
    like: Mapping[str, str] | None = None,
    effort: Effort = DEFAULT_EFFORT,
    variations: VariationSettings = DEFAULT_SETTINGS,
    notify: Notify = lambda _line: None,
) -> str:
    """Write the package ``output``; returns its digest.

    Args:
        license: SPDX expression of the weights' licence; ``license_file`` holds its text.
        layouts: by class, what the model draws by itself if not what it was trained on.
        like: by class, the class of the detail network that it is like, if that has none of this name.
        notes: what a person has to say of the model; becomes part of the card.
        effort: how hard to look for sliders.
        variations: how many to look for beside them, and how; none if no sliders are looked for.
        notify: called with a line for every step.

    Raises:
        CheckpointInvalid, ParityFailed, PolicyViolated, PackageInvalid, OutputUnwritable: see there.
    """
    runs = read_runs(texture_run, detail_run, like)
    if strange := set(layouts or {}) - set(runs.classes):
        raise ConfigInvalid(
            f"layouts for {min(strange)!r}, which is no class", hint=f"classes: {', '.join(runs.classes)}"
        )
    layouts = {**runs.texture_recipe.layouts, **(layouts or {})}
    notify("sliders and variations")
    look = _find_look(runs, effort, variations)
    for line in _look_lines(look):
        notify(line)
    sliders, others = look.sliders.offered, look.variations.offered
    names = [slider.name for slider in sliders.sliders] + [variation.name for variation in others.variations]
    graph = graph_from_runs(runs, names, torch.cat([sliders.directions, others.directions]))
    manifest = _manifest(runs, graph, look, layouts, id=id, version=version, display_name=display_name, license=license)

    def compare(session: Session) -> Mapping[str, Any]:
        return _provenance(runs, check_parity(graph, lambda inputs: _run(session, graph, inputs)), look)

    parts = Parts(
        manifest=manifest,
        write_graph=lambda path: onnx_from_module(graph, path),
        compare=compare,
        requests=tuple(_golden_requests(manifest, look)),
        card=lambda described, provenance: model_card(described, provenance, notes),
    )
    return assemble(output, parts, license_file, notify)


def _find_look(runs: Runs, effort: Effort, settings: VariationSettings) -> _Look:
    texture = texture_from_runs(runs)
    sliders = find_sliders(texture, runs.classes, runs.texture_recipe, effort)
    if effort.samples == 0:
        settings = replace(settings, count=0)
    return _Look(sliders, find_variations(texture, runs.classes, runs.texture_recipe, sliders.offered, settings))


def _manifest(
    runs: Runs,
    graph: MaterialGraph,
    look: _Look,
    layouts: Mapping[str, LayoutSpec],
    *,
    id: str,
    version: str,
    display_name: str,
    license: str,
) -> Manifest:
    config = graph.texture.config
    stride = graph.stride
    relief = runs.detail.facts["relief_px"]
    metal = runs.detail_recipe.metal_classes
    return Manifest(
        schema=1,
        id=id,
        version=version,
        kind="texture",
        display_name=display_name,
        description=f"Tileable PBR materials of {len(runs.classes)} classes from one forward pass.",
        license=license,
        graph=GRAPH_NAME,
        inputs=graph.inputs,
        outputs=tuple(OutputMap(name, name, 3 if name == MapKind.BASE_COLOR else 1) for name in OUTPUTS),
        latent_dimension=config.latent,
        classes=tuple(
            ClassSpec(
                name,
                name.replace("_", " ").capitalize(),
                _relief_px(relief[name], name in runs.detail_recipe.jointed_classes),
                name in metal,
                layouts.get(name, LayoutSpec()),
            )
            for name in runs.classes
        ),
        parameters=parameters_of_model(
            runs.classes,
            [slider.name for slider in look.sliders.offered.sliders],
            {variation.name: variation.most for variation in look.variations.offered.variations},
        ),
        size=SizeSpec(
            stride_px=stride,
            min_px=4 * stride,
            max_px=4096,
            default_px=512,
            window_px=WINDOW_PX,
            halo_px=graph.halo_px,
        ),
        files=(),
        tolerance={"fp32": dict.fromkeys(OUTPUTS, TOLERANCE)},
    )


def _relief_px(measured_px: float, jointed: bool) -> float:
    low_px, high_px = RELIEF_LIMITS_PX
    return round(float(np.clip(measured_px, LEAST_JOINTED_RELIEF_PX if jointed else low_px, high_px)), 2)


def _look_lines(look: _Look) -> list[str]:
    lines = [
        (f"{s.name}: R2 {s.r2:.2f}, rising {s.rising:.2f}, kept {s.down:.2f} and {s.up:.2f}", s.offered)
        for s in look.sliders.sliders
    ]
    lines += [
        (f"{v.name}: changes {v.change:.1f}, mostly {v.most}; rising {v.rising:.2f}, new {v.new:.2f}", v.offered)
        for v in look.variations.variations
    ]
    return [f"  {line}: {'offered' if offered else 'not offered'}" for line, offered in lines]


def _golden_requests(manifest: Manifest, look: _Look) -> list[GoldenRequest]:
    classes = [known.name for known in manifest.classes]
    requests = [
        GoldenRequest(7 + i, i, width_px, height_px, {"class": classes[(5 * i + 1) % len(classes)]})
        for i, (height_px, width_px) in enumerate(GOLDEN_SIZES)
    ]
    sliders = {slider.name: 0.5 for slider in look.sliders.offered.sliders}
    others: dict[str, ParameterValue] = {found.name: 0.5 for found in look.variations.offered.variations}
    mixed: dict[str, ParameterValue] = {"mix_seed": 8, "mix": 0.75, "mix_part": PARTS[0]}
    requests.append(GoldenRequest(7, 0, 256, 256, {"class": classes[-1]} | mixed | sliders))
    if others:
        requests.append(GoldenRequest(7, 0, 256, 256, {"class": classes[-1]} | others))
    return requests


def _provenance(runs: Runs, report: ParityReport, look: _Look) -> dict[str, Any]:
    return {
        **made_with(),
        "texture": run_facts(runs.texture.facts, runs.texture.recipe, runs.texture.progress.pictures),
        "detail": run_facts(runs.detail.facts, runs.detail.recipe, runs.detail.progress.pictures),
        "validation": dict(runs.detail.facts["validation"]),
        "parity": {
            "graph_against_network": largest(report.parity),
            "roll_network": largest(report.roll_network),
            "roll_graph": largest(report.roll_graph),
        },
        "sliders": [
            asdict(slider) | {"unit": PROPERTIES[slider.name], "offered": slider.offered}
            for slider in look.sliders.sliders
        ],
        "variations": [asdict(found) | {"offered": found.offered} for found in look.variations.variations],
    }


def _run(session: Session, graph: MaterialGraph, inputs: Any) -> list[Any]:
    outputs = session.run(dict(zip((spec.name for spec in graph.inputs), inputs, strict=True)))
    return [outputs[name] for name in OUTPUTS]
