"""The folder of a package: graph, golden requests, preview, card and licence, checked before it takes its place."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import assetgen
from assetgen import foreign, golden
from assetgen.errors import ConfigInvalid, OutputUnwritable
from assetgen.golden import GoldenRequest
from assetgen.kinds import KINDS, example_inputs
from assetgen.manifest import ClassSpec, InputSpec, Manifest, OutputMap, ParameterSpec, SizeSpec
from assetgen.package import verify_package, write_manifest
from assetgen.runtime import Session, open_session, self_check
from assetgen.types import Encoding, FloatArray, MapKind, OutputSpec, Request

GRAPH_NAME = "generator.fp32.onnx"
MAX_PACKAGE_BYTES = 16 << 20
PREVIEW_PX = 256

Notify = Callable[[str], None]


def preview_of_classes(path: Path, session: Session, manifest: Manifest, edge_px: int = 64, columns: int = 4) -> None:
    """A square of every class: base colours of 256 px, or of what the model makes, made smaller."""
    kind, made_px = KINDS[manifest.kind], min(PREVIEW_PX, manifest.size.max_px)
    rows = -(-len(manifest.classes) // columns)
    preview = Image.new("RGB", (columns * edge_px, min(rows * edge_px, 256)))
    output = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)
    told = any(spec.name == "class" for spec in manifest.parameters)
    for number, known in enumerate(manifest.classes):
        request = Request(
            manifest.id,
            seed=1 if told else number,
            width_px=made_px,
            height_px=made_px,
            parameters={"class": known.name} if told else {},
            output=output,
        )
        plan = kind.resolve(manifest, request)
        outputs = session.run(kind.prepare(manifest, plan, 0))
        artifact = next(iter(kind.finish(manifest, plan, 0, outputs)))
        tile = Image.frombytes("RGB", (made_px, made_px), bytes(artifact.data)).resize(
            (edge_px, edge_px), Image.Resampling.BOX
        )
        preview.paste(tile, (number % columns * edge_px, number // columns * edge_px))
    preview.save(path, format="PNG", optimize=True)


def preview_of_tiles(
    path: Path,
    manifest: Manifest,
    tile_of: Callable[[str, int], Image.Image],
    largest_px: int = PREVIEW_PX,
    ground: int = 0,
) -> None:
    """A tile of every class in a square of at most ``PREVIEW_PX``.

    Args:
        tile_of: takes the name of a class and the edge in pixels; where the tile has alpha, ``ground`` shows.
        largest_px: edge of a tile at most.
        ground: a grey, 0 to 255.
    """
    columns = math.ceil(math.sqrt(len(manifest.classes)))
    rows = -(-len(manifest.classes) // columns)
    edge_px = min(PREVIEW_PX // columns, largest_px)
    preview = Image.new("RGB", (columns * edge_px, rows * edge_px), (ground,) * 3)
    for number, known in enumerate(manifest.classes):
        tile = tile_of(known.name, edge_px)
        place = (number % columns * edge_px, number // columns * edge_px)
        preview.paste(tile, place, tile if tile.mode == "RGBA" else None)
    preview.save(path, format="PNG", optimize=True)


def manifest_of_one_size(
    kind: str,
    description: str,
    inputs: tuple[InputSpec, ...],
    output: OutputMap,
    classes: Sequence[str],
    parameters: tuple[ParameterSpec, ...],
    edge_px: int,
    tolerance: float,
    **told: Any,
) -> Manifest:
    """The manifest, without files and provenance, of a model whose pictures have ``edge_px`` along both edges.

    Args:
        inputs: the first is the latent.
        tolerance: largest difference of ``output`` from fp32 by ONNX Runtime.
        told: id, version, display name and licence.
    """
    return Manifest(
        schema=1,
        kind=kind,
        description=description,
        graph=GRAPH_NAME,
        inputs=inputs,
        outputs=(output,),
        latent_dimension=int(inputs[0].shape[1]),
        classes=tuple(ClassSpec(name, name.replace("_", " ").capitalize()) for name in classes),
        parameters=parameters,
        size=SizeSpec(stride_px=edge_px, min_px=edge_px, max_px=edge_px, default_px=edge_px),
        files=(),
        tolerance={"fp32": {output.name: tolerance}},
        **told,
    )


@dataclass(frozen=True)
class Parts:
    """What a package is made of.

    Attributes:
        manifest: without files and provenance.
        write_graph: writes the graph to a path.
        compare: compares the graph in a session with the network; returns the provenance, what was measured included.
        card: the model card, from manifest and provenance.
        preview: writes a PNG of at most 256 x 256 px to a path.
    """

    manifest: Manifest
    write_graph: Callable[[Path], None]
    compare: Callable[[Session], Mapping[str, Any]]
    requests: tuple[GoldenRequest, ...]
    card: Callable[[Manifest, Mapping[str, Any]], str]
    preview: Callable[[Path, Session, Manifest], None] = preview_of_classes


def assemble(output: Path, parts: Parts, license_file: Path, notify: Notify) -> str:
    """Write the package ``output``; returns its digest.

    Everything is made and checked in a folder beside ``output`` that takes its place at the end.

    Raises:
        ParityFailed, PolicyViolated, PackageInvalid, OutputUnwritable: see there.
        ConfigInvalid: the package is too large.
    """
    manifest = parts.manifest
    partial = output.with_name(output.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        notify("PyTorch to ONNX")
        parts.write_graph(partial / GRAPH_NAME)
        shutil.copyfile(license_file, partial / "LICENSE")
        write_manifest(partial, manifest)
        package = verify_package(partial)
        foreign.check_graphs([package])

        notify("comparing graph and network at sizes and batches that were not traced")
        # One thread: bytes may depend on their number, and golden hashes should be comparable on any machine.
        session = open_session(package, "cpu", threads=1)
        provenance = parts.compare(session)
        notify("golden requests, preview and card")
        example = example_inputs(package, manifest.size.default_px)
        self_check(session, example)
        self_check(session, _without_latents(manifest, example))
        record = golden.record(session, manifest, list(parts.requests))
        (partial / golden.FILE_NAME).write_text(json.dumps(record, indent=None, sort_keys=True), encoding="utf-8")
        parts.preview(partial / "preview.png", session, manifest)
        (partial / "MODEL_CARD.md").write_text(parts.card(manifest, provenance), encoding="utf-8")
        session.close()
        digest = write_manifest(partial, replace(manifest, provenance=provenance))
        size_bytes = sum(entry.size_bytes for entry in verify_package(partial).manifest.files)
        if size_bytes > MAX_PACKAGE_BYTES:
            raise ConfigInvalid(
                f"the package has {size_bytes / 2**20:.1f} MiB; {MAX_PACKAGE_BYTES >> 20} MiB are allowed",
                hint="train with smaller widths",
            )
        replace_folder(partial, output)
    except OSError as error:
        raise OutputUnwritable(
            f"{output} cannot be written: {error.strerror}", hint="check space and rights"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    notify(f"{output}: {size_bytes / 2**20:.1f} MiB, digest {digest}")
    return digest


def _without_latents(manifest: Manifest, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The inputs with latents of zeros, where a number that an optimiser dropped from under a root shows as NaN."""
    latents = {spec.name for spec in manifest.inputs if spec.role in ("latent", "second_latent")}
    return {name: np.zeros_like(values) if name in latents else values for name, values in inputs.items()}


def made_with() -> dict[str, Any]:
    """What made the package, for its provenance."""
    import onnx
    import torch

    return {
        "assetgen": assetgen.__version__,
        "made_with": {"torch": torch.__version__.split("+")[0], "onnx": onnx.__version__},
    }


def run_facts(facts: Mapping[str, Any], recipe: Mapping[str, Any], pictures: int) -> dict[str, Any]:
    """What provenance says of a training run: its data, recipe and length, and where it began."""
    data = {key: facts[key] for key in ("data_sha256", "items", "licenses", "authors")}
    made = {"data": data, "recipe": dict(recipe), "kimg": round(pictures / 1000, 1)}
    told = ("transferred_from", "distilled_from", "drawn_by", "classes_like")
    return made | {key: facts[key] for key in told if key in facts}


def largest(differences: Mapping[str, float]) -> float:
    """The largest difference, rounded for people."""
    return float(f"{max(differences.values()):.3g}")


def replace_folder(partial: Path, output: Path) -> None:
    """Put a finished folder in the place of ``output``, which steps aside first."""
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
