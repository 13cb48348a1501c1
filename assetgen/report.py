"""Models as text and as JSON, for the command line; imports describe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from assetgen.describe import ModelInfo
from assetgen.manifest import ParameterSpec


def models_text(models: Sequence[ModelInfo], details: bool) -> str:
    """One line a model, or everything about each."""
    if not models:
        return "no models"
    return "\n".join(_details(model) if details else _line(model) for model in models)


def models_json(models: Sequence[ModelInfo]) -> str:
    """A JSON list, without the preview pictures."""
    documents = []
    for model in models:
        document = asdict(model)
        del document["preview_png"]
        documents.append(document)
    return json.dumps(documents, indent=2)


def _line(model: ModelInfo) -> str:
    return f"{model.id}  {model.version}  {model.kind}  {model.digest[:12]}  {model.display_name}"


def _details(model: ModelInfo) -> str:
    size = model.size
    sent = any(spec.type == "image" for spec in model.parameters)
    own = "the picture's own" if sent else size.default_px
    lines = [
        _line(model),
        f"  {model.description}",
        f"  digest   {model.digest}",
        f"  licence  {model.license}",
        f"  maps     {', '.join(model.maps)}",
        f"  size     multiples of {size.stride_px} from {size.min_px} to {size.max_px} px ({own})",
        *(f"  {spec.name:16} {_allowed(spec)}  {spec.description}" for spec in model.parameters),
    ]
    return "\n".join(lines)


def _allowed(spec: ParameterSpec) -> str:
    if spec.type == "choice":
        return f"{', '.join(spec.values)} ({spec.default})"
    if spec.type == "image":
        return f"@FILE, {', '.join(spec.media_types)}" + (" (required)" if spec.required else "")
    return f"{spec.minimum:g} to {spec.maximum:g} ({spec.default:g})" if spec.default is not None else "a number"
