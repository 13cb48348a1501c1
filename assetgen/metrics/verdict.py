"""From figures to words: what a model is good for, and which aims it misses; pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from assetgen.metrics.figures import Figures, Report

ACCURACY_SHARE = 0.8
SWD_FACTOR = 2.0
MS_SSIM_MARGIN = 0.05
GRID_LIMIT = 3.0
# Of what real pictures have: the figure of some dozen pictures moves by as much by chance.
GRID_FACTOR = 1.5
# The share expected of a model that copies nothing is 0.05; a class has few crops, so more must be there to count.
COPIED_LIMIT = 0.15
CLASS_COPIED_LIMIT = 0.5
COLLAPSED_SHARE = 0.4
NARROW_SHARE = 0.7
LOST_SHARE = 0.5
# More than real pictures differ among themselves; a blur of 3 x 3 px makes about 6 dB.
SPECTRUM_MARGIN_DB = 3.0
# Above chance by less than this share of what is possible, labels do nothing.
IGNORED_MARGIN = 0.15


@dataclass(frozen=True)
class Verdict:
    """The judgement in words.

    Attributes:
        good: no aim is missed and nothing is wrong.
        findings: what is wrong, in sentences.
        missed: aims that are missed, with the figures.
        unknown: aims that could not be judged.
    """

    good: bool
    findings: tuple[str, ...]
    missed: tuple[str, ...]
    unknown: tuple[str, ...]


def judge(report: Report) -> Verdict:
    """Judge a model by its figures; what is not known (None) is not judged."""
    findings = [
        text
        for text in (
            _named(report, _collapsed, "collapsed to few pictures: {}"),
            _named(report, _narrow, "little variety: {}"),
            _ignores_labels(report),
            _named(report, _lost, "not told to be of their class: {}"),
            _named(report, _far, "far from real pictures: {}"),
            _named(report, _unsharp, "blurred or noisy: {}"),
            _named(report, _copied, "training pictures repeated: {}"),
            _named(report, _grid, "grid artefacts: {}"),
        )
        if text
    ]
    missed = [
        text for text in (_accuracy(report.all), _swd(report.all), _ms_ssim(report.all), _memory(report.all)) if text
    ]
    gridded = {name: figures.grid for name, figures in report.by_class.items() if _grid(figures)}
    if gridded:
        worst = max(gridded, key=lambda name: _value(gridded[name][0]))
        fake, real = gridded[worst]
        missed.append(f"grid artefact of {worst} {fake:.1f}, aim: at most {GRID_LIMIT:g} (real pictures {real:.1f})")
    unknown = ("accuracy, for want of a classifier that knows these classes",) if None in report.all.accuracy else ()
    good = not findings and not missed
    return Verdict(good=good, findings=tuple(findings), missed=tuple(missed), unknown=unknown)


def as_text(verdict: Verdict) -> str:
    """The verdict for people, a line a finding."""
    lines = ["verdict: good, no aim is missed" if verdict.good else "verdict: not good"]
    lines += [f"  {text}" for text in verdict.findings]
    lines += [f"  missed: {text}" for text in verdict.missed]
    lines += [f"  not judged: {text}" for text in verdict.unknown]
    return "\n".join(lines)


def _named(report: Report, test: Callable[[Figures], bool], sentence: str) -> str:
    names = [name for name, figures in report.by_class.items() if test(figures)]
    return sentence.format(", ".join(names)) if names else ""


def _variety(figures: Figures) -> float:
    """Mean distance of pairs, by that of reals; reals that are all alike cannot be fallen short of."""
    fake, real = (_value(value) for value in figures.pair_distance)
    return fake / real if real > 0 else 1.0


def _collapsed(figures: Figures) -> bool:
    return _variety(figures) < COLLAPSED_SHARE


def _narrow(figures: Figures) -> bool:
    return COLLAPSED_SHARE <= _variety(figures) < NARROW_SHARE


def _lost(figures: Figures) -> bool:
    fake, real = figures.accuracy
    return fake is not None and real is not None and fake < LOST_SHARE * real


def _far(figures: Figures) -> bool:
    return bool(_swd(figures))


def _unsharp(figures: Figures) -> bool:
    fake, real = (_value(value) for value in figures.spectrum)
    return fake > real + SPECTRUM_MARGIN_DB


def _copied(figures: Figures) -> bool:
    return _value(figures.copied[0]) >= CLASS_COPIED_LIMIT


def _grid(figures: Figures) -> bool:
    """Above the limit, and well above what real pictures have by themselves: weaves and scans have grids, too."""
    fake, real = (_value(value) for value in figures.grid)
    return fake > max(GRID_LIMIT, GRID_FACTOR * real)


def _ignores_labels(report: Report) -> str:
    fake, real = report.all.accuracy
    told = sum(figures.accuracy[1] is not None for figures in report.by_class.values())
    if fake is None or real is None or told < 2:
        return ""
    chance = 1 / told
    limit = chance + IGNORED_MARGIN * (1 - chance)
    return f"labels are ignored: {fake:.0%} are of their class" if fake < min(limit, real) else ""


def _accuracy(figures: Figures) -> str:
    fake, real = figures.accuracy
    if fake is None or real is None or fake >= ACCURACY_SHARE * real:
        return ""
    return f"accuracy {fake:.2f}, aim: at least {ACCURACY_SHARE * real:.2f} ({ACCURACY_SHARE:g} x real {real:.2f})"


def _swd(figures: Figures) -> str:
    fake, real = (_value(value) for value in figures.swd)
    aim = SWD_FACTOR * real
    return f"SWD {fake:.0f}, aim: at most {aim:.0f} ({SWD_FACTOR:g} x real {real:.0f})" if fake > aim else ""


def _ms_ssim(figures: Figures) -> str:
    fake, real = (_value(value) for value in figures.ms_ssim)
    if abs(fake - real) <= MS_SSIM_MARGIN:
        return ""
    way = "more alike" if fake > real else "less alike"
    return f"MS-SSIM {fake:.2f}, aim: {real:.2f} ± {MS_SSIM_MARGIN:g}: pictures of a class are {way} than real ones"


def _memory(figures: Figures) -> str:
    share = _value(figures.copied[0])
    return f"nearer to training pictures {share:.2f}, aim: at most {COPIED_LIMIT:g}" if share > COPIED_LIMIT else ""


def _value(value: float | None) -> float:
    return 0.0 if value is None else value
