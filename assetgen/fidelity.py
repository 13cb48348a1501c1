"""How far the maps of one backend are from those of another, and whether a model allows that; numpy.

Imports manifest, post-processing and types. Differences are of values in [0, 1]; those of normals are angles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from assetgen.manifest import Manifest, PrecisionSpec
from assetgen.postprocess.pbr import normal_from_height
from assetgen.types import FloatArray, MapKind

# Least PSNR of every output in dB, by precision, for models that do not say: what is only rounded stays above, what is
# broken comes out below 30.
LEAST_PSNR_DB = {"fp16": 45.0, "bf16": 40.0, "int8": 38.0}
MOST_NORMAL_DEGREES = 1.0
_PLAIN_RELIEF_PX = 8.0


@dataclass(frozen=True)
class Differences:
    """Two sets of maps compared, over any number of pictures.

    Attributes:
        largest, mean: by output.
        psnr_db: of the picture that came out worst, by output; infinite where all are equal.
        normal_degrees: mean angle of the picture that came out worst, and the largest angle; 0 without height.
    """

    largest: Mapping[str, float]
    mean: Mapping[str, float]
    psnr_db: Mapping[str, float]
    normal_degrees: float = 0.0
    largest_normal_degrees: float = 0.0


class Comparison:
    """Collects the differences of many pictures from their reference."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        names = [output.name for output in manifest.outputs]
        self._largest, self._psnr_db = dict.fromkeys(names, 0.0), dict.fromkeys(names, math.inf)
        self._sums, self._count = dict.fromkeys(names, 0.0), 0
        self._degrees, self._largest_degrees = 0.0, 0.0
        self._height = next((o.name for o in manifest.outputs if o.map_kind == MapKind.HEIGHT), "")

    def add(
        self, inputs: Mapping[str, FloatArray], reference: Mapping[str, FloatArray], given: Mapping[str, FloatArray]
    ) -> None:
        """Compare the outputs of one run; ``inputs`` tell the class, and with it the relief."""
        self._count += 1
        for name in self._largest:
            apart = np.abs(reference[name].astype(np.float64) - given[name])
            # Unlike max(), these keep NaN.
            self._largest[name] = float(np.maximum(self._largest[name], apart.max()))
            self._sums[name] += float(apart.mean())
            for one, other in zip(reference[name], given[name], strict=True):
                self._psnr_db[name] = min(self._psnr_db[name], psnr_db(one, other))
        if self._height and np.isfinite(given[self._height]).all():
            self._add_normals(inputs, reference[self._height], given[self._height])

    def result(self) -> Differences:
        """What was found so far."""
        mean = {name: total / max(self._count, 1) for name, total in self._sums.items()}
        return Differences(dict(self._largest), mean, dict(self._psnr_db), self._degrees, self._largest_degrees)

    def _add_normals(self, inputs: Mapping[str, FloatArray], reference: FloatArray, given: FloatArray) -> None:
        pairs = (normals(self._manifest, inputs, heights) for heights in (reference, given))
        for one, other in zip(*pairs, strict=True):
            # The arc of the chord: exact where angles are small, unlike the arc cosine.
            chord = np.linalg.norm((one - other).astype(np.float64), axis=2)
            degrees = np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))
            self._degrees = max(self._degrees, float(degrees.mean()))
            self._largest_degrees = max(self._largest_degrees, float(degrees.max()))


def normals(manifest: Manifest, inputs: Mapping[str, FloatArray], heights: FloatArray) -> list[FloatArray]:
    """Normals ``[h, w, 3]`` of heights ``[n, 1, h, w]``, with the relief of the classes that ``inputs`` tell."""
    weights = next((inputs[spec.name] for spec in manifest.inputs if spec.role == "class_weights"), None)
    reliefs = np.array([known.relief_px for known in manifest.classes], np.float32)
    return [
        normal_from_height(
            np.clip(height.transpose(1, 2, 0), 0, 1),
            _PLAIN_RELIEF_PX if weights is None else float(weights[i] @ reliefs),
        )
        for i, height in enumerate(heights)
    ]


def psnr_db(expected: FloatArray, given: FloatArray) -> float:
    """Peak signal-to-noise ratio of values in [0, 1]; infinite where they are equal, NaN counts as no signal."""
    error = float(np.mean((expected.astype(np.float64) - given) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error) if math.isfinite(error) else -math.inf


def limits(manifest: Manifest, precision: str) -> PrecisionSpec:
    """What the model asks of a precision other than fp32; where it does not say, what holds for all."""
    told = manifest.precisions.get(precision)
    if told is not None:
        return told
    least = dict.fromkeys((output.name for output in manifest.outputs), LEAST_PSNR_DB[precision])
    return PrecisionSpec("", least, MOST_NORMAL_DEGREES)


def broken_limits(manifest: Manifest, precision: str, found: Differences) -> list[str]:
    """What of the model's tolerance for ``precision`` does not hold, a phrase each; none if all is well."""
    if precision == "fp32":
        allowed = manifest.tolerance.get("fp32", {})
        return [
            f"{name} differs by {found.largest[name]:.2g}, allowed is {limit:g}"
            for name, limit in allowed.items()
            if name in found.largest and not found.largest[name] <= limit
        ]
    asked = limits(manifest, precision)
    broken = [
        f"{name} has {found.psnr_db[name]:.1f} dB, at least {least:g} are asked for"
        for name, least in asked.least_psnr_db.items()
        if not found.psnr_db[name] >= least
    ]
    if asked.most_normal_degrees and not found.normal_degrees <= asked.most_normal_degrees:
        broken.append(f"normals turn by {found.normal_degrees:.2f} degrees, {asked.most_normal_degrees:g} are allowed")
    return broken
