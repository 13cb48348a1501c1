"""``assetgen demo``: the real server, the real client, every class of every model, and a picture of each kind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from assetgen.client import Client
from assetgen.describe import ModelInfo
from assetgen.errors import ConfigInvalid, OutputUnwritable
from assetgen.launch import ServerProcess
from assetgen.postprocess.preview import RgbPicture, sheet
from assetgen.shows import SHOWS, Say, Show, Stage, class_names, previews


def run(
    folders: Sequence[Path], device: str, threads: int | None, output: Path, seed: int, edge_px: int, say: Say
) -> int:
    """Make every class of every model into ``output / model / class``, and a picture of each kind in ``output``."""
    begun_s = time.monotonic()
    arguments = ["--device", device, "--log", "warning", *(f"--models={folder}" for folder in folders)]
    arguments += [] if threads is None else ["--threads", str(threads)]
    say("starting the server ...")
    with ServerProcess(arguments) as server, Client(server.address) as client:
        info = client.server_info()
        say(f"assetgen {info.version} serves on {server.address} ({info.device}), ready in {server.ready_s:.1f} s")
        stage = Stage(client, output, seed, edge_px, say)
        models = [model for model in client.models() if model.kind in SHOWS]
        if not models:
            raise ConfigInvalid(
                f"the server has no model of the kinds {', '.join(SHOWS)}",
                hint="give a folder of packages with --models",
            )
        pictures = [
            _show(show, stage, [model for model in models if model.kind == kind]) for kind, show in SHOWS.items()
        ]
    for backend in sorted(set(stage.backends.values())):
        say(f"{backend}: {', '.join(sorted(model for model, used in stage.backends.items() if used == backend))}")
    say(f"all told {time.monotonic() - begun_s:.1f} s; the files lie in {output}, in a folder for each model")
    say(f"look at {' and '.join(str(picture) for picture in pictures if picture)}")
    say(_next_steps(next((model for model in models if model.kind == "texture"), models[0])))
    return 0


def _show(show: Show, stage: Stage, models: Sequence[ModelInfo]) -> Path | None:
    """The picture of one kind; ``None`` if there is no model of it."""
    made = [
        (label if len(models) == 1 or label == model.display_name else f"{model.display_name}: {label}", picture)
        for model in models
        for label, picture in previews(show, stage, model)
    ]
    if not made:
        return None
    stage.say(f"{len(made)} {show.what}")
    path = stage.output / show.picture_name
    _save(sheet(made, show.columns), path)
    return path


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
    name = class_names(model)[0]
    choice = f" --class {name}" if name else ""
    more = {"texture": " --seed 7 --count 4 --profile unreal", "style": " --set image=@PICTURE"}
    return "\n".join(
        (
            "try next:",
            f"  assetgen generate --model {model.id}{choice}{more.get(model.kind, ' --seed 7')}",
            f"  assetgen models {model.id}",
            "  assetgen serve        then generate with --server 127.0.0.1:50051, or from Blender",
        )
    )
