"""Figures as a table that people read; pure."""

from __future__ import annotations

from assetgen.metrics.figures import Figures, Pair, Report

NAME_WIDTH = 22
COLUMN_WIDTH = 13
# Heading, field of Figures, digits after the point.
LIKENESS = (
    ("accuracy", "accuracy", 2),
    ("SWD", "swd", 0),
    ("Gram", "gram", 2),
    ("spectrum", "spectrum", 1),
    ("KID", "kid", 3),
    ("precision", "precision", 2),
    ("recall", "recall", 2),
    ("density", "density", 2),
    ("coverage", "coverage", 2),
)
VARIETY = (
    ("MS-SSIM", "ms_ssim", 2),
    ("pairs", "pair_distance", 3),
    ("grid", "grid", 1),
    ("repetition", "repetition", 2),
    ("seam", "seam", 2),
    ("nearest", "nearest", 2),
    ("copied", "copied", 2),
)


def table(report: Report) -> str:
    """Two tables, a row a class and one for all; every cell is generated/real."""
    return "\n\n".join(_block(report, columns) for columns in (LIKENESS, VARIETY))


def _block(report: Report, columns: tuple[tuple[str, str, int], ...]) -> str:
    lines = ["generated/real".ljust(NAME_WIDTH) + "".join(heading.rjust(COLUMN_WIDTH) for heading, _, _ in columns)]
    lines += [_row(name, figures, columns) for name, figures in (*report.by_class.items(), ("ALL", report.all))]
    return "\n".join(lines)


def _row(name: str, figures: Figures, columns: tuple[tuple[str, str, int], ...]) -> str:
    cells = "".join(_cell(getattr(figures, field), digits).rjust(COLUMN_WIDTH) for _, field, digits in columns)
    return name[: NAME_WIDTH - 1].ljust(NAME_WIDTH) + cells


def _cell(pair: Pair, digits: int) -> str:
    return "/".join("-" if value is None else f"{value:.{digits}f}" for value in pair)
