"""Tileable materials: what a request means, before and after the graph; imports latents and postprocess, no runtime.

Parameters act by name, and a model declares those it offers:

- ``class``, ``blend_class``, ``blend``: what to make; ``blend`` moves the class weights from the first to the second.
- ``truncation``: 0 is the typical material of the class, 1 the full variety.
- ``relief``: multiplies the relief from which normal and ambient occlusion are derived.
- ``roughness_shift``: added to roughness, which is then clipped to [0, 1].
- ``pattern``: how cells such as bricks are laid, instead of a pattern of the class drawn at random.
- ``pattern_scale``: multiplies the size of the cells.
- ``variation_seed``: from 0 up it draws layout and noise from another seed; -1 means the request's own.
- ``mix_seed``, ``mix``, ``mix_part``: from 0 up another seed, whose style takes over by the amount ``mix``, in all of
  the network or in one of its ``PARTS``; -1 mixes nothing.
- sliders: every input of role ``slider`` takes the parameter of its name; 0 changes nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from assetgen import check as arrays
from assetgen import latents, layouts
from assetgen.errors import PackageInvalid
from assetgen.kinds.classes import NO_CLASS, asset_name, resolve_drawn
from assetgen.kinds.plan import (
    shown,
)
from assetgen.manifest import PARTS, PATTERNS, InputSpec, LayoutSpec, Manifest
from assetgen.package import VerifiedPackage
from assetgen.postprocess import encode, files, finishing, profiles, xmp
from assetgen.types import (
    Artifact,
    Encoding,
    FloatArray,
    MapKind,
    Material,
    NormalConvention,
    OutputSpec,
    Request,
)

ANY_PATTERN = "auto"
ALL_PARTS = "all"
# Of the last assets up to that size, what their seeds stand for is kept: 2 MB each.
KEPT_PX, DRAWS_KEPT = 512 * 512, 8
_TYPES = {
    "class": "choice",
    "blend_class": "choice",
    "blend": "float",
    "truncation": "float",
    "relief": "float",
    "roughness_shift": "float",
    "pattern": "choice",
    "pattern_scale": "float",
    "variation_seed": "int",
    "mix_seed": "int",
    "mix": "float",
    "mix_part": "choice",
}


@dataclass(frozen=True)
class Plan:
    """A checked request.

    Attributes:
        class_weights: one number a class, adding up to 1.
        layout_seed: seed of layout and noise.
        layout: the layouts to draw from: those of the class that weighs most.
        pattern, pattern_scale: see ``layouts.draw_layout``.
        mix_seed: seed of the second style; mix: how far each of ``PARTS`` goes over to it.
        sliders: value by name of the input.
        relief_px: height of the relief in pixels. The network makes every size at one texel density: a larger map shows
            more surface, not finer detail, so relief in pixels is the same at every size.
        metal: whether any class in use may be metallic.
        needed: the maps that the output's files are made of.
    """

    seed: int
    first_index: int
    count: int
    width_px: int
    height_px: int
    class_weights: tuple[float, ...]
    truncation: float
    layout_seed: int
    layout: LayoutSpec
    pattern: str
    pattern_scale: float
    mix_seed: int
    mix: tuple[float, ...]
    sliders: Mapping[str, float]
    relief_px: float
    roughness_shift: float
    metal: bool
    class_name: str
    output: OutputSpec
    needed: frozenset[MapKind]


def check(package: VerifiedPackage) -> None:
    """Raise PackageInvalid if the model declares a parameter that would not act."""
    manifest = package.manifest
    classes = {known.name for known in manifest.classes} | {NO_CLASS}
    allowed = {
        "class": classes,
        "blend_class": classes,
        "pattern": {ANY_PATTERN, *PATTERNS},
        "mix_part": {ALL_PARTS, *PARTS},
    }
    sliders = {spec.name for spec in manifest.inputs if spec.role == "slider"}
    if taken := sliders & _TYPES.keys():
        raise PackageInvalid(f"{package.folder}: slider input {min(taken)!r} has the name of another parameter")
    types = _TYPES | dict.fromkeys(sliders, "float")
    if not any(spec.role == "mix" for spec in manifest.inputs):
        types = {name: kind for name, kind in types.items() if not name.startswith("mix")}
    for spec in manifest.parameters:
        if types.get(spec.name) != spec.type:
            raise PackageInvalid(
                f"{package.folder}: parameter {spec.name!r} of type {spec.type!r} is not one that this texture model "
                f"takes: {', '.join(f'{name} ({kind})' for name, kind in types.items())}",
                hint="install a newer assetgen, or remove the package",
            )
        if strange := set(spec.values) - allowed.get(spec.name, set()):
            options = {"pattern": PATTERNS, "mix_part": PARTS}.get(spec.name)
            known = f"not one of {', '.join(options)}" if options else "no class"
            raise PackageInvalid(f"{package.folder}: parameter {spec.name!r} offers {shown(min(strange))}, {known}")
    resolutions = sorted(spec.stride_px for spec in manifest.inputs if spec.role == "layout")
    if any(coarse != 2 * fine for fine, coarse in pairwise(resolutions)):
        raise PackageInvalid(f"{package.folder}: layout inputs at {resolutions} px a cell; each must double the last")


def made_maps(manifest: Manifest) -> tuple[MapKind, ...]:
    """Maps the model makes, in the order of ``MapKind``: its outputs, and what is derived from height."""
    made = {MapKind(output.map_kind) for output in manifest.outputs}
    if MapKind.HEIGHT in made:
        made |= {MapKind.NORMAL, MapKind.AMBIENT_OCCLUSION}
    return tuple(kind for kind in MapKind if kind in made)


def resolve(manifest: Manifest, request: Request) -> Plan:
    """Check the request against the model, and fill in what it leaves open; raises FieldInvalid."""
    fields, values = resolve_drawn(manifest, request)
    seed, weights = fields["seed"], fields["class_weights"]
    relief_px = sum(weight * known.relief_px for weight, known in zip(weights, manifest.classes, strict=True))
    variation_seed, pattern = values.get("variation_seed", -1), values.get("pattern", ANY_PATTERN)
    mix_seed, part = values.get("mix_seed", -1), values.get("mix_part", ALL_PARTS)
    mix = 0.0 if mix_seed < 0 else values.get("mix", 1.0)
    return Plan(
        **fields,
        layout_seed=seed if variation_seed < 0 else variation_seed,
        layout=manifest.classes[weights.index(max(weights))].layout,
        pattern="" if pattern == ANY_PATTERN else pattern,
        pattern_scale=values.get("pattern_scale", 1.0),
        mix_seed=mix_seed,
        mix=tuple(mix if part in (ALL_PARTS, name) else 0.0 for name in PARTS),
        relief_px=relief_px * values.get("relief", 1.0),
        roughness_shift=values.get("roughness_shift", 0.0),
        metal=any(weight and known.metal for weight, known in zip(weights, manifest.classes, strict=True)),
        needed=_check_output(manifest, request.output),
    )


def prepare(manifest: Manifest, plan: Plan, index: int) -> dict[str, FloatArray]:
    """Make the graph's inputs for asset ``index``: name to array, batch dimension 1; layout and noise are read-only."""
    size = plan.height_px, plan.width_px
    draw = _draw if math.prod(size) <= KEPT_PX else _draw.__wrapped__
    z, spatial = draw(
        plan.layout_seed, index, size, manifest.inputs, manifest.latent_dimension,
        plan.layout, plan.pattern, plan.pattern_scale,
    )  # fmt: skip
    if plan.layout_seed != plan.seed:
        z = latents.latent(latents.generator(plan.seed, index), manifest.latent_dimension)
    values: dict[str, FloatArray] = {
        "latent": z[None],
        "class_weights": np.array([plan.class_weights], dtype=np.float32),
        "truncation": np.array([[plan.truncation]], dtype=np.float32),
        "second_latent": _second_latent(manifest, plan, index, z)[None],
        "mix": np.array([plan.mix], dtype=np.float32),
    }
    inputs = {spec.name: values[spec.role] for spec in manifest.inputs if spec.role in values}
    inputs |= {name: np.array([[value]], dtype=np.float32) for name, value in plan.sliders.items()}
    return inputs | spatial


