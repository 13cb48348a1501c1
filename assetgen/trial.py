"""Inputs to try any model's graph on, by the roles that its manifest tells; imports latents, layouts and manifest.

They are what a plain request of the model would feed, whatever its kind; only pictures are drawn instead of given.
"""

from __future__ import annotations

import numpy as np

from assetgen import latents, layouts
from assetgen.manifest import LayoutSpec, Manifest
from assetgen.types import FloatArray

_TRUNCATION = 0.7
_OCTAVES = 6


def trial_inputs(manifest: Manifest, edge_px: int, seed: int) -> dict[str, FloatArray]:
    """Inputs of one square picture, batch dimension 1; the same for the same arguments.

    Args:
        edge_px: an edge that the model makes.
        seed: each one has another class, style, layout and noise.
    """
    rng = latents.generator(seed, 0)
    label = seed % max(len(manifest.classes), 1)
    found: dict[str, FloatArray] = {}
    finest = min((spec.stride_px for spec in manifest.inputs if spec.role == "layout"), default=0)
    levels: list[FloatArray] = []
    if finest:
        known = manifest.classes[label].layout if manifest.classes else LayoutSpec()
        channels = layouts.raster(rng, layouts.draw_layout(rng, known, "", 1.0), (edge_px // finest, edge_px // finest))
        levels = layouts.pyramid(channels, sum(spec.role == "layout" for spec in manifest.inputs))
    for spec in manifest.inputs:
        channels_of, cells = int(spec.shape[1]), edge_px // spec.stride_px if spec.stride_px else 0
        match spec.role:
            case "class_weights":
                found[spec.name] = np.eye(channels_of, dtype=np.float32)[label][None]
            case "truncation":
                found[spec.name] = np.full((1, channels_of), _TRUNCATION, np.float32)
            case "mix" | "slider":
                found[spec.name] = np.zeros((1, channels_of), np.float32)
            case "layout":
                found[spec.name] = next(level for level in levels if level.shape[-1] == cells)[None]
            case "image":
                found[spec.name] = _picture(rng, channels_of, cells)[None]
            case _:
                shape = (1, channels_of, *([cells, cells] if cells else []))
                found[spec.name] = rng.standard_normal(shape, dtype=np.float32)
    return found


def _picture(rng: np.random.Generator, channels: int, edge: int) -> FloatArray:
    """Squares of many sizes over each other, ``[channels, edge, edge]`` in [0, 1]: edges, flats and noise."""
    total = np.zeros((channels, edge, edge), np.float64)
    for octave in range(_OCTAVES):
        cells = min(2 << octave, edge)
        rows = np.arange(edge) * cells // edge
        total += rng.random((channels, cells, cells))[:, rows[:, None], rows[None, :]] / 2**octave
    low, high = total.min(), total.max()
    scaled: FloatArray = ((total - low) / max(high - low, 1e-9)).astype(np.float32)
    return scaled
