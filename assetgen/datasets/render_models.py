"""A folder of GLB models to a folder of pictures that ``assetgen data pack`` takes; reads models by trimesh.

Two layouts are understood. With ``manifest.json`` at the top: ``{"items": [{"id", "class", "file", "group", "licence",
"author", ...}]}``. Without one: ``CLASS/model.glb``. Colours are those of vertices (``COLOR_0``, sRGB); a model without
any is left out, since grey would teach a network that things are grey.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assetgen import latents
from assetgen.datasets.ingest import Candidate, Refusal, candidates
from assetgen.datasets.render import draw_view, render
from assetgen.errors import ConfigInvalid, DataInvalid, OutputUnwritable, RuntimeMissing
from assetgen.types import FloatArray, MapKind

MODEL_SUFFIX = ".glb"
EDGES_PX = (16, 1024)
MAX_VIEWS = 64

Notify = Callable[[int, str], None]


@dataclass(frozen=True)
class Views:
    """How every model is looked at.

    Attributes:
        edge_px: of the pictures.
        count: pictures of a model.
        arc: degrees round the model that the views are spread over; 360 is all round. Below 360 all models are seen
            from about the same side, which is what the sprites of one game are, and easier to learn.
    """

    edge_px: int = 128
    count: int = 8
    arc: float = 360.0

    def __post_init__(self) -> None:
        low, high = EDGES_PX
        if not low <= self.edge_px <= high:
            raise ConfigInvalid(f"--edge {self.edge_px} is not allowed; use {low} to {high}")
        if not 1 <= self.count <= MAX_VIEWS:
            raise ConfigInvalid(f"--views {self.count} is not allowed; use 1 to {MAX_VIEWS}")
        if not 0 <= self.arc <= 360:
            raise ConfigInvalid(f"--arc {self.arc} is not allowed; use 0 to 360 degrees")


@dataclass(frozen=True)
class RenderReport:
    """What ``render_folder`` did.

    Attributes:
        classes: models drawn by class; refused: what was left out and why.
    """

    pictures: int
    classes: Mapping[str, int]
    refused: tuple[Refusal, ...]


def render_folder(
    folder: Path,
    output: Path,
    views: Views,
    *,
    classes: Sequence[str] = (),
    license: str = "",
    notify: Notify = lambda _done, _name: None,
) -> RenderReport:
    """Draw the models of ``folder`` into ``output``: ``CLASS/ID-VIEW.png`` with straight alpha, and ``manifest.json``.

    Views and lights depend on the model's name alone: the same folder gives the same pictures, and adding models
    changes no other.

    Args:
        classes: draw these only; empty draws all.
        license: SPDX expression for models that name none.
        notify: called with the number of models looked at and the name of the last.

    Raises:
        ConfigInvalid: a class that the folder does not hold.
        DataInvalid: nothing usable was found, or the folder cannot be read.
        OutputUnwritable: ``output`` cannot be written, or holds something already.
    """
    found = list(models_in(folder, license))
    known = {entry.class_name for entry in found if isinstance(entry, Candidate)}
    if strange := sorted(set(classes) - known):
        raise ConfigInvalid(
            f"class {', '.join(strange)} is not in {folder}", hint=f"it holds {', '.join(sorted(known))}"
        )
    refused: list[Refusal] = []
    items: list[dict[str, Any]] = []
    drawn: Counter[str] = Counter()
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()):
            raise OutputUnwritable(f"{output} is not empty", hint="name a new folder")
        for number, entry in enumerate(found):
            notify(number + 1, entry.id)
            if isinstance(entry, Refusal):
                refused.append(entry)
            elif not classes or entry.class_name in classes:
                made = _draw(entry, output, views)
                if isinstance(made, Refusal):
                    refused.append(made)
                else:
                    items.extend(made)
                    drawn[entry.class_name] += 1
        if not items:
            raise DataInvalid(
                f"{folder} holds no model that can be drawn: {len(refused)} refused",
                hint=f"first reason: {refused[0].id}: {refused[0].reason}" if refused else "the folder is empty",
            )
        manifest = {"name": f"{folder.name}-renders", "alpha": "straight", "items": items}
        (output / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise OutputUnwritable(
            f"{error.filename or output} cannot be written: {error.strerror}", hint="check space and rights"
        ) from error
    return RenderReport(len(items), dict(drawn.most_common()), tuple(refused))


def models_in(folder: Path, license: str) -> Iterator[Candidate | Refusal]:
    """List the models of ``folder``, each as the base colour of a candidate; raises DataInvalid if there is none."""
    if not folder.is_dir() or (folder / "manifest.json").exists():
        yield from candidates(folder, license)
        return
    for path in sorted(folder.glob(f"*/*{MODEL_SUFFIX}")):
        name = f"{path.parent.name}/{path.stem}"
        yield Candidate(name, path.parent.name, name, license, {MapKind.BASE_COLOR: path})


def _draw(model: Candidate, output: Path, views: Views) -> list[dict[str, Any]] | Refusal:
    """Write the pictures of one model; returns their records for the manifest."""
    path = model.maps.get(MapKind.BASE_COLOR)
    if path is None or path.suffix.lower() != MODEL_SUFFIX:
        return Refusal(model.id, f"no model: {MODEL_SUFFIX} files are")
    if model.facts.get("has_colour") is False:
        return Refusal(model.id, "has no colours of its own (has_colour)")
    mesh = read_mesh(path)
    if isinstance(mesh, str):
        return Refusal(model.id, mesh)
    digest = hashlib.sha256(model.id.encode()).digest()
    rng = latents.generator(int.from_bytes(digest[:4], "big"), 0)
    (output / model.class_name).mkdir(exist_ok=True)
    stem = model.id.replace("/", "_")
    records = []
    for number in range(views.count):
        view = draw_view(rng, number, views.count, views.arc)
        picture = render(*mesh, view, views.edge_px)
        file = f"{model.class_name}/{stem}-{number:02d}.png"
        Image.fromarray(picture, "RGBA").save(output / file, format="PNG")
        records.append(
            {
                **{key: value for key, value in model.facts.items() if key not in ("bytes", "vertices")},
                "id": f"{stem}-{number:02d}",
                "class": model.class_name,
                "group": model.group,
                "licence": model.license,
                "file": file,
                "view": {name: round(value, 2) for name, value in vars(view).items()},
            }
        )
    return records


def read_mesh(path: Path) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.uint8]] | str:
    """Vertices ``[v, 3]``, faces ``[f, 3]`` and their sRGB colours ``[f, 3]`` of a GLB file; or why it cannot be used.

    Raises:
        RuntimeMissing: trimesh is not installed.
    """
    try:
        import trimesh
    except ImportError as error:
        raise RuntimeMissing("reading models needs trimesh", hint="pip install 'assetgen[props]'") from error
    try:
        mesh = trimesh.load_mesh(path, process=False)
        if not len(mesh.faces):
            return "holds no triangles"
        visual: Any = mesh.visual
        if visual.kind != "vertex":
            return "has no colours of vertices (COLOR_0)"
        colors = np.asarray(visual.face_colors)[:, :3]
    except Exception as error:  # noqa: BLE001 - a file from anywhere, and trimesh raises what its parts raise
        return f"cannot be read: {error}"
    return np.asarray(mesh.vertices, dtype=np.float32), np.asarray(mesh.faces, dtype=np.int64), colors
