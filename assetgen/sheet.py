"""All sprites of a call on one sheet, on the caller's side: asset i must not depend on the count, a sheet does.

Imports postprocess, types and errors, and Pillow; no server, no runtime.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from assetgen.errors import ConfigInvalid, TransferDamaged
from assetgen.postprocess import atlas, xmp
from assetgen.postprocess.atlas import Frame
from assetgen.postprocess.sprites import Sprite
from assetgen.types import Artifact, ColorSpace, Event, Finished, PixelFormat

SPRITE_ROLE, SIDECAR_ROLE, SHEET_ROLE = "sprite", "sidecar", "sheet"
SUFFIX = "_sheet"
_SRGB_PERCEPTUAL = b"\0"


def on_one_sheet(events: Iterable[Event]) -> Iterator[Event]:
    """Pass ``events`` on, but all sprites as one PNG and its JSON, right before the end.

    Every sprite must come with its sidecar. File names are those of the first sprite, with ``_sheet`` for the index.

    Raises:
        ConfigInvalid: there were no sprites, or one had no sidecar.
        TransferDamaged: a sprite or its sidecar cannot be read.
    """
    sprites: dict[int, Artifact] = {}
    sidecars: dict[int, Artifact] = {}
    for event in events:
        if isinstance(event, Artifact) and event.role == SPRITE_ROLE:
            sprites[event.index] = event
        elif isinstance(event, Artifact) and event.role == SIDECAR_ROLE:
            sidecars[event.index] = event
        else:
            if isinstance(event, Finished):
                yield from _sheet(sprites, sidecars)
            yield event


def _sheet(sprites: Mapping[int, Artifact], sidecars: Mapping[int, Artifact]) -> Iterator[Artifact]:
    if not sprites or sprites.keys() != sidecars.keys():
        raise ConfigInvalid(
            f"a sheet needs sprites with sidecars; there were {len(sprites)} and {len(sidecars)}",
            hint="choose a model of sprites, and set its parameter sidecar to on",
        )
    indices = sorted(sprites)
    described = [_described(sidecars[index]) for index in indices]
    pictures = [_pixels(sprites[index]) for index in indices]
    try:
        frames = [_as_png(frame) for description in described for frame in atlas.read_frames(description)]
        facts = {str(name): str(value) for name, value in described[0]["meta"]["assetgen"].items() if name != "index"}
        sheet, placed = atlas.pack(pictures, frames)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TransferDamaged(f"a sidecar is not readable: {error!r:.200}", hint="update the client") from error
    facts |= {"first_index": str(indices[0]), "count": str(len(indices))}
    stem = PurePath(sprites[indices[0]].name).stem.removesuffix(f"_{indices[0]}") + SUFFIX
    height_px, width_px = sheet.shape[:2]
    data = _png(sheet, facts)
    yield Artifact(
        index=indices[0],
        role=SHEET_ROLE,
        name=f"{stem}.png",
        media_type="image/png",
        pixel_format=PixelFormat.RGBA8,
        color_space=ColorSpace.SRGB,
        width_px=width_px,
        height_px=height_px,
        data=data,
    )
    description = atlas.describe(placed, f"{stem}.png", width_px, height_px, facts)
    text = json.dumps(description, indent=2, sort_keys=True).encode() + b"\n"
    yield Artifact(
        index=indices[0],
        role=SIDECAR_ROLE,
        name=f"{stem}.json",
        media_type="application/json",
        pixel_format=None,
        color_space=None,
        width_px=0,
        height_px=0,
        data=text,
    )


def _as_png(frame: Frame) -> Frame:
    """Named as the file would be, not as the raw pixels that came."""
    return replace(frame, name=PurePath(frame.name).with_suffix(".png").name)


def _described(sidecar: Artifact) -> Any:
    try:
        return json.loads(bytes(sidecar.data))
    except ValueError as error:
        raise TransferDamaged(f"{sidecar.name!r:.80} is not JSON: {error}", hint="update the client") from error


def _pixels(sprite: Artifact) -> Sprite:
    """The pixels of a sprite, delivered as raw pixels or as a PNG."""
    shape = (sprite.height_px, sprite.width_px, 4)
    try:
        if sprite.media_type != "image/png":
            return np.frombuffer(sprite.data, dtype=np.uint8).reshape(shape)
        with Image.open(io.BytesIO(sprite.data), formats=("PNG",)) as picture:
            if (*picture.size[::-1], len(picture.getbands())) != shape:
                raise ValueError(f"it is {picture.size} {picture.mode}")
            return np.asarray(picture)
    except (OSError, ValueError) as error:
        raise TransferDamaged(
            f"{sprite.name!r:.80} is not {sprite.width_px} x {sprite.height_px} px RGBA: {error}", hint="try again"
        ) from error


def _png(sheet: Sprite, facts: Mapping[str, str]) -> bytes:
    """By Pillow: a sheet is no matter of milliseconds, and a client need not have the encoder of the server."""
    information = PngImagePlugin.PngInfo()
    information.add(b"sRGB", _SRGB_PERCEPTUAL)
    information.add_itxt("XML:com.adobe.xmp", xmp.xmp_packet(facts).decode())
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="PNG", pnginfo=information)
    return file.getvalue()
