"""``assetgen data``: the command line of the data tools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from assetgen.datasets.pack import PackReport, pack


def main(argv: list[str]) -> int:
    """Run ``assetgen data`` with the arguments after it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="assetgen data", description="Prepare training data.")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="turn a folder of pictures or map sets into one training file")
    packing.add_argument("folder", type=Path, help="CLASS/picture.png, CLASS/SET/x_normal.png, or with manifest.json")
    packing.add_argument("-o", "--output", type=Path, default=Path("data.zip"), help="training file (data.zip)")
    packing.add_argument("--license", default="", metavar="SPDX", help="licence of items that name none")
    packing.add_argument("--allow-unlicensed", action="store_true", help="take items without a licence")
    packing.add_argument("--validation", type=float, default=0.1, metavar="SHARE", help="share of groups kept (0.1)")
    arguments = parser.parse_args(argv)
    report = pack(
        arguments.folder,
        arguments.output,
        license=arguments.license,
        allow_unlicensed=arguments.allow_unlicensed,
        validation_share=arguments.validation,
        notify=_progress,
    )
    _print(report)
    return 0


def _progress(done: int, name: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} items  {name[:60]:60}", end="", file=sys.stderr, flush=True)  # noqa: T201


def _print(report: PackReport) -> None:
    lines = [
        f"{report.path}: {report.items} items ({report.validation} for validation), "
        f"{report.size_bytes / 2**20:.1f} MiB",
        f"sha256 {report.sha256}",
        "classes: " + ", ".join(f"{name} {count}" for name, count in report.classes.items()),
        "licences: " + ", ".join(f"{name} {count}" for name, count in report.licenses.items()),
        f"refused: {len(report.refused)}",
        *(f"  {entry.id}: {entry.reason}" for entry in report.refused),
    ]
    print("\n".join(lines))  # noqa: T201
