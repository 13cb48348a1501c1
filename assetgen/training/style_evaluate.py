"""``assetgen eval style``: figures of what a run makes of pictures that it never saw; needs torch."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assetgen.datasets import tiles
from assetgen.errors import CheckpointInvalid, ConfigInvalid, DataInvalid, OutputUnwritable
from assetgen.models.classifier import Classifier
from assetgen.models.cyclegan import CycleganGenerator
from assetgen.models.patches import cut_border
from assetgen.models.stargan import StarganGenerator
from assetgen.training import checkpoint, star, style
from assetgen.training.batches import Reals
from assetgen.training.checkpoint import Checkpoint
from assetgen.training.recipe import recipe_from_values
from assetgen.training.style_batches import domains_from_items, fixed_crops, spread_crops
from assetgen.training.style_judge import StyleFigures, style_figures, taken_for, train_judge
from assetgen.training.style_look import write_rows
from assetgen.training.style_recipe import StyleRecipe

MIN_COUNT = 8
JUDGE_STEPS = 500
SMALLEST_PX = 24  # what Gram distances and pyramids can be taken of
ROWS = 8
PART = 16  # pictures that a generator paints at once

Paint = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Lead:
    """From one domain to another: their numbers, and the network that leads."""

    source: int
    target: int
    paint: Paint


def add_command(commands: Any) -> argparse.ArgumentParser:
    """Add ``style`` to the commands of ``assetgen eval``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "style", help="figures of a run of style transfer, on pictures that it never saw"
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder of assetgen train style")
    parser.add_argument("--data", type=Path, required=True, help="training file, with pictures for validation")
    parser.add_argument("--source", default="", metavar="LOOK", help="of stargan: lead pictures of this look (all)")
    parser.add_argument("--count", type=int, default=96, help="pictures of each look (96)")
    parser.add_argument("--judge-steps", type=int, default=JUDGE_STEPS, help=f"training of the judge ({JUDGE_STEPS})")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="write a picture: inputs, results, real pictures"
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Measure every way that the run has, print a table each; returns the exit status."""
    _check_options(arguments)
    saved, recipe = _read(arguments.folder)
    if recipe.inner_px < SMALLEST_PX:
        raise ConfigInvalid(
            f"the run compares crops of {recipe.inner_px} px; figures need {SMALLEST_PX} or more",
            hint="train with a larger crop_px",
        )
    train, held = _reals(arguments.data, recipe, tuple(saved.facts["classes"]))
    leads = _leads(saved, recipe, train.classes, arguments.source)
    _say("training the judge on real pictures")
    judge = train_judge(train, recipe, arguments.judge_steps, arguments.seed, _say)
    seen, crops = (
        [spread_crops(reals, n, arguments.count, recipe.crop_px, arguments.seed) for n in range(len(reals.classes))]
        for reals in (train, held)
    )
    accuracy = {name: _told(judge, recipe, crops[label], label) for label, name in enumerate(train.classes)}
    found: dict[str, StyleFigures] = {}
    for lead in leads:
        name = f"{train.classes[lead.source]} to {train.classes[lead.target]}"
        _say(f"measuring {name}")
        given = crops[lead.source]
        before, after, wanted, real = (
            cut_border(side, recipe.border_px)
            for side in (given, lead.paint(given), crops[lead.target], seen[lead.target])
        )
        found[name] = style_figures(before, after, wanted, real, judge, lead.target)
    notes = _notes(arguments, saved)
    lines = [table(name, figures) for name, figures in found.items()]
    told = ", ".join(f"{name} {share:.2f}" for name, share in accuracy.items())
    print("\n\n".join([*lines, f"told right by the judge, of held-back pictures: {told}", *notes]))  # noqa: T201
    if arguments.json:
        _write_json(arguments, saved, found, accuracy, notes)
    if arguments.sheet:
        _write_sheet(arguments.sheet, leads, held, recipe)
    return 0


def table(name: str, figures: StyleFigures) -> str:
    """Figures of one way as a table that people read."""
    columns = ("results", "inputs", "real")
    lines = [f"{name:28}" + "".join(f"{column:>10}" for column in columns)]
    for title, shares, digits in (
        ("SWD to the target", figures.swd, 0),
        ("Gram distance to the target", figures.gram, 2),
        ("taken for the target", figures.told, 2),
    ):
        lines.append(f"{title:28}" + "".join(f"{shares[column]:>10.{digits}f}" for column in columns))
    for title, value in (
        ("structure kept", figures.structure),
        ("change of a value", figures.change),
        ("diversity", figures.diversity),
    ):
        lines.append(f"{title:28}{value:>10.2f}")
    return "\n".join(lines)


def _read(folder: Path) -> tuple[Checkpoint, StyleRecipe]:
    if not (folder / "checkpoint").is_dir():
        raise CheckpointInvalid(f"{folder} holds no checkpoint", hint="give a run folder of assetgen train style")
    saved = checkpoint.load(folder / "checkpoint")
    try:
        return saved, recipe_from_values(StyleRecipe, saved.recipe)
    except ConfigInvalid as error:
        raise CheckpointInvalid(
            f"{folder} is not a run of style transfer: {error}", hint="give a run folder of assetgen train style"
        ) from error


def _reals(data: Path, recipe: StyleRecipe, domains: tuple[str, ...]) -> tuple[Reals, Reals]:
    """Both splits of the run's domains; raises DataInvalid if one lacks pictures of a domain."""
    items = tiles.load(data, classes=domains, min_contrast=recipe.min_contrast)
    found = {split: domains_from_items(items, recipe, split) for split in ("train", "validation")}
    for split, reals in found.items():
        if empty := [name for name, pictures in zip(reals.classes, reals.pictures, strict=True) if not pictures]:
            raise DataInvalid(
                f"{data} has no {split} picture of {', '.join(empty)}", hint="pack with a larger --validation share"
            )
    return found["train"], found["validation"]


