"""Means of statistics between two lines of a run's log; torch only."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Sums:
    """Sums of statistics since the last line, kept as tensors so that counting does not wait for the device."""

    totals: dict[str, Tensor | float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """Count one value of ``name``."""
        self.totals[name] = self.totals.get(name, 0.0) + value.detach()
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Mean of every name."""
        return {name: round(float(total) / self.counts[name], 5) for name, total in self.totals.items()}
