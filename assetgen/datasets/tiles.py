"""Reading a training file back: pictures as arrays, filters, and crops; imports archive, types; numpy and Pillow.

Pictures of one scan may come at several resolutions. ``scan_px`` brings them to one texel density: an item whose full
width shows one scan is resized so that the scan is that wide.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assetgen.datasets.archive import DAMAGED, opened, read_items, read_member
from assetgen.errors import DataInvalid
from assetgen.types import MapKind

ByteArray = NDArray[np.uint8]

GREY = (150, 150, 150)  # what pictures with alpha are shown and judged on
MAX_EDGE_PX = 8192  # pack stores no larger ones
MAX_PICTURE_BYTES = 1 << 30  # the largest not packed at all, 16 bits a channel, has half of it
WHAT = "a training file"
HINT = "make one with: assetgen data pack FOLDER -o data.zip"


@dataclass(frozen=True)
class Item:
    """One item in memory; ``maps`` hold ``[H, W, C] uint8``, C 3 for base colour and normal, else 1.

    Read with alpha, a base colour has C 4: sRGB-coded colours times alpha, and alpha.
    """

    id: str
    class_name: str
    group: str
    split: str
    license: str
    author: str
    contrast: float
    maps: dict[MapKind, ByteArray]
    facts: dict[str, Any]


def read_index(path: Path) -> dict[str, Any]:
    """Return the index of a training file.

    Raises:
        DataInvalid: not a training file, or damaged.
    """
    with opened(path, WHAT, HINT) as archive:
        return read_items(archive, "index.json", 1, path, HINT)


def load(
    path: Path,
    *,
    classes: Sequence[str] = (),
    min_contrast: float = 0.0,
    min_edge_px: int = 0,
    alpha: bool = False,
) -> list[Item]:
    """Decode the items of a training file.

    Args:
        classes: keep these only; empty keeps all.
        min_contrast: drop base colours whose grey values deviate less (0 to 127): flat paint teaches nothing.
        min_edge_px: drop items smaller than this.
        alpha: read base colours with alpha; without it what lies under transparent pixels shows, as files store it.

    Raises:
        DataInvalid: the file is damaged, a class has no items, or nothing is left.
    """
    with opened(path, WHAT, HINT) as archive:
        records = read_items(archive, "index.json", 1, path, HINT)["items"]
        known = {record["class"] for record in records}
        for name in classes:
            if name not in known:
                hint = f"it holds {', '.join(sorted(known))}; --set 'classes=[]' takes all, whatever the recipe names"
                raise DataInvalid(f"class {name!r} is not in {path}", hint=hint)
        items = [
            _item(archive, record, path, alpha)
            for record in records
            if (not classes or record["class"] in classes)
            and record["contrast"] >= min_contrast
            and min(record["maps"]["base_color"][edge] for edge in ("width_px", "height_px")) >= min_edge_px
        ]
    if not items:
        raise DataInvalid(f"no item of {path} is left", hint="lower min_contrast or min_edge_px, or name other classes")
    return items


def _item(archive: zipfile.ZipFile, record: dict[str, Any], path: Path, alpha: bool) -> Item:
    maps = {}
    for name, entry in record["maps"].items():
        kind = MapKind(name)
        try:
            data = read_member(archive, entry["file"], MAX_PICTURE_BYTES)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
                if max(picture.size) > MAX_EDGE_PX:
                    raise ValueError(f"{picture.size} px, at most {MAX_EDGE_PX} an edge are allowed")
                maps[kind] = _premultiplied(picture) if alpha and kind is MapKind.BASE_COLOR else _pixels(picture, kind)
        except DAMAGED as error:
            message = f"{entry['file']} in {path} is damaged: {error!s:.200}"
            raise DataInvalid(message, hint="pack the folder again") from error
    facts = record["facts"]
    return Item(
        id=record["id"],
        class_name=record["class"],
        group=record["group"],
        split=record["split"],
        license=record["license"],
        author=str(facts.get("author", "")),
        contrast=record["contrast"],
        maps=maps,
        facts=facts,
    )


def eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 bits in 8, which Pillow by itself would cut off at 255; any other as it is."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture, dtype=np.uint32) >> 8).astype(np.uint8))


def _premultiplied(picture: Image.Image) -> ByteArray:
    """Colours times alpha, and alpha; a picture without any is opaque."""
    straight = np.asarray(eight_bits(picture).convert("RGBA")).astype(np.uint16)
    alpha = straight[:, :, 3:]
    multiplied: ByteArray = np.concatenate([(straight[:, :, :3] * alpha + 127) // 255, alpha], axis=2).astype(np.uint8)
    return multiplied


def _pixels(picture: Image.Image, kind: MapKind) -> ByteArray:
    if kind in (MapKind.BASE_COLOR, MapKind.NORMAL):
        return np.asarray(eight_bits(picture).convert("RGB"))
    return np.asarray(eight_bits(picture).convert("L"))[:, :, None]


def at_density(item: Item, scan_px: int, kind: MapKind = MapKind.BASE_COLOR) -> ByteArray:
    """Return a map resized so that the whole width is ``scan_px``; smaller pictures stay as they are."""
    pixels = item.maps[kind]
    height, width = pixels.shape[:2]
    if width <= scan_px:
        return pixels
    size = (scan_px, max(1, round(height * scan_px / width)))
    if pixels.shape[2] == 4:  # as premultiplied, or Pillow would multiply by alpha once more
        picture = Image.frombytes("RGBa", (width, height), pixels.tobytes())
    else:
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    resized = np.asarray(picture.resize(size, Image.Resampling.BOX))
    return resized[:, :, None] if resized.ndim == 2 else resized


def on_ground(pixels: ByteArray, ground: tuple[int, int, int] = GREY) -> ByteArray:
    """Show colours times alpha, and alpha, ``[..., 4]`` on an opaque colour; ``[..., 3]`` is opaque and stays."""
    if pixels.shape[-1] == 3:
        return pixels
    shown = pixels[..., :3] + ((255 - pixels[..., 3:].astype(np.uint32)) * np.array(ground, np.uint32) + 127) // 255
    result: ByteArray = np.minimum(shown, 255).astype(np.uint8)
    return result