def _leads(saved: Checkpoint, recipe: StyleRecipe, domains: tuple[str, ...], source: str) -> list[Lead]:
    if source and source not in domains:
        raise ConfigInvalid(f"--source {source} is no look of this run; it knows {', '.join(domains)}")
    if recipe.method == "stargan":
        network = StarganGenerator(star.generator_config(recipe, len(domains)))
        checkpoint.restore_module(network, saved, "average")
        network.eval().requires_grad_(False)
        pairs = ((a, b) for a in range(len(domains)) for b in range(len(domains)) if a != b)
        return [Lead(a, b, _to(network, b)) for a, b in pairs if not source or domains[a] == source]
    leads = []
    for prefix, a, b in (("", 0, 1), ("back_", 1, 0)):
        if checkpoint.module_tensors(saved, f"{prefix}average") and (not source or domains[a] == source):
            one_way = CycleganGenerator(style.generator_config(recipe))
            checkpoint.restore_module(one_way, saved, f"{prefix}average")
            leads.append(Lead(a, b, _in_parts(one_way.eval().requires_grad_(False))))
    if not leads:
        raise ConfigInvalid(f"--source {source}: this run leads one way only, from {domains[0]}")
    return leads


def _in_parts(paint: Paint) -> Paint:
    return lambda pictures: torch.cat([paint(part) for part in torch.split(pictures, PART)])


def _to(network: StarganGenerator, target: int) -> Paint:
    weights = torch.nn.functional.one_hot(torch.tensor(target), network.config.domains).float()
    return _in_parts(lambda pictures: network(pictures, weights.expand(len(pictures), -1)))


def _told(judge: Classifier, recipe: StyleRecipe, pictures: Tensor, label: int) -> float:
    return taken_for(judge, cut_border(pictures, recipe.border_px), label)


def _notes(arguments: argparse.Namespace, saved: Checkpoint) -> list[str]:
    """What makes the figures less honest than they look."""
    if hashlib.sha256(arguments.data.read_bytes()).hexdigest() == saved.facts.get("data_sha256"):
        return []
    return [f"note: the run was trained on another file than {arguments.data}: it may have seen these pictures"]


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.count < MIN_COUNT:
        raise ConfigInvalid(f"--count {arguments.count} is not allowed; use {MIN_COUNT} or more")
    if arguments.judge_steps < 1:
        raise ConfigInvalid(f"--judge-steps {arguments.judge_steps} is not allowed; use 1 or more")
    if not 0 <= arguments.seed < 2**32:
        raise ConfigInvalid(f"--seed {arguments.seed} is not allowed; use 0 to 4294967295")
    for path in (arguments.json, arguments.sheet):
        if path and not path.resolve().parent.is_dir():
            raise OutputUnwritable(f"{path}: its folder does not exist", hint="make the folder first")


def _write_json(
    arguments: argparse.Namespace,
    saved: Checkpoint,
    found: dict[str, StyleFigures],
    accuracy: dict[str, float],
    notes: list[str],
) -> None:
    facts = {
        "run": arguments.folder.name,
        "kimg": saved.progress.pictures / 1000,
        "count": arguments.count,
        "seed": arguments.seed,
        "ways": {name: asdict(figures) for name, figures in found.items()},
        "judge_accuracy": accuracy,
        "notes": notes,
    }
    try:
        arguments.json.write_text(json.dumps(_rounded(facts), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputUnwritable(f"{arguments.json} cannot be written: {error.strerror}", hint="check space") from error


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _write_sheet(path: Path, leads: list[Lead], held: Reals, recipe: StyleRecipe) -> None:
    """A column of inputs and one of real pictures for each look, and a column of results for each way."""
    titles, columns = [], []
    for label, name in enumerate(held.classes):
        before = fixed_crops(held, label, ROWS, recipe.crop_px)
        titles.append(name)
        columns.append(before)
        for lead in leads:
            if lead.source == label:
                titles.append(f"to {held.classes[lead.target]}")
                columns.append(lead.paint(before))
    write_rows(path, titles, columns)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
