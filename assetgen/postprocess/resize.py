"""Wrapped resizing of material maps and mip chains; imports types and check of ours, and numpy.

A tile stays a tile: every filter wraps, and rolling the input by whole cells rolls the output. Colours are averaged in
linear light, normals are renormalised.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from assetgen import check
from assetgen.types import FloatArray, MapKind, Material

HeightFilter = Literal["mean", "max"]
_SHORTEST_NORMAL = 1e-3  # below this an average of normals has no direction left to keep


def linear_from_srgb(values: FloatArray) -> FloatArray:
    """Return linear light of sRGB-coded values in [0, 1] (IEC 61966-2-1)."""
    low = values * np.float32(1 / 12.92)
    high = ((values + np.float32(0.055)) * np.float32(1 / 1.055)) ** np.float32(2.4)
    return np.where(values <= np.float32(0.04045), low, high)


def srgb_from_linear(values: FloatArray) -> FloatArray:
    """Return sRGB-coded values of linear light in [0, 1] (IEC 61966-2-1)."""
    low = values * np.float32(12.92)
    high = np.float32(1.055) * np.maximum(values, np.float32(0)) ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(values <= np.float32(0.0031308), low, high)


def shrink(material: Material, factor: int, height_filter: HeightFilter = "mean") -> Material:
    """Return the maps at 1/factor of their size, each pixel the area mean of factor x factor pixels.

    Args:
        material: maps whose edges are multiples of ``factor``.
        factor: whole number, at least 1.
        height_filter: ``max`` keeps the highest point, what displacement with conservative bounds wants.

    Returns:
        Maps that roll by k when the input rolls by k * factor.
    """
    _check_factor(factor)
    for kind, values in material.maps.items():
        if values.shape[0] % factor or values.shape[1] % factor:
            raise ValueError(f"{kind}: got {values.shape[0]} x {values.shape[1]} px, expected multiples of {factor}")
    shrunk: dict[MapKind, FloatArray] = {}
    for kind, values in material.maps.items():
        if kind is MapKind.HEIGHT and height_filter == "max":
            shrunk[kind] = _cells_max(values, factor)
        else:
            shrunk[kind] = _coded(kind, _cells_mean(_linear(kind, values), factor))
    return Material(shrunk)


def enlarge(material: Material, factor: int) -> Material:
    """Return the maps at factor times their size, bilinear between pixel centres, wrapped.

    The maps are sampled more finely: derive nothing from an enlarged height without scaling ``relief_px`` by factor.

    Returns:
        Maps that roll by k * factor when the input rolls by k.
    """
    _check_factor(factor)
    return Material(
        {
            kind: _coded(kind, _stretched(_stretched(_linear(kind, values), factor, 0), factor, 1))
            for kind, values in material.maps.items()
        }
    )


def mip_chain(material: Material, height_filter: HeightFilter = "mean") -> tuple[Material, ...]:
    """Return the material and its halvings, for as long as both edges are even; powers of two end at 1 px."""
    chain = [material]
    while all(edge % 2 == 0 for values in chain[-1].maps.values() for edge in values.shape[:2]):
        chain.append(shrink(chain[-1], 2, height_filter))
    return tuple(chain)


def _check_factor(factor: int) -> None:
    if factor < 1:
        raise ValueError(f"factor: got {factor}, expected a whole number of at least 1")


def _linear(kind: MapKind, values: FloatArray) -> FloatArray:
    """Check one map and return it as values that may be averaged."""
    if kind is MapKind.NORMAL:
        check.shape(values, "h w 3", kind)
        check.in_range(values, -1.00001, 1.00001, kind)
        return values
    check.shape(values, "h w 3" if kind is MapKind.BASE_COLOR else "h w 1", kind)
    check.in_range(values, 0.0, 1.0, kind)
    return linear_from_srgb(values) if kind is MapKind.BASE_COLOR else values


def _coded(kind: MapKind, values: FloatArray) -> FloatArray:
    """Return averaged values in the coding of their map; clips what rounding put outside by an ulp."""
    if kind is MapKind.NORMAL:
        length = np.sqrt(np.sum(values * values, axis=2, keepdims=True))
        check.in_range(length, _SHORTEST_NORMAL, 2.0, "length of averaged normals")
        directions: FloatArray = (values / length).clip(-1, 1)
        return directions
    return (srgb_from_linear(values) if kind is MapKind.BASE_COLOR else values).clip(0, 1)


def _cells_mean(values: FloatArray, factor: int) -> FloatArray:
    total = np.zeros((values.shape[0] // factor, values.shape[1] // factor, values.shape[2]), dtype=np.float32)
    for row in range(factor):
        for column in range(factor):
            total += values[row::factor, column::factor]
    total /= np.float32(factor * factor)
    return total


def _cells_max(values: FloatArray, factor: int) -> FloatArray:
    check.shape(values, "h w 1", MapKind.HEIGHT)
    check.in_range(values, 0.0, 1.0, MapKind.HEIGHT)
    rows, columns = values.shape[0] // factor, values.shape[1] // factor
    highest: FloatArray = values.reshape(rows, factor, columns, factor, 1).max(axis=(1, 3))
    return highest


def _stretched(values: FloatArray, factor: int, axis: int) -> FloatArray:
    """Interpolate between pixel centres along one wrapped axis."""
    shape = list(values.shape)
    shape[axis] *= factor
    out = np.empty(shape, dtype=np.float32)
    for phase in range(factor):
        position = (phase + 0.5) / factor - 0.5
        before = -1 if position < 0 else 0
        share = np.float32(position - before)
        first, second = np.roll(values, -before, axis), np.roll(values, -before - 1, axis)
        out[(slice(None),) * axis + (slice(phase, None, factor),)] = first + (second - first) * share
    return out
