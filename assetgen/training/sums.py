"""Means of statistics between two lines of a run's log; torch only.

A step whose value is no number is left out of the mean, as its gradients are left out by ``adversarial.sanitise``, and
one in a thousand is no reason to end a run; once half of them are none, the mean is none either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Sums:
    """Sums of statistics since the last line, kept as tensors so that counting does not wait for the device."""

    totals: dict[str, Tensor | float] = field(default_factory=dict)
    sound: dict[str, Tensor | float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """Count one value of ``name``."""
        value = value.detach()
        finite = torch.isfinite(value)
        self.totals[name] = self.totals.get(name, 0.0) + torch.where(finite, value, 0.0)
        self.sound[name] = self.sound.get(name, 0.0) + finite.float()
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Mean of every name; NaN where half of the values or more are no numbers."""
        means = {}
        for name, total in self.totals.items():
            sound = float(self.sound[name])
            means[name] = round(float(total) / sound, 5) if 2 * sound > self.counts[name] else math.nan
        return means
