"""``assetgen export``: the command line of export."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assetgen.errors import ConfigInvalid, RuntimeMissing
from assetgen.manifest import MANIFEST_NAME, is_model_id
from assetgen.training.recipe import layouts_from_toml

LARGEST_PALETTE = 256
LICENSES = {"Apache-2.0": Path(__file__).resolve().parent.parent / "LICENSE"}


def _parser() -> argparse.ArgumentParser:
    """All options, of every kind of run; those that a kind has no use for are refused later, by name."""
    parser = argparse.ArgumentParser(prog="assetgen export", description="Turn training runs into a model package.")
    parser.add_argument(
        "texture", type=Path, metavar="run", help="run folder of assetgen train texture, style or (photo to PBR) detail"
    )
    parser.add_argument(
        "--precision",
        action="append",
        default=[],
        choices=("fp32", "fp16", "bf16", "int8"),
        help="a graph in it beside that in fp32, if it holds its tolerance; may be repeated; takes packages, too",
    )
    parser.add_argument("--triton", type=Path, metavar="DIR", help="model repository of Triton to write there as well")
    parser.add_argument("--detail", type=Path, help="run folder of assetgen train detail; not for other families")
    parser.add_argument(
        "--like",
        action="append",
        default=[],
        metavar="CLASS=OTHER",
        help="treat CLASS as the detail network's OTHER, where that was trained on other classes; may be repeated",
    )
    parser.add_argument(
        "--students",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs of assetgen train detail --distil: a package PACKAGE-RUN each, for assetgen optimize --beside",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="PACKAGE", help="package folder to write")
    parser.add_argument("--id", help="model id; the folder's name by default")
    parser.add_argument("--version", default="1.0.0", help="version of the package (1.0.0)")
    parser.add_argument("--name", help="name for people; the id by default")
    parser.add_argument("--license", default="Apache-2.0", metavar="SPDX", help="licence of the weights (Apache-2.0)")
    parser.add_argument("--license-file", type=Path, help="its text; needed for any other licence")
    parser.add_argument("--notes", type=Path, help="Markdown for the model card: what the model does well and badly")
    parser.add_argument(
        "--layouts",
        type=Path,
        help="TOML with a table [layouts]: patterns to draw by class instead of those trained on",
    )
    parser.add_argument(
        "--slider-samples",
        type=int,
        default=512,
        metavar="N",
        help="pictures a class to find sliders with (512); fewer are quicker, 0 makes no sliders, nor variations",
    )
    parser.add_argument(
        "--slider-steps", type=int, default=600, metavar="N", help="steps in which sliders are made exact (600)"
    )
    parser.add_argument(
        "--variations",
        type=int,
        default=3,
        metavar="N",
        help="directions found without labels that are measured, and offered beside the sliders (3); 0 for none",
    )
    parser.add_argument(
        "--variation-method",
        default="ganspace",
        metavar="METHOD",
        help="ganspace or sefa: how they are found (ganspace)",
    )
    parser.add_argument(
        "--direction", choices=("there", "back"), help="for a run of cyclegan: source to target, or back (there)"
    )
    parser.add_argument(
        "--example",
        type=Path,
        action="append",
        default=[],
        metavar="PICTURE",
        help="for style: shown with its result in the preview; up to four times (a drawn one)",
    )
    parser.add_argument(
        "--palette",
        type=int,
        default=0,
        metavar="N",
        help="for sprites and style: colours of pixel art (0: it is none)",
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FILE",
        help="for style: JSON with what was measured, for the model card",
    )
    parser.add_argument(
        "--report",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="for sprites: of assetgen eval model RUN --json, for the model card; one for each --truncation",
    )
    parser.add_argument(
        "--classes",
        default="",
        metavar="A,B",
        help="for sprites: offer these only, where others came out badly (all that the run learned)",
    )
    parser.add_argument(
        "--pixel-size",
        type=int,
        default=0,
        metavar="PX",
        help="for style: edge of the pixels of pixel art (0: it is none)",
    )
    return parser


def main(argv: list[str]) -> int:
    """Run ``assetgen export`` with the arguments after it; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if (arguments.texture / MANIFEST_NAME).is_file():
        if not _precisions(arguments) and not arguments.triton:
            raise ConfigInvalid(
                f"{arguments.texture} is a package already, and nothing is asked of it",
                hint="give --precision fp16, bf16 or int8, or --triton",
            )
        _finish(arguments, arguments.texture)
        return 0
    if arguments.output is None:
        raise ConfigInvalid("-o is missing", hint="say which package folder to write")
    for name, least in (("slider_samples", 32), ("slider_steps", 0)):
        value = getattr(arguments, name)
        if value < least and (value or name != "slider_samples"):
            raise ConfigInvalid(f"--{name.replace('_', '-')} {value}: use {least} or more", hint="or 0 for no sliders")
    license_file = arguments.license_file or LICENSES.get(arguments.license)
    if license_file is None or not license_file.is_file():
        raise ConfigInvalid(f"no text for licence {arguments.license}", hint="give it with --license-file")
    try:
        notes = arguments.notes.read_text(encoding="utf-8") if arguments.notes else ""
    except OSError as error:
        raise ConfigInvalid(f"{arguments.notes} cannot be read: {error.strerror}") from error
    try:
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise RuntimeMissing(f"export needs {error.name}", hint="pip install 'assetgen[export,cpu]'") from error
    model_id = arguments.id or arguments.output.name
    told: dict[str, Any] = {
        "id": model_id,
        "version": arguments.version,
        "display_name": arguments.name or model_id,
        "license": arguments.license,
        "license_file": license_file,
        "notes": notes,
        "notify": lambda line: print(line, flush=True),  # noqa: T201
    }
    _dispatch(arguments, told)
    _finish(arguments, arguments.output)
    return 0


