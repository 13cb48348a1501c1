"""``assetgen experiment``: the command line of the experiments."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assetgen.errors import ConfigInvalid, OutputUnwritable, RuntimeMissing

if TYPE_CHECKING:
    from PIL.Image import Image

    from assetgen.training.experiments.gaussians import Outcome
    from assetgen.training.experiments.mixtures import Coverage


def main(argv: Sequence[str]) -> int:
    """Run ``assetgen experiment`` with the arguments after it; returns the exit status."""
    arguments = _parser().parse_args(argv)
    for path in (arguments.json, arguments.picture):
        # Said before minutes of training, not after.
        if path is not None and not path.parent.is_dir():
            raise OutputUnwritable(f"{path.parent} is not a folder", hint="make it first")
    try:
        import torch
    except ImportError as error:
        raise RuntimeMissing("experiments need PyTorch", hint="pip install 'assetgen[train]'") from error
    if arguments.threads < 1:
        raise ConfigInvalid(f"--threads {arguments.threads} is not allowed; use 1 or more")
    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    try:
        status: int = arguments.run(arguments)
    finally:
        torch.set_num_threads(before)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="assetgen experiment", description="Show which objectives lose modes.")
    experiments = parser.add_subparsers(required=True)
    gaussians = experiments.add_parser("gaussians", help="mixtures of Gaussians in the plane")
    gaussians.set_defaults(run=_gaussians)
    gaussians.add_argument("--target", choices=["grid", "ring"], default="grid", help="25 modes, or 8 (grid)")
    gaussians.add_argument("--runs", type=int, default=10, help="seeds of each recipe, trained side by side (10)")
    gaussians.add_argument("--steps", type=int, default=2000, help="of training (2000)")
    digits = experiments.add_parser("digits", help="three stacked digits a picture, 1000 modes; needs scikit-learn")
    digits.set_defaults(run=_digits)
    digits.add_argument("--steps", type=int, default=1500, help="of training (1500)")
    for experiment, samples in ((gaussians, 2500), (digits, 26_000)):
        experiment.add_argument("--recipe", nargs="+", action="extend", metavar="NAME", help="only these (all)")
        experiment.add_argument(
            "--samples", type=int, default=samples, help=f"that a generator is judged by ({samples})"
        )
        experiment.add_argument("--seed", type=int, default=0, help="of the first run (0)")
        experiment.add_argument("--threads", type=int, default=1, help="processor threads (1)")
        experiment.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
        experiment.add_argument("--picture", type=Path, metavar="FILE.png", help="draw samples of every recipe there")
    return parser


def _gaussians(arguments: argparse.Namespace) -> int:
    import torch

    from assetgen.training.experiments import gaussians, pictures
    from assetgen.training.experiments.mixtures import MIXTURES, coverage

    names = _chosen(arguments.recipe, gaussians.RECIPES)
    mixture = MIXTURES[arguments.target]
    settings = gaussians.Settings(steps=arguments.steps, samples=arguments.samples, seed=arguments.seed)
    reach = max(max(mean) for mean in mixture.means) * 1.3
    reals = mixture.sample(settings.samples, torch.Generator().manual_seed(arguments.seed))
    panels = {f"target: {len(mixture.means)} modes": pictures.scatter(reals.numpy(), reach)}
    modes = len(mixture.means)
    print(f"| recipe | modes of {modes} | runs with all | high quality | divergence | seconds |")  # noqa: T201
    print("|---|---|---|---|---|---|", flush=True)  # noqa: T201
    best = coverage(reals, mixture)
    print(f"| *data* | {best.modes} | | {100 * best.quality:.1f} % | {best.divergence:.3f} | |", flush=True)  # noqa: T201
    facts = {"experiment": "gaussians", "target": arguments.target, "runs": arguments.runs}
    found = {}
    for name in names:
        start = time.process_time()
        outcome = gaussians.train(
            gaussians.RECIPES[name], mixture, settings, arguments.runs, notify=partial(_say, name)
        )
        cpu_s = time.process_time() - start
        print(_row(name, outcome.averaged, modes, cpu_s), flush=True)  # noqa: T201
        panels[f"{name}: {outcome.averaged[0].modes}"] = pictures.scatter(outcome.samples[0].numpy(), reach)
        found[name] = {"recipe": asdict(gaussians.RECIPES[name]), "cpu_s": round(cpu_s, 1), **_figures(outcome)}
        _save(arguments, {**facts, "settings": asdict(settings), "recipes": found}, panels)
    return 0


def _digits(arguments: argparse.Namespace) -> int:
    import torch

    from assetgen.training.experiments import digits, pictures

    names = _chosen(arguments.recipe, digits.RECIPES)
    settings = digits.Settings(steps=arguments.steps, samples=arguments.samples, seed=arguments.seed)
    data = digits.load()
    classifier, accuracy = digits.train_classifier(data, arguments.seed)
    shares = data.shares()
    print(f"Accuracy of the classifier on digits that it was not trained on: {100 * accuracy:.1f} %\n")  # noqa: T201
    print("| recipe | modes of 1000 | divergence | clear digits | seconds |\n|---|---|---|---|---|")  # noqa: T201
    reals = data.stacks(settings.samples, torch.Generator().manual_seed(arguments.seed))
    facts = {"experiment": "digits", "accuracy": accuracy}
    panels: dict[str, Image] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in ("data", *names):
        start, stacks = time.process_time(), reals
        if name != "data":
            stacks = digits.train(data, digits.RECIPES[name], settings, partial(_say, name))
        cpu_s = time.process_time() - start
        of = digits.coverage(stacks, classifier, shares)
        print(f"| {name} | {of.modes} | {of.divergence:.3f} | {100 * of.clear:.1f} % | {cpu_s:.0f} |", flush=True)  # noqa: T201
        colours = ((stacks[:100].permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()
        panels[f"{name}: {of.modes}"] = pictures.mosaic(colours)
        found[name] = {"cpu_s": round(cpu_s, 1), **asdict(of)}
        if name != "data":
            found[name]["recipe"] = asdict(digits.RECIPES[name])
        _save(arguments, {**facts, "settings": asdict(settings), "recipes": found}, panels)
    return 0


def _row(name: str, runs: Sequence[Coverage], modes: int, cpu_s: float) -> str:
    count = _mean([run.modes for run in runs], "{:.1f}")
    quality = _mean([100 * run.quality for run in runs], "{:.1f}")
    divergence = _mean([run.divergence for run in runs], "{:.2f}")
    complete = sum(run.modes == modes for run in runs)
    return f"| {name} | {count} | {complete} of {len(runs)} | {quality} % | {divergence} | {cpu_s:.0f} |"


def _mean(values: Sequence[float], form: str) -> str:
    """Mean and standard deviation over runs."""
    if not all(map(math.isfinite, values)):
        return "–"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{form.format(statistics.fmean(values))} ± {form.format(spread)}"


def _figures(outcome: Outcome) -> dict[str, Any]:
    return {which: [_finite(asdict(run)) for run in getattr(outcome, which)] for which in ("last", "averaged")}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _chosen(names: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    known = list(known)
    for name in names or ():
        if name not in known:
            raise ConfigInvalid(f"--recipe {name} is not known; recipes are {', '.join(known)}")
    return list(dict.fromkeys(names or known))


def _save(arguments: argparse.Namespace, values: Mapping[str, Any], panels: Mapping[str, Image]) -> None:
    """Write what is known so far, after every recipe: a training that is stopped has not been for nothing."""
    from assetgen.training.experiments import pictures

    if arguments.picture:
        pictures.write_panels(arguments.picture, panels)
    if arguments.json is None:
        return
    try:
        arguments.json.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        hint = "name a file in a folder that exists"
        raise OutputUnwritable(f"{arguments.json}: {error.strerror}", hint=hint) from error


def _say(name: str, text: str) -> None:
    print(f"{name}: {text}", file=sys.stderr, flush=True)  # noqa: T201
