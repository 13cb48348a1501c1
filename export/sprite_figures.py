"""Figures of a sprite model from reports of ``assetgen eval model RUN --json``, for card and provenance; no torch.

Several reports that differ in ``--truncation`` make the curve of quality against variety.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assetgen.errors import ConfigInvalid
from assetgen.kinds.sprite import WIDEST_BOUND

# Of the report's figures over all classes, those that say something of sprites, and of those the ones of the curve.
FIGURES = ("accuracy", "swd", "kid", "coverage", "ms_ssim", "pair_distance", "copied")
CURVE = ("accuracy", "coverage", "ms_ssim", "pair_distance")


def figures_from_reports(paths: Sequence[Path], run_name: str, classes: Sequence[str]) -> dict[str, Any]:
    """What was measured of a run.

    Args:
        paths: reports of one run, with different truncations.
        run_name: name of the run's folder, which the reports must be of.
        classes: which they must tell of, no more and no fewer.

    Returns:
        Empty without reports; else ``per_class``, ``figures`` and ``edges`` (name to numbers ``fake`` and ``real``) at
        the widest truncation, and ``curve``: points with ``truncation`` as a request gives it (None: z as it is drawn)
        and the figures of the generated sprites, from the narrowest to the widest.

    Raises:
        ConfigInvalid: not such reports, of another run or other classes, not of the same figures, or two with one
            truncation.
    """
    if not paths:
        return {}
    reports = [(_truncation(report, path), report) for path, report in ((path, _read(path)) for path in paths)]
    for path, (_, report) in zip(paths, reports, strict=True):
        if report.get("model") != run_name:
            raise ConfigInvalid(
                f"{path} is of {report.get('model')!r:.80}, not of the run {run_name!r}", hint="measure this run"
            )
        if (judged := set(report.get("classes", ()))) != set(classes):
            raise ConfigInvalid(
                f"{path} judges {', '.join(sorted(judged))}; the package offers {', '.join(sorted(classes))}",
                hint="measure these: assetgen eval model RUN --classes A,B",
            )
    wideness = [float("inf") if truncation is None else truncation for truncation, _ in reports]
    if len(set(wideness)) < len(wideness):
        raise ConfigInvalid(f"two of {', '.join(map(str, paths))} have the same truncation", hint="leave one out")
    ordered = [reports[place] for place in sorted(range(len(reports)), key=wideness.__getitem__)]
    try:
        widest = ordered[-1][1]
        curve = [_point(truncation, report["all"]) for truncation, report in ordered]
        if any(point.keys() != curve[0].keys() for point in curve):
            raise ConfigInvalid("not all reports tell of the same figures", hint="give all the same --classifier")
        return {
            "per_class": widest["per_class"],
            "figures": {name: widest["all"][name] for name in FIGURES if widest["all"][name]["fake"] is not None},
            "edges": _edges(widest.get("edges", {})),
            "curve": curve,
        }
    except (KeyError, TypeError) as error:
        raise ConfigInvalid(f"a report lacks {error}", hint="write it with `assetgen eval model RUN --json`") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(report, dict) or report.get("schema") != 1:
        raise ConfigInvalid(f"{path} is no report", hint="write it with `assetgen eval model RUN --json`")
    return report


def _truncation(report: Mapping[str, Any], path: Path) -> float | None:
    """As a request gives it, from the bound of z that the report was made with."""
    bound = report.get("truncation")
    if bound is None:
        return None
    if type(bound) not in (int, float) or not 0 < bound <= WIDEST_BOUND:
        raise ConfigInvalid(f"{path}: truncation {bound!r:.80}; requests reach bounds up to {WIDEST_BOUND:g}")
    return float(bound) / WIDEST_BOUND


def _edges(edges: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Name to generated and real, as the other figures are."""
    return {name: {"fake": value, "real": edges["real"][name]} for name, value in edges.get("fake", {}).items()}


def _point(truncation: float | None, figures: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    return {"truncation": truncation} | {
        name: figures[name]["fake"] for name in CURVE if figures[name]["fake"] is not None
    }