def _precisions(arguments: argparse.Namespace) -> list[str]:
    """Those asked for beside fp32, which every package has, each once."""
    return [name for name in dict.fromkeys(arguments.precision) if name != "fp32"]


def _finish(arguments: argparse.Namespace, package: Path) -> None:
    """Smaller precisions and Triton's form of a package that exists."""
    precisions = _precisions(arguments)
    if precisions:
        from export.precisions import add_precisions

        output = arguments.output or package
        digest = add_precisions(package, output, precisions, lambda line: print(line, flush=True))  # noqa: T201
        print(f"{output}: {', '.join(precisions)}, digest {digest}", flush=True)  # noqa: T201
        package = output
    if arguments.triton:
        from export.triton import write_repository

        write_repository(package, arguments.triton)
        print(f"{arguments.triton}: a model repository for Triton", flush=True)  # noqa: T201


def _dispatch(arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    """Make the kind of package that the run's recipe is for; recipes are told apart by keys of their own."""
    from assetgen.training import checkpoint

    recipe = checkpoint.load(arguments.texture / "checkpoint").recipe
    makers = {"family": _picture, "method": _style, "metal_classes": _photo, "volume_edge": _mesh}
    made = next((make for key, make in makers.items() if key in recipe), _texture)
    made = _sprites if recipe.get("alpha") else made
    if made is not _sprites:
        _refuse(arguments, ("classes",), "runs whose pictures have no alpha")
    made(arguments, told)


def _refuse(arguments: argparse.Namespace, names: Sequence[str], what: str) -> None:
    """Raise ConfigInvalid if an option is given that such a run has no use for."""
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name)]:
        raise ConfigInvalid(f"{' and '.join(given)}: not for {what}")


