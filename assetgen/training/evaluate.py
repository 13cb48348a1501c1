"""``assetgen eval``: honest figures for a texture model, each beside the same figure of real pictures; needs torch."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from assetgen import __version__
from assetgen.datasets import tiles
from assetgen.datasets.tiles import ByteArray, on_ground
from assetgen.errors import CheckpointInvalid, ConfigInvalid, DataInvalid, OutputUnwritable
from assetgen.metrics import verdict
from assetgen.metrics.features import SHIPPED, Instrument, load_classifier
from assetgen.metrics.figures import Report, Subject, as_json, measure
from assetgen.metrics.halos import halos
from assetgen.metrics.pictures import shrunk
from assetgen.metrics.pretrained import inception_distances, lpips_diversity, verify
from assetgen.metrics.sheet import sheet
from assetgen.metrics.table import table
from assetgen.models.parts import FIRST_PX
from assetgen.training import style_evaluate
from assetgen.training.batches import Reals, grounded, reals_from_items
from assetgen.training.classifier import ClassifierRecipe, balanced_crops, train_classifier
from assetgen.training.compare import comparison
from assetgen.training.recipe import PictureRecipe, TextureRecipe, recipe_from_values, values_from_toml
from assetgen.training.texels import texels

NO_CLASSIFIER = "none"
MIN_PER_CLASS = 8
FEW_PER_CLASS = 32
MIN_CROP_PX = 32

Recipe: TypeAlias = TextureRecipe | PictureRecipe


@dataclass(frozen=True)
class Source:
    """What a model says of itself: the recipe of its texture network, all its classes, and the file it learnt from."""

    recipe: Recipe
    classes: tuple[str, ...]
    data_sha256: str


def main(argv: list[str]) -> int:
    """Run ``assetgen eval`` with the arguments after it; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    status: int = arguments.run(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="assetgen eval", description="Judge a model by figures.")
    commands = parser.add_subparsers(dest="command", required=True)
    model = commands.add_parser("model", help="figures of a package or a run, beside those of real pictures")
    model.add_argument(
        "model", type=Path, metavar="PACKAGE_OR_RUN", help="package folder, or run folder of a texture run"
    )
    model.add_argument("--data", type=Path, required=True, help="training file, with pictures for validation")
    model.add_argument("--classes", default="", metavar="A,B", help="judge these only (all of the model)")
    model.add_argument("--per-class", type=int, default=64, help="pictures of each class (64)")
    model.add_argument(
        "--truncation",
        type=float,
        metavar="T",
        help="of runs of the picture families the largest |z|; else how much of its variety, 0 to 1 (all)",
    )
    model.add_argument("--seed", type=int, default=1, help="of everything that is drawn (1)")
    model.add_argument("--classifier", default=str(SHIPPED), help="FILE.safetensors, or none (the one that is shipped)")
    model.add_argument(
        "--inception", type=Path, metavar="FILE", help="Inception weights, for FID and KID (torch-fidelity)"
    )
    model.add_argument("--inception-sha256", default="", metavar="HEX", help="digest that FILE must have")
    model.add_argument("--alexnet", type=Path, metavar="FILE", help="AlexNet weights, for LPIPS (lpips)")
    model.add_argument("--alexnet-sha256", default="", metavar="HEX", help="digest that FILE must have")
    model.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    model.add_argument("--sheet", type=Path, metavar="FILE.png", help="write a picture: real, generated, nearest")
    model.set_defaults(run=_model)
    classifier = commands.add_parser("classifier", help="train the network that judges, on your own classes")
    classifier.add_argument("--data", type=Path, required=True, help="training file, with pictures for validation")
    classifier.add_argument(
        "--output", type=Path, required=True, metavar="FILE.safetensors", help="a .json goes beside"
    )
    classifier.add_argument("--classes", default="", metavar="A,B", help="tell these apart (all of the data)")
    classifier.add_argument(
        "--recipe", type=Path, metavar="FILE.toml", help="of the pictures it shall judge, for one with alpha (textures)"
    )
    classifier.add_argument("--minutes", type=float, default=10.0, help="length of the training (10)")
    classifier.add_argument("--seed", type=int, default=1, help="of everything that is drawn (1)")
    classifier.set_defaults(run=_classifier)
    compare = commands.add_parser("compare", help="a table of several models, from files that model --json wrote")
    compare.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    compare.set_defaults(run=_compare)
    for command in (model, classifier, compare, style_evaluate.add_command(commands)):
        command.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves the choice to PyTorch")
    return parser


