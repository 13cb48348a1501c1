"""The deploy report as one self-contained page: verdicts, figures, pictures, plots; standard library, numpy, Pillow."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from assetgen.types import FloatArray

Figures = Mapping[str, Any]

# Differences are shown this many times as large as they are.
GAIN = 16.0
SHOWN_PX = 256
CHART_PX = (640, 18)  # width, height of a bar
COLORS = ("#9aa0a6", "#4aa3df", "#e8743b", "#6abf69", "#b678d6", "#d8b13c", "#5fc9c4", "#d96a8c")
_MARKS = {"holds": "#6abf69", "broken": "#e05c5c", "absent": "#9aa0a6"}
_STYLE = (
    "body{background:#202124;color:#e8eaed;font:15px sans-serif;margin:24px;max-width:1200px}"
    "table{border-collapse:collapse;margin:8px 0 24px}td,th{padding:3px 14px 3px 0;text-align:left;"
    "border-bottom:1px solid #3c4043;vertical-align:top}svg{background:#28292c;display:block;margin:4px 0 16px}"
    "figure{display:inline-block;margin:0 12px 12px 0}figcaption{font-size:12px}img{display:block;image-rendering:auto}"
    "b.mark{padding:1px 8px;border-radius:8px;color:#202124}.small{font-size:12px;color:#9aa0a6}"
)


def page(report: Figures, pictures: Mapping[str, Mapping[str, FloatArray]], outputs: Sequence[tuple[str, int]]) -> str:
    """The HTML of a report.

    Args:
        report: as ``assetgen optimize`` writes it in JSON.
        pictures: by candidate, the first one the reference, and output: ``[c, h, w]`` in [0, 1].
        outputs: names and channels of the outputs, in order.
    """
    model, machine = report["model"], report["machine"]
    title = f"{model['id']} {model['version']} on this machine"
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items() if value is not None)
    auto = report.get("auto")
    said = f"<p><code>--device auto</code> takes <b>{_e(auto['device'])}</b>: {_e(auto['reason'])}.</p>" if auto else ""
    parts = [
        f"<h1>{_e(title)}</h1><p class=small>package digest {_e(model['digest'])}; {_e(facts)}; "
        f"took {report['took_s']} s</p>{said}",
        "<h2>Verdicts</h2>",
        _verdicts(report["candidates"]),
        "<h2>Differences from the reference, fp32 by ONNX Runtime on the processor</h2>",
        _differences(report["candidates"], outputs),
        "<h2>Latency</h2>",
        _latencies(report["candidates"]),
        "<h2>Pictures</h2>",
        _pictures(pictures, outputs),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_e(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _verdicts(candidates: Figures) -> str:
    rows = []
    for name, figures in candidates.items():
        verdict = figures["verdict"]
        mark = f'<b class="mark" style="background:{_MARKS[verdict]}">{verdict}</b>'
        why = "; ".join(figures.get("broken", ())) or figures.get("reason", "")
        memory = figures.get("peak_memory_bytes")
        cells = (
            _e(name),
            mark,
            _e(why),
            _e(figures.get("backend", "")),
            _number(figures.get("open_s"), "s"),
            f"{figures['graph_bytes'] / 1e6:.1f} MB",
            f"{memory['bytes'] / 1e6:.0f} MB at {memory['edge_px']} px" if memory else "",
            "yes" if figures.get("halves") else "no",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = ("device", "verdict", "why", "backend", "open or build", "graph", "peak memory", "by halves")
    return _table(head, rows)


def _differences(candidates: Figures, outputs: Sequence[tuple[str, int]]) -> str:
    rows = []
    for name, figures in candidates.items():
        if "differences" not in figures:
            continue
        found = figures["differences"]
        cells = [_e(name)]
        for output, _ in outputs:
            db = found["psnr_db"][output]
            shown = "equal" if db >= 200 else f"{db:.1f} dB"
            cells.append(f"{shown}<br><span class=small>largest {found['largest'][output]:.2g}, "
                         f"mean {found['mean'][output]:.2g}</span>")  # fmt: skip
        cells.append(
            f"{found['normal_degrees']:.2f}°<br><span class=small>largest {found['largest_normal_degrees']:g}°</span>"
        )
        seam = figures.get("seam")
        cells += ["" if seam is None else f"{max(seam.values()):.2g}", _e(figures["determinism"])]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return _table(("device", *(name for name, _ in outputs), "normals, mean", "rolled inputs", "repeated"), rows)


def _latencies(candidates: Figures) -> str:
    """A chart for every size and batch, and the numbers."""
    there = {name: figures["latency_ms"] for name, figures in candidates.items() if figures.get("latency_ms")}
    cells = list(dict.fromkeys(cell for timed in there.values() for cell in timed))
    charts = [
        _bars(cell, {name: timed[cell] for name, timed in there.items() if "p50" in timed.get(cell, {})})
        for cell in cells
    ]
    rows = []
    for name, timed in there.items():
        columns = "".join(f"<td>{_timed(timed.get(cell))}</td>" for cell in cells)
        rows.append(f"<tr><td>{_e(name)}</td>{columns}</tr>")
    note = (
        "<p class=small>p50 and p95 in ms; in brackets how many times as fast as the reference, run by run in turn</p>"
    )
    return note + "".join(charts) + _table(("device", *cells), rows)


def _timed(figures: Figures | None) -> str:
    if figures is None:
        return ""
    if "failed" in figures:
        return f"<span class=small>{_e(figures['failed'])}</span>"
    return f"{figures['p50']:.1f}, {figures['p95']:.1f} ({figures['times_as_fast']:.2f}x)"


def _bars(title: str, timed: Mapping[str, Figures]) -> str:
    """Bars of p50 with a line to p95."""
    if not timed:
        return ""
    width, bar = CHART_PX
    left, right = 150, 90
    longest = max(figures["p95"] for figures in timed.values()) or 1.0
    drawn = [f'<text x="8" y="15" fill="#e8eaed" font-size="12">{_e(title)}</text>']
    for row, (name, figures) in enumerate(timed.items()):
        top = 24 + row * (bar + 4)
        length, far = ((width - left - right) * figures[key] / longest for key in ("p50", "p95"))
        middle = top + bar / 2
        color, end = COLORS[row % len(COLORS)], left + far
        label = f'y="{middle + 4:.0f}" fill="#e8eaed" font-size="11"'
        drawn.append(
            f'<text x="8" {label}>{_e(name)}</text>'
            f'<rect x="{left}" y="{top}" width="{max(length, 1):.1f}" height="{bar}" fill="{color}"/>'
            f'<line x1="{left + length:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}" stroke="#e8eaed"/>'
            f'<text x="{end + 6:.1f}" {label}>{figures["p50"]:.1f} ms</text>'
        )
    height = 28 + len(timed) * (bar + 4)
    return f'<svg width="{width}" height="{height}" role="img">{"".join(drawn)}</svg>'


def _pictures(pictures: Mapping[str, Mapping[str, FloatArray]], outputs: Sequence[tuple[str, int]]) -> str:
    """The reference's maps, and below each other candidate's with what differs, made larger."""
    if not pictures:
        return ""
    names = list(pictures)
    reference = pictures[names[0]]
    rows = [f"<h3>{_e(names[0])}</h3>" + "".join(_figure(reference[output], output) for output, _ in outputs)]
    for name in names[1:]:
        shown = []
        for output, _ in outputs:
            shown.append(_figure(pictures[name][output], output))
            apart = np.abs(pictures[name][output] - reference[output]) * np.float32(GAIN)
            shown.append(_figure(apart, f"{output}, difference times {GAIN:g}"))
        rows.append(f"<h3>{_e(name)}</h3>" + "".join(shown))
    return "".join(rows)


def _figure(values: FloatArray, caption: str) -> str:
    channels = values[:3] if len(values) >= 3 else values[:1]
    finite = np.nan_to_num(channels, nan=1.0, posinf=1.0, neginf=0.0)
    pixels = (np.clip(finite, 0, 1) * 255 + 0.5).astype(np.uint8)
    picture = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    picture.thumbnail((SHOWN_PX, SHOWN_PX))
    data = io.BytesIO()
    picture.save(data, format="PNG")
    source = base64.b64encode(data.getvalue()).decode("ascii")
    alt = _e(caption)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{source}"><figcaption>{alt}</figcaption></figure>'


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    return f"<table><tr>{''.join(f'<th>{_e(name)}</th>' for name in head)}</tr>{''.join(rows)}</table>"


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:g} {unit}"


def _e(text: object) -> str:
    return html.escape(str(text))
