"""Small pixel art sorted into classes, on one grid: a folder that ``assetgen data pack`` takes; numpy and Pillow.

Rules say which sprite is of which class. Sprites of half the size are enlarged by Scale2x (Mazzoleni 2001), which adds
no colour and leaves pixel art on a grid of single pixels; a plain doubling would teach a network blocks of four.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from assetgen import strictjson
from assetgen.datasets.ingest import Refusal
from assetgen.datasets.tiles import ByteArray
from assetgen.errors import ConfigInvalid, DataInvalid, OutputUnwritable

SHIPPED_RULES = Path(__file__).with_name("items.toml")
HARD = 128  # alpha from which a pixel of a sprite is there
LEAST_COVER = 0.08  # of the picture
NUMBER = re.compile(r"_?\d+$")


@dataclass(frozen=True)
class Rule:
    """The first rule that fits a sprite decides; what is left empty fits all.

    Attributes:
        class_name: of what fits; empty leaves it out.
        domain, label: as the manifest says.
        name: a regular expression, searched for in the name of the file.
        least_px: longest side that a sprite must have, in its own pixels; 0 asks for half of its picture.
        apart: sprites are groups of their own; else those whose names differ in a last number are one group.
    """

    class_name: str = ""
    domain: str = ""
    label: str = ""
    name: str = ""
    least_px: int = 0
    apart: bool = False


@dataclass(frozen=True)
class SpriteReport:
    """What ``sort_sprites`` did: sprites by class, and what was left out and why, but for what the rules leave out."""

    classes: Mapping[str, int]
    refused: tuple[Refusal, ...]


def read_rules(path: Path = SHIPPED_RULES) -> tuple[Rule, ...]:
    """Rules of a TOML file, a table ``[[rule]]`` each; raises ConfigInvalid."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["rule"]
        rules = tuple(strictjson.build(Rule, table) for table in tables)
        for rule in rules:
            re.compile(rule.name)
    except (OSError, KeyError, TypeError, ValueError, re.error) as error:
        raise ConfigInvalid(
            f"{path} holds no rules: {error}", hint=f"see {SHIPPED_RULES.name} of the product"
        ) from error
    return rules


def sort_sprites(folder: Path, output: Path, rules: Sequence[Rule], edge_px: int = 32) -> SpriteReport:
    """Write the sprites of ``folder`` that a rule gives a class to ``output``, with a manifest.

    Args:
        folder: with ``manifest.json``: ``{"items": [{"domain", "label", "file", "licence", "author", ...}]}``.
        edge_px: of all sprites; those of half the edge are enlarged.

    Raises:
        DataInvalid: the manifest cannot be read, or no sprite is left.
        OutputUnwritable: ``output`` cannot be written, or holds something already.
    """
    try:
        records = [dict(item) for item in json.loads((folder / "manifest.json").read_text("utf-8"))["items"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataInvalid(f"{folder / 'manifest.json'} cannot be read: {error}", hint="see docs/props.md") from error
    refused: list[Refusal] = []
    items: list[dict[str, Any]] = []
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()):
            raise OutputUnwritable(f"{output} is not empty", hint="name a new folder")
        for record in records:
            rule = next((rule for rule in rules if _fits(rule, record)), Rule())
            if not rule.class_name:
                continue
            name = f"{record.get('domain', '')}_{Path(str(record['file'])).stem}"
            pixels = _read(folder / str(record["file"]), rule, edge_px)
            if isinstance(pixels, str):
                refused.append(Refusal(name, pixels))
                continue
            file = f"{rule.class_name}/{name}.png"
            (output / rule.class_name).mkdir(exist_ok=True)
            Image.fromarray(pixels, "RGBA").save(output / file, format="PNG")
            kept = {key: record[key] for key in ("licence", "author", "source") if key in record}
            group = name if rule.apart else NUMBER.sub("", name)
            items.append({"id": name, "class": rule.class_name, "file": file, "group": group, **kept})
        if not items:
            raise DataInvalid(f"no sprite of {folder} is left: the rules fit none, or all were refused")
        text = json.dumps({"name": f"{folder.name}-sprites", "alpha": "straight", "items": items}, indent=1)
        (output / "manifest.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputUnwritable(
            f"{error.filename or output} cannot be written: {error.strerror}", hint="check space and rights"
        ) from error
    return SpriteReport(dict(Counter(item["class"] for item in items).most_common()), tuple(refused))


def scale2x(pixels: ByteArray) -> ByteArray:
    """Twice as large ``[2h, 2w, 4]``: a quarter of a pixel takes its two neighbours' colour where both are equal."""
    h, w = pixels.shape[:2]
    whole = np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
    around = np.pad(whole, 1, mode="edge")
    up, down, left, right = around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]
    corner = (up != down) & (left != right)
    made = np.empty((2 * h, 2 * w), dtype=np.uint32)
    for row, across in enumerate((up, down)):
        for column, along in enumerate((left, right)):
            made[row::2, column::2] = np.where(corner & (across == along), along, whole)
    return made.view(np.uint8).reshape(2 * h, 2 * w, 4)


def _fits(rule: Rule, record: Mapping[str, Any]) -> bool:
    return (
        rule.domain in ("", record.get("domain"))
        and rule.label in ("", record.get("label"))
        and re.search(rule.name, Path(str(record.get("file", ""))).stem) is not None
    )


def _read(path: Path, rule: Rule, edge_px: int) -> ByteArray | str:
    """A sprite with hard edges at ``edge_px``, or why there is none."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            pixels = np.array(picture.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{path.name} cannot be read: {error}"
    height, width = pixels.shape[:2]
    if (width, height) not in ((edge_px, edge_px), (edge_px // 2, edge_px // 2)):
        return f"{path.name} is {width} x {height}: {edge_px} px, or half of it, is needed"
    there = pixels[:, :, 3] >= HARD
    pixels[~there] = 0
    pixels[there, 3] = 255
    spans = [int(np.ptp(np.flatnonzero(there.any(axis=axis)))) + 1 if there.any() else 0 for axis in (0, 1)]
    if max(spans) < (rule.least_px or width / 2) or there.mean() < LEAST_COVER:
        return f"{path.name} shows {spans[0]} x {spans[1]} px only: too little to learn from"
    return pixels if width == edge_px else scale2x(pixels)
