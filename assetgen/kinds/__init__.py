"""Registry of model kinds: what a request means for each, before and after the graph; imports the kinds only."""

from __future__ import annotations

from typing import Any

from assetgen.kinds import mesh, sprite, style, texture
from assetgen.kinds.examples import example_parameters
from assetgen.kinds.plan import Kind, Plan
from assetgen.package import VerifiedPackage
from assetgen.types import FloatArray, Request

KINDS: dict[str, Kind] = {"texture": texture, "sprite": sprite, "style": style, "mesh": mesh}

__all__ = ["KINDS", "Kind", "Plan", "example_inputs", "example_parameters", "finishing_inputs"]


def finishing_inputs(package: VerifiedPackage, plan: Any) -> dict[str, FloatArray]:
    """What a session that finishes maps itself takes beside the graph's inputs; see ``postprocess.finishing``."""
    return texture.finishing_inputs(plan) if package.manifest.kind == "texture" else {}


def example_inputs(package: VerifiedPackage, edge_px: int) -> dict[str, FloatArray]:
    """The graph's inputs for the asset of seed 0, square, all else as the model has it; a picture is a drawn one."""
    kind = KINDS[package.manifest.kind]
    parameters = example_parameters(package.manifest, edge_px, edge_px)
    request = Request(package.manifest.id, seed=0, width_px=edge_px, height_px=edge_px, parameters=parameters)
    return kind.prepare(package.manifest, kind.resolve(package.manifest, request), 0)
