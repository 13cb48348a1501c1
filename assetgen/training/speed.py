"""What a budget of minutes will buy: ``assetgen train bench`` times a few steps of a run before it is begun; torch."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass

import torch

from assetgen.training.checkpoint import Progress
from assetgen.training.loop import Task
from assetgen.training.sums import Sums

BUDGETS_MINUTES = (10, 30, 120, 480)


@dataclass(frozen=True)
class Speed:
    """Measured speed of training.

    Attributes:
        s_per_kimg: seconds a thousand pictures, penalties with their share.
        peak_bytes: most memory in use, of the device, or on a processor of the whole process.
    """

    s_per_kimg: float
    peak_bytes: int


def measure(task: Task, device: str, seconds: float) -> Speed:
    """Train for about ``seconds`` and forget it; the task is spent afterwards.

    Whole rounds of ``r1_interval`` steps are timed where time allows, since a penalty makes its step dearer.
    """
    progress, sums = Progress(), Sums()
    progress = task.step(progress, 0.0, sums)  # kernels are chosen, memory is taken
    round_steps = getattr(task.recipe, "r1_interval", 1)
    per_step: list[float] = []
    pictures = 0
    begun_s = time.monotonic()
    while not per_step or time.monotonic() - begun_s < seconds or len(per_step) % round_steps:
        before, start_s = progress.pictures, time.monotonic()
        progress = task.step(progress, 0.0, sums)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        per_step.append(time.monotonic() - start_s)
        pictures = progress.pictures - before
        if time.monotonic() - begun_s > 4 * seconds:
            break
    rounds = [per_step[i : i + round_steps] for i in range(0, len(per_step), round_steps)]
    whole = [sum(part) / len(part) for part in rounds if len(part) == round_steps] or [statistics.mean(per_step)]
    return Speed(statistics.median(whole) / pictures * 1000, _peak_bytes(device))


def table(speed: Speed) -> str:
    """What budgets buy, as lines of text."""
    rows = [f"{speed.s_per_kimg:.3g} s a thousand pictures, {speed.peak_bytes / 2**30:.2f} GiB at most"]
    rows += [
        f"{minutes:4d} minutes: about {60 * minutes / speed.s_per_kimg:.3g} thousand pictures"
        for minutes in BUDGETS_MINUTES
    ]
    return "\n".join(rows)


def _peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