def _second_latent(manifest: Manifest, plan: Plan, index: int, z: FloatArray) -> FloatArray:
    """The latent of asset ``index`` of the second seed; the first one where nothing is mixed."""
    if not any(plan.mix):
        return z
    return latents.latent(latents.generator(plan.mix_seed, index), manifest.latent_dimension)


@functools.lru_cache(maxsize=DRAWS_KEPT)
def _draw(
    seed: int,
    index: int,
    size: tuple[int, int],
    specs: tuple[InputSpec, ...],
    latent_dimension: int,
    layout: LayoutSpec,
    pattern: str,
    pattern_scale: float,
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """All that a seed stands for: its latent, and the layout and noise inputs by name.

    The last ones are kept: while somebody moves a slider they stay the same, and drawing them is most of what a call
    costs beside the graph.
    """
    rng = latents.generator(seed, index)
    z = latents.latent(rng, latent_dimension)
    spatial: dict[str, FloatArray] = {}
    laid = sorted((spec for spec in specs if spec.role == "layout"), key=lambda spec: -spec.stride_px)
    if laid:
        finest_px = laid[-1].stride_px
        drawn = layouts.draw_layout(rng, layout, pattern, pattern_scale)
        channels = layouts.raster(rng, drawn, (size[0] // finest_px, size[1] // finest_px))
        levels = layouts.pyramid(channels, len(laid))
        spatial = {spec.name: level[None] for spec, level in zip(laid, levels, strict=True)}
    noisy = [spec for spec in specs if spec.role in ("grid", "noise")]
    shapes = [(1, int(spec.shape[1]), size[0] // spec.stride_px, size[1] // spec.stride_px) for spec in noisy]
    spatial |= {spec.name: noise for spec, noise in zip(noisy, latents.noises(rng, shapes), strict=True)}
    for values in (z, *spatial.values()):
        values.flags.writeable = False
    return z, spatial


def finishing_inputs(plan: Plan) -> dict[str, FloatArray]:
    """See ``kinds.finishing_inputs``."""
    return {finishing.NAME: _terms(plan).array()}


def _terms(plan: Plan) -> finishing.Terms:
    convention = plan.output.normal_convention or profiles.find_profile(plan.output.profile).normal_convention
    y_down = convention is NormalConvention.Y_DOWN
    return finishing.Terms(plan.relief_px, y_down, plan.roughness_shift, plan.metal, plan.needed)


def finish(manifest: Manifest, plan: Plan, index: int, outputs: Mapping[str, FloatArray]) -> Iterator[Artifact]:
    """Turn the graph's outputs (name to ``[1, c, h, w]`` in [0, 1]) for asset ``index`` into files, one at a time.

    A session that finishes maps itself gives pixels in their place.

    Raises:
        ValueError: an output is not finite, or not what the manifest says.
    """
    output = replace(plan.output, name=asset_name(plan.output.name, plan.class_name, plan.seed, index))
    facts = {"model": manifest.id, "version": manifest.version, "seed": str(plan.seed), "index": str(index)}
    metadata = xmp.xmp_packet(facts) if output.encoding is Encoding.PNG else b""
    profile = profiles.find_profile(output.profile)

    material, later = _material(manifest, plan, outputs)
    textures = profiles.pack(material, profile, output, later=later)
    px, maps = plan.width_px * plan.height_px, len(plan.needed)
    for packed, data in files.encoded(textures, output.encoding, metadata, px=px, maps=maps):
        yield Artifact(
            index=index,
            role=packed.role,
            name=packed.name,
            media_type=encode.media_type(output.encoding),
            pixel_format=packed.pixel_format,
            color_space=packed.color_space,
            width_px=plan.width_px,
            height_px=plan.height_px,
            data=data,
        )


def _material(
    manifest: Manifest, plan: Plan, outputs: Mapping[str, FloatArray]
) -> tuple[Material, dict[MapKind, Callable[[], FloatArray]]]:
    """The maps the call needs, no others, and what makes those that take long.

    A preview of base colour alone must not wait for occlusion, nor must what can be encoded meanwhile.
    """
    if finishing.STRANGE in outputs:
        return finishing.material(outputs), {}
    maps: dict[MapKind, FloatArray] = {}
    for spec in manifest.outputs:
        arrays.shape(outputs[spec.name], f"1 {spec.channels} {plan.height_px} {plan.width_px}", spec.name)
        maps[MapKind(spec.map_kind)] = outputs[spec.name][0].transpose(1, 2, 0)
    terms = _terms(plan)
    return Material(finishing.given(maps, terms)), finishing.derived(maps, terms)


def _check_output(manifest: Manifest, output: OutputSpec) -> frozenset[MapKind]:
    """The maps that the output's files are made of."""
    textures = profiles.select_textures(output, made_maps(manifest))
    sources = {source for texture in textures for source in texture.channels} - {"one", "zero"}
    return frozenset(MapKind.ROUGHNESS if source == "smoothness" else MapKind(source) for source in sources)
