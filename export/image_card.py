"""The model cards of models that take a picture; of ours manifest and the other cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assetgen.manifest import Manifest
from export.card import figures_table, run_lines

_SIDES = ("results", "inputs", "real")
_MEASURES = {
    "swd": "sliced Wasserstein distance to held-back pictures of the look",
    "gram": "Gram distance to held-back pictures of the look",
    "told": "share that a classifier trained to tell the looks takes for the look",
}
_MEANINGS = {
    "change": "mean change of a value in [-1, 1]; 0 hands the picture back",
    "structure": "correlation of slopes with those of the picture; 1: every edge stands where it stood",
    "diversity": "distance of two results as a share of that of two real pictures of the look",
    "cycle_error": "mean error of a value in [-1, 1] after the way there and back",
    "domain_share": "share of results that the run's own discriminator takes for the look asked for",
    "label_effect": "mean change of a value by asking for another look",
}


def style_card(manifest: Manifest, provenance: Mapping[str, Any], notes: str) -> str:
    """Markdown of a model that repaints, from the manifest, the provenance and what a person wrote."""
    sources, looks = provenance["sources"], provenance["looks"]
    recipe = provenance["style"]["recipe"]
    way = f"any of {_list(looks)} into any other" if len(looks) > 1 else f"{_list(sources)} into {_list(looks)}"
    return f"""# {manifest.display_name}

{manifest.description} Version {manifest.version}, licence {manifest.license}.

{notes.strip()}

## What it does

Repaints {way}. Method {recipe["method"]}, {recipe["width"]} channels, {recipe["blocks"]} blocks, norm {recipe["norm"]}.
{_sizes(manifest)}

## Training

{run_lines("Pictures of all looks", provenance["style"])}

## Figures

{_style_figures(provenance["figures"])}

{_parity(provenance["parity"])}
"""


def photo_card(manifest: Manifest, provenance: Mapping[str, Any], notes: str) -> str:
    """Markdown of a model that makes maps of a photo."""
    validation = provenance["validation"]
    photo = provenance["detail"]["recipe"].get("photo")
    measured = "of the pictures in full" if photo else "with the network's own colours in place of the picture's"
    classes = "\n".join(
        f"| {known.label} | `{known.name}` | {known.relief_px:g} | {'yes' if known.metal else 'no'} |"
        for known in manifest.classes
    )
    return f"""# {manifest.display_name}

{manifest.description} Version {manifest.version}, licence {manifest.license}.

{notes.strip()}

## What it does

The picture is the base colour and stays as it is. Height starts from its brightness in three bands, weighed as learned
for the class, and is corrected by the network; roughness and metallic come from the network; normal and occlusion are
derived from height. The network looks at the picture at a quarter of its size.
{_sizes(manifest)}

| class | id | relief, px | metallic learned |
|---|---|---|---|
{classes}

## Training

{run_lines("Maps (detail network)", provenance["detail"])}

## Figures

On {validation["items"]:g} map sets of scans kept out of training, {validation["items_with_height"]:g} with height,
measured by training, {measured}:

{figures_table(validation)}

{_parity(provenance["parity"])}
"""


def _sizes(manifest: Manifest) -> str:
    size = manifest.size
    how = "It looks at the whole picture at once: a part of it alone would come out with other colours."
    if size.window_px:
        how = f"Above {size.window_px} px it is computed in windows that agree with the whole."
    edges = (
        f"Pictures of {size.min_px} to {size.max_px} px an edge; those that tile have multiples of {size.stride_px}."
    )
    return f"{edges} {how}"


def _style_figures(figures: Mapping[str, float]) -> str:
    if not figures:
        return "Training has written none."
    ways: dict[str, dict[str, float]] = {}
    others: dict[str, float] = {}
    for name, value in figures.items():
        way, _, measure = name.partition(": ")
        if measure.split(": ")[0] in _MEASURES or measure in _MEANINGS:
            ways.setdefault(way, {})[measure] = value
        else:
            others[name] = value
    tables = [_ways_table(ways)] if ways else []
    if others:
        rows = "\n".join(
            f"| {name.replace('_', ' ')} | {value:.3g} | {_MEANINGS.get(name.split('.')[0], '')} |"
            for name, value in others.items()
        )
        tables.append(f"""Those explained are what training measured last:

| figure | value | what it is |
|---|---|---|
{rows}""")
    return "On pictures kept out of training if there were enough.\n\n" + "\n\n".join(tables)


def _ways_table(ways: Mapping[str, Mapping[str, float]]) -> str:
    """What ``assetgen eval style`` measured, a row a way."""
    measures = "; ".join(f"**{name}**: {meaning}" for name, meaning in _MEASURES.items())
    rest = [name for name in _MEANINGS if any(name in found for found in ways.values())]
    meanings = "".join(f"; **{name}**: {_MEANINGS[name]}" for name in rest)
    rows = []
    for way, found in ways.items():
        triples = (", ".join(_shown(found.get(f"{name}: {side}")) for side in _SIDES) for name in _MEASURES)
        rows.append(f"| {way} | {' | '.join(triples)} | {' | '.join(_shown(found.get(name)) for name in rest)} |")
    heads = [f"{name}: {', '.join(_SIDES)}" for name in _MEASURES]
    lines = [f"| way | {' | '.join([*heads, *rest])} |", f"|{'---|' * (1 + len(heads) + len(rest))}", *rows]
    return f"{measures}; each of results, of inputs and of real pictures of the look{meanings}.\n\n" + "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _parity(parity: Mapping[str, float]) -> str:
    return (
        f"Largest differences over all sizes: exported graph against PyTorch {parity['graph_against_network']:.1e}; "
        f"results of rolled pictures against rolled results, PyTorch {parity['roll_network']:.1e}, graph "
        f"{parity['roll_graph']:.1e}."
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
