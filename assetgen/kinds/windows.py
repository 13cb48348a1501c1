"""Large pictures in windows: the same result in bounded memory; imports manifest and types.

Everything a generator computes is local but for the style, which every window shares. So a window with a margin as wide
as the network can see is computed as if it were a torus of its own, and only what lies inside the margin is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from assetgen.manifest import SPATIAL_ROLES, Manifest
from assetgen.types import FloatArray

Run = Callable[[Mapping[str, FloatArray]], Mapping[str, FloatArray]]


@dataclass(frozen=True)
class Span:
    """A stretch of one axis, in pixels: what is kept, and the margin computed on both sides of it."""

    start_px: int
    length_px: int
    margin_px: int


def spans(edge_px: int, window_px: int, halo_px: int, stride_px: int) -> list[Span]:
    """Cut an axis into stretches that with their margins have at most ``window_px``; one without margin if it fits.

    ``window_px`` must leave room for one stride between the margins; all are multiples of ``stride_px``.
    """
    if not window_px or edge_px <= window_px:
        return [Span(0, edge_px, 0)]
    cells = edge_px // stride_px
    count = -(-edge_px // (window_px - 2 * halo_px))
    bounds = [stride_px * (cells * i // count) for i in range(count + 1)]
    return [Span(low, high - low, halo_px) for low, high in pairwise(bounds)]


def count_windows(manifest: Manifest, height_px: int, width_px: int) -> int:
    """How many times the graph runs for one asset of this size."""
    size = manifest.size
    rows, columns = (spans(edge, size.window_px, size.halo_px, size.stride_px) for edge in (height_px, width_px))
    return len(rows) * len(columns)


def run_in_windows(run: Run, manifest: Manifest, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Run the graph on ``inputs`` (batch 1), in as many windows as its size asks for.

    Returns:
        Outputs by name, ``[1, c, h, w]``, as one run on the whole would give to rounding.
    """
    size = manifest.size
    strides = {spec.name: spec.stride_px for spec in manifest.inputs if spec.role in SPATIAL_ROLES}
    if not strides:  # one size only, from the latent alone
        return dict(run(inputs))
    name, stride_px = next(iter(strides.items()))
    height_px, width_px = (cells * stride_px for cells in inputs[name].shape[2:])
    rows, columns = (spans(edge, size.window_px, size.halo_px, size.stride_px) for edge in (height_px, width_px))
    if len(rows) * len(columns) == 1:
        return dict(run(inputs))
    wholes = {
        spec.name: np.empty((1, spec.channels, height_px, width_px), dtype=np.float32) for spec in manifest.outputs
    }
    for row in rows:
        for column in columns:
            parts = {
                name: _cut(array, row, column, strides[name]) if name in strides else array
                for name, array in inputs.items()
            }
            outputs = run(parts)
            for name, whole in wholes.items():
                whole[
                    :,
                    :,
                    row.start_px : row.start_px + row.length_px,
                    column.start_px : column.start_px + column.length_px,
                ] = outputs[name][
                    :,
                    :,
                    row.margin_px : row.margin_px + row.length_px,
                    column.margin_px : column.margin_px + column.length_px,
                ]
    return wholes


def _cut(array: FloatArray, row: Span, column: Span, stride_px: int) -> FloatArray:
    """The cells of a window and its margin, around the border of the torus where needed."""
    picks = [
        np.arange(
            (span.start_px - span.margin_px) // stride_px,
            (span.start_px + span.length_px + span.margin_px) // stride_px,
        )
        % cells
        for span, cells in zip((row, column), array.shape[2:], strict=True)
    ]
    return np.ascontiguousarray(array[:, :, picks[0][:, None], picks[1][None, :]])
