"""``assetgen eval compare``: figures of several models side by side, from their JSON files; standard library only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assetgen.errors import ConfigInvalid

# Key in "all", heading, digits after the point.
COLUMNS = (
    ("accuracy", "accuracy", 2),
    ("swd", "SWD", 0),
    ("gram", "Gram", 2),
    ("kid", "KID", 3),
    ("ms_ssim", "MS-SSIM", 2),
    ("pair_distance", "pairs", 3),
    ("grid", "grid", 1),
    ("copied", "copied", 2),
)


def comparison(files: Sequence[Path]) -> str:
    """A Markdown table, a row a model; the last row is of real pictures, where all files agree on them.

    Raises:
        ConfigInvalid: a file is not one that ``assetgen eval model --json`` wrote, or two are of different classes.
    """
    reports = [_read(path) for path in files]
    classes = {tuple(report["classes"]) for report in reports}
    if len(classes) > 1:
        raise ConfigInvalid(
            "the files are of different classes, so their figures cannot be compared",
            hint="judge all models with the same --classes",
        )
    used = [column for column in COLUMNS if any(report["all"][column[0]]["fake"] is not None for report in reports)]
    heads = ["model", "weights", "ms a picture", *(heading for _, heading, _ in used)]
    rows = [
        [
            path.stem,
            f"{report['weights'] / 1e6:.2f} M",
            f"{report['ms_per_picture']:.1f}",
            *(_number(report["all"][key]["fake"], digits) for key, _, digits in used),
        ]
        for path, report in zip(files, reports, strict=True)
    ]
    reals = {tuple(_number(report["all"][key]["real"], digits) for key, _, digits in used) for report in reports}
    if len(reals) == 1:
        rows.append(["real pictures", "", "", *reals.pop()])
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        missing = {"classes", "all", "weights", "ms_per_picture"} - set(report)
        if missing:
            raise KeyError(f"no {min(missing)}")
        return dict(report)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigInvalid(
            f"{path} holds no figures: {error}", hint="write it with assetgen eval model --json"
        ) from None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
