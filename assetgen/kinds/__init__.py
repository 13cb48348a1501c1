"""Registry of model kinds: what a request means for each, before and after the graph; imports the kinds only."""

from __future__ import annotations

from assetgen.kinds import texture
from assetgen.kinds.plan import Kind, Plan
from assetgen.package import VerifiedPackage
from assetgen.types import FloatArray, Request

KINDS: dict[str, Kind] = {"texture": texture}

__all__ = ["KINDS", "Kind", "Plan", "example_inputs"]


def example_inputs(package: VerifiedPackage, edge_px: int) -> dict[str, FloatArray]:
    """The graph's inputs for the asset of seed 0, square, all else as the model has it."""
    kind = KINDS[package.manifest.kind]
    request = Request(package.manifest.id, seed=0, width_px=edge_px, height_px=edge_px)
    return kind.prepare(package.manifest, kind.resolve(package.manifest, request), 0)
