"""Reports as ``assetgen eval model --json`` writes them; standard library only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES = ("accuracy", "swd", "kid", "coverage", "ms_ssim", "pair_distance", "copied", "gram", "seam")
CLASSES = ("potion", "sword", "gem")


def write_report(folder: Path, run_name: str, bound: float | None = None, **changes: Any) -> Path:
    """A report of a run at a bound of z, in which less variety is told right more often."""
    figures: dict[str, dict[str, float]] = {name: {"fake": 0.2, "real": 0.1} for name in NAMES}
    figures["accuracy"] = {"fake": 1 - 0.4 * (1.0 if bound is None else bound / 2), "real": 0.9}
    report = {
        "schema": 1,
        "model": run_name,
        "per_class": 64,
        "truncation": bound,
        "edges": {"fake": {"rim": 3.0, "dust": 0.1}, "real": {"rim": 2.0, "dust": 0.0}},
        "all": figures,
        "classes": dict.fromkeys(CLASSES, figures),
    }
    path = folder / f"report_{bound}.json"
    path.write_text(json.dumps(report | changes))
    return path
