"""The training loop that every network shares; needs torch.

task <- networks, optimisers, data; from the recipe, or the last checkpoint
until the budget is spent:
    step                 the task takes one step with each network (texture.py, picture.py, detail.py, volume.py)
    now and then         statistics line; every few of them a look at samples, a sheet and a checkpoint
    what goes wrong      the watchdog warns, or acts: changes scales, or goes back to the last good checkpoint
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn, optim

from assetgen.errors import CheckpointInvalid, OutputUnwritable
from assetgen.training import checkpoint, parallel
from assetgen.training.checkpoint import Progress
from assetgen.training.recipe import AnyRecipe, PictureRecipe, TextureRecipe
from assetgen.training.report import write_report
from assetgen.training.runlog import RunLog
from assetgen.training.style_recipe import StyleRecipe
from assetgen.training.sums import Sums
from assetgen.training.volume_recipe import VolumeRecipe

DECAY_FROM = 0.7  # of the run; from here the learning rate falls
DECAY_TO = 0.1
GOOD = "good"  # the last checkpoint at which the watchdog found nothing
ADAPT_STEPS = 4


@dataclass(frozen=True)
class Budget:
    """When to stop and how often to report.

    Attributes:
        minutes: training time of all sittings together; ``None`` trains the recipe's ``total_kimg``.
        tick_s: seconds between statistics lines; sheets and checkpoints come with every ``sheet_ticks``-th.
        steps: stop after this many steps of this sitting; for tests and benchmarks.
    """

    minutes: float | None = None
    tick_s: float = 30.0
    sheet_ticks: int = 10
    steps: int | None = None


class Task(Protocol):
    """What is trained: networks and what one step does with them.

    Attributes:
        recipe: decides everything beside the data.
        facts: what is known of the data; stored with every checkpoint.
        modules, optimisers: by name; all of their state is kept in checkpoints.
    """

    facts: Mapping[str, Any]

    @property
    def recipe(self) -> AnyRecipe: ...
    @property
    def modules(self) -> Mapping[str, nn.Module]: ...
    @property
    def optimisers(self) -> Mapping[str, optim.Adam]: ...

    def step(self, progress: Progress, done: float, sums: Sums) -> Progress:
        """Train one step; ``done`` is the share of the run so far. Returns the progress, step and pictures moved."""

    def learn_from(self, saved: checkpoint.Checkpoint) -> None:
        """Have a teacher: lower the distance to what its network makes of the same inputs as well (``distil``)."""

    def monitor(self) -> dict[str, float]:
        """Look at samples of the averaged network: figures for the log; changes nothing."""

    def snapshot(self, path: Path) -> None:
        """Bring the averaged network into a state to keep, and draw its sheet of samples to ``path``."""


def train(
    run: Path,
    task: Task,
    budget: Budget,
    *,
    resume: bool = False,
    notify: Callable[[Mapping[str, float]], None] = lambda _line: None,
) -> Progress:
    """Train until the budget is spent or the process is told to stop, and leave a checkpoint in ``run``.

    Args:
        notify: called with every statistics line.

    Raises:
        CheckpointInvalid: ``resume`` without a usable checkpoint, or the networks are no longer finite.
        OutputUnwritable: the run folder cannot be written.
    """
    progress = restore(task, checkpoint.load(run / "checkpoint")) if resume else Progress()
    stop = _StopFlag()
    try:
        if parallel.rank() == 0:
            run.mkdir(parents=True, exist_ok=True)
            (run / "recipe.json").write_text(json.dumps(asdict(task.recipe), indent=1), encoding="utf-8")
        return _loop(run, task, budget, progress, stop, notify)
    except OSError as error:
        raise OutputUnwritable(f"{run} cannot be written: {error.strerror}", hint="check space and rights") from error
    finally:
        stop.release()


def restore(task: Task, saved: checkpoint.Checkpoint) -> Progress:
    """Put a checkpoint's tensors into the task; returns where the run stood.

    Raises:
        CheckpointInvalid: the checkpoint is of other classes or another network.
    """
    if saved.facts.get("classes") != task.facts.get("classes"):
        raise CheckpointInvalid(
            f"the run knows {saved.facts.get('classes')}, the data {task.facts.get('classes')}",
            hint="resume with the data that the run began with",
        )
    for name, module in task.modules.items():
        checkpoint.restore_module(module, saved, name)
    for name, optimiser in task.optimisers.items():
        checkpoint.restore_optimiser(optimiser, saved, name)
    for key in ("transferred_from", "distilled_from"):  # provenance: of the run, not of the data of the task
        if key in saved.facts:
            task.facts = {**task.facts, key: saved.facts[key]}
    return saved.progress


def transfer(task: Task, saved: checkpoint.Checkpoint) -> dict[str, int]:
    """Start from another run: copy every tensor whose name and shape fit; the others stay fresh.

    Checkpoints that are given away hold one generator, which is the averaged one; both start from it then.

    Returns:
        How many tensors of each module were copied.
    """
    copied = {}
    for name, module in task.modules.items():
        state = module.state_dict()
        kept = checkpoint.module_tensors(saved, name)
        if not kept and name == "average":
            kept = checkpoint.module_tensors(saved, "generator") or checkpoint.module_tensors(saved, "network")
        fitting = {key: value for key, value in kept.items() if key in state and state[key].shape == value.shape}
        module.load_state_dict({**state, **fitting})
        copied[name] = len(fitting)
    if not any(copied.values()):
        raise CheckpointInvalid("no tensor of that run fits this recipe", hint="transfer from a run of the same kind")
    return copied


def _loop(
    run: Path,
    task: Task,
    budget: Budget,
    progress: Progress,
    stop: _StopFlag,
    notify: Callable[[Mapping[str, float]], None],
) -> Progress:
    sums, log = Sums(), RunLog(run, task.recipe)
    started = tick_started = time.monotonic()
    earlier_s = progress.elapsed_s
    first = tick = progress
    ticks = 0
    while True:
        done = _share_done(task.recipe, budget, progress)
        over = done >= 1 or stop.raised or (budget.steps is not None and progress.step - first.step >= budget.steps)
        now = time.monotonic()
        # Clocks differ: the first process decides for all.
        done, *yes = parallel.agree((done, over, over or now - tick_started >= budget.tick_s))
        over, due = (bool(answer) for answer in yes)
        if due:
            line = _statistics(sums, tick, progress, done, now - tick_started)
            if not all(map(_finite, task.modules.values())):
                line["weights"] = math.nan
            ticks += 1
            full = over or ticks % budget.sheet_ticks == 0
            acted = _told(run, task, log, notify, line, progress, full) if parallel.rank() == 0 else progress
            scales = parallel.agree((acted.penalty_scale, acted.rate_scale, acted.rewinds))
            if scales[2] > progress.rewinds:
                progress = replace(_rewound(run, task, progress), elapsed_s=progress.elapsed_s)
            progress = replace(progress, penalty_scale=scales[0], rate_scale=scales[1], rewinds=int(scales[2]))
            sums, tick, tick_started = Sums(), progress, time.monotonic()
        if over:
            return progress
        progress = task.step(progress, min(done, 1.0), sums)
        progress = replace(progress, elapsed_s=earlier_s + time.monotonic() - started)


def _told(
    run: Path,
    task: Task,
    log: RunLog,
    notify: Callable[[Mapping[str, float]], None],
    line: dict[str, float],
    progress: Progress,
    full: bool,
) -> Progress:
    """Write the log and, at a ``full`` tick, sheet, checkpoint and report; returns what the watchdog makes of it."""
    finite = all(map(math.isfinite, line.values()))
    line |= task.monitor() if full and finite else {}
    log.add(line)
    notify(line)
    acted = log.heed(progress)
    if acted is None and not finite:
        write_report(run)
        raise CheckpointInvalid(
            f"training broke down before step {progress.step}: values are no longer finite",
            hint="resume from the last checkpoint with a larger r1_gamma or a smaller learning_rate",
        )
    if full and finite and (acted is None or acted.rewinds == progress.rewinds):
        task.snapshot(run / f"sheet-{progress.pictures:09d}.png")
        save(run / "checkpoint", task, acted or progress)
        if log.good:
            checkpoint.keep(run / "checkpoint", run / GOOD)
    write_report(run)
    return acted or progress


def save(folder: Path, task: Task, progress: Progress) -> None:
    """Write a checkpoint of the task."""
    checkpoint.save(folder, asdict(task.recipe), progress, task.facts, task.modules, task.optimisers)


def _rewound(run: Path, task: Task, progress: Progress) -> Progress:
    """Put back the networks of the last good checkpoint, or of the last; returns where those stood."""
    folder = run / GOOD if (run / GOOD).exists() else run / "checkpoint"
    if not folder.exists():
        raise CheckpointInvalid(
            f"training broke down at step {progress.step}, before the first checkpoint",
            hint="begin again with a larger r1_gamma or a smaller learning_rate",
        )
    return restore(task, checkpoint.load(folder))


def adam(
    module: nn.Module, learning_rate: float, *, every: int = 0, betas: tuple[float, float] = (0.0, 0.99)
) -> optim.Adam:
    """Adam as GANs use it.

    Args:
        every: a regulariser is taken every so many steps as a step of its own; slow the optimiser to match (StyleGAN2).
    """
    lazy = every / (every + 1) if every else 1.0
    slowed = betas[0] ** lazy, betas[1] ** lazy
    return optim.Adam(module.parameters(), lr=learning_rate * lazy, betas=slowed, eps=1e-8, fused=True)


def players(
    generator: nn.Module, discriminator: nn.Module, recipe: PictureRecipe | StyleRecipe, device: str
) -> tuple[dict[str, nn.Module], dict[str, optim.Adam]]:
    """Networks on the device, an average of the generator among them, and optimisers, by their names in checkpoints."""
    for module in (generator, discriminator):
        module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    betas = recipe.beta1, recipe.beta2
    optimisers = {
        "generator_adam": adam(generator, recipe.learning_rate, betas=betas),
        "discriminator_adam": adam(discriminator, recipe.discriminator_rate, betas=betas),
    }
    return {"generator": generator, "average": average, "discriminator": discriminator}, optimisers


def adapt_augmentation(
    progress: Progress, recipe: TextureRecipe | PictureRecipe | VolumeRecipe, signs: float
) -> Progress:
    """Augment more while the discriminator is surer of reals than the target, less otherwise (Karras et al. 2020).

    A step whose scores were no numbers says nothing, and leaves nothing in checkpoints that they cannot hold.
    """
    if not math.isfinite(signs):
        return progress
    total, count = progress.sign_sum + signs, progress.sign_count + 1
    if count < ADAPT_STEPS:
        return replace(progress, sign_sum=total, sign_count=count)
    move = recipe.batch * ADAPT_STEPS / (recipe.augment_kimg * 1000)
    moved = progress.augment + (move if total / count > recipe.augment_target else -move)
    return replace(progress, sign_sum=0.0, sign_count=0, augment=min(max(moved, 0.0), recipe.augment_max))


def augmentation(progress: Progress, recipe: TextureRecipe | PictureRecipe) -> float:
    """The probability of each augmentation in this step: the recipe's own, or that which follows the discriminator."""
    return recipe.augment_fixed or progress.augment


