"""A picture of a material to look at: tiled 2x2, and lit on a sphere; imports types and check of ours, numpy, Pillow.

For people only: nothing here goes into an engine. The shading is GGX with two lights and an analytic studio (gradient
and soft boxes as spherical Gaussians), in linear light, after Karis, "Real Shading in Unreal Engine 4" (2013) and
Lazarov, "Getting More Physical in Call of Duty: Black Ops II" (2013).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from assetgen import check
from assetgen.postprocess.resize import linear_from_srgb, shrink, srgb_from_linear
from assetgen.types import FloatArray, MapKind, Material

RgbPicture: TypeAlias = NDArray[np.uint8]

_SAMPLES = 2  # supersampling per axis
_SPHERE_SHARE = 0.42  # radius of the sphere as a share of the picture's edge
_TILES_ACROSS = 2.0  # tiles along the arc from the left rim of the sphere to the right one
_NEEDED = (
    MapKind.BASE_COLOR,
    MapKind.NORMAL,
    MapKind.ROUGHNESS,
    MapKind.METALLIC,
    MapKind.AMBIENT_OCCLUSION,
)
_BACKDROP = np.array([0.135, 0.138, 0.145], dtype=np.float32)
_SHEET_COLOR = (30, 31, 33)
_LABEL_COLOR = (225, 226, 230)


def _unit(x: float, y: float, z: float) -> FloatArray:
    vector = np.array([x, y, z], dtype=np.float32)
    return vector / np.float32(np.linalg.norm(vector))


_EYE = _unit(0, 0, 1)
# Direction to the light (x right, y up, z to the eye), colour times strength, sharpness of its soft box.
_LIGHTS = (
    (_unit(-0.55, 0.75, 0.65), np.array([1.62, 1.57, 1.48], dtype=np.float32), 22.0),
    (_unit(0.9, 0.15, 0.45), np.array([0.3, 0.34, 0.42], dtype=np.float32), 9.0),
)
_RIM_LIGHT = (_unit(0.55, 0.55, -0.75), np.array([0.8, 0.85, 0.9], dtype=np.float32), 10.0)
_SKY = np.array([0.44, 0.46, 0.51], dtype=np.float32)
_GROUND = np.array([0.1, 0.095, 0.09], dtype=np.float32)


def material_preview(material: Material, edge_px: int) -> RgbPicture:
    """Return one picture of a material: its base colour tiled 2x2, and beside it the material lit on a sphere.

    Args:
        material: finished maps, see ``finishing``; height is not needed.
        edge_px: height of the picture.

    Returns:
        [edge_px, 2 * edge_px, 3].
    """
    missing = [kind.value for kind in _NEEDED if kind not in material.maps]
    if missing:
        raise ValueError(f"material: {', '.join(missing)} are missing for a preview")
    if edge_px < 16:
        raise ValueError(f"edge_px: got {edge_px}, expected at least 16")
    return np.hstack([tiled(material.maps[MapKind.BASE_COLOR], edge_px), sphere(material, edge_px)])


def tiled(base_color: FloatArray, edge_px: int) -> RgbPicture:
    """Return a base colour [H, W, 3], sRGB-coded, repeated 2x2 and fitted into a square of edge_px, centred."""
    check.shape(base_color, "h w 3", "base_color")
    check.in_range(base_color, 0.0, 1.0, "base_color")
    twice = Image.fromarray(_quantized(np.tile(base_color, (2, 2, 1))))
    scale = edge_px / max(twice.size)
    fitted_px = max(1, round(twice.width * scale)), max(1, round(twice.height * scale))
    fitted = twice.resize(fitted_px, Image.Resampling.BOX)
    square = Image.new("RGB", (edge_px, edge_px), _SHEET_COLOR)
    square.paste(fitted, ((edge_px - fitted.width) // 2, (edge_px - fitted.height) // 2))
    return np.asarray(square)


def sphere(material: Material, edge_px: int) -> RgbPicture:
    """Return the material lit on a sphere before a neutral backdrop, [edge_px, edge_px, 3]."""
    fine_px = edge_px * _SAMPLES
    radius_px = _SPHERE_SHARE * fine_px
    axis = (np.arange(fine_px, dtype=np.float32) + np.float32(0.5) - np.float32(fine_px / 2)) / np.float32(radius_px)
    x, y = np.meshgrid(axis, -axis)
    picture = _backdrop(x, y)
    inside = x * x + y * y < 1
    surface = np.stack([x[inside], y[inside]], axis=1)
    picture[inside] = _shaded(material, surface, radius_px)
    averaged = picture.reshape(edge_px, _SAMPLES, edge_px, _SAMPLES, 3).mean(axis=(1, 3))
    return _quantized(srgb_from_linear(_tone_mapped(averaged)))


def sheet(previews: Mapping[str, RgbPicture] | Sequence[tuple[str, RgbPicture]], columns: int = 2) -> RgbPicture:
    """Join previews of one size in a grid, each with its label above it.

    Args:
        previews: label and [H, W, 3] picture, in reading order.
        columns: pictures side by side.
    """
    items = list(previews.items()) if isinstance(previews, Mapping) else list(previews)
    if not items or columns < 1:
        raise ValueError(f"previews: got {len(items)} in {columns} columns, expected at least one of each")
    height_px, width_px = items[0][1].shape[:2]
    for label, picture in items:
        check.shape(picture, f"{height_px} {width_px} 3", f"preview {label!r}")
    gap_px = max(4, height_px // 24)
    label_px = max(10, height_px // 14)
    font = ImageFont.load_default(label_px)
    columns = min(columns, len(items))
    rows = math.ceil(len(items) / columns)
    cell_width_px, cell_height_px = width_px + gap_px, height_px + gap_px + label_px + gap_px // 2
    joined = Image.new("RGB", (gap_px + columns * cell_width_px, gap_px + rows * cell_height_px), _SHEET_COLOR)
    draw = ImageDraw.Draw(joined)
    for place, (label, picture) in enumerate(items):
        left, top = gap_px + place % columns * cell_width_px, gap_px + place // columns * cell_height_px
        draw.text((left, top), label, fill=_LABEL_COLOR, font=font)
        joined.paste(Image.fromarray(picture), (left, top + label_px + gap_px // 2))
    return np.asarray(joined)


def _shaded(material: Material, surface: FloatArray, radius_px: float) -> FloatArray:
    """Return linear light [n, 3] towards the eye at points (x, y) of the unit disc that the sphere covers."""
    flat, tangent, bitangent = _frame(surface)
    tile_px = math.pi * radius_px / _TILES_ACROSS
    sampled = _sampled(material, _arc(surface, flat[:, 2]), tile_px)
    bump = sampled[MapKind.NORMAL]
    normal = bump[:, :1] * tangent + bump[:, 1:2] * bitangent + bump[:, 2:] * flat
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    color, metallic = sampled[MapKind.BASE_COLOR], sampled[MapKind.METALLIC]
    roughness = np.maximum(sampled[MapKind.ROUGHNESS], np.float32(0.06))
    occlusion = sampled[MapKind.AMBIENT_OCCLUSION]
    diffuse, specular = color * (1 - metallic), 0.04 * (1 - metallic) + color * metallic
    to_eye = np.maximum(normal @ _EYE, np.float32(0.04))[:, np.newaxis]  # the eye is far away

    light = np.zeros_like(color)
    for direction, strength, _ in _LIGHTS:
        to_light = np.maximum(normal @ direction, 0)[:, np.newaxis]
        to_light *= np.clip(flat @ direction * 6 + 0.6, 0, 1)[:, np.newaxis]  # no light from behind the sphere
        light += (diffuse + _highlight(normal, direction, roughness, specular)) * to_light * strength
    reflected = 2 * normal[:, 2:] * normal
    reflected[:, 2] -= 1
    light += diffuse * _irradiance(normal) * occlusion
    # Occlusion acts on mirrored light less, the more so the smoother the surface is.
    light += _environment_specular(specular, roughness, to_eye) * _radiance(reflected, roughness) * occlusion**roughness
    return light


def _frame(surface: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the sphere's normal, tangent and bitangent: the picture's axes carried along great circles."""
    x, y = surface[:, 0], surface[:, 1]
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    shear = -x * y / (1 + z)
    flat = np.stack([x, y, z], axis=1)
    tangent = np.stack([1 - x * x / (1 + z), shear, -x], axis=1)
    bitangent = np.stack([shear, 1 - y * y / (1 + z), -y], axis=1)
    return flat, tangent, bitangent


