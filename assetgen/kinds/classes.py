"""What kinds with classes share: checked requests, class weights, names of files; imports plan and postprocess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assetgen.errors import FieldInvalid
from assetgen.kinds.plan import MAX_SEED, check_edge, check_indices, check_integer, check_parameters
from assetgen.manifest import Manifest
from assetgen.postprocess import profiles
from assetgen.types import Request

NO_CLASS = "none"
LONGEST_NAME = 64


def class_weights(manifest: Manifest, values: Mapping[str, Any]) -> tuple[tuple[float, ...], str]:
    """Weights in the manifest's order, adding up to 1, and the name of the first class, for file names.

    Args:
        values: checked parameters, of which ``class``, ``blend_class`` and ``blend`` count; ``blend`` is the share of
            the second class.
    """
    names = [known.name for known in manifest.classes]
    first = values.get("class", names[0])
    second, blend = values.get("blend_class", NO_CLASS), values.get("blend", 0.0)
    if second == NO_CLASS:
        blend = 0.0
    weights = [0.0] * len(names)
    weights[names.index(first)] += 1.0 - blend
    if blend:
        weights[names.index(second)] += blend
    return tuple(weights), first


def resolve_drawn(manifest: Manifest, request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check what all kinds share that are drawn from a latent, by class; raises FieldInvalid.

    Returns:
        Fields of the plan (seed, first_index, count, width_px, height_px, class_weights, class_name, truncation,
        sliders, output), and the checked parameters by name.
    """
    seed = check_integer(request.seed, 0, MAX_SEED, "seed")
    first_index, count = check_indices(request)
    values: dict[str, Any] = check_parameters(manifest.parameters, request.parameters, manifest.id)
    weights, class_name = class_weights(manifest, values)
    if request.output.name:
        check_asset_name(request.output.name, first_index + count - 1)
    fields = {
        "seed": seed,
        "first_index": first_index,
        "count": count,
        "width_px": check_edge(request.width_px, manifest.size, manifest.id, "width_px"),
        "height_px": check_edge(request.height_px, manifest.size, manifest.id, "height_px"),
        "class_weights": weights,
        "class_name": class_name[:40],
        "truncation": values.get("truncation", 1.0),
        "sliders": {spec.name: values.get(spec.name, 0.0) for spec in manifest.inputs if spec.role == "slider"},
        "output": request.output,
    }
    return fields, values


def check_asset_name(name: str, last_index: int) -> None:
    """Raise FieldInvalid unless ``name`` can begin the names of all files up to those of ``last_index``."""
    profiles.check_name(name)
    longest = LONGEST_NAME - len(f"_{last_index}")
    if last_index and len(name) > longest:
        raise FieldInvalid(
            f"output.name: {len(name)} characters leave no room for the index {last_index}; use at most {longest}",
            field="output.name",
            metadata={"given": name, "max": str(longest)},
        )


def asset_name(given: str, class_name: str, seed: int, index: int) -> str:
    """A name of its own for each index, whatever the count: ``rock``, ``rock_1``; ``stone_7_0`` if none is given."""
    if given:
        return f"{given}_{index}" if index else given
    return f"{class_name}_{seed}_{index}"
