"""``assetgen demo``: the real server, the real client, a material of every class, and one picture to look at."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from assetgen.client import Client
from assetgen.describe import ModelInfo
from assetgen.errors import ConfigInvalid, OutputUnwritable
from assetgen.launch import ServerProcess
from assetgen.postprocess.preview import RgbPicture, material_preview, sheet
from assetgen.save import write_artifact
from assetgen.types import Artifact, Finished, FloatArray, MapKind, Material, Request

PREVIEW_PX = 256
SHEET_NAME = "materials.png"
TEXTURE_KIND = "texture"

Say = Callable[[str], None]


def run(
    folders: Sequence[Path], device: str, threads: int | None, output: Path, seed: int, edge_px: int, say: Say
) -> int:
    """Make a material of every class of every texture model into ``output / model / class``."""
    begun_s = time.monotonic()
    arguments = ["--device", device, "--log", "warning", *(f"--models={folder}" for folder in folders)]
    arguments += [] if threads is None else ["--threads", str(threads)]
    say("starting the server ...")
    with ServerProcess(arguments) as server, Client(server.address) as client:
        info = client.server_info()
        say(f"assetgen {info.version} serves on {server.address} ({info.device}), ready in {server.ready_s:.1f} s")
        models = [model for model in client.models() if model.kind == TEXTURE_KIND]
        if not models:
            raise ConfigInvalid("the server has no texture model", hint="give a folder of packages with --models")
        previews: list[tuple[str, RgbPicture]] = []
        for model in models:
            names = _class_names(model)
            for position, name in enumerate(names, 1):
                material, spent_s = _make(client, model, name, seed, edge_px, output / model.id / (name or "material"))
                label = name.replace("_", " ") or model.display_name
                say(f"[{position:2}/{len(names)}] {model.id}: {label:20} {spent_s:6.2f} s")
                previews.append((label, material_preview(material, PREVIEW_PX)))
    picture = output / SHEET_NAME
    _save(sheet(previews), picture)
    say(f"{len(previews)} materials at {edge_px} px in {time.monotonic() - begun_s:.1f} s, all told")
    say(f"look at {picture}; the maps lie in {output / models[0].id}")
    say(_next_steps(models[0]))
    return 0


def _class_names(model: ModelInfo) -> tuple[str, ...]:
    """Values of the parameter ``class``; one empty name for a model without."""
    return next((spec.values for spec in model.parameters if spec.name == "class"), ("",))


def _make(
    client: Client, model: ModelInfo, class_name: str, seed: int, edge_px: int, folder: Path
) -> tuple[Material, float]:
    """Ask for one material, write its files, and return it as delivered with the seconds it took."""
    begun_s = time.monotonic()
    parameters = {"class": class_name} if class_name else {}
    request = Request(model.id, seed=seed, width_px=edge_px, height_px=edge_px, parameters=parameters)
    maps: dict[MapKind, FloatArray] = {}
    spent_s = 0.0
    for event in client.generate(request):
        if isinstance(event, Artifact):
            write_artifact(event, folder)
            maps[MapKind(event.role)] = _decoded(event)
        elif isinstance(event, Finished):
            spent_s = time.monotonic() - begun_s
    return Material(maps), spent_s


def _decoded(artifact: Artifact) -> FloatArray:
    """A delivered PNG as the maps of ``Material`` are."""
    with Image.open(io.BytesIO(artifact.data), formats=("PNG",)) as picture:
        pixels = np.asarray(picture)
    values = pixels.astype(np.float32) / np.float32(np.iinfo(np.uint16).max if pixels.dtype.itemsize > 1 else 255)
    values = values.reshape(artifact.height_px, artifact.width_px, -1)
    if artifact.role == MapKind.NORMAL:
        values = values * 2 - 1
        values /= np.linalg.norm(values, axis=2, keepdims=True)
    return values


def _save(picture: RgbPicture, path: Path) -> None:
    partial = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            Image.fromarray(picture).save(partial, format="PNG")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputUnwritable(
            f"{path} cannot be written: {error.strerror or error}", hint="choose another folder with -o"
        ) from error


def _next_steps(model: ModelInfo) -> str:
    name = _class_names(model)[0]
    choice = f" --class {name}" if name else ""
    return "\n".join(
        (
            "try next:",
            f"  assetgen generate --model {model.id}{choice} --seed 7 --count 4 --profile unreal",
            f"  assetgen models {model.id}",
            "  assetgen serve        then generate with --server 127.0.0.1:50051, or from Blender",
        )
    )
