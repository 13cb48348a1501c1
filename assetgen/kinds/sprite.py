"""Props as sprites: what a request means, before and after the graph; imports latents and postprocess, no runtime.

The graph makes one picture, premultiplied RGBA of the model's own size in [0, 1]. Parameters act by name, and a model
declares those it offers:

- ``class``, ``blend_class``, ``blend``: what to make; ``blend`` moves the class weights from the first to the second.
- ``truncation``: 0 is the typical prop of the class, 1 the full variety, in between less variety for fewer failures. A
  graph with an input of that role scales z itself; for any other, numbers of z beyond 2 x truncation are drawn anew
  (Brock et al. 2019).
- sliders: every input of role ``slider`` takes the parameter of its name; 0 changes nothing.
- ``palette``: number of colours, 2 or more; 0 leaves them as they are.
- ``alpha``, ``alpha_threshold``: ``soft``, or ``hard``: all or nothing from the threshold up.
- ``trim``, ``trim_margin``: cut to what is visible, with a margin in pixels of the model.
- ``pixel_size``: every pixel becomes a square of this edge, after all else.
- ``pivot``: the point of what is visible that counts as the sprite's place; trimming does not move it.
- ``sidecar``: ``on`` adds a JSON file with pivot, trim and original size.

A sheet of several sprites is no business of a kind, since asset i must not depend on the count: see ``sheet.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from assetgen import check as arrays
from assetgen import latents
from assetgen.errors import FieldInvalid, PackageInvalid
from assetgen.kinds.classes import NO_CLASS, asset_name, resolve_drawn
from assetgen.kinds.declared import Numbers, check_declared
from assetgen.manifest import Manifest
from assetgen.package import VerifiedPackage
from assetgen.postprocess import atlas, encode, pixelart, profiles, sprites, xmp
from assetgen.postprocess.atlas import Frame
from assetgen.postprocess.sprites import PIVOTS, Box, Sprite
from assetgen.types import Artifact, ColorSpace, Encoding, FloatArray, MapKind, OutputSpec, PixelFormat, Request

ROLE, SIDECAR_ROLE = "sprite", "sidecar"
CHANNELS = 4
INPUT_ROLES = frozenset({"latent", "class_weights", "truncation", "slider"})
WIDEST_BOUND = 2.0
REDRAWS = 64
LARGEST_PX = 4096
OFF, ON = "off", "on"
SOFT, HARD = "soft", "hard"
_NUMBERS: Numbers = {
    "blend": ("float", 0, 1),
    "truncation": ("float", 0, 1),
    "palette": ("int", 0, pixelart.MAX_COLORS),
    "alpha_threshold": ("float", 0, 1),
    "trim_margin": ("int", 0, 64),
    "pixel_size": ("int", 1, 8),
}
_CHOICES = {"alpha": {SOFT, HARD}, "trim": {OFF, ON}, "pivot": set(PIVOTS), "sidecar": {OFF, ON}}
_FILE_NAMES = {"unreal": "T_{name}"}


@dataclass(frozen=True)
class Plan:
    """A checked request.

    Attributes:
        width_px, height_px: of the graph's picture; files may be smaller or larger.
        class_weights: one number a class, adding up to 1.
        sliders: value by name of the input.
        palette: number of colours; 0 for all.
        alpha_threshold: of hard alpha; ``None`` for soft.
        trim_margin_px: ``None`` leaves the picture whole.
    """

    seed: int
    first_index: int
    count: int
    width_px: int
    height_px: int
    class_weights: tuple[float, ...]
    truncation: float
    sliders: Mapping[str, float]
    palette: int
    alpha_threshold: float | None
    trim_margin_px: int | None
    pixel_size: int
    pivot: str
    sidecar: bool
    class_name: str
    output: OutputSpec


def check(package: VerifiedPackage) -> None:
    """Raise PackageInvalid if the model declares what would not act, or what this version cannot do."""
    manifest, where = package.manifest, package.folder
    made = [(output.map_kind, output.channels) for output in manifest.outputs]
    if made != [(ROLE, CHANNELS)]:
        raise PackageInvalid(f"{where}: a sprite model has one output, {ROLE!r} of {CHANNELS} channels, not {made}")
    if strange := {spec.role for spec in manifest.inputs} - INPUT_ROLES:
        raise PackageInvalid(f"{where}: a sprite model takes no input of role {min(strange)!r}")
    names = {known.name for known in manifest.classes}
    choices = _CHOICES | {"class": names, "blend_class": names | {NO_CLASS}}
    check_declared(package, "sprite model", choices, _NUMBERS)
    largest_px = manifest.size.max_px * max(
        [1, *(int(s.maximum) for s in manifest.parameters if s.name == "pixel_size")]
    )
    if largest_px > LARGEST_PX:
        raise PackageInvalid(f"{where}: pixel_size would make sprites of {largest_px} px; {LARGEST_PX} are allowed")


def made_maps(_manifest: Manifest) -> tuple[MapKind, ...]:
    """None: a sprite is no map of a material."""
    return ()


def resolve(manifest: Manifest, request: Request) -> Plan:
    """Check the request against the model, and fill in what it leaves open; raises FieldInvalid."""
    fields, values = resolve_drawn(manifest, request)
    _check_palette(values.get("palette", 0))
    _check_output(request.output)
    return Plan(
        **fields,
        palette=values.get("palette", 0),
        alpha_threshold=values.get("alpha_threshold", 0.5) if values.get("alpha", SOFT) == HARD else None,
        trim_margin_px=values.get("trim_margin", 0) if values.get("trim", OFF) == ON else None,
        pixel_size=values.get("pixel_size", 1),
        pivot=values.get("pivot", "center"),
        sidecar=values.get("sidecar", OFF) == ON,
    )


def prepare(manifest: Manifest, plan: Plan, index: int) -> dict[str, FloatArray]:
    """Make the graph's inputs for asset ``index``: name to array, batch dimension 1."""
    rng = latents.generator(plan.seed, index)
    z = latents.latent(rng, manifest.latent_dimension)
    if not any(spec.role == "truncation" for spec in manifest.inputs):
        z = _truncated(rng, z, plan.truncation)
    values: dict[str, FloatArray] = {
        "latent": z[None],
        "class_weights": np.array([plan.class_weights], dtype=np.float32),
        "truncation": np.array([[plan.truncation]], dtype=np.float32),
    }
    inputs = {spec.name: values[spec.role] for spec in manifest.inputs if spec.role in values}
    return inputs | {name: np.array([[value]], dtype=np.float32) for name, value in plan.sliders.items()}