def _classifier(arguments: argparse.Namespace) -> int:
    facts = train_classifier(
        arguments.data,
        arguments.output,
        arguments.minutes,
        classes=_names(arguments.classes),
        seed=arguments.seed,
        recipe=_classifier_recipe(arguments),
        notify=_say,
    )
    lines = [f"{name:22} {share:.2f}" for name, share in facts["accuracy"]["by_class"].items()]
    lines += [
        f"{'mean':22} {facts['accuracy']['mean']:.2f}",
        f"{arguments.output}: share of validation crops told right",
    ]
    print("\n".join(lines))  # noqa: T201
    return 0


def _classifier_recipe(arguments: argparse.Namespace) -> ClassifierRecipe | None:
    if arguments.recipe is None:
        return None
    crops = _recipe(values_from_toml(arguments.recipe))
    return ClassifierRecipe(replace(crops, seed=arguments.seed, batch=32))


def _compare(arguments: argparse.Namespace) -> int:
    print(comparison(arguments.files))  # noqa: T201
    return 0


def _model(arguments: argparse.Namespace) -> int:
    _check_options(arguments)
    source = _source(arguments.model)
    recipe, classes = source.recipe, source.classes
    chosen = _names(arguments.classes) or classes
    if strange := [name for name in chosen if name not in classes]:
        raise ConfigInvalid(f"--classes {', '.join(strange)}: not of this model; it knows {', '.join(classes)}")
    if recipe.crop_px < MIN_CROP_PX or recipe.crop_px % 8:
        raise ConfigInvalid(
            f"the model makes crops of {recipe.crop_px} px; figures need multiples of 8 px from {MIN_CROP_PX}",
            hint="train with a larger crop_px",
        )
    instrument = _instrument(arguments.classifier, recipe)
    train, validation = _reals(arguments.data, recipe, chosen)
    _say(f"{train.count} training and {validation.count} validation pictures in {len(chosen)} classes")
    make = _from_package if (arguments.model / "manifest.json").is_file() else _from_run
    begun_s = time.perf_counter()
    whole, scale = make(arguments, recipe, classes, chosen)
    spent_ms = (time.perf_counter() - begun_s) * 1e3 / (len(chosen) * arguments.per_class)
    fakes = [shrunk(pictures, scale) for pictures in whole]
    finer = _texels(arguments, recipe, dict(zip(chosen, whole, strict=True)), scale)
    cut = [
        [
            balanced_crops(reals, label, len(fakes[label]), recipe.crop_px, arguments.seed)
            for label in range(len(chosen))
        ]
        for reals in (train, validation)
    ]
    edges = _edges(fakes, cut[0]) if recipe.alpha else {}
    fakes, *cut = ([on_ground(pictures) for pictures in side] for side in (fakes, *cut))
    subject = Subject(tuple(chosen), fakes, cut[0], cut[1], grounded(train).pictures, stride_px=_stride_px(recipe))
    report = measure(subject, instrument, seed=arguments.seed, notify=lambda name: _say(f"measuring {name}"))
    judged = verdict.judge(report)
    pretrained = _pretrained(arguments, subject)
    lines = [f"{name} {pair['fake']:.4g}/{pair['real']:.4g}, all classes" for name, pair in pretrained.items()]
    lines += [
        f"edges: {name} {edges['fake'][name]:.4g}/{edges['real'][name]:.4g}, all classes"
        for name in edges.get("fake", ())
    ]
    if finer:
        pairs = (f"of {size} px {finer['fake'][size]:.4g}/{finer['real'][size]:.4g}" for size in finer["fake"])
        lines.append(f"texels beyond the texture network: SWD {', '.join(pairs)}; {', '.join(finer['classes'])}")
    notes = _notes(arguments, source, instrument)
    print("\n\n".join([table(report), *lines, *notes, verdict.as_text(judged)]))  # noqa: T201
    if arguments.json:
        facts = {
            "weights": _weights(arguments.model),
            "ms_per_picture": round(spent_ms, 2),
            "notes": notes,
            "pretrained": pretrained,
            "edges": edges,
            "texels": finer,
            "truncation": arguments.truncation,
            "classifier_sha256": instrument.sha256 if instrument else None,
        }
        _write_json(arguments, facts, report, judged)
    if arguments.sheet:
        sheet(subject, report).save(arguments.sheet, format="PNG")
    return 0


