"""``assetgen train``: the command line of training."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assetgen.allocator import keep_freed_memory
from assetgen.datasets import tiles
from assetgen.datasets.tiles import Item
from assetgen.errors import ConfigInvalid, DataInvalid, RuntimeMissing
from assetgen.training.recipe import DetailRecipe, PictureRecipe, TextureRecipe, recipe_from_values, values_from_toml

if TYPE_CHECKING:
    from assetgen.datasets.mapsets import MapSet
    from assetgen.datasets.volumes import VolumeItem
    from assetgen.training.loop import Task

BENCH_S = 30.0
RECIPES = Path(__file__).parent / "recipes"
# Names of recipes in that folder; the plain texture recipe is the StyleGAN of this product.
FAMILIES = ("vanilla", "dcgan", "conditional", "wgan-gp", "progressive", "biggan")
STYLES = ("cyclegan", "cut", "fastcut", "patches", "stargan", "states")
SPRITES = ("props", "items")
DETAILS = ("photo",)


def main(argv: list[str]) -> int:
    """Run ``assetgen train`` with the arguments after it; returns the exit status."""
    bench = argv[:1] == ["bench"]
    arguments = _parser().parse_args(argv[1:] if bench else argv)
    choices = {"texture": FAMILIES, "style": STYLES, "sprite": SPRITES, "detail": DETAILS}
    allowed = choices.get(arguments.what, ())
    if arguments.family and (arguments.recipe or arguments.family not in allowed):
        raise ConfigInvalid(
            f"--family {arguments.family} names a recipe; it goes neither with --recipe nor with {arguments.what}",
            hint="; ".join(f"{what} has {', '.join(names)}" for what, names in choices.items()),
        )
    name = arguments.family or {"style": "fastcut", "sprite": "props"}.get(arguments.what, arguments.what)
    arguments.run = arguments.run or Path("runs") / name
    arguments.recipe = arguments.recipe or RECIPES / f"{name}.toml"
    if arguments.minutes is not None and arguments.minutes <= 0:
        raise ConfigInvalid(f"--minutes {arguments.minutes} is not allowed; use more than 0")
    if arguments.resume and arguments.transfer:
        raise ConfigInvalid("--resume and --transfer exclude each other", hint="--transfer starts a new run")
    if arguments.drawn is not None and arguments.what != "detail":
        raise ConfigInvalid("--drawn goes with detail, which is given what a texture run draws")
    keep_freed_memory()  # a step takes a thirtieth less
    writes = not (bench or arguments.dry_run)
    if writes and not arguments.resume and (arguments.run / "checkpoint").exists():
        raise ConfigInvalid(
            f"{arguments.run} holds a run already", hint="add --resume to go on with it, or name another --run"
        )
    # Threads that wait without spinning: beside other work on the same cores, training is ten times as fast.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Large tensors in huge pages (Linux): a step of the texture recipe is a twentieth to a tenth faster.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        import torch
    except ImportError as error:
        raise RuntimeMissing("training needs PyTorch", hint="pip install 'assetgen[train]'") from error
    from assetgen.training import parallel

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with parallel.group(_device(arguments.device, torch.cuda.is_available())) as device:
        torch.backends.cudnn.benchmark = True  # shapes stay the same; the fastest kernels are worth a search
        _run(arguments, device, bench=bench)
    return 0


def _run(arguments: argparse.Namespace, device: str, *, bench: bool) -> None:
    from assetgen.training import loop, parallel, report, speed
    from assetgen.training.runlog import EVENTS, STATISTICS, read_lines

    say = print if parallel.rank() == 0 else _nothing
    makers = {
        "texture": _texture_task,
        "detail": _detail_task,
        "style": _style_task,
        "sprite": _texture_task,
        "mesh": _mesh_task,
    }
    make = makers[arguments.what]
    task, counts = make(arguments, device)
    _have_teacher(task, arguments)
    if arguments.dry_run:
        minutes = {} if arguments.minutes is None else {"minutes": arguments.minutes}
        say(json.dumps({"recipe": asdict(task.recipe), **minutes, "pictures": counts}, indent=1))
        return
    if bench:
        seconds = BENCH_S if arguments.minutes is None else 60 * arguments.minutes
        say(f"measuring for {seconds:.0f} s, or two rounds of steps if those take longer", file=sys.stderr, flush=True)
        say(speed.table(speed.measure(task, device, seconds)))
        return
    if arguments.transfer:
        _transfer(task, arguments.transfer)
    where = f"on {device} in {task.recipe.precision}; run folder {arguments.run}"
    say(f"{sum(counts.values())} pictures in {len(counts)} classes {where}", flush=True)
    budget = loop.Budget(minutes=arguments.minutes, tick_s=arguments.tick, sheet_ticks=arguments.sheet_ticks)
    notify = _board(arguments.run / "tensorboard") if arguments.tensorboard and parallel.rank() == 0 else _print
    progress = loop.train(arguments.run, task, budget, resume=arguments.resume, notify=notify)
    say(f"stopped at {progress.pictures / 1000:.1f} kimg; checkpoint, sheets and report are in {arguments.run}")
    for sentence in report.report(*(read_lines(arguments.run / name) for name in (STATISTICS, EVENTS))):
        say(sentence)


def _board(folder: Path) -> Callable[[Mapping[str, float]], None]:
    """Print, and write for TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeMissing("TensorBoard is not installed", hint="pip install tensorboard") from error
    writer = SummaryWriter(folder)

    def notify(line: Mapping[str, float]) -> None:
        _print(line)
        for name, value in line.items():
            writer.add_scalar(name.replace(".", "/"), value, int(line["step"]))
        writer.flush()

    return notify


