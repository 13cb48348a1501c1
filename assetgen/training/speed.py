"""What a budget of minutes will buy: ``assetgen train bench`` times a few steps of a run before it is begun; torch.

Beside it the plain loop that anybody would write for the same networks, to show what ours costs or saves.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from assetgen.training import batches, losses
from assetgen.training.checkpoint import Progress
from assetgen.training.loop import Task
from assetgen.training.losses import zero_centred_penalty
from assetgen.training.precision import autocast
from assetgen.training.sums import Sums
from assetgen.training.texture import TextureTask

BUDGETS_MINUTES = (10, 30, 120, 480)


@dataclass(frozen=True)
class Speed:
    """Measured speed of training.

    Attributes:
        s_per_kimg: seconds a thousand pictures, penalties with their share.
        plain_s_per_kimg: of the plain loop, taken step by step in turn with ours; for texture networks.
        peak_bytes: most memory in use, of the device, or on a processor of the whole process.
    """

    s_per_kimg: float
    peak_bytes: int
    plain_s_per_kimg: float | None = None


def measure(task: Task, device: str, seconds: float) -> Speed:
    """Train for about ``seconds`` and forget it; the task is spent afterwards.

    Whole rounds of ``r1_interval`` steps are timed, since a penalty makes its step dearer; at least one, after a first
    that is not counted. Ours and the plain loop take steps in turn, so that the machine's other load meets both alike.
    """
    steps_a_round = getattr(task.recipe, "r1_interval", 1)
    pictures = task.recipe.batch * getattr(task.recipe, "discriminator_steps", 1) * steps_a_round
    plain = PlainLoop(task) if isinstance(task, TextureTask) else None
    progress = Progress()
    rounds: dict[str, list[float]] = {"ours": [], "plain": []}
    begun_s = time.monotonic()
    for number in itertools.count():
        ours_s = theirs_s = 0.0
        for step in range(steps_a_round):
            start_s = time.monotonic()
            progress = task.step(progress, 0.0, Sums())
            _wait_for(device)
            middle_s = time.monotonic()
            if plain is not None:
                plain.step(number * steps_a_round + step)
                _wait_for(device)
            ours_s += middle_s - start_s
            theirs_s += time.monotonic() - middle_s
        if number:  # in the first, kernels are chosen and processes started: half a minute on a GPU
            rounds["ours"].append(ours_s)
            rounds["plain"].append(theirs_s)
        if rounds["ours"] and time.monotonic() - begun_s > seconds:
            break
    ours, theirs = (statistics.median(spent) / pictures * 1000 for spent in rounds.values())
    return Speed(ours, _peak_bytes(device), theirs if plain is not None else None)


class PlainLoop:
    """The same networks, batches, loss and precision in the shortest loop: no augmentation, average or safeguards."""

    def __init__(self, task: TextureTask) -> None:
        self.task = task
        self.generator, self.discriminator = copy.deepcopy(task.generator), copy.deepcopy(task.discriminator)
        rate = task.recipe.learning_rate
        self.adam_g = torch.optim.Adam(self.generator.parameters(), lr=rate, betas=(0.0, 0.99))
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=(0.0, 0.99))

    def step(self, step: int) -> None:
        """One step of each network on the batch that the task would draw."""
        task, recipe = self.task, self.task.recipe
        pictures, labels = batches.real_batch(task.reals, recipe, step)
        pictures, labels = pictures.to(task.device), labels.to(task.device)
        drawn = [batches.fake_batch(task.reals, recipe, step, stream=i, device=task.device) for i in range(2)]
        loss_of = losses.LOSSES[recipe.loss]
        with autocast(recipe, task.device):
            with torch.no_grad():
                fakes = self._paint(drawn[0])
            logits = self.discriminator(torch.cat([pictures, fakes.float()]), torch.cat([labels, drawn[0].labels]))
        loss = loss_of.discriminator(*logits.chunk(2))
        self.adam_d.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if step % recipe.r1_interval == 0:
            leaf = pictures.detach().requires_grad_(True)
            penalty = zero_centred_penalty(self.discriminator(leaf, labels), leaf)
            (penalty * recipe.r1_gamma * recipe.r1_interval).backward()  # type: ignore[no-untyped-call]
        self.adam_d.step()
        self.discriminator.requires_grad_(False)
        real_logits = torch.zeros(0)
        with autocast(recipe, task.device):
            if loss_of.paired:
                more, more_labels = (entry.to(task.device) for entry in batches.real_batch(task.reals, recipe, step, 1))
                with torch.no_grad():
                    real_logits = self.discriminator(more, more_labels)
            logits = self.discriminator(self._paint(drawn[1]), drawn[1].labels)
        self.adam_g.zero_grad()
        loss_of.generator(real_logits, logits).backward()  # type: ignore[no-untyped-call]
        self.adam_g.step()
        self.discriminator.requires_grad_(True)

    def _paint(self, drawn: batches.FakeInputs) -> Tensor:
        made: Tensor = self.generator(drawn.z, drawn.class_weights, drawn.grid, drawn.layouts, drawn.noises)
        return made


def table(speed: Speed) -> str:
    """What budgets buy, as lines of text."""
    rows = [f"{speed.s_per_kimg:.3g} s a thousand pictures, {speed.peak_bytes / 2**30:.2f} GiB at most"]
    if speed.plain_s_per_kimg is not None:
        share = speed.s_per_kimg / speed.plain_s_per_kimg
        rows.append(f"a plain loop of the same networks: {speed.plain_s_per_kimg:.3g} s; ours takes {share:.2f} of it")
    rows += [
        f"{minutes:4d} minutes: about {60 * minutes / speed.s_per_kimg:.3g} thousand pictures"
        for minutes in BUDGETS_MINUTES
    ]
    return "\n".join(rows)


def _wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
