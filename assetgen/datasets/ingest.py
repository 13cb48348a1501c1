"""From a folder of pictures or map sets to candidate items; imports errors and types only.

Two layouts are understood. With ``manifest.json`` at the top: ``{"items": [{"id", "class", "file" | "dir" + "maps",
"group", "licence", "author", "source", ...}]}``, where ``domain`` may stand for ``class``, and the file is the id of an
item that has none. Without one: ``CLASS/picture.png`` is a base colour, and
``CLASS/SET/<name>_<map>.png`` files together are one map set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from assetgen.errors import DataInvalid
from assetgen.types import MapKind

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

# Names that texture sites and artists give to maps, lower case; the last word of a file name decides.
MAP_WORDS: Mapping[str, MapKind] = {
    "albedo": MapKind.BASE_COLOR,
    "basecolor": MapKind.BASE_COLOR,
    "base_color": MapKind.BASE_COLOR,
    "color": MapKind.BASE_COLOR,
    "col": MapKind.BASE_COLOR,
    "diffuse": MapKind.BASE_COLOR,
    "diff": MapKind.BASE_COLOR,
    "normal": MapKind.NORMAL,
    "normalgl": MapKind.NORMAL,
    "nor": MapKind.NORMAL,
    "nrm": MapKind.NORMAL,
    "roughness": MapKind.ROUGHNESS,
    "rough": MapKind.ROUGHNESS,
    "rgh": MapKind.ROUGHNESS,
    "metallic": MapKind.METALLIC,
    "metalness": MapKind.METALLIC,
    "metal": MapKind.METALLIC,
    "height": MapKind.HEIGHT,
    "displacement": MapKind.HEIGHT,
    "disp": MapKind.HEIGHT,
    "ao": MapKind.AMBIENT_OCCLUSION,
    "ambientocclusion": MapKind.AMBIENT_OCCLUSION,
    "ambient_occlusion": MapKind.AMBIENT_OCCLUSION,
    "occlusion": MapKind.AMBIENT_OCCLUSION,
}

# Keys of a record that a candidate has fields for; the others are kept as facts.
TOLD = ("id", "class", "domain", "maps", "file", "dir", "group")


@dataclass(frozen=True)
class Candidate:
    """One item of a folder, not yet looked into.

    Attributes:
        group: items of one scan or its variants; a split never cuts through a group.
        maps: map kind to file.
        facts: what else the manifest says of the item (author, source, evidence); kept to the end.
    """

    id: str
    class_name: str
    group: str
    license: str
    maps: Mapping[MapKind, Path]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """One thing that was left out, and why."""

    id: str
    reason: str


def candidates(folder: Path, license: str = "") -> Iterator[Candidate | Refusal]:
    """List the items of ``folder``.

    Args:
        license: SPDX expression for items that name none.

    Raises:
        DataInvalid: the folder or its manifest cannot be read.
    """
    if not folder.is_dir():
        raise DataInvalid(f"{folder} is not a folder", hint="give the folder that holds the pictures")
    manifest = folder / "manifest.json"
    try:
        yield from _from_manifest(folder, manifest, license) if manifest.exists() else _from_tree(folder, license)
    except OSError as error:
        raise DataInvalid(
            f"{error.filename or folder} cannot be read: {error.strerror}", hint="check rights"
        ) from error


def _from_manifest(folder: Path, manifest: Path, license: str) -> Iterator[Candidate | Refusal]:
    try:
        items = json.loads(manifest.read_text(encoding="utf-8"))["items"]
        records = [dict(item) for item in items]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataInvalid(
            f"{manifest} cannot be read: {error}", hint='it must be JSON with a list "items" of objects'
        ) from error
    for number, record in enumerate(records):
        yield _from_record(folder, record, number, license)


def _from_record(folder: Path, record: dict[str, Any], number: int, license: str) -> Candidate | Refusal:
    name = str(record.get("id") or record.get("file") or f"item {number}")
    # One asset may stand in several tiers (thumbnail, full maps): the tier keeps their ids apart.
    tier = str(record.get("tier", ""))
    name = f"{tier}/{name}" if tier else name
    class_name = record.get("class", record.get("domain"))
    if not isinstance(class_name, str) or not class_name:
        return Refusal(name, 'no class: add a text field "class" (or "domain")')
    files = record.get("maps") or {"albedo": record.get("file")}
    if not isinstance(files, dict):
        return Refusal(name, '"maps" is not an object: write {"albedo": "file.png", "normal": ...}')
    base = str(record.get("dir", ""))
    maps: dict[MapKind, Path] = {}
    for word, file in files.items():
        kind = MAP_WORDS.get(str(word).lower())
        if kind is None:
            return Refusal(name, f"map {word!r} is not known; use one of {', '.join(sorted(MAP_WORDS))}")
        relative = PurePosixPath(base) / str(file)
        # On Windows a backslash parts folders and a colon a drive; the same manifest shall mean the same everywhere.
        if relative.is_absolute() or ".." in relative.parts or not file or set(str(relative)) & {"\\", ":"}:
            return Refusal(name, f"file {file!r} of map {word!r} does not lie inside the folder")
        if kind in maps:
            return Refusal(name, f"{maps[kind].name} and {relative.name} are the same map")
        maps[kind] = folder / relative
    kept = {key: value for key, value in record.items() if key not in TOLD}
    return Candidate(
        id=name,
        class_name=class_name,
        group=str(record.get("group") or name),
        license=str(record.get("licence") or record.get("license") or license),
        maps=maps,
        facts=kept,
    )


def _from_tree(folder: Path, license: str) -> Iterator[Candidate | Refusal]:
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        for entry in sorted(class_folder.iterdir()):
            name = f"{class_folder.name}/{entry.name}"
            if entry.is_dir():
                yield _map_set(entry, name, class_folder.name, license)
            elif entry.suffix.lower() in PICTURE_SUFFIXES:
                yield Candidate(name, class_folder.name, name, license, {MapKind.BASE_COLOR: entry})
            else:
                yield Refusal(name, f"not a picture: {', '.join(PICTURE_SUFFIXES)} are")
    for entry in sorted(path for path in folder.iterdir() if path.is_file()):
        yield Refusal(entry.name, "lies outside a class folder: move it to CLASS/")


def _map_set(folder: Path, name: str, class_name: str, license: str) -> Candidate | Refusal:
    maps: dict[MapKind, Path] = {}
    for file in sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES):
        stem = file.stem.lower().replace("-", "_")
        kind = (
            MAP_WORDS.get(stem) or MAP_WORDS.get("_".join(stem.split("_")[-2:])) or MAP_WORDS.get(stem.split("_")[-1])
        )
        if kind is None:
            return Refusal(name, f"cannot tell which map {file.name} is: end its name in _albedo, _normal, _height …")
        if kind in maps:
            return Refusal(name, f"{maps[kind].name} and {file.name} are the same map")
        maps[kind] = file
    if not maps:
        return Refusal(name, "holds no pictures")
    return Candidate(name, class_name, name, license, maps)
