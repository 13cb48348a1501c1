"""Engine profiles: which files an engine gets and what each channel holds; imports types, errors and check of ours.

The table is the contract of the files. Smoothness is 1 - roughness; "one" and "zero" are constants. Conventions from
the engines' manuals: Unreal ORM with Y down, Unity URP and HDRP mask maps, Godot's ORMMaterial3D, Blender's separate
Non-Color maps, glTF 2.0 (roughness G, metal B, occlusion R).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from assetgen import check
from assetgen.errors import FieldInvalid
from assetgen.types import (
    ColorSpace,
    Encoding,
    FloatArray,
    MapKind,
    Material,
    NormalConvention,
    OutputSpec,
    PixelFormat,
)

PixelArray: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]

NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Windows opens a device under these names, whatever the extension.
_FORMATS = {
    MapKind.BASE_COLOR: PixelFormat.RGB8,
    MapKind.NORMAL: PixelFormat.RGB8,
    MapKind.HEIGHT: PixelFormat.R16,
}
_DEVICE_NAMES = frozenset({"con", "prn", "aux", "nul"} | {f"{port}{i}" for port in ("com", "lpt") for i in range(10)})


@dataclass(frozen=True)
class Texture:
    """One file of a profile.

    Attributes:
        role: what the file is to an engine: a map's name, or ``orm`` or ``mask`` for a packed file.
        file_name: of the PNG, with ``{name}`` for the asset's name.
        color_space: how the engine must read it.
        channels: what R, G, B, A hold: a map's name, ``smoothness``, ``one`` or ``zero``; one entry for a whole map.
    """

    role: str
    file_name: str
    color_space: ColorSpace
    channels: tuple[str, ...]

    @functools.cached_property
    def map_kind(self) -> MapKind | None:
        """The map the file holds, or None when it packs several."""
        return MapKind(self.channels[0]) if len(self.channels) == 1 else None


@dataclass(frozen=True)
class Profile:
    """The files of one engine, in the order they are sent; a profile that packs maps is all or nothing."""

    id: str
    display_name: str
    normal_convention: NormalConvention
    textures: tuple[Texture, ...]

    @property
    def packs(self) -> bool:
        """Whether any file holds more than one map."""
        return any(texture.map_kind is None for texture in self.textures)


@dataclass(frozen=True)
class PackedTexture:
    """Pixels of one file before encoding: [H, W, C], uint8, or uint16 for height."""

    role: str
    name: str
    pixel_format: PixelFormat
    color_space: ColorSpace
    pixels: PixelArray


def _whole(kind: MapKind, file_name: str) -> Texture:
    color_space = ColorSpace.SRGB if kind is MapKind.BASE_COLOR else ColorSpace.LINEAR
    return Texture(kind.value, file_name, color_space, (kind.value,))


_ORM = ("ambient_occlusion", "roughness", "metallic")
# Blue is HDRP's detail mask (1: detail shows) and unused in URP, so one file serves both pipelines.
_UNITY_MASK = ("metallic", "ambient_occlusion", "one", "smoothness")

PROFILES: Mapping[str, Profile] = {
    "plain": Profile(
        "plain",
        "One file per map",
        NormalConvention.Y_UP,
        tuple(_whole(kind, f"{{name}}_{kind.value}.png") for kind in MapKind),
    ),
    "unreal": Profile(
        "unreal",
        "Unreal Engine",
        NormalConvention.Y_DOWN,
        (
            _whole(MapKind.BASE_COLOR, "T_{name}_D.png"),
            _whole(MapKind.NORMAL, "T_{name}_N.png"),
            Texture("orm", "T_{name}_ORM.png", ColorSpace.LINEAR, _ORM),
            _whole(MapKind.HEIGHT, "T_{name}_H.png"),
        ),
    ),
    "unity-urp": Profile(
        "unity-urp",
        "Unity URP Lit",
        NormalConvention.Y_UP,
        (
            _whole(MapKind.BASE_COLOR, "{name}_BaseMap.png"),
            _whole(MapKind.NORMAL, "{name}_Normal.png"),
            Texture("mask", "{name}_MaskMap.png", ColorSpace.LINEAR, _UNITY_MASK),
            _whole(MapKind.HEIGHT, "{name}_Height.png"),
        ),
    ),
    "unity-hdrp": Profile(
        "unity-hdrp",
        "Unity HDRP Lit",
        NormalConvention.Y_UP,
        (
            _whole(MapKind.BASE_COLOR, "{name}_BaseMap.png"),
            _whole(MapKind.NORMAL, "{name}_Normal.png"),
            Texture("mask", "{name}_MaskMap.png", ColorSpace.LINEAR, _UNITY_MASK),
            _whole(MapKind.HEIGHT, "{name}_Height.png"),
        ),
    ),
    "godot": Profile(
        "godot",
        "Godot 4 ORMMaterial3D",
        NormalConvention.Y_UP,
        (
            _whole(MapKind.BASE_COLOR, "{name}_albedo.png"),
            _whole(MapKind.NORMAL, "{name}_normal.png"),
            Texture("orm", "{name}_orm.png", ColorSpace.LINEAR, _ORM),
            _whole(MapKind.HEIGHT, "{name}_height.png"),
        ),
    ),
    "blender": Profile(
        "blender",
        "Blender Principled BSDF",
        NormalConvention.Y_UP,
        (
            _whole(MapKind.BASE_COLOR, "{name}_Base_Color.png"),
            _whole(MapKind.NORMAL, "{name}_Normal.png"),
            _whole(MapKind.ROUGHNESS, "{name}_Roughness.png"),
            _whole(MapKind.METALLIC, "{name}_Metallic.png"),
            _whole(MapKind.AMBIENT_OCCLUSION, "{name}_AO.png"),
            _whole(MapKind.HEIGHT, "{name}_Height.png"),
        ),
    ),
    "gltf": Profile(
        "gltf",
        "glTF 2.0 metallic-roughness",
        NormalConvention.Y_UP,
        (
            _whole(MapKind.BASE_COLOR, "{name}_baseColor.png"),
            _whole(MapKind.NORMAL, "{name}_normal.png"),
            Texture("orm", "{name}_occlusionRoughnessMetallic.png", ColorSpace.LINEAR, _ORM),
            _whole(MapKind.HEIGHT, "{name}_height.png"),
        ),
    ),
}


def find_profile(profile_id: str) -> Profile:
    """Return the profile; raises FieldInvalid naming the allowed ones."""
    if profile_id not in PROFILES:
        raise FieldInvalid(
            f"output.profile: {profile_id!r} is not a profile; allowed are {', '.join(PROFILES)}",
            hint="Choose one of the profiles that GetServerInfo lists; 'plain' is one file per map.",
            field="output.profile",
            metadata={"given": profile_id, "allowed": ",".join(PROFILES)},
        )
    return PROFILES[profile_id]


def check_name(name: str) -> None:
    """Raise FieldInvalid unless ``name`` can begin a file name on every system."""
    if not NAME_PATTERN.fullmatch(name):
        raise FieldInvalid(
            f"output.name: {name!r} is not allowed; use 1 to 64 of A-Z, a-z, 0-9, '_' and '-'",
            hint="Leave the name empty to let the server choose one.",
            field="output.name",
            metadata={"given": name, "pattern": NAME_PATTERN.pattern},
        )
    if name.lower() in _DEVICE_NAMES:
        raise FieldInvalid(
            f"output.name: {name!r} is the name of a device on Windows",
            hint="Choose another name, for example by adding a letter.",
            field="output.name",
            metadata={"given": name},
        )


def select_textures(
    output: OutputSpec, available: tuple[MapKind, ...] = tuple(MapKind), *, partial: bool = False
) -> tuple[Texture, ...]:
    """Return the files that ``output`` asks for, in the profile's order; cheap enough to call before any work.

    Args:
        output: profile and maps are read; empty ``maps`` means every map that is available.
        available: maps that the material has, or will have once it is finished.
        partial: of a profile that packs maps, give the files that can be made instead of refusing.

    Raises:
        FieldInvalid: unknown profile, maps chosen in a profile that packs them, a map twice, or one that is not there.
    """
    profile = find_profile(output.profile)
    if profile.packs:
        _refuse_maps(profile, output.maps)
        needed = {source for texture in profile.textures for source in map(_map_of, texture.channels) if source}
        missing = [kind.value for kind in MapKind if kind in needed and kind not in available]
        if missing and partial:
            return tuple(
                t for t in profile.textures if {_map_of(source) for source in t.channels} <= {None, *available}
            )
        if missing:
            raise FieldInvalid(
                f"output.profile: {profile.id!r} needs maps that this model does not make: {', '.join(missing)}",
                hint="Use the profile 'plain', which delivers every map there is.",
                field="output.profile",
                metadata={"given": profile.id, "missing": ",".join(missing)},
            )
        return profile.textures
    wanted = output.maps or available
    for kind in wanted:
        if kind not in available or wanted.count(kind) > 1:
            fault = "is not made by this model" if kind not in available else "is given twice"
            raise FieldInvalid(
                f"output.maps: {kind} {fault}; allowed are {', '.join(available)}, each once",
                hint="Leave the maps empty to get all of them.",
                field="output.maps",
                metadata={"given": str(kind), "allowed": ",".join(available)},
            )
    return tuple(texture for texture in profile.textures if texture.map_kind in wanted)


def pack(
    material: Material,
    profile: Profile,
    output: OutputSpec,
    *,
    partial: bool = False,
    later: Mapping[MapKind, Callable[[], FloatArray]] = MappingProxyType({}),
) -> Iterator[PackedTexture]:
    """Yield the files of a material, quantised but not encoded, one at a time in the profile's order.

    Args:
        material: finished maps (see ``finishing``), all of one size.
        profile: what ``find_profile(output.profile)`` returned.
        output: maps, normal convention, encoding (it sets the extension) and a name that is not empty.
        partial: as in ``select_textures``.
        later: more maps of that size, each made when a file first needs it: others can be encoded meanwhile.

    Raises:
        FieldInvalid: the name or the choice of maps is not allowed; raised before the first file.
        ValueError: a map is not of its shape or range, or not finite; of the material's before the first file.
    """
    if output.profile != profile.id:
        raise ValueError(f"profile: got {profile.id!r} for an output of {output.profile!r}")
    check_name(output.name)
    textures = select_textures(output, (*material.maps, *later), partial=partial)
    if not material.maps and not later:
        raise ValueError("material: got no maps, expected at least one")
    _check_maps(material.maps)
    return _packed(material, later, textures, output.normal_convention or profile.normal_convention, output)


def _packed(
    material: Material,
    later: Mapping[MapKind, Callable[[], FloatArray]],
    textures: tuple[Texture, ...],
    convention: NormalConvention,
    output: OutputSpec,
) -> Iterator[PackedTexture]:
    maps = dict(material.maps)
    for texture in textures:
        for kind in map(_map_of, texture.channels):
            if kind is not None and kind not in maps:
                maps[kind] = later[kind]()
                _check_size(maps)
                _check_map(kind, maps[kind])
        pixel_format, pixels = _pixels(maps, texture, convention)
        name = texture.file_name.format(name=output.name)
        if output.encoding is Encoding.RAW:
            name = name.removesuffix(".png") + ".raw"
        yield PackedTexture(texture.role, name, pixel_format, texture.color_space, pixels)


def _pixels(
    maps: Mapping[MapKind, FloatArray], texture: Texture, convention: NormalConvention
) -> tuple[PixelFormat, PixelArray]:
    kind = texture.map_kind
    if kind is not None:
        return _FORMATS.get(kind, PixelFormat.R8), quantized(kind, maps[kind], convention)
    rows, columns = next(iter(maps.values())).shape[:2]
    pixels = np.empty((rows, columns, len(texture.channels)), dtype=np.uint8)
    for channel, source in enumerate(texture.channels):
        pixels[:, :, channel] = _channel(maps, source)
    return PixelFormat.RGBA8 if len(texture.channels) == 4 else PixelFormat.RGB8, pixels


def quantized(kind: MapKind, values: NDArray[Any], convention: NormalConvention) -> PixelArray:
    """The pixels ``[H, W, C]`` of one map; those that are pixels already, of this convention, stay as they are."""
    if values.dtype != np.float32:
        return values
    if kind is MapKind.NORMAL:
        return _quantized_normal(values, convention)
    return _quantized16(values) if kind is MapKind.HEIGHT else _quantized8(values)


def _channel(maps: Mapping[MapKind, FloatArray], source: str) -> Any:
    if source == "one":
        return 255
    if source == "zero":
        return 0
    if source == "smoothness":
        return np.uint8(255) - _channel(maps, MapKind.ROUGHNESS)  # exactly the roughness of other profiles
    return quantized(MapKind(source), maps[MapKind(source)], NormalConvention.Y_UP)[:, :, 0]


def _quantized8(values: FloatArray) -> NDArray[np.uint8]:
    """Round [0, 1] to 0..255, halves up; [H, W, C] laid out pixel by pixel.

    Networks give planes: one at a time stays in the cache, and numpy's own copy of all takes 6 times as long.
    """
    laid = np.empty(values.shape, dtype=np.uint8)
    for channel in range(values.shape[2]):
        plane = values[:, :, channel] * np.float32(255)
        plane += np.float32(0.5)
        laid[:, :, channel] = plane.astype(np.uint8)  # truncates; before it is spread, which is faster
    return laid


def _quantized16(values: FloatArray) -> NDArray[np.uint16]:
    """Round [0, 1] to 0..65535, halves up; float32 resolves 1/256 of a step there."""
    return (values * np.float32(65535) + np.float32(0.5)).astype(np.uint16)


def _quantized_normal(normal: FloatArray, convention: NormalConvention) -> NDArray[np.uint8]:
    """Code [-1, 1] as round((n * 0.5 + 0.5) * 255), halves up, so that a flat surface is (128, 128, 255)."""
    scale = np.array([127.5, -127.5 if convention is NormalConvention.Y_DOWN else 127.5, 127.5], dtype=np.float32)
    return (normal * scale + np.float32(128)).astype(np.uint8)


def _check_maps(maps: Mapping[MapKind, FloatArray]) -> None:
    _check_size(maps)
    for kind, values in maps.items():
        _check_map(kind, values)


def _check_size(maps: Mapping[MapKind, FloatArray]) -> None:
    sizes = {values.shape[:2] for values in maps.values()}
    if len(sizes) > 1:
        raise ValueError(f"material: got maps of sizes {sorted(sizes)}, expected one size")


def _check_map(kind: MapKind, values: FloatArray) -> None:
    check.shape(values, "h w 3" if kind in (MapKind.BASE_COLOR, MapKind.NORMAL) else "h w 1", kind)
    if values.dtype != np.float32:  # pixels already: all that their type can hold is allowed
        return
    # A normal's length may round above 1 by a few ulps; the code has 255 steps.
    low, high = (-1.00001, 1.00001) if kind is MapKind.NORMAL else (0.0, 1.0)
    check.in_range(values, low, high, kind)


def _map_of(source: str) -> MapKind | None:
    if source in ("one", "zero"):
        return None
    return MapKind.ROUGHNESS if source == "smoothness" else MapKind(source)


def _refuse_maps(profile: Profile, maps: tuple[MapKind, ...]) -> None:
    if maps:
        free = ", ".join(other.id for other in PROFILES.values() if not other.packs)
        raise FieldInvalid(
            f"output.maps: got {', '.join(maps)}, but the profile {profile.id!r} packs maps into shared files",
            hint=f"Leave the maps empty, or choose a profile with one file per map: {free}.",
            field="output.maps",
            metadata={"given": ",".join(maps), "profile": profile.id},
        )