def _nothing(*_: object, **__: object) -> None:
    """Only the first of several processes speaks."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="assetgen train",
        description="Train a network on a training file. With bench before the rest: measure what minutes will buy.",
    )
    parser.add_argument(
        "what",
        choices=["texture", "detail", "style", "sprite", "mesh"],
        help="base colours by class, texels and maps from them, pictures of one class into another, things with alpha, "
        "or 3D models",
    )
    parser.add_argument("--data", type=Path, required=True, help="training file made by assetgen data pack")
    parser.add_argument("--run", type=Path, help="run folder (runs/texture or runs/detail)")
    parser.add_argument(
        "--family",
        choices=FAMILIES + STYLES + SPRITES + DETAILS,
        help="for texture: another family of GANs; for style: the method (fastcut); for sprite: props or items; "
        "for detail: photo, maps of photos that stay as they are; each has a recipe of its own",
    )
    parser.add_argument("--recipe", type=Path, help="TOML file; see docs/training.md")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    parser.add_argument("--minutes", type=float, help="stop after this long, all sittings together; schedules follow")
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    parser.add_argument("--transfer", type=Path, metavar="RUN", help="start from another run's networks")
    parser.add_argument(
        "--distil",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="teach this smaller network to answer as that run's does; family stargan may have one teacher a look",
    )
    parser.add_argument(
        "--drawn",
        type=Path,
        metavar="RUN",
        help="for detail: learn on what this texture run draws, too, which is what the network will be given",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves the choice to PyTorch")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that make the inputs of texture training ahead (0 on the processor, else up to 8)",
    )
    parser.add_argument("--tick", type=float, default=30.0, metavar="SECONDS", help="between statistics lines (30)")
    parser.add_argument("--tensorboard", action="store_true", help="write the statistics for TensorBoard, too")
    parser.add_argument("--sheet-ticks", type=int, default=10, help="ticks between sheets and checkpoints (10)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe and what the data holds; stop"
    )
    return parser


def _have_teacher(task: Task, arguments: argparse.Namespace) -> None:
    from assetgen.training import checkpoint, distil

    if arguments.resume:
        distil.check_resumed(checkpoint.load(arguments.run / "checkpoint"), arguments.distil)
    recipe, classes = asdict(task.recipe), tuple(task.facts["classes"])
    teachers = [distil.read_teacher(run, recipe, classes) for run in arguments.distil]
    if len(teachers) > 1 and recipe.get("method") != "stargan":
        raise ConfigInvalid(f"--distil: {len(teachers)} teachers are named; one is allowed, but for family stargan")
    for teacher in teachers:
        task.learn_from(teacher)
    if teachers:
        task.facts = {**task.facts, "distilled_from": [distil.told(teacher) for teacher in teachers]}


def _transfer(task: Task, run: Path) -> None:
    from assetgen.training import checkpoint, loop

    saved = checkpoint.load(run / "checkpoint")
    copied = loop.transfer(task, saved)
    kimg = saved.progress.pictures / 1000
    task.facts = {
        **task.facts,
        "transferred_from": {"kimg": kimg, "recipe": saved.recipe, "data_sha256": saved.facts.get("data_sha256")},
    }
    counts = ", ".join(f"{count} tensors of {name}" for name, count in copied.items())
    print(f"starting from {run} at {kimg:.1f} kimg: {counts}")  # noqa: T201


def _texture_task(arguments: argparse.Namespace, device: str) -> tuple[Task, Mapping[str, int]]:
    """A texture generator, or that of another family if the recipe names one."""
    from assetgen.training.batches import reals_from_items
    from assetgen.training.picture import PictureTask
    from assetgen.training.texture import TextureTask

    recipe: TextureRecipe | PictureRecipe = _recipe(arguments, device, TextureRecipe, PictureRecipe)
    items = tiles.load(arguments.data, classes=recipe.classes, min_contrast=recipe.min_contrast, alpha=recipe.alpha)
    reals, held_out = (reals_from_items(items, recipe, split) for split in ("train", "validation"))
    counts = {name: len(pictures) for name, pictures in zip(reals.classes, reals.pictures, strict=True)}
    _tell_left_out(arguments.data, reals.classes, reals.count + held_out.count)
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise DataInvalid(
            f"no usable picture for {', '.join(empty)}", hint="lower min_contrast or crop_px, or leave the class out"
        )
    facts, unseen = _facts(arguments.data, items, reals.classes), held_out if held_out.count else None
    if isinstance(recipe, PictureRecipe):
        return PictureTask(recipe, reals, facts, device, unseen), counts
    return TextureTask(recipe, reals, facts, device, unseen, _workers(arguments.workers, device)), counts


def _tell_left_out(data: Path, classes: Sequence[str], used: int) -> None:
    """Say how many pictures of the classes are too flat or too small to train on."""
    from assetgen.training import parallel

    total = sum(record["class"] in classes for record in tiles.read_index(data)["items"])
    if used < total and parallel.rank() == 0:
        left_out = f"{total - used} of {total} pictures are left out: flatter than min_contrast, or smaller than a crop"
        print(f"note: {left_out}", file=sys.stderr)  # noqa: T201


def _workers(wanted: int | None, device: str) -> int:
    """Processes that work ahead; on the processor they would take what they save."""
    if wanted is None:
        return 0 if device == "cpu" else min(8, (os.cpu_count() or 1) - 1)
    if not 0 <= wanted <= 64:
        raise ConfigInvalid(f"--workers {wanted} is not allowed; use 0 to 64")
    return wanted


def _detail_task(arguments: argparse.Namespace, device: str) -> tuple[Task, Mapping[str, int]]:
    from assetgen.datasets.mapsets import as_photo, map_sets
    from assetgen.training.detail import DetailTask

    recipe = _recipe(arguments, device, DetailRecipe)
    items = tiles.load(arguments.data)
    classes = recipe.classes or tuple(sorted({item.class_name for item in items}))
    sets, validation = (
        map_sets(items, classes, recipe.scan_px, recipe.trim_px, split) for split in ("train", "validation")
    )
    if recipe.photo:
        sets, validation = ([as_photo(entry) for entry in entries] for entries in (sets, validation))
    sets = [entry for entry in sets if min(entry.small.shape[:2]) >= recipe.crop_px]
    if not sets:
        raise DataInvalid(
            f"{arguments.data} holds no map set and no picture of {4 * recipe.scan_px} px that a crop fits into",
            hint="lower scan_px or crop_px, or pack pictures of higher resolution",
        )
    names = {entry.id for entry in sets}
    facts = _facts(arguments.data, [item for item in items if item.id in names], classes)
    counts = Counter(classes[entry.label] if entry.label >= 0 else "other" for entry in sets)
    drawn, told = _drawn(arguments, recipe, classes)
    return DetailTask(recipe, classes, sets, validation, {**facts, **told}, device, drawn), counts


def _drawn(
    arguments: argparse.Namespace, recipe: DetailRecipe, classes: Sequence[str]
) -> tuple[Sequence[MapSet], Mapping[str, Any]]:
    """What the texture run draws, if one is named, and what provenance says of it."""
    from assetgen.training import checkpoint, distil
    from assetgen.training.drawn import drawn_sets, read_artist

    if arguments.drawn is not None and not recipe.adversarial:
        raise ConfigInvalid(
            "--drawn: nothing can be learned from pictures without maps while adversarial is 0", hint="leave it out"
        )
    artist = None if arguments.drawn is None else read_artist(arguments.drawn, classes, recipe.scan_px)
    told = {} if artist is None else {"drawn_by": distil.told(artist)}
    if arguments.resume:
        before = checkpoint.load(arguments.run / "checkpoint").facts.get("drawn_by")
        if json.dumps(before, sort_keys=True) != json.dumps(told.get("drawn_by"), sort_keys=True):
            raise ConfigInvalid(
                "--drawn is not what the run began with", hint="resume with the same texture run, or without one"
            )
    if artist is None or arguments.dry_run:  # to draw takes a minute
        return (), told
    return drawn_sets(artist, classes, recipe.scan_px), told


def _style_task(arguments: argparse.Namespace, device: str) -> tuple[Task, Mapping[str, int]]:
    from assetgen.training.star import StarTask
    from assetgen.training.style import StyleTask
    from assetgen.training.style_batches import domains_from_items
    from assetgen.training.style_recipe import StyleRecipe

    recipe = _recipe(arguments, device, StyleRecipe)
    items = tiles.load(arguments.data, classes=recipe.domains, min_contrast=recipe.min_contrast)
    reals, held_out = (domains_from_items(items, recipe, split) for split in ("train", "validation"))
    counts = {name: len(pictures) for name, pictures in zip(reals.classes, reals.pictures, strict=True)}
    make: Any = StarTask if recipe.method == "stargan" else StyleTask
    return make(recipe, reals, _facts(arguments.data, items, reals.classes), device, held_out), counts


def _mesh_task(arguments: argparse.Namespace, device: str) -> tuple[Task, Mapping[str, int]]:
    from assetgen.datasets.volumes import load_volumes
    from assetgen.training.volume import VolumeTask
    from assetgen.training.volume_batches import volumes_from_items
    from assetgen.training.volume_recipe import VolumeRecipe

    recipe = _recipe(arguments, device, VolumeRecipe)
    items = load_volumes(arguments.data, recipe.classes)
    volumes = volumes_from_items(items, recipe)
    counts = {name: len(grids) for name, grids in zip(volumes.classes, volumes.grids, strict=True)}
    return VolumeTask(recipe, volumes, _facts(arguments.data, items, volumes.classes), device), counts


def _recipe(arguments: argparse.Namespace, device: str, kind: Any, kind_of_families: Any = None) -> Any:
    """The recipe, of ``kind_of_families`` if it names a family; its precision is that of ``device``."""
    from assetgen.training.precision import settled

    overrides: dict[str, Any] = {}
    for entry in arguments.set:
        key, separator, text = entry.partition("=")
        if not separator:
            raise ConfigInvalid(f"--set {entry} is not KEY=VALUE")
        try:
            overrides[key] = json.loads(text)
        except ValueError:
            overrides[key] = text
    if arguments.resume:
        from assetgen.training import checkpoint

        values = checkpoint.load(arguments.run / "checkpoint").recipe
    else:
        values = values_from_toml(arguments.recipe)
    values = {**values, **overrides}
    recipe = recipe_from_values(kind_of_families if "family" in values and kind_of_families else kind, values)
    if recipe.precision == "bf16" and settled("auto", device) != "bf16":
        print(  # noqa: T201
            f"note: {device} has no bf16 and emulates it, which takes many times as long; add --set precision=fp32",
            file=sys.stderr,
        )
    return replace(recipe, precision=settled(recipe.precision, device))


def _facts(path: Path, items: Sequence[Item | VolumeItem], classes: Sequence[str]) -> Mapping[str, Any]:
    """What a package must be able to say of its data."""
    used = [item for item in items if item.split == "train"]
    if not used:
        raise DataInvalid(f"{path} holds no training items", hint="pack it with a smaller --validation share")
    return {
        "classes": list(classes),
        "data_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "items": len(used),
        "licenses": dict(Counter(item.license or "none" for item in used)),
        "authors": dict(Counter(item.author or "unnamed" for item in used)),
    }


def _device(wanted: str, cuda: bool) -> str:
    if wanted == "auto":
        return "cuda" if cuda else "cpu"
    if wanted.startswith("cuda") and not cuda:
        raise RuntimeMissing(f"device {wanted} is not usable: PyTorch sees no GPU", hint="use --device cpu or auto")
    if wanted.split(":", maxsplit=1)[0] not in ("cpu", "cuda"):
        raise ConfigInvalid(f"device {wanted!r} is not known; use auto, cpu or cuda")
    return wanted


def _print(line: Mapping[str, float]) -> None:
    shown = " ".join(f"{name} {value:g}" for name, value in line.items())
    print(shown, flush=True)  # noqa: T201