def _arc(surface: FloatArray, z: FloatArray) -> FloatArray:
    """Return texture coordinates in tiles: distances along the sphere from its front, so that no pole shows."""
    across = np.sqrt(np.maximum(1 - z * z, np.float32(1e-12)))
    tiles: FloatArray = np.arccos(np.clip(z, -1, 1)) / across * np.float32(_TILES_ACROSS / math.pi)
    return surface * tiles[:, np.newaxis]


def _sampled(material: Material, tiles: FloatArray, tile_px: float) -> dict[MapKind, FloatArray]:
    """Look every needed map up at coordinates in tiles (y up), bilinear and wrapped; colours as linear light."""
    small = Material({kind: material.maps[kind] for kind in _NEEDED})
    while min(small.maps[MapKind.NORMAL].shape[:2]) >= 2 * tile_px and _halvable(small):
        small = shrink(small, 2)
    rows, columns = small.maps[MapKind.NORMAL].shape[:2]
    # Oblong tiles keep their shape: the longer edge is one tile.
    longest = max(rows, columns)
    column = tiles[:, 0] * np.float32(longest) - np.float32(0.5)
    row = -tiles[:, 1] * np.float32(longest) - np.float32(0.5)
    left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    right_share, bottom_share = (column - left)[:, np.newaxis], (row - top)[:, np.newaxis]
    left, right, top, bottom = left % columns, (left + 1) % columns, top % rows, (top + 1) % rows
    looked_up: dict[MapKind, FloatArray] = {}
    for kind, values in small.maps.items():
        plane = linear_from_srgb(values) if kind is MapKind.BASE_COLOR else values
        upper = _lerp(plane[top, left], plane[top, right], right_share)
        lower = _lerp(plane[bottom, left], plane[bottom, right], right_share)
        looked_up[kind] = _lerp(upper, lower, bottom_share)
    return looked_up