def _texels(
    arguments: argparse.Namespace, recipe: Recipe, pictures: Mapping[str, ByteArray], scale: int
) -> dict[str, dict[str, float]]:
    """Figures of what a detail network adds; nothing where there is none, or no scan to compare with."""
    if scale == 1 or not isinstance(recipe, TextureRecipe):
        return {}
    items = tiles.load(arguments.data, classes=tuple(pictures))
    return texels(pictures, items, recipe, scale, arguments.seed)


def _edges(fakes: Sequence[ByteArray], train: Sequence[ByteArray]) -> dict[str, dict[str, float]]:
    """How well the edges of pictures with alpha suit any ground: of generated ones and of training pictures."""
    return {
        name: {key: float(f"{value:.5g}") for key, value in asdict(halos(np.concatenate(list(side)))).items()}
        for name, side in (("fake", fakes), ("real", train))
    }


def _pretrained(arguments: argparse.Namespace, subject: Subject) -> dict[str, dict[str, float]]:
    """Figures of networks that the user supplies, of generated pictures and of training crops.

    FID and KID against validation crops, LPIPS between pictures of the same class.
    """
    pairs: dict[str, dict[str, float]] = {}
    if arguments.inception:
        _say("measuring Inception features")
        fakes, train, held = (np.concatenate(side) for side in (subject.fakes, subject.train, subject.validation))
        fake, real = (
            inception_distances(side, held, arguments.inception, arguments.inception_sha256) for side in (fakes, train)
        )
        pairs |= {name: {"fake": fake[name], "real": real[name]} for name in fake}
    if arguments.alexnet:
        _say("measuring LPIPS")
        sides = {"fake": subject.fakes, "real": subject.train}
        pairs["lpips"] = {
            name: lpips_diversity(side, arguments.alexnet, arguments.alexnet_sha256) for name, side in sides.items()
        }
    return pairs


def _notes(arguments: argparse.Namespace, source: Source, instrument: Instrument | None) -> list[str]:
    """What makes the figures less honest than they look."""
    data, per_class, truncation = arguments.data, arguments.per_class, arguments.truncation
    found = hashlib.sha256(data.read_bytes()).hexdigest()
    learnt = {"the model": source.data_sha256}
    if instrument:
        learnt["the classifier"] = str(instrument.facts.get("data", {}).get("data_sha256", ""))
    few = f"note: {per_class} pictures a class are few: figures of single classes are mostly chance"
    strange = [name for name in source.classes if instrument and name not in instrument.classes]
    unknown = f"note: the classifier does not know {', '.join(strange)}: train one, assetgen eval classifier"
    less = f"note: pictures were made with a truncation of {truncation}"
    return (
        ([few] if per_class < FEW_PER_CLASS else [])
        + ([less] if truncation is not None else [])
        + ([unknown] if strange else [])
        + [
            f"note: {what} was trained on another file than {data}: what is for validation here it may have seen"
            for what, digest in learnt.items()
            if digest != found
        ]
    )


def _check_options(arguments: argparse.Namespace) -> None:
    if not arguments.model.is_dir():
        raise ConfigInvalid(f"{arguments.model} is not a folder", hint="give a package folder, or a run folder")
    if arguments.per_class < MIN_PER_CLASS:
        raise ConfigInvalid(f"--per-class {arguments.per_class} is not allowed; use {MIN_PER_CLASS} or more")
    if not 0 <= arguments.seed < 2**32:
        raise ConfigInvalid(f"--seed {arguments.seed} is not allowed; use 0 to 4294967295")
    if arguments.inception:
        verify(arguments.inception, arguments.inception_sha256)
    if arguments.alexnet:
        verify(arguments.alexnet, arguments.alexnet_sha256)
    for path in (arguments.json, arguments.sheet):
        if path and not path.resolve().parent.is_dir():
            raise OutputUnwritable(f"{path}: its folder does not exist", hint="make the folder first")


