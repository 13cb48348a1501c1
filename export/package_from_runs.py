"""From two run folders to a verified package: graph, manifest, preview, golden requests, card and licence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import assetgen
from assetgen import golden, policy
from assetgen.errors import ConfigInvalid, OutputUnwritable
from assetgen.golden import GoldenRequest
from assetgen.kinds import KINDS
from assetgen.manifest import (
    PARTS,
    ClassSpec,
    LayoutSpec,
    Manifest,
    OutputMap,
    SizeSpec,
)
from assetgen.package import verify_package, write_manifest
from assetgen.runtime import Session, open_session, self_check
from assetgen.types import Encoding, MapKind, OutputSpec, ParameterValue, Request
from export.card import model_card
from export.graph import OUTPUTS, MaterialGraph
from export.networks import Runs, graph_from_runs, read_runs, texture_from_runs
from export.onnx_from_module import onnx_from_module
from export.parameters import parameters_of_model
from export.parity import ParityReport, check_parity
from export.sliders import DEFAULT_EFFORT, Effort, Sliders, find_sliders

GRAPH_NAME = "generator.fp32.onnx"
GOLDEN_SIZES = ((256, 256), (192, 320), (512, 512))
MAX_PACKAGE_BYTES = 16 << 20
# Few normal maps stand behind each class's relief; beyond these it is a chance result. Joints are deeper than the few
# glazed tiles among those maps say.
RELIEF_LIMITS_PX = (0.5, 10.0)
LEAST_JOINTED_RELIEF_PX = 3.0
# Above this a picture is computed in windows: 4096 px at once would take more than 4 GB.
WINDOW_PX = 2048
# Between backends of the same precision: what other processors and runtimes may change.
TOLERANCE = 2e-3

Notify = Callable[[str], None]


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
    effort: Effort = DEFAULT_EFFORT,
    notify: Notify = lambda _line: None,
) -> str:
    """Write the package ``output``; returns its digest.

    Everything is made and checked in a folder beside ``output`` that takes its place at the end.

    Args:
        license: SPDX expression of the weights' licence; ``license_file`` holds its text.
        layouts: by class, what the model draws by itself if not what it was trained on.
        notes: what a person has to say of the model; becomes part of the card.
        effort: how hard to look for sliders.
        notify: called with a line for every step.

    Raises:
        CheckpointInvalid, ParityFailed, PolicyViolated, PackageInvalid, OutputUnwritable: see there.
    """
    runs = read_runs(texture_run, detail_run)
    if strange := set(layouts or {}) - set(runs.classes):
        raise ConfigInvalid(
            f"layouts for {min(strange)!r}, which is no class", hint=f"classes: {', '.join(runs.classes)}"
        )
    layouts = {**runs.texture_recipe.layouts, **(layouts or {})}
    notify("sliders")
    sliders = find_sliders(texture_from_runs(runs), runs.classes, runs.texture_recipe, effort)
    for line in _slider_lines(sliders):
        notify(line)
    graph = graph_from_runs(runs, sliders)
    partial = output.with_name(output.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        notify("PyTorch to ONNX")
        onnx_from_module(graph, partial / GRAPH_NAME)
        manifest = _manifest(runs, graph, layouts, id=id, version=version, display_name=display_name, license=license)
        policy.check_graph(partial / GRAPH_NAME, manifest)
        shutil.copyfile(license_file, partial / "LICENSE")
        write_manifest(partial, manifest)

        notify("comparing graph and network at sizes and batches that were not traced")
        # One thread: bytes may depend on their number, and golden hashes should be comparable on any machine.
        session = open_session(verify_package(partial), "cpu", threads=1)
        report = check_parity(graph, lambda inputs: _run(session, graph, inputs))
        notify("golden requests, preview and card")
        requests = _golden_requests(manifest)
        plan = KINDS[manifest.kind].resolve(manifest, Request(id, seed=0))
        self_check(session, KINDS[manifest.kind].prepare(manifest, plan, 0))
        (partial / golden.FILE_NAME).write_text(_json(golden.record(session, manifest, requests)), encoding="utf-8")
        _write_preview(partial / "preview.png", session, manifest)
        provenance = _provenance(runs, report, sliders)
        (partial / "MODEL_CARD.md").write_text(model_card(manifest, provenance, notes), encoding="utf-8")
        session.close()
        digest = write_manifest(partial, _with_provenance(manifest, provenance))
        package = verify_package(partial)
        size_bytes = sum(entry.size_bytes for entry in package.manifest.files)
        if size_bytes > MAX_PACKAGE_BYTES:
            raise ConfigInvalid(
                f"the package has {size_bytes / 2**20:.1f} MiB; {MAX_PACKAGE_BYTES >> 20} MiB are allowed",
                hint="train with smaller widths",
            )
        _replace_folder(partial, output)
    except OSError as error:
        raise OutputUnwritable(
            f"{output} cannot be written: {error.strerror}", hint="check space and rights"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    notify(f"{output}: {size_bytes / 2**20:.1f} MiB, digest {digest}")
    return digest


def _manifest(
    runs: Runs,
    graph: MaterialGraph,
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
        parameters=parameters_of_model(runs.classes, graph.sliders),
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


def _slider_lines(sliders: Sliders) -> list[str]:
    return [
        f"  {s.name}: R2 {s.r2:.2f}, rising {s.rising:.2f}, kept {s.down:.2f} and {s.up:.2f}: "
        + ("offered" if s.offered else "not offered")
        for s in sliders.sliders
    ]


def _golden_requests(manifest: Manifest) -> list[GoldenRequest]:
    classes = [known.name for known in manifest.classes]
    requests = [
        GoldenRequest(7 + i, i, width_px, height_px, {"class": classes[(5 * i + 1) % len(classes)]})
        for i, (height_px, width_px) in enumerate(GOLDEN_SIZES)
    ]
    sliders = {spec.name: 0.5 for spec in manifest.inputs if spec.role == "slider"}
    mixed: dict[str, ParameterValue] = {"mix_seed": 8, "mix": 0.75, "mix_part": PARTS[0]}
    return [*requests, GoldenRequest(7, 0, 256, 256, {"class": classes[-1]} | mixed | sliders)]


def _provenance(runs: Runs, report: ParityReport, sliders: Sliders) -> dict[str, Any]:
    import onnx
    import torch

    return {
        "assetgen": assetgen.__version__,
        "made_with": {"torch": torch.__version__.split("+")[0], "onnx": onnx.__version__},
        "texture": _run_facts(runs.texture.facts, runs.texture.recipe, runs.texture.progress.pictures),
        "detail": _run_facts(runs.detail.facts, runs.detail.recipe, runs.detail.progress.pictures),
        "validation": dict(runs.detail.facts["validation"]),
        "parity": {
            "graph_against_network": _largest(report.parity),
            "roll_network": _largest(report.roll_network),
            "roll_graph": _largest(report.roll_graph),
        },
        "sliders": [asdict(slider) | {"offered": slider.offered} for slider in sliders.sliders],
    }


def _run_facts(facts: Mapping[str, Any], recipe: Mapping[str, Any], pictures: int) -> dict[str, Any]:
    data = {key: facts[key] for key in ("data_sha256", "items", "licenses", "authors")}
    made = {"data": data, "recipe": dict(recipe), "kimg": round(pictures / 1000, 1)}
    return made | {key: facts[key] for key in ("transferred_from", "distilled_from") if key in facts}


def _largest(differences: Mapping[str, float]) -> float:
    return float(f"{max(differences.values()):.3g}")


def _with_provenance(manifest: Manifest, provenance: Mapping[str, Any]) -> Manifest:
    return replace(manifest, provenance=provenance)


def _run(session: Session, graph: MaterialGraph, inputs: Any) -> list[Any]:
    outputs = session.run(dict(zip((spec.name for spec in graph.inputs), inputs, strict=True)))
    return [outputs[name] for name in OUTPUTS]


def _write_preview(path: Path, session: Session, manifest: Manifest, edge_px: int = 64, columns: int = 4) -> None:
    """A square of every class, cut from the middle of 256 px base colours."""
    kind = KINDS[manifest.kind]
    rows = -(-len(manifest.classes) // columns)
    preview = Image.new("RGB", (columns * edge_px, min(rows * edge_px, 256)))
    output = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)
    for number, known in enumerate(manifest.classes):
        request = Request(
            manifest.id, seed=1, width_px=256, height_px=256, parameters={"class": known.name}, output=output
        )
        plan = kind.resolve(manifest, request)
        outputs = session.run(kind.prepare(manifest, plan, 0))
        artifact = next(iter(kind.finish(manifest, plan, 0, outputs)))
        tile = Image.frombytes("RGB", (256, 256), bytes(artifact.data)).resize((edge_px, edge_px), Image.Resampling.BOX)
        preview.paste(tile, (number % columns * edge_px, number // columns * edge_px))
    preview.save(path, format="PNG", optimize=True)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=None, sort_keys=True)


def _replace_folder(partial: Path, output: Path) -> None:
    old = output.with_name(output.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.replace(old)
    try:
        partial.replace(output)
    except OSError:
        if old.exists():
            old.replace(output)
        raise
    shutil.rmtree(old, ignore_errors=True)
