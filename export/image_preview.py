"""The preview of a model that takes a picture: pictures, and what becomes of them, side by side; of ours kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from assetgen.errors import ConfigInvalid, ImageInvalid
from assetgen.kinds import KINDS, example_parameters
from assetgen.kinds.windows import run_in_windows
from assetgen.manifest import Manifest
from assetgen.postprocess import decode
from assetgen.runtime import Session
from assetgen.types import Artifact, Encoding, MapKind, OutputSpec, ParameterValue, PixelFormat, Request

PREVIEW_PX = 256  # the contract allows no more
MOST_EXAMPLES = 4
EXAMPLE_PX = 128
LARGEST_EXAMPLE_PX = 512
# The columns after the picture: of a model that repaints, its looks; of any other, maps.
MOST_LOOKS = 5
SHOWN_MAPS = (MapKind.NORMAL, MapKind.ROUGHNESS, MapKind.AMBIENT_OCCLUSION)


def read_examples(paths: Sequence[Path]) -> tuple[bytes, ...]:
    """The files of pictures to show; raises ConfigInvalid unless a model could be sent them."""
    if len(paths) > MOST_EXAMPLES:
        raise ConfigInvalid(f"--example: {len(paths)} pictures are too many; use {MOST_EXAMPLES} at most")
    found = []
    for path in paths:
        try:
            data = path.read_bytes()
            decode.picture_size(data, 16, LARGEST_EXAMPLE_PX)
        except OSError as error:
            raise ConfigInvalid(f"--example {path} cannot be read: {error.strerror}") from error
        except ImageInvalid as error:
            raise ConfigInvalid(f"--example {path}: {error.message}", hint=error.hint) from error
        found.append(data)
    return tuple(found)


def preview_of(examples: Sequence[bytes]) -> Callable[[Path, Session, Manifest], None]:
    """What writes the preview, with these pictures or, if there are none, a drawn one; a row each."""

    def write(path: Path, session: Session, manifest: Manifest) -> None:
        rows = [_row(data, session, manifest) for data in examples or (_drawn(manifest),)]
        cell = min(PREVIEW_PX // len(rows[0]), PREVIEW_PX // len(rows))
        preview = Image.new("RGB", (cell * len(rows[0]), cell * len(rows)))
        for y, row in enumerate(rows):
            for x, picture in enumerate(row):
                preview.paste(_fitted(picture, cell), (x * cell, y * cell))
        preview.save(path, format="PNG", optimize=True)

    return write


def _drawn(manifest: Manifest) -> bytes:
    drawn = example_parameters(manifest, EXAMPLE_PX, EXAMPLE_PX)["image"]
    assert isinstance(drawn, bytes)  # noqa: S101 -- for mypy
    return drawn


def _row(data: bytes, session: Session, manifest: Manifest) -> list[Image.Image]:
    """The picture, and its results."""
    first = Image.fromarray(np.round(decode.decode_picture(data, 16, LARGEST_EXAMPLE_PX).color * 255).astype(np.uint8))
    looks = next((spec.values for spec in manifest.parameters if spec.name == "class"), ())
    if any(output.map_kind == MapKind.BASE_COLOR for output in manifest.outputs):
        asked: list[dict[str, ParameterValue]] = [{"class": look} for look in looks[:MOST_LOOKS]] or [{}]
        made = [_made(data, session, manifest, one) for one in asked]
        return [first, *(pictures[MapKind.BASE_COLOR] for pictures in made)]
    pictures = _made(data, session, manifest, {})
    return [first, *(pictures[kind] for kind in SHOWN_MAPS if kind in pictures)]


def _made(
    data: bytes, session: Session, manifest: Manifest, parameters: Mapping[str, ParameterValue]
) -> dict[str, Image.Image]:
    """What the model makes with all else as it has it, by role."""
    kind = KINDS[manifest.kind]
    request = Request(
        manifest.id, seed=0, parameters={**parameters, "image": data}, output=OutputSpec(encoding=Encoding.RAW)
    )
    plan = kind.resolve(manifest, request)
    outputs = run_in_windows(session.run, manifest, kind.prepare(manifest, plan, 0))
    return {file.role: _picture(file) for file in kind.finish(manifest, plan, 0, outputs) if _is_shown(file)}


def _is_shown(file: Artifact) -> bool:
    return file.pixel_format in (PixelFormat.R8, PixelFormat.RGB8, PixelFormat.RGBA8)


def _picture(file: Artifact) -> Image.Image:
    mode = {PixelFormat.R8: "L", PixelFormat.RGB8: "RGB", PixelFormat.RGBA8: "RGBA"}
    assert file.pixel_format is not None  # noqa: S101 -- for mypy
    size = file.width_px, file.height_px
    return Image.frombytes(mode[file.pixel_format], size, bytes(file.data)).convert("RGB")


def _fitted(picture: Image.Image, cell_px: int) -> Image.Image:
    """Its middle square, enlarged by repetition so that pixels can be told, or shrunk."""
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    square = picture.crop((left, top, left + edge, top + edge))
    filter_ = Image.Resampling.NEAREST if edge <= cell_px else Image.Resampling.BOX
    return square.resize((cell_px, cell_px), filter_)
