"""One training file of coloured distance grids from a folder of GLB models, and reading it back; numpy, trimesh.

The folder is laid out as for ``assetgen data render``. The file is a ZIP: ``volumes.json`` keeps class, group, split,
licence, author and source of every item, and what was refused and why; each grid is a member of its raw bytes.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assetgen.datasets.archive import opened, read_items, read_member
from assetgen.datasets.ingest import Candidate, Refusal
from assetgen.datasets.pack import Notify, PackReport, report_of, split_of, training_file, write_member
from assetgen.datasets.render_models import models_in, read_mesh
from assetgen.datasets.voxelize import THICKNESS, TRUNCATION, voxelize
from assetgen.errors import ConfigInvalid, DataInvalid
from assetgen.manifest import SNAKE_NAME
from assetgen.types import MapKind

SCHEMA = 1
INDEX = "volumes.json"
CHANNELS = 4
EDGES = (16, 128)
HINT = "make it with: assetgen data voxelize FOLDER -o volumes.zip"


@dataclass(frozen=True)
class VolumeItem:
    """One item in memory; ``grid`` is ``[4, edge, edge, edge] uint8``, see ``voxelize``."""

    id: str
    class_name: str
    group: str
    split: str
    license: str
    author: str
    grid: NDArray[np.uint8]


def pack_volumes(
    folder: Path,
    output: Path,
    edge: int,
    *,
    classes: Sequence[str] = (),
    license: str = "",
    validation_share: float = 0.1,
    notify: Notify = lambda _done, _name: None,
) -> PackReport:
    """Write the grids of the models of ``folder`` into the training file ``output``.

    The same folder gives the same bytes; items of one group fall on the same side of the split.

    Args:
        edge: cells along each axis, 16 to 128.
        classes: take these only; empty takes all.
        license: SPDX expression for models that name none.
        validation_share: share of groups kept for validation, 0 to 0.5.
        notify: called with the number of models looked at and the name of the last.

    Raises:
        ConfigInvalid: an edge or a share that is not allowed, or a class that the folder does not hold.
        DataInvalid: nothing usable was found, or the folder cannot be read.
        OutputUnwritable: ``output`` cannot be written.
    """
    if not EDGES[0] <= edge <= EDGES[1]:
        raise ConfigInvalid(f"--edge {edge} is not allowed; use {EDGES[0]} to {EDGES[1]} cells")
    if not 0.0 <= validation_share <= 0.5:
        raise ConfigInvalid(f"validation share {validation_share} is not allowed; use 0 to 0.5")
    found = _chosen(folder, classes, license)
    records: list[dict[str, Any]] = []
    refused: list[Refusal] = []
    with training_file(output) as (archive, _):
        for number, entry in enumerate(found):
            notify(number + 1, entry.id)
            made = _store(archive, entry, len(records), edge, validation_share)
            if isinstance(made, Refusal):
                refused.append(made)
            else:
                records.append(made)
        if not records:
            raise DataInvalid(
                f"{folder} holds no usable model: {len(refused)} refused",
                hint=f"first reason: {refused[0].id}: {refused[0].reason}" if refused else "the folder is empty",
            )
        index = {
            "schema": SCHEMA,
            "edge": edge,
            "truncation_cells": TRUNCATION,
            "thickness_cells": THICKNESS,
            "items": records,
            "refused": [{"id": entry.id, "reason": entry.reason} for entry in refused],
        }
        text = json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False)
        write_member(archive, INDEX, text.encode(), zipfile.ZIP_DEFLATED)
    return report_of(output, records, refused)


def load_volumes(path: Path, classes: Sequence[str] = ()) -> list[VolumeItem]:
    """Read the grids of a training file back.

    Args:
        classes: keep these only; empty keeps all.

    Raises:
        DataInvalid: not such a file, damaged, or a class has no items.
    """
    with opened(path, "a file of volumes", HINT) as archive:
        index = read_items(archive, INDEX, SCHEMA, path, HINT)
        known = {record["class"] for record in index["items"]}
        if strange := [name for name in classes if name not in known]:
            raise DataInvalid(
                f"class {', '.join(strange)} is not in {path}", hint=f"it holds {', '.join(sorted(known))}"
            )
        edge = int(index["edge"])
        if not EDGES[0] <= edge <= EDGES[1]:
            raise ValueError(f"edge {edge}, {EDGES[0]} to {EDGES[1]} are allowed")
        return [_item(archive, record, edge) for record in index["items"] if not classes or record["class"] in classes]


def _chosen(folder: Path, classes: Sequence[str], license: str) -> list[Candidate | Refusal]:
    found = list(models_in(folder, license))
    known = {entry.class_name for entry in found if isinstance(entry, Candidate)}
    if strange := sorted(set(classes) - known):
        raise ConfigInvalid(
            f"class {', '.join(strange)} is not in {folder}", hint=f"it holds {', '.join(sorted(known))}"
        )
    return [entry for entry in found if isinstance(entry, Refusal) or not classes or entry.class_name in classes]


def _store(
    archive: zipfile.ZipFile, entry: Candidate | Refusal, number: int, edge: int, validation_share: float
) -> dict[str, Any] | Refusal:
    if isinstance(entry, Refusal):
        return entry
    if not entry.license:
        return Refusal(entry.id, "no licence: name it in the manifest, or with --license")
    if SNAKE_NAME.fullmatch(entry.class_name) is None:
        return Refusal(entry.id, f"class {entry.class_name!r:.60} is not a name: use lower-case letters, digits, '_'")
    path = entry.maps.get(MapKind.BASE_COLOR)
    if path is None or path.suffix.lower() != ".glb":
        return Refusal(entry.id, "no model: .glb files are")
    if entry.facts.get("has_colour") is False:
        return Refusal(entry.id, "has no colours, says the manifest")
    mesh = read_mesh(path)
    if isinstance(mesh, str):
        return Refusal(entry.id, mesh)
    try:
        grid = voxelize(*mesh, edge)
    except DataInvalid as error:
        return Refusal(entry.id, str(error))
    name = f"{number:05d}.grid"
    write_member(archive, name, grid.tobytes(), zipfile.ZIP_DEFLATED)
    return {
        "id": entry.id,
        "class": entry.class_name,
        "group": entry.group,
        "split": split_of(entry.group, validation_share),
        "license": entry.license,
        "file": name,
        "facts": dict(entry.facts),
    }


def _item(archive: zipfile.ZipFile, record: Mapping[str, Any], edge: int) -> VolumeItem:
    data = read_member(archive, record["file"], CHANNELS * edge**3)
    return VolumeItem(
        id=record["id"],
        class_name=record["class"],
        group=record["group"],
        split=record["split"],
        license=record["license"],
        author=str(record["facts"].get("author", "")),
        grid=np.frombuffer(data, dtype=np.uint8).reshape(CHANNELS, edge, edge, edge),
    )
