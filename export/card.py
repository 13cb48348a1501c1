"""The model card: what a package says of itself to people; standard library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assetgen.manifest import Manifest

# What full sliders promised when manifests did not say it yet.
FIRST_REACH = 1.5


def model_card(manifest: Manifest, provenance: Mapping[str, Any], notes: str) -> str:
    """Markdown from the manifest, the provenance and what a person wrote."""
    validation = provenance["validation"]
    parity = provenance["parity"]
    classes = "\n".join(
        f"| {known.label} | `{known.name}` | {known.relief_px:g} | {_yes(known.metal)} |" for known in manifest.classes
    )
    return f"""# {manifest.display_name}

{manifest.description} Version {manifest.version}, licence {manifest.license}.

{notes.strip()}

## Classes

| class | id | relief, px | metallic learned |
|---|---|---|---|
{classes}

## Training

{run_lines("Base colour (texture generator)", provenance["texture"])}
{run_lines("Texels and maps (detail network)", provenance["detail"])}

## Figures

On {validation["items"]:g} map sets of scans kept out of training, {validation["items_with_height"]:g} with height:

{figures_table(validation)}

Largest differences, all outputs and sizes: exported graph against PyTorch {parity["graph_against_network"]:.1e}; rolled
inputs against rolled outputs, PyTorch {parity["roll_network"]:.1e}, graph {parity["roll_graph"]:.1e}.
{_look(provenance["sliders"], provenance["variations"])}"""


def picture_card(manifest: Manifest, provenance: Mapping[str, Any], notes: str) -> str:
    """The same for a model of pictures of one size."""
    parity = provenance["parity"]
    classes = ", ".join(f"{known.label} (`{known.name}`)" for known in manifest.classes)
    return f"""# {manifest.display_name}

{manifest.description} Version {manifest.version}, licence {manifest.license}.

{notes.strip()}

Classes: {classes}.

## Training

{run_lines("Base colour", provenance["texture"])}

Largest differences: exported graph against PyTorch {parity["graph_against_network"]:.1e}; pictures of rolled features
against rolled pictures {parity["roll_network"]:.1e}.
"""


def sprite_card(manifest: Manifest, provenance: Mapping[str, Any], notes: str) -> str:
    """The same for a model of sprites; with what was measured of it, if it was."""
    classes = ", ".join(f"{known.label} (`{known.name}`)" for known in manifest.classes)
    return f"""# {manifest.display_name}

{manifest.description} Version {manifest.version}, licence {manifest.license}.

{notes.strip()}

Classes: {classes}.

## Training

{run_lines("Sprites", provenance["sprite"])}

Largest difference of the exported graph from PyTorch, at batches that were not traced:
{provenance["parity"]["graph_against_network"]:.1e}.
{_measured(provenance.get("figures", {}))}{_look(provenance["sliders"], [], "sprites", "props")}"""


def _measured(figures: Mapping[str, Any]) -> str:
    """Figures of a sprite model, generated beside real, and the curve of truncation."""
    if not figures:
        return ""
    pairs = {name.replace("_", " "): pair for name, pair in figures["figures"].items()}
    pairs |= {f"edges: {name}": pair for name, pair in figures["edges"].items()}
    rows = "".join(f"| {name} | {_number(pair['fake'])} | {_number(pair['real'])} |\n" for name, pair in pairs.items())
    names = list(figures["curve"][0])
    points = "".join(f"| {' | '.join(_number(point[name]) for name in names)} |\n" for point in figures["curve"])
    return f"""
## Figures

Of {figures["per_class"]} sprites a class, all classes, beside real ones (`docs/evaluation.md`):

| figure | generated | real |
|---|---|---|
{rows}
By truncation; "none" is z as it is drawn:

| {" | ".join(name.replace("_", " ") for name in names)} |
|{"---|" * len(names)}
{points}"""


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _look(
    sliders: Sequence[Mapping[str, Any]],
    variations: Sequence[Mapping[str, Any]],
    seen: str = "styles",
    document: str = "latents",
) -> str:
    """What was measured of sliders and variations, those not offered too; nothing if none was looked for."""
    text = ""
    if sliders:
        rows = "".join(
            f"| `{s['name']}` | {s['r2']:.2f} | {s['rising']:.0%} | {s['down']:.2f}, {s['up']:.2f} "
            f"| {s.get('reach', FIRST_REACH):g} | {s['effect']:.3g} | {_plain(s['unit'])} | {_yes(s['offered'])} |\n"
            for s in sliders
        )
        text += f"""
## Sliders

On {seen} kept out, means over the classes (`docs/{document}.md`):

| slider | R² | steps that rise | kept at -1 and 1 | of so many deviations | effect of 1 | unit | offered |
|---|---|---|---|---|---|---|---|
{rows}"""
    if variations:
        rows = "".join(
            f"| `{v['name']}` | {v['method']} | {v['change']:.1f} | {v['new']:.0%} | {v['most']} | "
            f"{_yes(v['offered'])} |\n"
            for v in variations
        )
        text += f"""
Directions found without labels; change is that of pixels in units of CIE {_plain("L*a*b*")}:

| variation | method | change at 1 | of it beyond the sliders | changes mostly | offered |
|---|---|---|---|---|---|
{rows}"""
    return text


def _plain(text: str) -> str:
    return text.replace("*", r"\*")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def run_lines(title: str, run: Mapping[str, Any]) -> str:
    """What a run of training was made of, as one item of a list."""
    data = run["data"]
    licenses = ", ".join(f"{name} ({count})" for name, count in sorted(data["licenses"].items()))
    authors = ", ".join(f"{name} ({count})" for name, count in sorted(data["authors"].items()))
    return (
        f"- **{title}**: {run['kimg']:g} thousand crops of {data['items']} pictures; licences {licenses}; "
        f"authors {authors}; training file sha256 `{data['data_sha256']}`."
    )


def figures_table(validation: Mapping[str, float]) -> str:
    """What the detail network reaches on scans kept out, as a table."""
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
