"""The deploy report as one self-contained page: verdicts, figures, plots, pictures; standard library, numpy, Pillow."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from assetgen.deploy_pictures import MESH
from assetgen.types import FloatArray

Figures = Mapping[str, Any]
Maps = Mapping[str, FloatArray]

# Differences are shown this many times as large as they are.
GAIN = 16.0
SHOWN_PX = 256
CHART_PX = (276, 14)  # width, height of a bar
EQUAL_DB = 200.0
COLORS = ("#9aa0a6", "#4aa3df", "#e8743b", "#6abf69", "#b678d6", "#d8b13c", "#5fc9c4", "#d96a8c")
_MARKS = {"holds": "#6abf69", "broken": "#e05c5c"}
_STYLE = (
    "body{background:#202124;color:#e8eaed;font:14px/1.4 system-ui,sans-serif;margin:24px;max-width:1240px}"
    "h2{margin:32px 0 4px}h3{margin:16px 0 4px}p{margin:4px 0 8px;max-width:900px}"
    "table{border-collapse:collapse;margin:8px 0 16px}td,th{padding:4px 18px 4px 0;text-align:left;"
    "border-bottom:1px solid #3c4043;vertical-align:top;white-space:nowrap}td.wide{white-space:normal;max-width:700px}"
    "th{color:#9aa0a6;font-weight:600}tr.head td{color:#9aa0a6;padding-top:14px}"
    ".small{font-size:12px;color:#9aa0a6}.bad{color:#ff8a80}b.mark{padding:1px 8px;border-radius:8px;color:#202124}"
    "td .small{display:inline-block;max-width:300px;white-space:normal;overflow-wrap:anywhere}"
    ".row{display:flex;flex-wrap:wrap;gap:10px;margin:4px 0}svg{background:#28292c;display:block}"
    "figure{margin:0;width:110px}figcaption{font-size:11px;color:#9aa0a6}"
    "figure img{display:block;width:110px;height:110px;object-fit:contain;background:#000;cursor:zoom-in;"
    "transform-origin:0 0}figure img:hover{transform:scale(3);position:relative;z-index:1}"
    ".sign td{padding-top:28px;width:240px;border-color:#9aa0a6}.sign th{border:0}"
    "@media print{body{background:#fff;color:#000}svg{background:#eee}svg text{fill:#000}td,th{border-color:#bbb}}"
)


def page(report: Figures, pictures: Mapping[str, Maps], outputs: Sequence[tuple[str, int]]) -> str:
    """The HTML of a report.

    Args:
        report: as ``assetgen optimize`` writes it in JSON.
        pictures: by candidate, the first one the reference, and map: ``[c, h, w]`` in [0, 1].
        outputs: names and channels of the outputs, in order.
    """
    model, candidates = report["model"], report["candidates"]
    title = f"{model['id']} {model['version']} on this machine"
    compared = report["compared"]
    parts = [
        f"<h1>{_e(title)}</h1>",
        _summary(report),
        "<h2>Verdicts</h2>"
        "<p class=small>A device holds if its maps differ from the reference, fp32 by ONNX Runtime, by no more than "
        "the package allows, if three runs gave the same bytes, and if what should tile does. Broken: do not ship it on"
        " that device; why stands below it.</p>",
        _verdicts(report),
        _absent(candidates),
        "<h2>Differences from fp32 by ONNX Runtime</h2>"
        f"<p class=small>The worst of {compared['pictures']} pictures of {compared['edge_px']} px. Under each PSNR the "
        f"largest and the mean difference of values in 0 to 1, and what is asked for.{_notes(candidates)} Repeated: "
        "whether three runs gave the same bytes.</p>",
        _differences(candidates, outputs),
        _beside(report, outputs),
        "<h2>Latency</h2>"
        "<p class=small>Of a batch, in ms: bars are p50, lines reach to p95. In the tables p50 and p95, and how many "
        "times as fast as the reference, run by run in turn.</p>",
        _latencies(candidates),
        "<h2>Pictures</h2>"
        f"<p class=small>Request {compared['shown']} of those compared, the one with most contrast; differences are "
        f"{GAIN:g} times as large as they are. Point at one to enlarge it.{_of_meshes(pictures)}</p>",
        _pictures(pictures, candidates),
        "<h2>Approval</h2><table class=sign><tr><th>approved for</th><th>name</th><th>date</th></tr>"
        "<tr><td></td><td></td><td></td></tr></table>"
        f"<p class=small>For the package of digest {_e(model['digest'])} on the machine named above.</p>",
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_e(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _summary(report: Figures) -> str:
    """What matters first: how many hold, which is taken, where it was measured."""
    candidates = report["candidates"]
    verdicts = [figures["verdict"] for figures in candidates.values()]
    told = {"holds": "within tolerance", "broken": "out of it", "absent": "not on this machine"}
    counts = ", ".join(f"{verdicts.count(name)} {words}" for name, words in told.items() if name in verdicts)
    auto = report.get("auto")
    said = f"<p><code>--device auto</code> takes <b>{_e(auto['device'])}</b>: {_e(auto['reason'])}.</p>" if auto else ""
    machine = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in report["machine"].items() if v is not None)
    packages = {"package": report["model"]} | {f"beside it {label}": m for label, m in report["beside"].items()}
    lines = [f"{what}: {m['id']} {m['version']}, digest {m['digest']}" for what, m in packages.items()]
    facts = "<br>".join(_e(line) for line in (*lines, f"machine: {machine}; took {report['took_s']} s"))
    return f"<p>{_e(counts)}.</p>{said}<p class=small>{facts}</p>"


def _verdicts(report: Figures) -> str:
    present = _present(report["candidates"])
    cell = _first_cell(present)
    memory_px = next((f["peak_memory_bytes"]["edge_px"] for f in present.values() if f.get("peak_memory_bytes")), 0)
    turned = _have_normals(report["candidates"])
    head = ["device", "verdict", "least PSNR", *(["normals, mean"] if turned else []), cell]
    head += ["open or build", "graph file"]
    head += [f"peak memory at {memory_px} px"] if memory_px else []
    rows, group = [], ""
    for name, figures in present.items():
        if figures.get("of", "") != group:
            group = figures["of"]
            rows.append(f"<tr class=head><td colspan={len(head)}>{_e(group)}, held to its own fp32</td></tr>")
        verdict, found = figures["verdict"], figures["differences"]
        timed = figures.get("latency_ms", {}).get(cell, {})
        memory, size = figures.get("peak_memory_bytes"), figures.get("graph_bytes")
        cells = [
            f"{_e(name)}<br><span class=small>{_e(figures.get('backend', ''))}</span>",
            _mark(verdict),
            _db(min(found["psnr_db"].values())),
            *([f"{found['normal_degrees']:.2f}°"] if turned else []),
            f"{timed['p50']:.1f} ms, {timed['times_as_fast']:.2f}x" if "p50" in timed else "",
            "" if figures.get("open_s") is None else f"{figures['open_s']:g} s",
            f"{size / 1e6:.1f} MB" if size else "",
        ]
        cells += [f"{memory['bytes'] / 1e6:.0f} MB" if memory else ""] if memory_px else []
        rows.append(_row(cells))
        if figures.get("broken"):
            why = _e("; ".join(figures["broken"]))
            rows.append(f'<tr><td></td><td colspan={len(head) - 1} class="wide bad">{why}</td></tr>')
    return _table(head, rows)


def _absent(candidates: Figures) -> str:
    """Those that are not here, by why; what is not here for the first package is not for the others either."""
    reasons: dict[tuple[str, str], list[str]] = {}
    gone = {name for name, figures in candidates.items() if figures["verdict"] == "absent"}
    for name, figures in candidates.items():
        if name in gone and not ("of" in figures and name.removesuffix(f" of {figures['of']}") in gone):
            reasons.setdefault((figures["reason"], figures.get("hint", "")), []).append(name)
    if not reasons:
        return ""
    rows = [
        f"<tr><td class=wide>{_e(', '.join(names))}</td><td class=wide>{_e(why)}<br><span class=small>{_e(hint)}</span>"
        "</td></tr>"
        for (why, hint), names in reasons.items()
    ]
    return "<h3>Not on this machine, so not measured (absent)</h3>" + _table(("device", "why, and what to do"), rows)


def _differences(candidates: Figures, outputs: Sequence[tuple[str, int]]) -> str:
    turns, seams = _have_normals(candidates), _have_seams(candidates)
    head = ["device", *(name for name, _ in outputs), *(["normals, mean"] if turns else [])]
    head += [*(["seam"] if seams else []), "repeated"]
    rows, group = [], ""
    for name, figures in _present(candidates).items():
        if figures.get("of", "") != group:
            group = figures["of"]
            rows.append(f"<tr class=head><td colspan={len(head)}>{_e(group)}, from its own fp32</td></tr>")
        found, allowed = figures["differences"], figures["allowed"]
        least, most = allowed.get("least_psnr_db"), allowed.get("most_normal_degrees", 0.0)
        cells = [_e(name)]
        for output, _ in outputs:
            if least is None:
                limit = allowed.get(output)
                asked = "" if limit is None else f"largest at most {limit:g}"
                holds = limit is None or found["largest"][output] <= limit
            else:
                asked = f"at least {least[output]:g} dB" if output in least else ""
                holds = output not in least or found["psnr_db"][output] >= least[output]
            cells.append(_difference(found, output, asked, holds))
        if turns:
            turned, farthest = found["normal_degrees"], found["largest_normal_degrees"]
            asked = f"at most {most:g}° on average" if most else ""
            cells.append(
                _marked(f"{turned:.2f}°", not most or turned <= most)
                + f"<br><span class=small>largest {farthest:g}°<br>{asked}</span>"
            )
        if seams:
            seam = figures.get("seam")
            cells.append("" if seam is None else f"{max(seam.values()):.1g}")
        same = figures["determinism"].startswith("the same bytes")
        cells.append("same bytes" if same else f"<span class=bad>{_e(figures['determinism'])}</span>")
        rows.append(_row(cells))
    return _table(head, rows)


def _beside(report: Figures, outputs: Sequence[tuple[str, int]]) -> str:
    """How far the packages beside the first are from it; no verdict: it is for eyes to say what is good enough."""
    rows, turns = [], _have_normals(report["candidates"])
    for name, figures in _present(report["candidates"]).items():
        found = figures.get("beside")
        if found:
            cells = [_e(name), *(_difference(found, output, "", True) for output, _ in outputs)]
            if turns:
                farthest = f"<br><span class=small>largest {found['largest_normal_degrees']:g}°</span>"
                cells.append(f"{found['normal_degrees']:.2f}°{farthest}")
            rows.append(_row(cells))
    if not rows:
        return ""
    first = _e(report["model"]["id"])
    note = "<p class=small>Another network makes other pictures from the same inputs; look at them below.</p>"
    head = ("device", *(name for name, _ in outputs), *(["normals, mean"] if turns else []))
    return f"<h2>Differences from {first}</h2>{note}{_table(head, rows)}"


def _difference(found: Figures, output: str, asked: str, holds: bool) -> str:
    sizes = f"max {found['largest'][output]:.2g}, mean {found['mean'][output]:.2g}"
    return _marked(_db(found["psnr_db"][output]), holds) + f"<br><span class=small>{sizes}<br>{asked}</span>"


def _latencies(candidates: Figures) -> str:
    """For every size a row of charts, one a batch, and the numbers."""
    there = {name: f["latency_ms"] for name, f in _present(candidates).items() if f.get("latency_ms")}
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(there)}
    cells = list(dict.fromkeys(cell for timed in there.values() for cell in timed))
    parts = []
    for size in dict.fromkeys(cell.partition(" x ")[0] for cell in cells):
        mine = [cell for cell in cells if cell.partition(" x ")[0] == size]
        charts = [
            _bars(
                f"batch {cell.partition(' x ')[2]}",
                {n: t[cell] for n, t in there.items() if "p50" in t.get(cell, {})},
                colors,
            )
            for cell in mine
        ]
        rows = [_row([_e(name), *(_timed(timed.get(cell)) for cell in mine)]) for name, timed in there.items()]
        head = ("device", *(f"batch {cell.partition(' x ')[2]}" for cell in mine))
        parts.append(f"<h3>{_e(size)}</h3><div class=row>{''.join(charts)}</div>{_table(head, rows)}")
    return "".join(parts)


def _timed(figures: Figures | None) -> str:
    if figures is None:
        return ""
    if "failed" in figures:
        return f'<span class="small bad">{_e(figures["failed"])}</span>'
    return f"{figures['p50']:.1f}, {figures['p95']:.1f} <span class=small>{figures['times_as_fast']:.2f}x</span>"


def _bars(title: str, timed: Mapping[str, Figures], colors: Mapping[str, str]) -> str:
    """Bars of p50 with a line to p95."""
    if not timed:
        return ""
    width, bar = CHART_PX
    left, right = 8, 76
    longest = max(figures["p95"] for figures in timed.values()) or 1.0
    drawn = [f'<text x="{left}" y="15" fill="#e8eaed" font-size="12">{_e(title)}</text>']
    for row, (name, figures) in enumerate(timed.items()):
        top = 24 + row * (bar + 18)
        length, far = ((width - left - right) * figures[key] / longest for key in ("p50", "p95"))
        middle, end = top + 12 + bar / 2, left + far
        drawn.append(
            f'<text x="{left}" y="{top + 9}" fill="#9aa0a6" font-size="10">{_e(name)}</text>'
            f'<rect x="{left}" y="{top + 12}" width="{max(length, 1):.1f}" height="{bar}" fill="{colors[name]}"/>'
            f'<line x1="{left + length:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}" stroke="#e8eaed"/>'
            f'<text x="{end + 6:.1f}" y="{middle + 4:.0f}" fill="#e8eaed" font-size="11">{figures["p50"]:.1f} ms</text>'
        )
    height = 28 + len(timed) * (bar + 18)
    return f'<svg width="{width}" height="{height}" role="img">{"".join(drawn)}</svg>'


def _pictures(pictures: Mapping[str, Maps], candidates: Figures) -> str:
    """The reference's maps, and below each other candidate's with what differs, made larger."""
    if not pictures:
        return ""
    names = list(pictures)
    reference = pictures[names[0]]
    shown = "".join(_figure(values, output) for output, values in reference.items())
    rows = [f"<h3>{_e(names[0])}, the reference</h3><div class=row>{shown}</div>"]
    for name in names[1:]:
        figures = []
        for output, values in pictures[name].items():
            figures.append(_figure(values, output))
            if output in reference:
                apart = np.abs(values - reference[output])
                figures.append(_figure(apart * np.float32(GAIN), f"{output}, difference" + _size(apart)))
        mark = _mark(candidates[name]["verdict"])
        rows.append(f"<h3>{_e(name)} {mark}</h3><div class=row>{''.join(figures)}</div>")
    return "".join(rows)


def _size(apart: FloatArray) -> str:
    return "" if np.any(apart) else ": none"


def _figure(values: FloatArray, caption: str) -> str:
    channels = values[:3] if len(values) >= 3 else values[:1]
    finite = np.nan_to_num(channels, nan=1.0, posinf=1.0, neginf=0.0)
    pixels = (np.clip(finite, 0, 1) * 255 + 0.5).astype(np.uint8)
    picture = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    if times := SHOWN_PX // 2 // max(picture.size):  # pixel art in hard pixels
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    picture.thumbnail((SHOWN_PX, SHOWN_PX))
    data = io.BytesIO()
    picture.save(data, format="PNG")
    source = base64.b64encode(data.getvalue()).decode("ascii")
    alt = _e(caption)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{source}"><figcaption>{alt}</figcaption></figure>'


def _of_meshes(pictures: Mapping[str, Maps]) -> str:
    drawn = any(MESH in shown for shown in pictures.values())
    return " A mesh is cut anew from every volume: other triangles show as thin lines, another shape as areas." * drawn


def _notes(candidates: Figures) -> str:
    """What is to be said of normals and seams, where there are any."""
    turns = " Normals are angles." if _have_normals(candidates) else ""
    seams = (
        " Seam: how far the maps of rolled inputs are from the rolled maps; what tiles, or leaves tiles tiles, stays "
        "near 0."
    )
    return turns + (seams if _have_seams(candidates) else "")


def _have_normals(candidates: Figures) -> bool:
    return all("normal_degrees" in figures["differences"] for figures in _present(candidates).values())


def _have_seams(candidates: Figures) -> bool:
    return any(figures.get("seam") is not None for figures in _present(candidates).values())


def _present(candidates: Figures) -> dict[str, Figures]:
    """Those that were measured."""
    return {name: figures for name, figures in candidates.items() if figures["verdict"] != "absent"}


def _first_cell(candidates: Figures) -> str:
    """Name of the smallest size and batch that was timed."""
    return next((next(iter(f["latency_ms"])) for f in candidates.values() if f.get("latency_ms")), "")


def _db(value: float) -> str:
    return "equal" if value >= EQUAL_DB else f"{value:.1f} dB"


def _mark(verdict: str) -> str:
    return f'<b class="mark" style="background:{_MARKS[verdict]}">{verdict}</b>'


def _marked(text: str, holds: bool) -> str:
    return text if holds else f"<b class=bad>{text}</b>"


def _row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    return f"<table><tr>{''.join(f'<th>{_e(name)}</th>' for name in head)}</tr>{''.join(rows)}</table>"


def _e(text: object) -> str:
    return html.escape(str(text))
