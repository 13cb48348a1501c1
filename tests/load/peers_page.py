"""What `tests.load.peers` measured, as a part of `docs/peers.md` and a plot; standard library only.

`python -m tests.load.peers_page` writes both again from `docs/peers.json`.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
TITLES = {
    "bare gRPC": "bare gRPC server, fixed inputs",
    "bentoml": "BentoML (HTTP)",
    "litserve": "LitServe (HTTP)",
    "mlserver": "MLServer (gRPC)",
    "own session": "assetgen's session, no server",
    "ray": "Ray Serve (HTTP)",
    "triton": "Triton, Python backend (gRPC)",
}
# Of Okabe and Ito (2008), told apart by the colour-blind too.
COLORS = ("#d55e00", "#000000", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
IDEAL, IDEAL_COLOR = "ideal queue", "#999999"
PANEL_PX, MARGIN_PX, TOP_PX = (290, 220), 46, 30

Figures = Mapping[str, Any]


def write(found: Figures, docs: Path = DOCS) -> None:
    """Write ``peers.json``, ``images/peers.svg`` and the measured part of ``peers.md``, which must have its marks."""
    page = docs / "peers.md"
    head, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} lacks the lines {BEGIN.strip()} and {END.strip()}")
    (docs / "peers.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (docs / "images" / "peers.svg").write_text(plot(found), encoding="utf-8")
    page.write_text(head + BEGIN + tables(found) + END + tail, encoding="utf-8")


def tables(found: Figures) -> str:
    """The figures for readers, in Markdown."""
    plan, raw, machine, model = found["plan"], found["raw"], found["machine"], found["model"]
    versions = "".join(f" {_title(name)} {number}." for name, number in found["versions"].items())
    names, by_load = list(found["closed"]), found["open"]
    counts = [by_load[load][name]["calls"] for load in by_load for name in names]
    busy = "" if machine["load"] < machine["cores"] else " The machine had other work: compare within a table only."
    said = (
        f"{machine['processor']} (cores: {machine['cores']}, load at the start: {machine['load']}); {model['id']} at "
        f"{model['edge_px']} px, threads: {model['threads']}. The raw session: p50 {raw['p50_ms']} ms, "
        f"{raw['calls_per_s']} calls a second.{versions}{busy}\n"
    )
    alone = _table(
        ["server", "p50 above raw", "quartiles", "p99 above raw's p99", "90 in 100", "p50, p95, p99 in raw calls"],
        [[_title(name), *_alone(figures)] for name, figures in found["in_turn"].items() if name != "raw"],
    )
    together = _table(
        ["server", "share of raw throughput", "p50, p95, p99 in raw calls", "p99, in the time of an ideal queue"],
        [[_title(name), *_together(found["closed"][name])] for name in names],
    )
    heads = ["server", *(f"{load} of capacity" for load in by_load)]
    waits = _table(
        heads, [[_title(name), *(_three(by_load[load][name]) for load in by_load)] for name in [IDEAL, *names]]
    )
    goods = _table(heads, [[_title(name), *(_good(by_load[load][name]) for load in by_load)] for name in names])
    return (
        f"{said}\n![Latency and goodput by load](images/peers.svg)\n\n"
        f"One client, {plan['calls']} calls in turn:\n\n{alone}\n"
        f"{plan['clients']} clients in a closed loop:\n\n{together}\n"
        f"Open loop, {min(counts)} to {max(counts)} calls each: p50, p95, p99 in raw calls, counted from the moment "
        f"that was drawn (lost: not even so many had an answer within {plan['limit']:g} raw calls):\n\n{waits}\n"
        f"Open loop, goodput as a share of what the session does a second, and in brackets the share of calls that "
        f"were answered in time:\n\n{goods}"
    )


def _title(name: str) -> str:
    return f"**{name}**" if name == "assetgen" else TITLES.get(name, name)


def _alone(figures: Figures) -> list[str]:
    quartiles = f"{figures['above_p25_ms']:.1f} to {figures['above_p75_ms']:.1f}"
    drawn = f"{figures['above_p99_low_ms']:.1f} to {figures['above_p99_high_ms']:.1f}"
    return [f"{figures['above_p50_ms']:.1f} ms", quartiles, f"{figures['above_p99_ms']:.1f} ms", drawn, _three(figures)]


def _together(figures: Figures) -> list[str]:
    return [f"{figures['throughput']:.2f}", _three(figures), f"{figures['p99_of_ideal']:.2f}"]


def _three(figures: Figures) -> str:
    return ", ".join("lost" if figures[name] is None else f"{figures[name]:.2f}" for name in ("p50", "p95", "p99"))


def _good(figures: Figures) -> str:
    return f"{figures['goodput']:.2f} ({figures['in_time']:.0%})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot(found: Figures) -> str:
    """Three panels over the load: median and p99 on a logarithmic scale, and goodput, as SVG."""
    by_load, limit = found["open"], float(found["plan"]["limit"])
    names = list(found["closed"])
    strokes = {IDEAL: _stroke(IDEAL_COLOR, 1.5, ' stroke-dasharray="5 3"')}
    for name, color in zip(names, itertools.cycle(COLORS)):
        strokes[name] = _stroke(color, 3 if name == "assetgen" else 1.5)
    most = max(map(float, by_load))

    def panel(number: int, title: str, figure: str, shown: Iterable[str], ticks: Sequence[float]) -> str:
        curves = {name: [(float(load), by_load[load][name][figure]) for load in by_load] for name in shown}
        return _panel(number, title, curves, strokes, ticks, most)

    waits = [*(tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500) if tick < limit), limit]
    shares = [step / 4 for step in range(math.ceil(most * 4) + 1)]
    panels = (
        panel(0, "p50, in raw calls", "p50", strokes, waits)
        + panel(1, "p99, in raw calls", "p99", strokes, waits)
        + panel(2, "goodput, share of raw", "goodput", names, shares)
    )
    width = 3 * (PANEL_PX[0] + MARGIN_PX) + 20
    keys, y = [], 0
    for number, (name, stroke) in enumerate(strokes.items()):
        x, y = MARGIN_PX + number % 4 * (width - MARGIN_PX) / 4, PANEL_PX[1] + TOP_PX + 54 + number // 4 * 16
        keys.append(f'<path d="M{x:.0f} {y - 4}h22" {stroke}/>{_text(x + 28, y, TITLES.get(name, name))}')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 12}" viewBox="0 0 {width} {y + 12}" '
        f'font-family="sans-serif" role="img"><title>Latency and goodput by load</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{panels}{"".join(keys)}</svg>\n'
    )


def _panel(
    number: int,
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float | None]]],
    strokes: Mapping[str, str],
    ticks: Sequence[float],
    most: float,
) -> str:
    """One of them, up to the last of ``ticks``; its scale is logarithmic if these do not begin at 0.

    What is lost stands at the top.
    """
    width, height = PANEL_PX
    left = MARGIN_PX + number * (width + MARGIN_PX)
    scale: Callable[[float], float] = math.log if ticks[0] else float
    least, high = 0.9 * ticks[0], ticks[-1]

    def across(load: float) -> float:
        return left + load / most * width

    def down(value: float | None) -> float:
        kept = min(max(high if value is None else value, least), high)
        return TOP_PX + height * (1 - (scale(kept) - scale(least)) / (scale(high) - scale(least)))

    drawn = [_text(left, TOP_PX - 10, title, size=13)]
    for tick in ticks:
        drawn.append(f'<path d="M{left} {down(tick):.1f}h{width}" stroke="#dddddd"/>')
        drawn.append(_text(left - 6, down(tick) + 4, f"{tick:g}", anchor="end"))
    for load, _ in next(iter(curves.values())):
        drawn.append(f'<path d="M{across(load):.1f} {TOP_PX + height}v4" stroke="#555555"/>')
        drawn.append(_text(across(load), TOP_PX + height + 17, f"{load:g}", anchor="middle"))
    drawn.append(_text(left + width, TOP_PX + height + 33, "load, share of the raw capacity", anchor="end"))
    for name, curve in curves.items():
        points = " ".join(f"{across(load):.1f},{down(value):.1f}" for load, value in curve)
        drawn.append(f'<polyline points="{points}" {strokes[name]}/>')
    return "".join(drawn)


def _stroke(color: str, width: float, more: str = "") -> str:
    return f'fill="none" stroke="{color}" stroke-width="{width}"{more}'


def _text(x: float, y: float, said: str, *, size: int = 11, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" fill="#222222">{said}</text>'


if __name__ == "__main__":
    write(json.loads((DOCS / "peers.json").read_text(encoding="utf-8")))
    sys.exit(0)
