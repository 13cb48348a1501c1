"""Pictures of users repainted: what a request means, before and after the graph; imports postprocess, no runtime.

The graph takes a picture and gives one of the same size, maps of the same size, or both. Base colour that it does not
give is that of the picture. Parameters act by name, and a model declares those it offers:

- ``image``: the picture. Its alpha is kept and put back.
- ``class``: the look to go over to, or what the picture shows.
- ``strength``: 0 leaves the colours as they are, 1 takes those of the graph.
- ``tiles``: whether the picture repeats itself: ``yes``, ``no``, or ``auto``, as measured on each axis.
- ``pixel_size``: the graph is shown the picture so many times smaller, and each of its pixels becomes a square of
  this edge: pixel art is drawn at its own resolution, then enlarged.
- ``palette``: number of colours; 0 leaves them.
- ``relief``, ``roughness_shift``: as in textures.

A picture that repeats itself is computed on the torus, so that its result does, too; beyond the border of any other the
graph is shown its mirror image, which is cut off again. There are no random numbers: the seed changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from assetgen import check as arrays
from assetgen.errors import FieldInvalid, PackageInvalid
from assetgen.kinds.classes import asset_name, check_asset_name, class_weights
from assetgen.kinds.declared import check_declared
from assetgen.kinds.plan import MAX_SEED, check_indices, check_integer, check_parameters
from assetgen.kinds.source import (
    AUTO,
    IMAGE,
    IMAGE_FIELD,
    TILES,
    YES,
    Source,
    check_torus,
    margins,
    read_source,
    result_size,
)
from assetgen.manifest import ClassSpec, Manifest, SizeSpec
from assetgen.package import VerifiedPackage
from assetgen.postprocess import decode, encode, files, finishing, pixelart, profiles, tiling, xmp
from assetgen.postprocess.xmp import DigitalSourceType
from assetgen.types import Artifact, Encoding, FloatArray, MapKind, Material, OutputSpec, PixelFormat, Request

MAX_PIXEL_SIZE = 64
INPUT_ROLES = frozenset({"image", "class_weights"})
MADE = (MapKind.BASE_COLOR, MapKind.HEIGHT, MapKind.ROUGHNESS, MapKind.METALLIC)
# How far occlusion looks: 16 px, and at a height blurred over 8 + 4 + 2 + 1 px.
DERIVED_REACH_PX = 32
# Name to type, smallest and largest value that this version can do.
_NUMBERS = {
    "strength": ("float", 0, 1),
    "pixel_size": ("int", 1, MAX_PIXEL_SIZE),
    "palette": ("int", 0, pixelart.MAX_COLORS),
    "relief": ("float", 0, 4),
    "roughness_shift": ("float", -1, 1),
}


@dataclass(frozen=True)
class Plan:
    """A checked request.

    Attributes:
        width_px, height_px: of what the graph computes at most, continuation beyond the border counted.
        drawn_px: width and height of what is drawn, ``pixel_size`` times smaller than the result.
        size: edges that the model takes.
        image: the file that was sent; its header was checked.
        class_weights: one number a class, adding up to 1; none where the model has no classes.
        relief_px: height of the relief in pixels of the picture.
        metal: whether the class may be metallic.
        needed: the maps that the output's files are made of.
    """

    seed: int
    first_index: int
    count: int
    width_px: int
    height_px: int
    drawn_px: tuple[int, int]
    size: SizeSpec
    image: bytes
    class_weights: tuple[float, ...]
    strength: float
    tiles: str
    pixel_size: int
    palette: int
    relief_px: float
    roughness_shift: float
    metal: bool
    class_name: str
    output: OutputSpec
    needed: frozenset[MapKind]

    @cached_property
    def source(self) -> Source:
        """The picture, decoded when it is first asked for; raises ImageInvalid and FieldInvalid."""
        return read_source(self.image, self.size, self.drawn_px, self.pixel_size, self.tiles)

    @property
    def margins_px(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """How far rows, and columns, go on before and behind what is drawn, for the graph."""
        wraps = self.source.wraps
        row, column = (_margins(edge, self) for edge in self.drawn_px[::-1])
        return ((0, 0) if wraps[0] else row, (0, 0) if wraps[1] else column)


def check(package: VerifiedPackage) -> None:
    """Raise PackageInvalid if the model declares what would not act, or what this version cannot do."""
    manifest, where = package.manifest, package.folder
    if strange := {spec.role for spec in manifest.inputs} - INPUT_ROLES:
        raise PackageInvalid(f"{where}: a style model takes no input of role {min(strange)!r}")
    for output in manifest.outputs:
        channels = 3 if output.map_kind == MapKind.BASE_COLOR else 1
        if output.map_kind not in MADE or output.channels != channels:
            raise PackageInvalid(
                f"{where}: output {output.name!r} is {output.map_kind!r} of {output.channels} channels; "
                f"a style model makes {', '.join(MADE)}"
            )
    if manifest.size.min_px == manifest.size.max_px:
        raise PackageInvalid(f"{where}: a style model takes pictures of more than one size")
    if not any(spec.name == IMAGE and spec.required for spec in manifest.parameters):
        raise PackageInvalid(f"{where}: a style model has the parameter {IMAGE!r}, which is required")
    choices = {"class": {known.name for known in manifest.classes}, "tiles": TILES}
    check_declared(package, "style model", choices, _NUMBERS, {IMAGE: decode.MEDIA_TYPES})


def made_maps(manifest: Manifest) -> tuple[MapKind, ...]:
    """Maps the model makes, in the order of ``MapKind``: base colour, its outputs, and what is derived from height."""
    made = {MapKind.BASE_COLOR} | {MapKind(output.map_kind) for output in manifest.outputs}
    if MapKind.HEIGHT in made:
        made |= {MapKind.NORMAL, MapKind.AMBIENT_OCCLUSION}
    return tuple(kind for kind in MapKind if kind in made)


def resolve(manifest: Manifest, request: Request) -> Plan:
    """Check the request against the model and the header of the picture; raises FieldInvalid and ImageInvalid."""
    seed = check_integer(request.seed, 0, MAX_SEED, "seed")
    first_index, count = check_indices(request)
    if count > 1:
        raise FieldInvalid(
            f"count: {count} is not allowed; model {manifest.id!r} makes one result of a picture",
            field="count",
            hint="use 1, and send each picture by itself",
            metadata={"value": str(count), "max": "1"},
        )
    values: dict[str, Any] = check_parameters(manifest.parameters, request.parameters, manifest.id)
    if values.get("palette", 0) == 1:
        raise FieldInvalid(
            f"parameters[palette]: 1 is not allowed; use 0 for all colours, or 2 to {pixelart.MAX_COLORS}",
            field="parameters[palette]",
        )
    weights, class_name = class_weights(manifest, values) if manifest.classes else ((), manifest.id)
    classes = [known for weight, known in zip(weights, manifest.classes, strict=True) if weight]
    size, tiles = manifest.size, values.get("tiles", AUTO)
    own_px = decode.picture_size(values[IMAGE], size.min_px, size.max_px, IMAGE_FIELD)
    result_px = result_size(own_px, request, manifest)
    pixel_size = values.get("pixel_size", 1)
    drawn_px = _drawn(result_px, pixel_size, size)
    if request.output.name:
        check_asset_name(request.output.name, first_index + count - 1)
    plan = Plan(
        seed=seed,
        first_index=first_index,
        count=count,
        width_px=drawn_px[0],
        height_px=drawn_px[1],
        drawn_px=drawn_px,
        size=size,
        image=values[IMAGE],
        class_weights=weights,
        strength=values.get("strength", 1.0),
        tiles=tiles,
        pixel_size=pixel_size,
        palette=values.get("palette", 0),
        relief_px=(classes[0].relief_px if classes else ClassSpec.relief_px) * values.get("relief", 1.0),
        roughness_shift=values.get("roughness_shift", 0.0),
        metal=not classes or any(known.metal for known in classes),
        class_name=class_name[:40],
        output=request.output,
        needed=_needed(manifest, request.output),
    )
    if tiles == YES:
        check_torus(size, drawn_px, (True, True))
        return plan
    width_px, height_px = (edge + sum(_margins(edge, plan)) for edge in drawn_px)
    return replace(plan, width_px=width_px, height_px=height_px)


def prepare(manifest: Manifest, plan: Plan, index: int) -> dict[str, FloatArray]:  # noqa: ARG001 -- of all kinds
    """Make the graph's inputs: name to array, batch dimension 1; the index changes nothing.

    Raises:
        ImageInvalid: the picture cannot be decoded.
        FieldInvalid: it repeats itself, and its size is none that the model keeps so.
    """
    whole = tiling.continued(plan.source.color, *plan.margins_px, plan.source.wraps)
    values = {
        "image": np.ascontiguousarray(whole.transpose(2, 0, 1)[np.newaxis]),
        "class_weights": np.array([plan.class_weights], dtype=np.float32),
    }
    return {spec.name: values[spec.role] for spec in manifest.inputs}


def finish(manifest: Manifest, plan: Plan, index: int, outputs: Mapping[str, FloatArray]) -> Iterator[Artifact]:
    """Turn the graph's outputs (name to ``[1, c, h, w]`` in [0, 1]) into files, one at a time.

    Raises:
        ValueError: an output is not finite, or not what the manifest says.
    """
    output = replace(plan.output, name=asset_name(plan.output.name, plan.class_name, plan.seed, index))
    facts = {"model": manifest.id, "version": manifest.version, "seed": str(plan.seed), "index": str(index)}
    made_from = DigitalSourceType.COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA
    metadata = xmp.xmp_packet(facts, made_from) if output.encoding is Encoding.PNG else b""
    material, later, alpha = _material(manifest, plan, outputs)
    profile = profiles.find_profile(output.profile)
    packed_files = profiles.pack(material, profile, output, partial=True, later=later)
    textures = (packed if plan.source.opaque else _with_alpha(packed, alpha) for packed in packed_files)
    width_px, height_px = (edge * plan.pixel_size for edge in plan.drawn_px)
    px, count = width_px * height_px, len(plan.needed)
    for packed, data in files.encoded(textures, output.encoding, metadata, px=px, maps=count):
        yield Artifact(
            index=index,
            role=packed.role,
            name=packed.name,
            media_type=encode.media_type(output.encoding),
            pixel_format=packed.pixel_format,
            color_space=packed.color_space,
            width_px=width_px,
            height_px=height_px,
            data=data,
        )


def _with_alpha(packed: profiles.PackedTexture, alpha: FloatArray) -> profiles.PackedTexture:
    """Base colour with the picture's alpha; other files as they are."""
    if packed.role != MapKind.BASE_COLOR:
        return packed
    coded = (alpha * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    pixels = np.concatenate([packed.pixels.astype(np.uint8, copy=False), coded[:, :, np.newaxis]], axis=2)
    return replace(packed, pixels=pixels, pixel_format=PixelFormat.RGBA8)


def _material(
    manifest: Manifest, plan: Plan, outputs: Mapping[str, FloatArray]
) -> tuple[Material, dict[MapKind, Callable[[], FloatArray]], FloatArray]:
    """The maps the call needs, what makes those that take long, and alpha."""
    width_px, height_px = plan.drawn_px
    (top, bottom), (left, right) = plan.margins_px
    shape = f"{top + height_px + bottom} {left + width_px + right}"
    maps: dict[MapKind, FloatArray] = {}
    for spec in manifest.outputs:
        arrays.shape(outputs[spec.name], f"1 {spec.channels} {shape}", spec.name)
        maps[MapKind(spec.map_kind)] = outputs[spec.name][0].transpose(1, 2, 0)

    def cut(values: FloatArray) -> FloatArray:
        return values[top : top + height_px, left : left + width_px]

    def enlarged(values: FloatArray) -> FloatArray:
        return _enlarged(values, plan.pixel_size)

    def derived(make: Callable[[], FloatArray]) -> FloatArray:
        return enlarged(cut(make()))  # in this order: the mirrored margin keeps one border from seeing the other

    color, alpha = _colors(plan, cut(maps[MapKind.BASE_COLOR]) if MapKind.BASE_COLOR in maps else None)
    terms = finishing.Terms(plan.relief_px, roughness_shift=plan.roughness_shift, metal=plan.metal, wanted=plan.needed)
    given = {kind: cut(values) for kind, values in finishing.given(maps, terms).items()}
    if MapKind.BASE_COLOR in plan.needed:
        given[MapKind.BASE_COLOR] = color
    material = Material({kind: enlarged(given[kind]) for kind in MapKind if kind in given})
    makers = finishing.derived(maps, terms)
    later: dict[MapKind, Callable[[], FloatArray]] = {
        kind: functools.partial(derived, make) for kind, make in makers.items()
    }
    return material, later, enlarged(alpha)


def _colors(plan: Plan, made: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Base colour and alpha."""
    source = plan.source
    color, alpha = source.color, source.alpha
    if made is not None and plan.strength > 0:
        color = made if plan.strength == 1 else color + (made - color) * np.float32(plan.strength)
    if plan.palette:
        color = pixelart.with_palette(color, alpha > 0, plan.palette)
    return color, alpha


def _enlarged(values: FloatArray, pixel_size: int) -> FloatArray:
    """Every pixel of ``[H, W, ...]`` as a square of the edge ``pixel_size``."""
    return values.repeat(pixel_size, axis=0).repeat(pixel_size, axis=1) if pixel_size > 1 else values


def _drawn(result_px: tuple[int, int], pixel_size: int, size: SizeSpec) -> tuple[int, int]:
    """Width and height of what the graph draws, two cells of the network at least; raises FieldInvalid."""
    width_px, height_px = result_px
    least = 2 * size.stride_px if pixel_size > 1 else 1
    if width_px % pixel_size or height_px % pixel_size or min(result_px) < pixel_size * least:
        raise FieldInvalid(
            f"parameters[pixel_size]: {pixel_size} is not allowed for {width_px} x {height_px} px; use a divisor of "
            f"both edges that leaves at least {least} pixels",
            field="parameters[pixel_size]",
            hint="or ask for another size with width_px and height_px",
        )
    return width_px // pixel_size, height_px // pixel_size


def _margins(edge_px: int, plan: Plan) -> tuple[int, int]:
    derived = bool(plan.needed & {MapKind.NORMAL, MapKind.AMBIENT_OCCLUSION})
    return margins(edge_px, plan.size.stride_px, max(plan.size.halo_px, DERIVED_REACH_PX if derived else 0))


def _needed(manifest: Manifest, output: OutputSpec) -> frozenset[MapKind]:
    """The maps that the output's files are made of; of a profile that packs maps, what this model can fill."""
    textures = profiles.select_textures(output, made_maps(manifest), partial=True)
    sources = {source for texture in textures for source in texture.channels} - {"one", "zero"}
    return frozenset(MapKind.ROUGHNESS if source == "smoothness" else MapKind(source) for source in sources)