def _halvable(material: Material) -> bool:
    return all(edge % 2 == 0 for edge in material.maps[MapKind.NORMAL].shape[:2])


def _lerp(first: FloatArray, second: FloatArray, share: FloatArray) -> FloatArray:
    mixed: FloatArray = first + (second - first) * share
    return mixed


def _highlight(normal: FloatArray, direction: FloatArray, roughness: FloatArray, specular: FloatArray) -> FloatArray:
    """Return the GGX reflectance times pi, seen along z (a light's strength is given divided by pi)."""
    half = _unit(*(direction + _EYE))
    alpha2 = np.maximum(roughness, np.float32(0.12)) ** 4  # a light has a size: no highlight is a point
    to_eye = np.maximum(normal @ _EYE, np.float32(0.04))[:, np.newaxis]
    to_light = np.maximum(normal @ direction, 0)[:, np.newaxis]
    to_half = np.maximum(normal @ half, 0)[:, np.newaxis]
    spread = to_half * to_half * (alpha2 - 1) + 1
    shadowed = to_light * np.sqrt(to_eye * to_eye * (1 - alpha2) + alpha2)
    shadowed += to_eye * np.sqrt(to_light * to_light * (1 - alpha2) + alpha2)
    fresnel = specular + (1 - specular) * np.float32((1 - float(direction @ half)) ** 5)
    reflectance: FloatArray = alpha2 / (spread * spread) * fresnel / (2 * np.maximum(shadowed, np.float32(1e-4)))
    return reflectance


def _irradiance(normal: FloatArray) -> FloatArray:
    """Return the studio's light on a matt surface, divided by pi."""
    up = (normal[:, 1:2] * np.float32(0.5)) + np.float32(0.5)
    direction, strength, _ = _RIM_LIGHT
    rim = np.maximum(normal @ direction, 0)[:, np.newaxis] * strength * np.float32(0.35)
    irradiance: FloatArray = _GROUND + (_SKY - _GROUND) * up + rim
    return irradiance


def _radiance(reflected: FloatArray, roughness: FloatArray) -> FloatArray:
    """Return the studio as a surface of that roughness mirrors it: a gradient and soft boxes, blurred."""
    softness = np.float32(0.2) + roughness
    up = np.clip(reflected[:, 1:2] / (2 * softness) + np.float32(0.5), 0, 1)
    up = up * up * (3 - 2 * up)
    seen: FloatArray = _GROUND + (_SKY - _GROUND) * up
    for direction, strength, sharpness in (*_LIGHTS, _RIM_LIGHT):
        blurred = sharpness / (1 + sharpness * roughness**2)  # width of the box and of the lobe add up
        lobe = np.exp(blurred * ((reflected @ direction)[:, np.newaxis] - 1))
        seen = seen + strength * lobe * (np.float32(0.6) * blurred / np.float32(sharpness))
    return seen


def _environment_specular(specular: FloatArray, roughness: FloatArray, to_eye: FloatArray) -> FloatArray:
    """Return the share of the studio's light that is mirrored: Schlick's Fresnel, damped by roughness."""
    grazing = np.maximum(1 - roughness, specular) - specular
    mirrored: FloatArray = specular + grazing * (1 - to_eye) ** 5
    return mirrored


def _backdrop(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the backdrop in linear light: a glow behind the sphere and its soft shadow on the floor."""
    glow = np.exp(-((x * x) * np.float32(0.45) + (y - np.float32(0.25)) ** 2 * np.float32(0.55)))
    shadow = np.exp(-((x / np.float32(0.62)) ** 2 + ((y + np.float32(1.04)) / np.float32(0.1)) ** 2))
    level = (np.float32(0.45) + np.float32(0.85) * glow) * (1 - np.float32(0.75) * shadow)
    backdrop: FloatArray = level[:, :, np.newaxis] * _BACKDROP
    return backdrop


def _tone_mapped(light: FloatArray) -> FloatArray:
    """Return light in [0, 1]: unchanged up to 0.6, so that colours stay true, then a soft shoulder."""
    knee = np.float32(0.6)
    bright = 1 - (1 - knee) * np.exp((knee - light) / (1 - knee))
    return np.where(light > knee, bright, light).astype(np.float32)


def _quantized(values: FloatArray) -> RgbPicture:
    return (values.clip(0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
