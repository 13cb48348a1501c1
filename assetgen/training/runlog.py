"""The log of a run: statistics and the watchdog's events as JSON lines; standard library only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assetgen.training import watchdog
from assetgen.training.checkpoint import Progress
from assetgen.training.recipe import AnyRecipe, DetailRecipe

STATISTICS, EVENTS = "stats.jsonl", "events.jsonl"


class RunLog:
    """What happened in a run folder, and what the watchdog makes of it.

    Attributes:
        good: nothing was found at the last call of ``heed``, and a recipe that acts may want to come back here.
    """

    def __init__(self, run: Path, recipe: AnyRecipe) -> None:
        self.run = run
        self.good = False
        # A detail network is told what is right, and its adversary has little say.
        self._recipe = None if isinstance(recipe, DetailRecipe) or recipe.stability == "off" else recipe
        self._lines: list[Mapping[str, float]] = [*read_lines(run / STATISTICS)[-watchdog.HISTORY :]]
        self._since_action = watchdog.PATIENCE

    def add(self, line: Mapping[str, float]) -> None:
        """Write a line of statistics."""
        # JSON has no NaN: what is not a number any more is null.
        known = {name: value if math.isfinite(value) else None for name, value in line.items()}
        _append(self.run / STATISTICS, known)
        self._lines = [*self._lines, line][-watchdog.HISTORY :]

    def heed(self, progress: Progress) -> Progress | None:
        """Judge the last line, write down what was found, and return changed progress if something should be done."""
        recipe, lines = self._recipe, self._lines
        if recipe is None:
            return None
        findings = watchdog.judge(lines, loss=recipe.loss, augment_max=recipe.augment_max)
        self.good = not findings and recipe.stability == "act"
        self._since_action += 1
        acted = None
        if findings and recipe.stability == "act" and self._may_act(progress, findings[0]):
            acted = watchdog.act(progress, findings[0])
        for number, finding in enumerate(findings):
            event = {
                "step": progress.step,
                "kimg": progress.pictures / 1000,
                "signal": finding.signal,
                "value": finding.value if math.isfinite(finding.value) else None,
                "limit": finding.limit,
                "text": finding.text,
                "action": finding.remedy if acted is not None and number == 0 else "",
            }
            _append(self.run / EVENTS, event)
        if acted is None or acted == progress:
            return None
        self._since_action = 0
        if acted.rewinds > progress.rewinds:
            self._lines = []  # of a course that was left
        return acted

    def _may_act(self, progress: Progress, finding: watchdog.Finding) -> bool:
        if finding.remedy == "rewind":
            return progress.rewinds < watchdog.MAX_REWINDS
        return self._since_action > watchdog.PATIENCE


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; none if there is no such file, null as NaN, a last line that was cut off left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the process was killed while it wrote
            continue
        lines.append({name: math.nan if value is None else value for name, value in line.items()})
    return lines


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
