"""What the demo makes of each kind of model, and the one picture of it; imports client, postprocess and save.

A show asks the server for every class of every model of its kind, writes all files, and joins what it got on one sheet.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assetgen.client import Client
from assetgen.describe import ModelInfo
from assetgen.kinds.examples import example_picture
from assetgen.postprocess.preview import RgbPicture, material_preview
from assetgen.postprocess.sprites import Sprite, enlarge, on_squares
from assetgen.save import write_artifact
from assetgen.types import Artifact, FloatArray, MapKind, Material, OutputSpec, ParameterValue, Request, Started

PREVIEW_PX = 256
SPRITES_A_CLASS = 4
# A picture to repaint needs something drawn in it; and looks of old games are drawn small, in few colours.
DRAWN_CLASSES = ("brick", "paving")
OLD_GAME: dict[str, ParameterValue] = {"pixel_size": 4, "palette": 24}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """Where a show plays.

    Attributes:
        output: files go into ``output / model / class``.
        edge_px: of materials; other kinds have sizes of their own.
        backends: what computed each model that was asked, by its id; another one may round differently.
    """

    client: Client
    output: Path
    seed: int
    edge_px: int
    say: Say
    backends: dict[str, str] = field(default_factory=dict, init=False)


@dataclass(frozen=True)
class Show:
    """A kind's part of the demo.

    Attributes:
        picture_name: file name of its picture.
        what: what it makes, in the plural.
        columns: classes side by side in the picture.
        play: makes one class of a model, ``""`` for a model without, and gives a picture of it; all of one size.
    """

    picture_name: str
    what: str
    columns: int
    play: Callable[[Stage, ModelInfo, str], RgbPicture]


def previews(show: Show, stage: Stage, model: ModelInfo) -> Iterator[tuple[str, RgbPicture]]:
    """A label and a picture for each class of ``model``, as they are made."""
    names = class_names(model)
    for position, name in enumerate(names, 1):
        begun_s = time.monotonic()
        picture = show.play(stage, model, name)
        label = name.replace("_", " ") or model.display_name
        stage.say(f"[{position:2}/{len(names)}] {model.id}: {label:20} {time.monotonic() - begun_s:6.2f} s")
        yield label, picture


def class_names(model: ModelInfo) -> tuple[str, ...]:
    """Values of the parameter ``class``; one empty name for a model without."""
    return next((spec.values for spec in model.parameters if spec.name == "class"), ("",))


def _texture(stage: Stage, model: ModelInfo, name: str) -> RgbPicture:
    parameters = {"class": name} if name else {}
    request = Request(model.id, seed=stage.seed, width_px=stage.edge_px, height_px=stage.edge_px, parameters=parameters)
    files = _written(stage, request, stage.output / model.id / (name or "material"))
    return material_preview(Material({MapKind(file.role): _map_values(file) for file in files}), PREVIEW_PX)


def _sprite(stage: Stage, model: ModelInfo, name: str) -> RgbPicture:
    """A square of four sprites on a chequered ground."""
    parameters = {"class": name} if name else {}
    request = Request(model.id, seed=stage.seed, count=SPRITES_A_CLASS, parameters=parameters)
    files = _written(stage, request, stage.output / model.id / (name or "sprite"))
    half_px = PREVIEW_PX // 2
    made = [_enlarged(_pixels(file), half_px) for file in files if file.role == "sprite"]
    rows = [np.concatenate(made[i : i + 2], axis=1) for i in range(0, SPRITES_A_CLASS, 2)]
    return on_squares(np.concatenate(rows, axis=0))


def _mesh(stage: Stage, model: ModelInfo, name: str) -> RgbPicture:
    """The server's own picture of the mesh."""
    parameters: dict[str, ParameterValue] = {"preview": PREVIEW_PX}
    if name:
        parameters["class"] = name
    files = _written(stage, Request(model.id, seed=stage.seed, parameters=parameters), stage.output / model.id / name)
    (picture,) = (_pixels(file) for file in files if file.role == "preview")
    return on_squares(picture) if picture.shape[2] == 4 else picture


