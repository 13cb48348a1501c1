"""One training file from a folder: a ZIP of the original picture files with an index; imports ingest, tiles, types.

Pictures are stored byte for byte as they were, so nothing is lost and the file stays small. ``index.json`` keeps class,
group, split, licence, author and source of every item, and what was refused and why.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from assetgen.datasets.ingest import Candidate, Refusal, candidates
from assetgen.datasets.tiles import eight_bits
from assetgen.errors import DataInvalid, OutputUnwritable
from assetgen.manifest import SNAKE_NAME
from assetgen.types import MapKind

SCHEMA = 1
MAX_EDGE_PX = 8192
MIN_EDGE_PX = 16  # of block textures; stored as they are, and each training says what it makes of small ones

Notify = Callable[[int, str], None]


@dataclass(frozen=True)
class PackReport:
    """What a training file was made of.

    Attributes:
        items: items stored; classes: items per class; refused: what was left out and why.
        sha256: digest of the file, its identity in a model's provenance.
    """

    path: Path
    items: int
    validation: int
    classes: Mapping[str, int]
    licenses: Mapping[str, int]
    refused: tuple[Refusal, ...]
    size_bytes: int
    sha256: str


def pack(
    folder: Path,
    output: Path,
    *,
    license: str = "",
    allow_unlicensed: bool = False,
    validation_share: float = 0.1,
    notify: Notify = lambda _done, _name: None,
) -> PackReport:
    """Write the pictures of ``folder`` into the training file ``output``.

    The same folder gives the same bytes. Items of one group fall on the same side of the split, which depends on the
    group's name only: adding data moves nothing.

    Args:
        license: SPDX expression for items that name none.
        allow_unlicensed: take items without a licence; the model's provenance will say so.
        validation_share: share of groups kept for validation, 0 to 0.5.
        notify: called with the number of items looked at and the name of the last.

    Raises:
        DataInvalid: nothing usable was found, or the folder cannot be read.
        OutputUnwritable: ``output`` cannot be written.
    """
    if not 0.0 <= validation_share <= 0.5:
        raise DataInvalid(f"validation share {validation_share} is not allowed", hint="use 0 to 0.5")
    refused: list[Refusal] = []
    entries: list[dict[str, Any]] = []
    with training_file(output) as (archive, temporary):
        for number, candidate in enumerate(candidates(folder, license)):
            if folder / candidate.id in (output, temporary):  # packing into the folder itself
                continue
            notify(number + 1, candidate.id)
            result = candidate
            if isinstance(candidate, Candidate):
                result = _store(archive, candidate, len(entries), allow_unlicensed, validation_share)  # type: ignore[assignment]
            if isinstance(result, Refusal):
                refused.append(result)
            else:
                entries.append(result)  # type: ignore[arg-type]
        if not entries:
            raise DataInvalid(
                f"{folder} holds nothing usable: {len(refused)} refused",
                hint=f"first reason: {refused[0].id}: {refused[0].reason}" if refused else "the folder is empty",
            )
        index = {
            "schema": SCHEMA,
            "items": entries,
            "refused": [{"id": entry.id, "reason": entry.reason} for entry in refused],
        }
        write_member(archive, "index.json", json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False).encode())
    return report_of(output, entries, refused)


@contextlib.contextmanager
def training_file(output: Path) -> Iterator[tuple[zipfile.ZipFile, Path]]:
    """An archive that becomes ``output`` if the block ends well, and its path until then; raises OutputUnwritable."""
    temporary = output.with_name(output.name + ".partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w") as archive:
            yield archive, temporary
        temporary.replace(output)
    except OSError as error:
        raise OutputUnwritable(
            f"{output} cannot be written: {error.strerror}", hint="check space and rights"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_member(archive: zipfile.ZipFile, name: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Add a member; a fixed date and a fixed system keep the file reproducible."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    archive.writestr(entry, data, compression, 6)


def report_of(output: Path, entries: Sequence[Mapping[str, Any]], refused: Sequence[Refusal]) -> PackReport:
    """What a training file holds, by the records of its index."""
    data = output.read_bytes()
    return PackReport(
        path=output,
        items=len(entries),
        validation=sum(entry["split"] == "validation" for entry in entries),
        classes=dict(Counter(entry["class"] for entry in entries).most_common()),
        licenses=dict(Counter(entry["license"] or "none" for entry in entries).most_common()),
        refused=tuple(refused),
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def split_of(group: str, validation_share: float) -> str:
    """``train`` or ``validation``, from the group's name alone."""
    draw = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    return "validation" if draw < validation_share else "train"


def _store(
    archive: zipfile.ZipFile, candidate: Candidate, number: int, allow_unlicensed: bool, validation_share: float
) -> dict[str, Any] | Refusal:
    if not candidate.license and not allow_unlicensed:
        return Refusal(candidate.id, "no licence: name it in the manifest, or with --license, or --allow-unlicensed")
    if SNAKE_NAME.fullmatch(candidate.class_name) is None:
        name = candidate.class_name
        return Refusal(candidate.id, f"class {name!r:.60} is not a name: use lower-case letters, digits and '_'")
    if MapKind.BASE_COLOR not in candidate.maps:
        return Refusal(candidate.id, "has no base colour map")
    files: dict[str, dict[str, Any]] = {}
    payloads: dict[str, bytes] = {}
    contrast = 0.0
    for kind, path in candidate.maps.items():
        try:
            data = path.read_bytes()
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
                width_px, height_px = picture.size
                if max(picture.size) > MAX_EDGE_PX or min(picture.size) < MIN_EDGE_PX:
                    return Refusal(
                        candidate.id,
                        f"{path.name} is {width_px} x {height_px}: edges must be {MIN_EDGE_PX} to {MAX_EDGE_PX} px",
                    )
                grey = np.asarray(eight_bits(picture).convert("L"), dtype=np.float32)
                opaque = picture.convert("RGBA").getchannel("A").getbbox() is not None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return Refusal(candidate.id, f"{path.name} cannot be read: {error}")
        if not opaque:
            return Refusal(candidate.id, f"{path.name} is transparent everywhere: there is nothing to see")
        if kind is MapKind.BASE_COLOR:
            contrast = float(grey.std())
        name = f"{number:05d}/{kind.value}{path.suffix.lower()}"
        payloads[name] = data
        files[kind.value] = {"file": name, "width_px": width_px, "height_px": height_px}
    sizes = {(entry["width_px"], entry["height_px"]) for entry in files.values()}
    if len(sizes) > 1:
        return Refusal(candidate.id, f"its maps differ in size: {sorted(sizes)}")
    for name, data in payloads.items():
        write_member(archive, name, data)
    return {
        "id": candidate.id,
        "class": candidate.class_name,
        "group": candidate.group,
        "split": split_of(candidate.group, validation_share),
        "license": candidate.license,
        "contrast": round(contrast, 3),
        "maps": files,
        "facts": dict(candidate.facts),
    }