def _texture(arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    from export.networks import read_runs
    from export.package_from_runs import package_from_runs
    from export.sliders import Effort
    from export.variations import VariationSettings

    _refuse(
        arguments,
        ("direction", "example", "palette", "pixel_size", "figures", "report"),
        "a run of assetgen train texture",
    )
    if arguments.detail is None:
        raise ConfigInvalid(
            "--detail is missing",
            hint="train one: assetgen train detail; without map sets take checkpoints/starter-detail, and --like",
        )
    if wrong := [entry for entry in arguments.like if entry.count("=") != 1]:
        raise ConfigInvalid(f"--like {wrong[0]} is not CLASS=OTHER", hint="such as --like cobbles=paving")
    like = dict(entry.split("=") for entry in arguments.like)
    layouts = layouts_from_toml(arguments.layouts) if arguments.layouts else {}
    effort = Effort(arguments.slider_samples, arguments.slider_steps)
    variations = VariationSettings(arguments.variations, arguments.variation_method)
    told |= {"layouts": layouts, "like": like, "effort": effort, "variations": variations}
    students = {student: _of_student(told, arguments.output, student) for student in arguments.students}
    for student in students:  # refused if it does not fit, before anything is written
        read_runs(arguments.texture, student, like)
    package_from_runs(arguments.texture, arguments.detail, arguments.output, **told)
    for student, (folder, changed) in students.items():
        package_from_runs(arguments.texture, student, folder, **told | changed)


def _of_student(told: Mapping[str, Any], output: Path, student: Path) -> tuple[Path, dict[str, Any]]:
    """Folder, id and name of a student's package, beside ``output``; raises ConfigInvalid if they would be none."""
    name = student.resolve().name
    model_id = f"{told['id']}-{name}"
    if not is_model_id(model_id):
        raise ConfigInvalid(
            f"--students {student}: {model_id!r} is no id of a model",
            hint="name the run's folder with a-z, 0-9 and - only",
        )
    display_name = f"{told['display_name']}, {name}"
    return output.with_name(f"{output.name}-{name}"), {"id": model_id, "display_name": display_name}


def _picture(arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    from export.package_from_picture import package_from_picture

    strange = (
        "detail",
        "like",
        "students",
        "layouts",
        "direction",
        "example",
        "palette",
        "pixel_size",
        "figures",
        "report",
    )
    _refuse(arguments, strange, "a run of another family")
    package_from_picture(arguments.texture, arguments.output, **told)


def _sprites(arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    from export.package_from_sprites import package_from_sprites

    strange = ("detail", "like", "students", "layouts", "direction", "example", "pixel_size", "figures")
    _refuse(arguments, strange, "a run of pictures with alpha")
    if arguments.palette == 1 or not 0 <= arguments.palette <= LARGEST_PALETTE:
        raise ConfigInvalid(f"--palette {arguments.palette}: use 2 to {LARGEST_PALETTE}", hint="or 0 for no pixel art")
    told |= {"palette": arguments.palette, "reports": arguments.report, "samples": arguments.slider_samples}
    told |= {"chosen": [name for name in arguments.classes.split(",") if name]}
    package_from_sprites(arguments.texture, arguments.output, **told)


def _style(arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    from export.package_from_style import package_from_style

    _refuse(arguments, ("detail", "like", "students", "layouts", "report"), "a run of assetgen train style")
    told |= {"direction": arguments.direction, "examples": arguments.example, "figures_file": arguments.figures}
    told |= {"palette": arguments.palette, "pixel_size": arguments.pixel_size or 1}
    package_from_style(arguments.texture, arguments.output, **told)


def _mesh(arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    from export.package_from_volume import package_from_volume

    _refuse(
        arguments, ("detail", "like", "students", "layouts", "direction", "example"), "a run of assetgen train mesh"
    )
    package_from_volume(arguments.texture, arguments.output, **told)


def _photo(arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    from export.package_from_photo import package_from_photo

    strange = ("detail", "like", "students", "layouts", "direction", "palette", "pixel_size", "figures", "report")
    _refuse(arguments, strange, "a run of assetgen train detail")
    package_from_photo(arguments.texture, arguments.output, examples=arguments.example, **told)
