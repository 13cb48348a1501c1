"""``assetgen data``: the command line of the data tools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from assetgen.datasets.ingest import Refusal
from assetgen.datasets.pack import PackReport, pack
from assetgen.datasets.render_models import Views, render_folder
from assetgen.datasets.sprites import SHIPPED_RULES, read_rules, sort_sprites
from assetgen.datasets.volumes import pack_volumes

VALIDATION = "share of pictures kept out of training, to judge by (0.1)"
NAMED = 5  # of what was refused for one reason


def main(argv: list[str]) -> int:
    """Run ``assetgen data`` with the arguments after it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="assetgen data", description="Prepare training data.")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="turn a folder of pictures or map sets into one training file")
    packing.add_argument("folder", type=Path, help="CLASS/picture.png, CLASS/SET/x_normal.png, or with manifest.json")
    packing.add_argument("-o", "--output", type=Path, default=Path("data.zip"), help="training file (data.zip)")
    packing.add_argument("--license", default="", metavar="SPDX", help="licence of items that name none")
    packing.add_argument("--allow-unlicensed", action="store_true", help="take items without a licence")
    packing.add_argument("--validation", type=float, default=0.1, metavar="SHARE", help=VALIDATION)
    packing.set_defaults(run=_pack)
    drawing = commands.add_parser("render", help="draw GLB models as pictures with alpha, a folder for pack to take")
    drawing.add_argument("folder", type=Path, help="CLASS/model.glb, or with manifest.json")
    drawing.add_argument("-o", "--output", type=Path, default=Path("renders"), help="new folder (renders)")
    drawing.add_argument("--classes", default="", metavar="A,B", help="draw these only (all)")
    drawing.add_argument("--edge", type=int, default=128, metavar="PX", help="of the pictures (128)")
    drawing.add_argument("--views", type=int, default=8, metavar="N", help="pictures of a model (8)")
    drawing.add_argument("--arc", type=float, default=360.0, metavar="DEGREES", help="round the model (360)")
    drawing.add_argument("--license", default="", metavar="SPDX", help="licence of models that name none")
    drawing.set_defaults(run=_render)
    solid = commands.add_parser("voxelize", help="turn GLB models into coloured distance grids, for train mesh")
    solid.add_argument("folder", type=Path, help="CLASS/model.glb, or with manifest.json")
    solid.add_argument("-o", "--output", type=Path, default=Path("volumes.zip"), help="training file (volumes.zip)")
    solid.add_argument("--edge", type=int, default=48, metavar="CELLS", help="along each axis (48)")
    solid.add_argument("--classes", default="", metavar="A,B", help="take these only (all)")
    solid.add_argument("--license", default="", metavar="SPDX", help="licence of models that name none")
    solid.add_argument("--validation", type=float, default=0.1, metavar="SHARE", help=VALIDATION)
    solid.set_defaults(run=_voxelize)
    sorting = commands.add_parser("sprites", help="sort pixel art into classes on one grid, a folder for pack to take")
    sorting.add_argument("folder", type=Path, help="with a manifest.json that names domain, label and file")
    sorting.add_argument("-o", "--output", type=Path, default=Path("sprites"), help="new folder (sprites)")
    sorting.add_argument(
        "--rules", type=Path, default=SHIPPED_RULES, metavar="FILE.toml", help="which is which (of the shipped items)"
    )
    sorting.add_argument("--edge", type=int, default=32, metavar="PX", help="of the sprites (32)")
    sorting.set_defaults(run=_sprites)
    arguments = parser.parse_args(argv)
    arguments.run(arguments)
    return 0


def _pack(arguments: argparse.Namespace) -> None:
    report = pack(
        arguments.folder,
        arguments.output,
        license=arguments.license,
        allow_unlicensed=arguments.allow_unlicensed,
        validation_share=arguments.validation,
        notify=_progress,
    )
    _print(report)


def _render(arguments: argparse.Namespace) -> None:
    report = render_folder(
        arguments.folder,
        arguments.output,
        Views(edge_px=arguments.edge, count=arguments.views, arc=arguments.arc),
        classes=tuple(name for name in arguments.classes.split(",") if name),
        license=arguments.license,
        notify=_progress,
    )
    lines = [
        f"{arguments.output}: {report.pictures} pictures of {sum(report.classes.values())} models",
        "classes: " + ", ".join(f"{name} {count}" for name, count in report.classes.items()),
        f"refused: {len(report.refused)}",
        *_reasons(report.refused),
    ]
    print("\n".join(lines))  # noqa: T201


def _voxelize(arguments: argparse.Namespace) -> None:
    report = pack_volumes(
        arguments.folder,
        arguments.output,
        arguments.edge,
        classes=tuple(name for name in arguments.classes.split(",") if name),
        license=arguments.license,
        validation_share=arguments.validation,
        notify=_progress,
    )
    _print(report)


def _sprites(arguments: argparse.Namespace) -> None:
    report = sort_sprites(arguments.folder, arguments.output, read_rules(arguments.rules), arguments.edge)
    lines = [
        f"{arguments.output}: {sum(report.classes.values())} sprites",
        "classes: " + ", ".join(f"{name} {count}" for name, count in report.classes.items()),
        f"refused: {len(report.refused)}",
        *_reasons(report.refused),
    ]
    print("\n".join(lines))  # noqa: T201


def _progress(done: int, name: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} items  {name[:60]:60}", end="", file=sys.stderr, flush=True)  # noqa: T201


def _reasons(refused: Sequence[Refusal]) -> list[str]:
    """A line for every reason, with the first few that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for entry in refused:
        by_reason.setdefault(entry.reason, []).append(entry.id)
    lines = []
    for reason, ids in by_reason.items():
        more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        lines.append(f"  {', '.join(ids[:NAMED])}{more}: {reason}")
    return lines


def _print(report: PackReport) -> None:
    lines = [
        f"{report.path}: {report.items} items ({report.validation} for validation), "
        f"{report.size_bytes / 2**20:.1f} MiB",
        f"sha256 {report.sha256}",
        "classes: " + ", ".join(f"{name} {count}" for name, count in report.classes.items()),
        "licences: " + ", ".join(f"{name} {count}" for name, count in report.licenses.items()),
        f"refused: {len(report.refused)}",
        *_reasons(report.refused),
    ]
    if not report.validation:
        lines.append("note: no picture is kept for validation, so assetgen eval cannot judge: raise --validation")
    print("\n".join(lines))  # noqa: T201