def finish(manifest: Manifest, plan: Plan, index: int, outputs: Mapping[str, FloatArray]) -> Iterator[Artifact]:
    """Turn the graph's output (``[1, 4, h, w]`` in [0, 1], premultiplied) for asset ``index`` into files.

    Raises:
        ValueError: the output is not finite, or not what the manifest says.
    """
    spec = manifest.outputs[0]
    arrays.shape(outputs[spec.name], f"1 {CHANNELS} {plan.height_px} {plan.width_px}", spec.name)
    sprite, source, pivot_px = _finished(plan, outputs[spec.name][0].transpose(1, 2, 0))
    height_px, width_px = sprite.shape[:2]
    facts = {"model": manifest.id, "version": manifest.version, "seed": str(plan.seed), "index": str(index)}
    encoding = plan.output.encoding
    stem = _FILE_NAMES.get(plan.output.profile, "{name}").format(
        name=asset_name(plan.output.name, plan.class_name, plan.seed, index)
    )
    name = f"{stem}.{encoding.value}"
    metadata = xmp.xmp_packet(facts) if encoding is Encoding.PNG else b""
    data = encode.encode(sprite, PixelFormat.RGBA8, encoding, color_space=ColorSpace.SRGB, metadata=metadata)
    yield Artifact(
        index=index,
        role=ROLE,
        name=name,
        media_type=encode.media_type(encoding),
        pixel_format=PixelFormat.RGBA8,
        color_space=ColorSpace.SRGB,
        width_px=width_px,
        height_px=height_px,
        data=data,
    )
    if plan.sidecar:
        whole_px = plan.width_px * plan.pixel_size, plan.height_px * plan.pixel_size
        frame = Frame(name, Box(0, 0, width_px, height_px), source, *whole_px, pivot_px)
        yield _sidecar(index, f"{stem}.json", atlas.describe([frame], name, width_px, height_px, facts))


def _finished(plan: Plan, values: FloatArray) -> tuple[Sprite, Box, tuple[float, float]]:
    """The sprite, which part of the whole picture it shows, and its pivot in that picture, in pixels of the file."""
    sprite = sprites.unpremultiply(values)
    if plan.alpha_threshold is not None:
        sprite = sprites.harden(sprite, plan.alpha_threshold)
    if plan.palette:
        sprite = sprites.reduce_colors(sprite, plan.palette)
    sprite = sprites.bleed(sprite)
    seen = sprites.opaque_box(sprite)
    box, factor = Box(0, 0, plan.width_px, plan.height_px), plan.pixel_size
    if plan.trim_margin_px is not None:
        box = sprites.widen(seen, plan.trim_margin_px, plan.width_px, plan.height_px)
    x_px, y_px = sprites.pivot_of(seen, plan.pivot)
    source = Box(box.left_px * factor, box.top_px * factor, box.width_px * factor, box.height_px * factor)
    return sprites.enlarge(sprites.cut(sprite, box), factor), source, (x_px * factor, y_px * factor)


def _sidecar(index: int, name: str, description: Mapping[str, Any]) -> Artifact:
    data = json.dumps(description, indent=2, sort_keys=True).encode() + b"\n"
    return Artifact(
        index=index,
        role=SIDECAR_ROLE,
        name=name,
        media_type="application/json",
        pixel_format=None,
        color_space=None,
        width_px=0,
        height_px=0,
        data=data,
    )


def _truncated(rng: np.random.Generator, z: FloatArray, truncation: float) -> FloatArray:
    """``z`` with every number beyond 2 x ``truncation`` drawn anew, so often that next to none is left to be clipped.

    Each number takes the first of its draws that lies within, so a smaller truncation changes those beyond it only.
    """
    bound = np.float32(WIDEST_BOUND * truncation)
    for _ in range(REDRAWS):
        outside = np.abs(z) > bound
        if not outside.any():
            break
        z = np.where(outside, latents.latent(rng, len(z)), z)
    return z.clip(-bound, bound)


def _check_palette(colors: int) -> None:
    if colors == 1:
        raise FieldInvalid(
            f"parameters[palette]: 1 is not allowed; use 0 for all colours, or 2 to {pixelart.MAX_COLORS}",
            field="parameters[palette]",
            metadata={"value": "1", "parameter": "palette"},
        )


def _check_output(output: OutputSpec) -> None:
    """Refuse what has no meaning for sprites, rather than ignore it."""
    profiles.find_profile(output.profile)
    if output.maps:
        raise FieldInvalid(
            f"output.maps: got {', '.join(output.maps)}, but a sprite has no maps",
            hint="leave the maps empty",
            field="output.maps",
            metadata={"given": ",".join(output.maps)},
        )
    if output.normal_convention is not None:
        raise FieldInvalid(
            f"output.normal_convention: got {output.normal_convention}, but a sprite has no normals",
            hint="leave it unspecified",
            field="output.normal_convention",
            metadata={"given": output.normal_convention.value},
        )
