"""The manifest of a model package: what it says, and which values are allowed; standard library only.

A package is a folder. ``manifest.json`` lists every other file with its size and SHA-256; the SHA-256 of the bytes of
``manifest.json`` is the model's identity, its digest. A plug-in, an auditor or a build can verify a package without
numpy; ``package.py`` does the reading and writing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

SCHEMA = 1
MANIFEST_NAME = "manifest.json"
MAX_FILES = 32
MAX_FILE_BYTES = 512 << 20
MAX_EDGE_PX = 16384
MAX_CHANNELS = 4096

# Windows opens a device instead of a file under these names, whatever the suffix.
DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"] + [f"{port}{n}" for port in ("com", "lpt") for n in range(10)]
)
MODEL_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
VERSION = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){2}(?:[-+][0-9A-Za-z.+-]{1,64})?")
SNAKE_NAME = re.compile(r"[a-z](?:[a-z0-9_]{0,62}[a-z0-9])?")
TENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")
FILE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.+-]{0,62}[A-Za-z0-9])?")
SHA256_HEX = re.compile(r"[0-9a-f]{64}")

InputRole: TypeAlias = Literal[
    "latent", "class_weights", "truncation", "grid", "layout", "noise", "second_latent", "mix", "slider", "image"
]
SPATIAL_ROLES = frozenset({"grid", "layout", "noise", "image"})
MANY_ROLES = frozenset({"layout", "noise", "slider"})
IMAGE_KINDS = frozenset({"style"})  # kinds of model whose graph takes a picture
IMAGE_CHANNELS = 3
PRECISIONS = ("fp16", "bf16", "int8")
# Where a style can be mixed: in the layers at the resolution of the grid, and in all finer ones.
PARTS = ("coarse", "fine")
PATTERNS = ("plain", "stacked", "running", "scattered", "cells")
LAYOUT_CHANNELS = 8


@dataclass(frozen=True)
class InputSpec:
    """One input of the graph.

    Attributes:
        role: what the host feeds: ``latent`` z [n, dimension]; ``class_weights`` [n, classes] adding up to 1;
            ``truncation`` [n, 1]; ``grid`` noise [n, channels, h, w]; ``layout`` [n, 8, h, w], one resolution of a
            ``layouts.pyramid``; ``noise`` [n, 1, h, w]; and in some models ``second_latent``, another z [n, dimension],
            with ``mix`` [n, 2], how far each of ``PARTS`` goes over to its style, 0 to 1; ``slider`` [n, 1], the
            parameter of the input's name, where 0 changes nothing; in kinds of ``IMAGE_KINDS`` alone ``image``, a
            picture [n, 3, h, w] in [0, 1], sRGB-coded.
        shape: numbers, or names for free dimensions (``n``, ``h``, ``w``).
        stride_px: for grid, layout, noise and image, output pixels per cell; 0 otherwise.
    """

    name: str
    role: InputRole
    shape: tuple[int | str, ...]
    stride_px: int = 0


@dataclass(frozen=True)
class OutputMap:
    """One output of the graph: ``[n, channels, h, w] float32`` in [0, 1]; base colour sRGB-coded.

    Attributes:
        map_kind: a ``MapKind`` value; the maps not listed are derived from height.
    """

    name: str
    map_kind: str
    channels: int


@dataclass(frozen=True)
class LayoutSpec:
    """Which layouts suit a class; see ``layouts.draw_layout``.

    Attributes:
        shares: how often each of ``PATTERNS`` comes up.
        pitch: smallest and largest height of a row, in texels of the finest layout input.
        aspect: smallest and largest width of a cell by its height.
        jitter: smallest and largest straying of the joints, as a share of a cell.
        turned: share of layouts whose rows run down.
    """

    shares: tuple[float, float, float, float, float] = (4.0, 1.0, 1.0, 1.0, 1.0)
    pitch: tuple[float, float] = (4.0, 32.0)
    aspect: tuple[float, float] = (1.0, 3.0)
    jitter: tuple[float, float] = (0.0, 0.4)
    turned: float = 0.5


@dataclass(frozen=True)
class SizeSpec:
    """Sizes the model makes: edges are multiples of ``stride_px`` from ``min_px`` to ``max_px``.

    Attributes:
        window_px: longer edges are computed in windows of at most this, margins counted; 0 computes every size at once.
        halo_px: margin of a window: how far an output pixel can see.
    """

    stride_px: int
    min_px: int
    max_px: int
    default_px: int
    window_px: int = 0
    halo_px: int = 0


@dataclass(frozen=True)
class ParameterSpec:
    """One request parameter, described well enough to draw a form field.

    Attributes:
        type: ``float`` and ``int`` use minimum, maximum and default; ``choice`` uses values and default; ``image`` uses
            media_types.
    """

    name: str
    label: str
    description: str
    type: Literal["float", "int", "choice", "image"]
    group: str = ""
    required: bool = False
    minimum: float = 0.0
    maximum: float = 0.0
    default: float | int | str | None = None
    values: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassSpec:
    """One class the model knows.

    Attributes:
        relief_px: height range of a typical material of the class as a share of a 512 px tile's edge, times 512: the
            strength with which normals and occlusion are derived from height.
        metal: whether metallic is meaningful; where it is not, it is 0 by construction.
        layout: patterns of cells that suit the class.
    """

    name: str
    label: str
    relief_px: float = 8.0
    metal: bool = False
    layout: LayoutSpec = LayoutSpec()


@dataclass(frozen=True)
class FileEntry:
    """One file of the package beside the manifest; ``path`` is a plain file name, no folders."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class PrecisionSpec:
    """A smaller precision that the model was measured in, against its fp32 graph.

    Attributes:
        graph: file name of the graph in that precision; empty where a runtime rounds the fp32 graph by itself.
        least_psnr_db: by output, below which a runtime does not compute this model.
        most_normal_degrees: mean angle between normals derived from height, at most; 0 where none are derived.
    """

    graph: str
    least_psnr_db: Mapping[str, float]
    most_normal_degrees: float = 0.0