def learning_rate(recipe: AnyRecipe, done: float) -> float:
    """Constant, then falling in a line over the last part of the run."""
    fall = min(max((done - DECAY_FROM) / (1 - DECAY_FROM), 0.0), 1.0)
    return recipe.learning_rate * (1 - fall * (1 - DECAY_TO))


def set_learning_rate(optimiser: optim.Adam, rate: float, *, every: int = 0) -> None:
    """Set the rate, slowed as in ``adam``."""
    optimiser.param_groups[0]["lr"] = rate * (every / (every + 1) if every else 1.0)


def move_average(average: nn.Module, network: nn.Module, recipe: AnyRecipe, pictures: int) -> None:
    """Pull the averaged network towards ``network`` with the recipe's half-life."""
    half_life = min(recipe.ema_kimg * 1000, pictures * recipe.ema_rampup)
    keep = 0.5 ** (recipe.batch / max(half_life, 1e-8))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)


def _share_done(recipe: AnyRecipe, budget: Budget, progress: Progress) -> float:
    if budget.minutes is not None:
        return progress.elapsed_s / (60 * budget.minutes)
    return progress.pictures / (1000 * recipe.total_kimg)


def _finite(module: nn.Module) -> bool:
    """Whether all of its weights are numbers."""
    lengths = torch._foreach_norm([parameter.detach() for parameter in module.parameters()] or [torch.zeros(1)])
    return bool(torch.isfinite(torch.stack([length.float() for length in lengths])).all())


def _statistics(sums: Sums, since: Progress, progress: Progress, done: float, seconds: float) -> dict[str, float]:
    pictures = progress.pictures - since.pictures
    return {
        "step": progress.step,
        "kimg": progress.pictures / 1000,
        "done": round(done, 4),
        "elapsed_s": round(progress.elapsed_s, 1),
        "s_per_kimg": round(seconds * 1000 / pictures, 2) if pictures else 0.0,
        "augment": round(progress.augment, 4),
        **sums.means(),
    }


class _StopFlag:
    """Raised by SIGINT or SIGTERM: the step under way ends, a checkpoint is written, the run can be resumed."""

    def __init__(self) -> None:
        self.raised = False
        self._former: dict[signal.Signals, Any] = {}
        with contextlib.suppress(ValueError):  # not the main thread: the caller handles signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._raise)

    def release(self) -> None:
        """Give the signals back to whoever handled them before."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _raise(self, *_: object) -> None:
        self.raised = True