def _source(folder: Path) -> Source:
    if (folder / "manifest.json").is_file():
        from assetgen.package import verify_package
        from assetgen.store import is_bundled

        bundled = is_bundled(folder)
        manifest = verify_package(folder, allow_hard_links=bundled).manifest
        if manifest.kind != "texture":
            raise ConfigInvalid(f"{folder} is of kind {manifest.kind!r}; only texture models can be judged")
        texture: Any = manifest.provenance.get("texture")
        if not isinstance(texture, dict) or not isinstance(texture.get("recipe"), dict):
            raise ConfigInvalid(
                f"{folder} does not say how its texture network was trained (provenance.texture.recipe)",
                hint="judge the run folder that it was exported from",
            )
        names = tuple(known.name for known in manifest.classes)
        data = texture.get("data") or {}
        return Source(_recipe(texture["recipe"]), names, str(data.get("data_sha256", "")))
    if not (folder / "checkpoint").is_dir():
        raise ConfigInvalid(
            f"{folder} holds neither a package (manifest.json) nor a run (checkpoint)",
            hint="give a package folder, or a run folder of assetgen train texture",
        )
    from assetgen.training import checkpoint

    saved = checkpoint.load(folder / "checkpoint")
    try:
        facts = saved.facts
        return Source(_recipe(saved.recipe), tuple(facts["classes"]), str(facts.get("data_sha256", "")))
    except (ConfigInvalid, KeyError) as error:
        raise CheckpointInvalid(
            f"{folder} is not a texture run: {error}", hint="give the run folder of assetgen train texture"
        ) from error


def _recipe(values: Mapping[str, Any]) -> Recipe:
    if "family" in values:
        return recipe_from_values(PictureRecipe, values)
    return recipe_from_values(TextureRecipe, values)


def _instrument(file: str, recipe: Recipe) -> Instrument | None:
    if file == NO_CLASSIFIER:
        return None
    instrument = load_classifier(Path(file))
    wanted, found = (recipe.crop_px, recipe.scan_px), (instrument.crop_px, instrument.scan_px)
    if wanted != found:
        raise ConfigInvalid(
            f"the model makes crops of {wanted[0]} px at scan_px {wanted[1]}; "
            f"the classifier knows crops of {found[0]} px at scan_px {found[1]}",
            hint="use --classifier none for the figures that need none",
        )
    return instrument


def _reals(data: Path, recipe: Recipe, classes: Sequence[str]) -> tuple[Reals, Reals]:
    """Both splits of the model's classes; raises DataInvalid if one lacks a class."""
    items = tiles.load(data, classes=classes, min_contrast=recipe.min_contrast, alpha=recipe.alpha)
    wanted = replace(recipe, classes=tuple(classes))
    found = {split: reals_from_items(items, wanted, split) for split in ("train", "validation")}
    for split, reals in found.items():
        empty = [name for name, pictures in zip(reals.classes, reals.pictures, strict=True) if not pictures]
        if empty:
            raise DataInvalid(
                f"{data} has no {split} picture for {', '.join(empty)}",
                hint="pack with a larger --validation share, or name other classes with --classes",
            )
    return found["train"], found["validation"]


def _from_package(
    arguments: argparse.Namespace, recipe: Recipe, classes: Sequence[str], chosen: Sequence[str]
) -> tuple[list[ByteArray], int]:
    """Base colours, of full variety unless less is asked for, and how many pixels a texel has in them."""
    folder, count, seed = arguments.model, arguments.per_class, arguments.seed
    from assetgen.kinds.plan import MAX_COUNT
    from assetgen.local import open_service
    from assetgen.types import Artifact, Encoding, MapKind, OutputSpec, Request

    del classes  # the package has its own names
    service = open_service([folder])
    try:
        ((model_id, package),) = service.packages.items()
        grid = max(spec.stride_px for spec in package.manifest.inputs)
        scale = grid // _stride_px(recipe)
        edge = recipe.crop_px * scale
        varies = any(spec.name == "truncation" for spec in package.manifest.parameters)
        if arguments.truncation is not None and not varies:
            raise ConfigInvalid(f"--truncation: {model_id} has no such parameter", hint="leave it out")
        variety = {"truncation": _share(arguments.truncation)} if varies else {}
        found = []
        for name in chosen:
            _say(f"generating {name}")
            pictures = []
            for first in range(0, count, MAX_COUNT):
                request = Request(
                    model_id,
                    seed=seed,
                    count=min(MAX_COUNT, count - first),
                    first_index=first,
                    width_px=edge,
                    height_px=edge,
                    parameters={"class": name, **variety},
                    output=OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW),
                )
                pictures += [
                    np.frombuffer(event.data, dtype=np.uint8).reshape(edge, edge, 3)
                    for event in service.generate(request)
                    if isinstance(event, Artifact)
                ]
            found.append(np.stack(pictures))
    finally:
        service.close()
    return found, scale


