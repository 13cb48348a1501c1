"""The model card: what a package says of itself to people; standard library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assetgen.manifest import Manifest


def model_card(manifest: Manifest, provenance: Mapping[str, Any], notes: str) -> str:
    """Markdown from the manifest, the provenance and what a person wrote."""
    validation = provenance["validation"]
    parity = provenance["parity"]
    classes = "\n".join(
        f"| {known.label} | `{known.name}` | {known.relief_px:g} | {'yes' if known.metal else 'no'} |"
        for known in manifest.classes
    )
    return f"""# {manifest.display_name}

{manifest.description} Version {manifest.version}, licence {manifest.license}.

{notes.strip()}

## Classes

| class | id | relief, px | metallic learned |
|---|---|---|---|
{classes}

## Training

{_run_lines("Base colour (texture generator)", provenance["texture"])}
{_run_lines("Texels and maps (detail network)", provenance["detail"])}

## Figures

On {validation["items"]:g} map sets of scans kept out of training, {validation["items_with_height"]:g} with height:

{_figures(validation)}

Largest differences, all outputs and sizes: exported graph against PyTorch {parity["graph_against_network"]:.1e}; rolled
inputs against rolled outputs, PyTorch {parity["roll_network"]:.1e}, graph {parity["roll_graph"]:.1e}.
"""


def picture_card(manifest: Manifest, provenance: Mapping[str, Any], notes: str) -> str:
    """The same for a model of pictures of one size."""
    parity = provenance["parity"]
    classes = ", ".join(f"{known.label} (`{known.name}`)" for known in manifest.classes)
    return f"""# {manifest.display_name}

{manifest.description} Version {manifest.version}, licence {manifest.license}.

{notes.strip()}

Classes: {classes}.

## Training

{_run_lines("Base colour", provenance["texture"])}

Largest differences: exported graph against PyTorch {parity["graph_against_network"]:.1e}; pictures of rolled features
against rolled pictures {parity["roll_network"]:.1e}.
"""


def _run_lines(title: str, run: Mapping[str, Any]) -> str:
    data = run["data"]
    licenses = ", ".join(f"{name} ({count})" for name, count in sorted(data["licenses"].items()))
    authors = ", ".join(f"{name} ({count})" for name, count in sorted(data["authors"].items()))
    return (
        f"- **{title}**: {run['kimg']:g} thousand crops of {data['items']} pictures; licences {licenses}; "
        f"authors {authors}; training file sha256 `{data['data_sha256']}`."
    )


def _figures(validation: Mapping[str, float]) -> str:
    names = {
        "height_correlation": "correlation of predicted with real height",
        "height_correlation_of_brightness": 'the same for the guess "brighter is higher"',
        "slope_correlation": "correlation of slopes, from which normals come",
        "slope_correlation_of_brightness": 'the same for the guess "brighter is higher"',
        "roughness_error": "mean error of roughness (0 to 1)",
        "roughness_error_of_mean": 'the same for the guess "the mean of the training data"',
        "metallic_error": "mean error of metallic (0 to 1)",
    }
    rows = "\n".join(f"| {text} | {validation[name]:.3f} |" for name, text in names.items() if name in validation)
    return f"| figure | value |\n|---|---|\n{rows}"
