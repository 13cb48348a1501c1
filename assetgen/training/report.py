"""What a run's log says, in plain words and as a page to watch, ``report.html``; standard library only.

The page shows itself anew every half minute, so that a browser beside the training is a live view; it needs no server.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from assetgen.training.runlog import EVENTS, STATISTICS, read_lines
from assetgen.training.watchdog import COLLAPSED, DEAD, MEMORISED, NARROW

Line = Mapping[str, float]

PAGE_NAME = "report.html"
REFRESH_S = 30
CHART_PX = (420, 150)  # width, height
COLORS = ("#4aa3df", "#e8743b", "#6abf69", "#b678d6", "#d8b13c", "#5fc9c4", "#d96a8c", "#9aa0a6")
YOUNG_KIMG = 5
CHARTS = {
    "Losses": ("loss_d", "loss_g"),
    "Logits of reals and fakes": ("real_score", "fake_score"),
    "Augmentation, sureness about reals": ("augment", "sign"),
    "Length of gradients": ("gradient_d", "gradient_g"),
    "Seconds a thousand pictures": ("s_per_kimg",),
}


def write_report(run: Path) -> list[str]:
    """Write the page of a run folder; returns the report's sentences."""
    lines, events = read_lines(run / STATISTICS), read_lines(run / EVENTS)
    sentences = report(lines, events)
    page = _page(run, lines, events, sentences)
    temporary = run / (PAGE_NAME + ".partial")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(run / PAGE_NAME)
    return sentences


def report(lines: Sequence[Line], events: Sequence[Mapping[str, object]]) -> list[str]:
    """Sentences on a run: how far it is, what is well, what is not, and what to do next."""
    if not lines:
        return ["Nothing has been trained yet."]
    last = lines[-1]
    seen = next((line for line in reversed(lines) if "latent_effect" in line), {})
    speed = [line["s_per_kimg"] for line in lines if line.get("s_per_kimg")]
    pace = f" at {sorted(speed)[len(speed) // 2]:.3g} s a thousand" if speed else ""
    said = [f"{last['kimg']:.1f} thousand pictures in {last['elapsed_s'] / 60:.1f} minutes{pace}."]
    broken = [name for name, value in last.items() if not math.isfinite(value)]
    if broken:
        said.append(f"Training broke down: {', '.join(broken)} are no numbers any more.")
    if seen and last["kimg"] < YOUNG_KIMG:
        said.append(f"Too early to judge: below {YOUNG_KIMG} thousand pictures what follows means little.")
    said += _variety(seen)
    said += _inputs(seen)
    if events:
        counts = Counter(str(event["signal"]) for event in events)
        acted = Counter(str(event["action"]) for event in events if event["action"])
        said.append(
            f"The watchdog spoke {len(events)} times: {_counted(counts)}"
            + (f"; it acted: {_counted(acted)}." if acted else ".")
        )
    if seen and not broken:
        said.append("How good the pictures are, losses do not tell: look at the sheet, and run assetgen eval.")
    return said


def _variety(seen: Line) -> list[str]:
    found = {name.removeprefix("diversity."): value for name, value in seen.items() if name.startswith("diversity.")}
    if not found:
        return []
    collapsed = sorted(name for name, value in found.items() if value < COLLAPSED)
    narrow = sorted(name for name, value in found.items() if COLLAPSED <= value < NARROW)
    if not collapsed and not narrow:
        return [f"Every class has the variety of its reals ({min(found.values()):.2f} of it or more)."]
    said = []
    if collapsed:
        share = "All classes" if len(collapsed) == len(found) else ", ".join(collapsed)
        said.append(f"Alike whatever the seed (collapsed, or too young to tell): {share}.")
    if narrow:
        said.append(f"Less varied than reals: {', '.join(narrow)}.")
    return said


def _inputs(seen: Line) -> list[str]:
    said = []
    if seen.get("latent_effect", math.inf) < DEAD:
        said.append("The seed changes nothing: the latent is ignored.")
    if seen.get("label_effect", math.inf) < DEAD:
        said.append("The class changes nothing: labels are ignored.")
    if seen.get("memorised", 0.0) > MEMORISED:
        said.append("The discriminator takes held-out pictures for fakes: it knows the training pictures by heart.")
    return said


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common())


def _page(run: Path, lines: Sequence[Line], events: Sequence[Mapping[str, object]], sentences: Sequence[str]) -> str:
    sheets = sorted(run.glob("sheet-*.png"))
    charts = [chart(title, {name: _series(lines, name) for name in names}) for title, names in CHARTS.items()]
    varieties = sorted({name for line in lines for name in line if name.startswith("diversity.")})
    if varieties:
        series = {name.removeprefix("diversity."): _series(lines, name) for name in varieties}
        charts.append(chart("Variety by class, as a share of that of reals", series))
    said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    rows = "".join(
        f"<tr><td>{float(str(event['kimg'])):.1f}</td><td>{html.escape(str(event['text']))}</td>"
        f"<td>{html.escape(str(event['action']))}</td></tr>"
        for event in events[-20:]
    )
    table = f"<table><tr><th>kimg</th><th>what</th><th>done</th></tr>{rows}</table>" if rows else ""
    picture = f'<img src="{html.escape(sheets[-1].name)}" alt="samples">' if sheets else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{REFRESH_S}"><title>{html.escape(run.name)}</title>'
        "<style>body{background:#202124;color:#e8eaed;font:15px sans-serif;margin:24px}img{max-width:100%}"
        "svg{background:#28292c;margin:4px}td,th{padding:2px 12px 2px 0;text-align:left}</style></head>"
        f"<body><h1>{html.escape(run.name)}</h1><ul>{said}</ul>{''.join(charts)}{table}{picture}</body></html>\n"
    )


def _series(lines: Sequence[Line], name: str) -> list[tuple[float, float]]:
    return [(line["kimg"], line[name]) for line in lines if math.isfinite(line.get(name, math.nan))]


def chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A line chart as SVG; nothing if no series has a point."""
    points = [point for values in series.values() for point in values]
    if not points:
        return ""
    width, height = CHART_PX
    left, top, legend = 8, 22, 18
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)

    def place(x: float, y: float) -> str:
        across = (x - low_x) / (high_x - low_x or 1)
        up = (y - low) / (high - low or 1)
        return f"{left + across * (width - 2 * left):.1f},{height - legend - up * (height - top - legend):.1f}"

    drawn = []
    for number, (name, values) in enumerate(series.items()):
        color = COLORS[number % len(COLORS)]
        path = " ".join(place(x, y) for x, y in values)
        drawn.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{path}"/>')
        label = f"{html.escape(name)} {values[-1][1]:.3g}" if values else html.escape(name)
        across = left + number * (width - 2 * left) / len(series)
        drawn.append(f'<text x="{across:.0f}" y="{height - 4}" fill="{color}" font-size="10">{label[:24]}</text>')
    return (
        f'<svg width="{width}" height="{height}" role="img"><text x="{left}" y="14" fill="#e8eaed" font-size="12">'
        f"{html.escape(title)} ({low:.3g} to {high:.3g})</text>{''.join(drawn)}</svg>"
    )