def _from_run(
    arguments: argparse.Namespace, recipe: Recipe, classes: Sequence[str], chosen: Sequence[str]
) -> tuple[list[ByteArray], int]:
    """Samples of the averaged network of a run, in its own texels."""
    count, seed = arguments.per_class, arguments.seed
    draw = _sampler(arguments.model, recipe, classes, arguments.truncation)
    found = []
    for name in chosen:
        _say(f"generating {name}")
        label = list(classes).index(name)
        # Far apart, so that neighbouring seeds of the command share no picture.
        seeds = [(seed * 1_000_003 + n) % 2**32 for n in range(count)]
        found.append(np.stack([draw(label, s) for s in seeds]))
    return found, 1


def _sampler(
    folder: Path, recipe: Recipe, classes: Sequence[str], truncation: float | None
) -> Callable[[int, int], ByteArray]:
    """From label and seed to a picture by a run's averaged network."""
    from assetgen.models.families import FAMILIES
    from assetgen.models.texture import TextureGenerator
    from assetgen.training import checkpoint, picture, sheet
    from assetgen.training.texture import texture_config

    saved = checkpoint.load(folder / "checkpoint")
    # Checkpoints that are given away hold one generator, which is the averaged one.
    name = "average" if checkpoint.module_tensors(saved, "average") else "generator"
    if isinstance(recipe, PictureRecipe):
        family, config = FAMILIES[recipe.family], picture.picture_config(recipe, len(classes))
        made = family.generator(config).eval().requires_grad_(False)
        checkpoint.restore_module(made, saved, name)
        return partial(picture.sample, made, recipe, len(classes), truncation=truncation)
    variety = _share(truncation)
    generator = TextureGenerator(texture_config(recipe, len(classes))).eval().requires_grad_(False)
    checkpoint.restore_module(generator, saved, name)
    return lambda label, seed: sheet.sample(generator, recipe, classes, label, seed, recipe.crop_px, truncation=variety)


def _share(truncation: float | None) -> float:
    if truncation is None:
        return 1.0
    if not 0 <= truncation <= 1:
        raise ConfigInvalid(f"--truncation {truncation} is not allowed; use 0 to 1, the share of the model's variety")
    return truncation


def _weights(folder: Path) -> int:
    """How many numbers a model has learnt: those of the averaged network, or of the whole graph of a package."""
    if (folder / "manifest.json").is_file():
        from assetgen.package import verify_package

        package = verify_package(folder, allow_hard_links=True)
        return sum(entry.size_bytes for entry in package.manifest.files if entry.path == package.manifest.graph) // 4
    from assetgen.training import checkpoint

    saved = checkpoint.load(folder / "checkpoint")
    tensors = checkpoint.module_tensors(saved, "average") or checkpoint.module_tensors(saved, "generator")
    return sum(tensor.numel() for tensor in tensors.values())


def _write_json(
    arguments: argparse.Namespace, facts: Mapping[str, Any], report: Report, judged: verdict.Verdict
) -> None:
    known = {
        "schema": 1,
        "assetgen": __version__,
        "model": arguments.model.name,
        "per_class": arguments.per_class,
        "seed": arguments.seed,
        **facts,
        "verdict": asdict(judged),
        "all": as_json(report.all),
        "classes": {name: as_json(figures) for name, figures in report.by_class.items()},
    }
    text = json.dumps(known, indent=1, ensure_ascii=False, allow_nan=False)
    arguments.json.write_text(text + "\n", encoding="utf-8")


def _stride_px(recipe: Recipe) -> int:
    """Pixels a cell of the network's first features, at the density of its crops."""
    if isinstance(recipe, PictureRecipe):
        return recipe.crop_px // FIRST_PX
    return int(2 ** (len(recipe.widths) - 1))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