@dataclass(frozen=True)
class Manifest:
    """Everything a server must know of a model before it loads the graph.

    Attributes:
        graph: file name of the fp32 ONNX graph.
        license: SPDX expression of the weights' licence.
        provenance: data sets with licences and authors, training commit, recipe digest, seed, metrics.
        tolerance: largest difference allowed between backends, per precision and output.
        precisions: what else than fp32 it may be computed in, by name of ``PRECISIONS``.
    """

    schema: int
    id: str
    version: str
    kind: str
    display_name: str
    description: str
    license: str
    graph: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputMap, ...]
    latent_dimension: int
    classes: tuple[ClassSpec, ...]
    parameters: tuple[ParameterSpec, ...]
    size: SizeSpec
    files: tuple[FileEntry, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tolerance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    precisions: Mapping[str, PrecisionSpec] = field(default_factory=dict)

    @property
    def graphs(self) -> dict[str, str]:
        """File names of the graphs by precision, that in fp32 first."""
        return {"fp32": self.graph} | {name: spec.graph for name, spec in self.precisions.items() if spec.graph}


def is_model_id(text: str) -> bool:
    """Tell whether a text may be a model id: ``[a-z0-9-]``, 1 to 63 characters, no Windows device name."""
    return MODEL_ID.fullmatch(text) is not None and text not in DEVICE_NAMES


def is_file_name(text: str) -> bool:
    """Tell whether a text is a plain file name everywhere: no folder, no ``..``, no Windows device name."""
    return FILE_NAME.fullmatch(text) is not None and text.split(".", maxsplit=1)[0].lower() not in DEVICE_NAMES


def _rule(holds: bool, where: str, what: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{where}: got {what!r:.80}, allowed is {allowed}")


def _unique(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        _rule(name.casefold() not in seen, where, name, "each name once, whatever its case")
        seen.add(name.casefold())


def check_manifest(m: Manifest) -> None:
    """Raise ValueError, naming field and rule, unless a manifest agrees with itself and with this version's limits."""
    _rule(m.schema == SCHEMA, "schema", m.schema, str(SCHEMA))
    _rule(is_model_id(m.id), "id", m.id, "[a-z0-9-], 1 to 63 characters, no Windows device name")
    _rule(VERSION.fullmatch(m.version) is not None, "version", m.version, "a semantic version such as 1.0.0")
    _rule(SNAKE_NAME.fullmatch(m.kind) is not None, "kind", m.kind, "a lower_snake_case name")
    _rule(0 < len(m.display_name) <= 100, "display_name", m.display_name, "1 to 100 characters")
    _rule(len(m.description) <= 1000, "description", m.description, "at most 1000 characters")
    _rule(0 < len(m.license) <= 200, "license", m.license, "an SPDX expression")
    _check_size(m.size)
    _check_tensors(m)
    _unique((c.name for c in m.classes), "classes")
    for c in m.classes:
        _rule(SNAKE_NAME.fullmatch(c.name) is not None, "classes.name", c.name, "a lower_snake_case name")
        _rule(0 < c.relief_px <= 512, f"classes[{c.name}].relief_px", c.relief_px, "above 0, at most 512")
        check_layout(c.layout, f"classes[{c.name}].layout")
    _unique((p.name for p in m.parameters), "parameters")
    for p in m.parameters:
        _check_parameter(p)
    _check_files(m)


def _check_size(size: SizeSpec) -> None:
    _rule(1 <= size.stride_px <= 1024, "size.stride_px", size.stride_px, "1 to 1024")
    for name in ("min_px", "default_px", "max_px"):
        edge_px = getattr(size, name)
        fits = size.stride_px <= edge_px <= MAX_EDGE_PX and edge_px % size.stride_px == 0
        _rule(fits, f"size.{name}", edge_px, f"a multiple of stride_px {size.stride_px}, at most {MAX_EDGE_PX}")
    _rule(size.min_px <= size.default_px <= size.max_px, "size.default_px", size.default_px, "min_px to max_px")
    for name in ("window_px", "halo_px"):
        edge_px = getattr(size, name)
        fits = 0 <= edge_px <= MAX_EDGE_PX and edge_px % size.stride_px == 0
        _rule(fits, f"size.{name}", edge_px, f"0, or a multiple of stride_px {size.stride_px}, at most {MAX_EDGE_PX}")
    fits = not size.window_px or 0 < 2 * size.halo_px <= size.window_px // 2
    _rule(fits, "size.halo_px", size.halo_px, "more than 0 and at most a quarter of window_px")


def _check_tensors(m: Manifest) -> None:
    least = int(any(i.role in ("latent", "second_latent") for i in m.inputs))
    fits = least <= m.latent_dimension <= MAX_CHANNELS
    _rule(fits, "latent_dimension", m.latent_dimension, f"{least} to {MAX_CHANNELS}")
    channels = {
        "latent": m.latent_dimension,
        "class_weights": len(m.classes),
        "truncation": 1,
        "layout": LAYOUT_CHANNELS,
        "noise": 1,
        "second_latent": m.latent_dimension,
        "mix": len(PARTS),
        "slider": 1,
        "image": IMAGE_CHANNELS,
    }
    _unique([i.name for i in m.inputs] + [o.name for o in m.outputs], "inputs and outputs")
    for i in m.inputs:
        where = f"inputs[{i.name}]"
        _rule(TENSOR_NAME.fullmatch(i.name) is not None, "inputs.name", i.name, "letters, digits, '_' and '.'")
        spatial = i.role in SPATIAL_ROLES
        wanted_channels = channels.get(i.role, i.shape[1] if len(i.shape) > 1 else 0)
        fits = len(i.shape) == (4 if spatial else 2) and i.shape[1] == wanted_channels
        fits = fits and isinstance(i.shape[1], int) and 0 < i.shape[1] <= MAX_CHANNELS
        fits = fits and all(isinstance(d, str) and SNAKE_NAME.fullmatch(d) for d in (i.shape[0], *i.shape[2:]))
        wanted = f"[n, {wanted_channels}{', h, w' if spatial else ''}] with names for n, h, w"
        _rule(fits, f"{where}.shape", i.shape, wanted)
        closed = i.stride_px > 0 and m.size.stride_px % i.stride_px == 0 if spatial else i.stride_px == 0
        _rule(closed, f"{where}.stride_px", i.stride_px, "a divisor of size.stride_px if it is spatial, else 0")
    counts = Counter(i.role for i in m.inputs)
    for role, count in counts.items():
        fits = count <= 1 or role in MANY_ROLES
        _rule(
            fits, "inputs", f"{count} of role {role}", f"at most one of each role but {', '.join(sorted(MANY_ROLES))}"
        )
    takes = m.kind in IMAGE_KINDS
    _rule(counts["image"] == takes, "inputs", f"{counts['image']} of role image", f"{int(takes)} in kind {m.kind!r}")
    together = counts["mix"] == counts["second_latent"]
    _rule(together, "inputs", "one of the roles mix and second_latent", "both or neither")
    _rule(bool(m.outputs), "outputs", m.outputs, "at least one")
    _unique((o.map_kind for o in m.outputs), "outputs.map_kind")
    for o in m.outputs:
        _rule(TENSOR_NAME.fullmatch(o.name) is not None, "outputs.name", o.name, "letters, digits, '_' and '.'")
        _rule(SNAKE_NAME.fullmatch(o.map_kind) is not None, "outputs.map_kind", o.map_kind, "a lower_snake_case name")
        _rule(1 <= o.channels <= 4, f"outputs[{o.name}].channels", o.channels, "1 to 4")
    for precision, limits in m.tolerance.items():
        for name, limit in limits.items():
            _rule(limit >= 0, f"tolerance[{precision}][{name}]", limit, "0 or more")
    names = {o.name for o in m.outputs}
    for precision, spec in m.precisions.items():
        where = f"precisions[{precision}]"
        _rule(precision in PRECISIONS, "precisions", precision, f"one of {', '.join(PRECISIONS)}")
        _rule(set(spec.least_psnr_db) == names, f"{where}.least_psnr_db", [*spec.least_psnr_db], "every output")
        for name, limit in spec.least_psnr_db.items():
            _rule(0 < limit <= 200, f"{where}.least_psnr_db[{name}]", limit, "above 0, at most 200")
        degrees = spec.most_normal_degrees
        _rule(0 <= degrees <= 90, f"{where}.most_normal_degrees", degrees, "0 to 90")


def check_layout(layout: LayoutSpec, where: str) -> None:
    """Raise ValueError, naming field and rule, unless layouts can be drawn from ``layout``."""
    shares = layout.shares
    _rule(min(shares) >= 0 and 0 < sum(shares) < math.inf, f"{where}.shares", shares, "0 or more, not all of them 0")
    for name, lowest, highest in (("pitch", 2.0, 1024.0), ("aspect", 0.1, 64.0), ("jitter", 0.0, 0.45)):
        low, high = getattr(layout, name)
        fits = lowest <= low <= high <= highest
        _rule(fits, f"{where}.{name}", (low, high), f"two rising numbers from {lowest:g} to {highest:g}")
    _rule(0 <= layout.turned <= 1, f"{where}.turned", layout.turned, "0 to 1")


def _check_parameter(p: ParameterSpec) -> None:
    where = f"parameters[{p.name}]"
    _rule(SNAKE_NAME.fullmatch(p.name) is not None, "parameters.name", p.name, "a lower_snake_case name")
    if p.type in ("float", "int"):
        kinds = (int,) if p.type == "int" else (int, float)
        fits = isinstance(p.default, kinds) and p.minimum <= p.default <= p.maximum
        _rule(fits, f"{where}.default", p.default, f"a number ({p.type}) from minimum {p.minimum} to {p.maximum}")
        whole = p.type == "float" or (math.floor(p.minimum) == p.minimum and math.floor(p.maximum) == p.maximum)
        _rule(whole, f"{where}.minimum", p.minimum, "whole numbers for an int")
    elif p.type == "choice":
        _unique(p.values, f"{where}.values")
        _rule(p.default in p.values, f"{where}.default", p.default, f"one of {list(p.values)}")
    else:
        _rule(bool(p.media_types), f"{where}.media_types", p.media_types, "at least one")


def _check_files(m: Manifest) -> None:
    _rule(len(m.files) <= MAX_FILES, "files", len(m.files), f"at most {MAX_FILES}")
    _unique((f.path for f in m.files), "files")
    for f in m.files:
        _rule(is_file_name(f.path), "files.path", f.path, "a plain file name: no folder, no '..', no device name")
        _rule(f.path.casefold() != MANIFEST_NAME, "files.path", f.path, "every file but the manifest")
        _rule(0 < f.size_bytes <= MAX_FILE_BYTES, f"files[{f.path}].size_bytes", f.size_bytes, f"1 to {MAX_FILE_BYTES}")
        _rule(SHA256_HEX.fullmatch(f.sha256) is not None, f"files[{f.path}].sha256", f.sha256, "64 lower hex digits")
    _unique(m.graphs.values(), "graph and precisions.graph")
    listed = {f.path for f in m.files if f.path.endswith(".onnx")}
    for precision, graph in m.graphs.items():
        where = "graph" if precision == "fp32" else f"precisions[{precision}].graph"
        _rule(graph in listed, where, graph, "the name of a listed .onnx file")