def _style(stage: Stage, model: ModelInfo, name: str) -> RgbPicture:
    """Before and after; where a model makes maps of a picture, the material they are."""
    before = _example(stage, (name, *DRAWN_CLASSES))
    offered = {spec.name for spec in model.parameters}
    parameters: dict[str, ParameterValue] = {"image": before}
    if name:
        parameters["class"] = name
    if model.maps == (MapKind.BASE_COLOR,):
        parameters |= {key: value for key, value in OLD_GAME.items() if key in offered}
    files = _written(stage, Request(model.id, seed=stage.seed, parameters=parameters), stage.output / model.id / name)
    maps = {MapKind(file.role): _map_values(file) for file in files}
    if maps.keys() >= set(MapKind):
        return material_preview(Material(maps), PREVIEW_PX)
    with Image.open(io.BytesIO(before)) as picture:
        both = [np.asarray(picture.convert("RGB")), _pixels(files[0])[:, :, :3]]
    return np.concatenate(both, axis=1)


def _example(stage: Stage, wanted: Sequence[str]) -> bytes:
    """A picture to start from: the base colour of a material, of the first class in ``wanted`` that the server has.

    A drawn one if it has no materials.
    """
    model = next((model for model in stage.client.models() if model.kind == "texture"), None)
    if model is None:
        return example_picture(PREVIEW_PX, PREVIEW_PX)
    edge_px = min(max(PREVIEW_PX, model.size.min_px), model.size.max_px)
    only_color = OutputSpec(maps=(MapKind.BASE_COLOR,))
    drawn = next((name for name in wanted if name in class_names(model)), class_names(model)[0])
    parameters = {"class": drawn} if drawn else {}
    request = Request(model.id, stage.seed, 1, 0, edge_px, edge_px, parameters, only_color)
    (file,) = (event for event in stage.client.generate(request) if isinstance(event, Artifact))
    return bytes(file.data)


def _written(stage: Stage, request: Request, folder: Path) -> list[Artifact]:
    """The files of a request, after they were written."""
    files = []
    for event in stage.client.generate(request):
        if isinstance(event, Started):
            stage.backends[request.model_id] = event.backend
        elif isinstance(event, Artifact):
            write_artifact(event, folder)
            files.append(event)
    return files


def _map_values(artifact: Artifact) -> FloatArray:
    """A delivered PNG as the maps of ``Material`` are."""
    pixels = _pixels(artifact)
    values = pixels.astype(np.float32) / np.float32(np.iinfo(np.uint16).max if pixels.dtype.itemsize > 1 else 255)
    values = values.reshape(artifact.height_px, artifact.width_px, -1)
    if artifact.role == MapKind.NORMAL:
        values = values * 2 - 1
        values /= np.linalg.norm(values, axis=2, keepdims=True)
    return values


def _pixels(artifact: Artifact) -> NDArray[Any]:
    with Image.open(io.BytesIO(artifact.data), formats=("PNG",)) as picture:
        return np.asarray(picture)


def _enlarged(sprite: Sprite, edge_px: int) -> Sprite:
    """In the middle of a square of that edge, as many times as large as fits; a larger one made smaller."""
    picture = Image.fromarray(sprite)
    picture.thumbnail((edge_px, edge_px), Image.Resampling.BOX)
    large = enlarge(np.asarray(picture), edge_px // max(picture.size))
    top, left = ((edge_px - edge) // 2 for edge in large.shape[:2])
    square = np.zeros((edge_px, edge_px, 4), dtype=np.uint8)
    square[top : top + large.shape[0], left : left + large.shape[1]] = large
    return square


SHOWS: dict[str, Show] = {
    "texture": Show("materials.png", "materials", 2, _texture),
    "style": Show("styles.png", "looks of pictures", 2, _style),
    "sprite": Show("sprites.png", "classes of sprites", 4, _sprite),
    "mesh": Show("meshes.png", "meshes", 4, _mesh),
}
