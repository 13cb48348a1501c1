"""``assetgen optimize``: every runtime and precision that exists on this machine, built, compared and measured.

Engines go into the cache, and what ``auto`` is to take, too; figures go into a deploy report. Runs of all sessions take
turns, so that whatever else the machine does meets all alike.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from assetgen import __version__, deploy_page
from assetgen.errors import AssetgenError, ConfigInvalid, OutputUnwritable
from assetgen.fidelity import Comparison, Differences, broken_limits, limits
from assetgen.manifest import SPATIAL_ROLES, Manifest
from assetgen.package import VerifiedPackage
from assetgen.runtime import Session, choice, open_session, precision_of, self_check
from assetgen.runtime.cpu import instruction_family, usable_cores
from assetgen.store import open_store
from assetgen.trial import trial_inputs
from assetgen.types import FloatArray

REFERENCE = "cpu"
RUNTIMES = ("cpu", "openvino", "cuda", "tensorrt")
# What else is tried: always, where a runtime rounds the fp32 graph itself; elsewhere if the package has such a graph.
_ROUNDS_ITSELF = ("openvino:bf16",)
_FROM_GRAPHS = (
    "cpu:int8",
    "openvino:int8",
    "cuda:fp16",
    "cuda:int8",
    "tensorrt:fp16",
    "tensorrt:bf16",
    "tensorrt:int8",
)
EDGES_PX, BATCHES = (256, 512, 1024), (1, 2, 4, 8)
QUICK_EDGES_PX, QUICK_BATCHES = (256,), (1, 2)
CHECKS, QUICK_CHECKS = 12, 4
CELL_S, QUICK_CELL_S = 8.0, 2.0
LEAST_ROUNDS, MOST_ROUNDS = 5, 60
JSON_NAME, PAGE_NAME = "deploy.json", "deploy.html"
_LARGEST_DB = 200.0  # JSON has no infinity

Say = Callable[[str], None]
Feeds = dict[str, FloatArray]
Figures = dict[str, Any]
Opener = Callable[[], Session]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        edges_px, batches: sizes and batches of the latencies.
        checks: pictures that are compared.
        cell_s: time for one size and batch, all sessions together.
        memory: whether a process is started for each to see what it takes.
    """

    edges_px: tuple[int, ...]
    batches: tuple[int, ...]
    checks: int
    cell_s: float
    memory: bool = True


FULL = Plan(EDGES_PX, BATCHES, CHECKS, CELL_S)
QUICK = Plan(QUICK_EDGES_PX, QUICK_BATCHES, QUICK_CHECKS, QUICK_CELL_S, memory=False)


@dataclass
class Candidate:
    """One runtime and precision, and what was found of it."""

    name: str
    session: Session | None = None
    figures: Figures = field(default_factory=dict)
    pictures: dict[str, FloatArray] = field(default_factory=dict)


def run(
    folder: Path,
    device: str,
    threads: int | None,
    plan: Plan,
    output: Path,
    say: Say,
    others: Mapping[str, Opener] | None = None,
) -> int:
    """Measure what there is, write the report into ``output``; returns 0, or 1 if anything is out of tolerance.

    Args:
        device: ``all``, or one name that ``open_session`` takes, which must then exist.
        others: more to compare, by name, such as the network itself in PyTorch.

    Raises:
        ConfigInvalid: ``folder`` is not one package, or there is no such device.
        RuntimeMissing: the device that was asked for is not here.
        PackageInvalid, PolicyViolated, OutputUnwritable: see there.
    """
    packages = open_store([folder])
    if len(packages) != 1:
        raise ConfigInvalid(f"{folder} holds {len(packages)} packages", hint="give the folder of one")
    package = next(iter(packages.values()))
    begun_s = time.perf_counter()
    candidates = [
        _opened(name, opener, device != "all" and name == device, say)
        for name, opener in _openers(package, device, threads, others or {}).items()
    ]
    there = [candidate for candidate in candidates if candidate.session is not None]
    _compare(package.manifest, there, plan, say)
    for edge_px in _edges(package.manifest, plan.edges_px):
        for batch in plan.batches:
            _time(package.manifest, there, edge_px, batch, plan.cell_s, say)
    for candidate in candidates:
        _facts(package, candidate, threads, plan)
    report = {
        "model": {"id": package.manifest.id, "version": package.manifest.version, "digest": package.digest},
        "machine": _machine(threads),
        "took_s": round(time.perf_counter() - begun_s, 1),
        "auto": _keep(package, threads, there, say) if device == "all" else None,
        "candidates": {candidate.name: candidate.figures for candidate in candidates},
    }
    _write(output, report, candidates, package)
    for candidate in candidates:
        say(_line(candidate))
        if candidate.session is not None:
            candidate.session.close()
    say(f"{output / PAGE_NAME}: open it in a browser; {output / JSON_NAME}: the same for programs")
    return int(any(candidate.figures["verdict"] == "broken" for candidate in candidates))


def names_for(manifest: Manifest, device: str) -> list[str]:
    """Devices to try, the reference first; raises ConfigInvalid if there is no such device."""
    graphs = manifest.graphs
    names = ["cpu", "openvino", *_ROUNDS_ITSELF, "cuda", "tensorrt"]
    names += [name for name in _FROM_GRAPHS if name.partition(":")[2] in graphs]
    names.sort(key=lambda name: RUNTIMES.index(name.partition(":")[0]))
    if device == "all":
        return names
    if device.partition(":")[0] not in RUNTIMES:
        raise ConfigInvalid(
            f"--device {device}: there is no such device", hint=f"use all, or one of {', '.join(names)}", field="device"
        )
    return list(dict.fromkeys([REFERENCE, device]))


def rolled(manifest: Manifest, feeds: Mapping[str, FloatArray], cells: tuple[int, int]) -> Feeds:
    """The inputs with those that are spatial rolled by whole cells of the coarsest of them."""
    strides = {spec.name: spec.stride_px for spec in manifest.inputs if spec.role in SPATIAL_ROLES}
    coarsest = max(strides.values())
    return {
        name: np.roll(values, tuple(count * coarsest // strides[name] for count in cells), axis=(2, 3))
        if name in strides
        else values
        for name, values in feeds.items()
    }


def batch_of(manifest: Manifest, edge_px: int, count: int, first_seed: int = 0) -> Feeds:
    """Inputs of ``count`` pictures at once."""
    parts = [trial_inputs(manifest, edge_px, first_seed + i) for i in range(count)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def peak_memory(folder: str, device: str, threads: int | None, edge_px: int) -> int:
    """Open a model in this process and make one picture; returns the largest resident memory in bytes."""
    package = next(iter(open_store([Path(folder)]).values()))
    open_session(package, device, threads).run(trial_inputs(package.manifest, edge_px, 0))
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _openers(
    package: VerifiedPackage, device: str, threads: int | None, others: Mapping[str, Opener]
) -> dict[str, Opener]:
    def opener(name: str) -> Opener:
        return lambda: open_session(package, name, threads)

    return {name: opener(name) for name in names_for(package.manifest, device)} | dict(others)


def _opened(name: str, opener: Opener, asked_for: bool, say: Say) -> Candidate:
    """A candidate with its session; without one, and why, where it is not to be had here."""
    begun_s = time.perf_counter()
    try:
        session = opener()
    except AssetgenError as error:
        if asked_for or name == REFERENCE:
            raise
        say(f"{name}: not here: {error.message}")
        return Candidate(name, None, {"verdict": "absent", "reason": error.message, "hint": error.hint})
    figures = {"open_s": round(time.perf_counter() - begun_s, 2), "backend": session.backend, "device": session.device}
    say(f"{name}: {session.backend}, opened in {figures['open_s']:.1f} s")
    return Candidate(name, session, figures)


def _compare(manifest: Manifest, there: Sequence[Candidate], plan: Plan, say: Say) -> None:
    """Differences from the reference, seams and determinism."""
    edge_px = _edges(manifest, (256,))[0]
    inputs = [trial_inputs(manifest, edge_px, seed) for seed in range(plan.checks)]
    exact = _session(there[0])
    reference = [exact.run(feeds) for feeds in inputs]
    # Only textures promise to tile.
    spatial = manifest.kind == "texture" and any(spec.role in SPATIAL_ROLES for spec in manifest.inputs)
    for candidate in there:
        session, comparison, seams = _session(candidate), Comparison(manifest), Comparison(manifest)
        found = [session.run(feeds) for feeds in inputs]
        for feeds, wanted, given in zip(inputs, reference, found, strict=True):
            comparison.add(feeds, wanted, given)
        if spatial:
            _add_rolled(manifest, session, inputs[0], found[0], seams)
        precision = _precision(session)
        differences, seam = comparison.result(), seams.result()
        broken = broken_limits(manifest, precision, differences)
        broken += [f"rolled: {line}" for line in broken_limits(manifest, precision, seam)] if spatial else []
        try:
            self_check(session, inputs[0])
            repeats = "the same bytes three times"
        except AssetgenError as error:
            repeats, broken = error.message, [*broken, error.message]
        candidate.pictures = {name: values[0] for name, values in found[0].items()}
        candidate.figures |= {
            "precision": precision,
            "differences": _shown(differences),
            "seam": _shown(seam)["largest"] if spatial else None,
            "determinism": repeats,
            "halves": session.splits,
            "allowed": dict(manifest.tolerance.get("fp32", {}))
            if precision == "fp32"
            else asdict(limits(manifest, precision)),
            "verdict": "broken" if broken else "holds",
            "broken": broken,
        }
    say(f"compared on {plan.checks} pictures of {edge_px} px")


def _add_rolled(manifest: Manifest, session: Session, feeds: Feeds, found: Feeds, seams: Comparison) -> None:
    coarsest = max(spec.stride_px for spec in manifest.inputs if spec.role in SPATIAL_ROLES)
    cells = (1, 2)
    wanted = {name: np.roll(values, tuple(n * coarsest for n in cells), axis=(2, 3)) for name, values in found.items()}
    seams.add(feeds, wanted, session.run(rolled(manifest, feeds, cells)))


def _time(manifest: Manifest, there: Sequence[Candidate], edge_px: int, batch: int, cell_s: float, say: Say) -> None:
    """Latencies of one size and batch, all sessions in turn; what cannot do it says why."""
    feeds = batch_of(manifest, edge_px, batch)
    spent_ms: dict[str, list[float]] = {}
    cell = f"{edge_px} px x {batch}"
    for candidate in there:
        latencies = candidate.figures.setdefault("latency_ms", {})
        try:
            _session(candidate).run(feeds)  # compiles, allocates and chooses kernels
            spent_ms[candidate.name] = []
        except (AssetgenError, RuntimeError, MemoryError) as error:
            latencies[cell] = {"failed": str(error)[:200]}
    end_s = time.perf_counter() + cell_s
    rounds = 0
    while rounds < LEAST_ROUNDS or (time.perf_counter() < end_s and rounds < MOST_ROUNDS):
        rounds += 1
        for candidate in there:
            if candidate.name in spent_ms:
                begun_s = time.perf_counter()
                _session(candidate).run(feeds)
                spent_ms[candidate.name].append((time.perf_counter() - begun_s) * 1e3)
    exact = spent_ms[there[0].name]
    for candidate in there:
        values = spent_ms.get(candidate.name)
        if values is not None:
            ratios = [one / other for one, other in zip(exact, values, strict=True)]
            p50, p95 = (float(np.percentile(values, share)) for share in (50, 95))
            candidate.figures["latency_ms"][cell] = {
                "edge_px": edge_px,
                "batch": batch,
                "rounds": rounds,
                "p50": round(p50, 3),
                "p95": round(p95, 3),
                "least": round(min(values), 3),
                "times_as_fast": round(statistics.median(ratios), 3),
            }
    say(f"{cell}: {rounds} rounds")


def _facts(package: VerifiedPackage, candidate: Candidate, threads: int | None, plan: Plan) -> None:
    graphs = package.manifest.graphs
    graph = graphs.get(candidate.figures.get("precision", ""), package.manifest.graph)
    sizes = {entry.path: entry.size_bytes for entry in package.manifest.files}
    candidate.figures["graph_bytes"] = sizes[graph]
    if plan.memory and candidate.session is not None and candidate.name.partition(":")[0] in RUNTIMES:
        edge_px = max(_edges(package.manifest, plan.edges_px))
        call = f"peak_memory({str(package.folder)!r}, {candidate.name!r}, {threads!r}, {edge_px})"
        code = f"from assetgen.optimize import peak_memory; print({call})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            candidate.figures["peak_memory_bytes"] = {"edge_px": edge_px, "bytes": int(done.stdout)}


def _keep(package: VerifiedPackage, threads: int | None, there: Sequence[Candidate], say: Say) -> Figures:
    """Decide what ``auto`` takes on the processor, and keep it where the next start looks."""
    edge_px = choice.trial_edge(package.manifest)
    gains, told = {}, []
    for candidate in there[1:]:
        timed = candidate.figures.get("latency_ms", {}).get(f"{edge_px} px x 1", {}).get("times_as_fast")
        if candidate.name not in choice.NAMES or timed is None:
            continue
        if candidate.figures["verdict"] == "holds":
            gains[candidate.name] = timed
        else:
            told.append(f"{candidate.name} is out of tolerance: {candidate.figures['broken'][0]}")
    made = choice.decide(gains, told, edge_px)
    choice.keep_choice(choice.choice_key(package, threads), made)
    say(f"auto takes {made.device} on this processor: {made.reason}")
    return asdict(made)


def _write(output: Path, report: Figures, candidates: Sequence[Candidate], package: VerifiedPackage) -> None:
    pictures = {candidate.name: candidate.pictures for candidate in candidates if candidate.pictures}
    shown = [(spec.name, spec.channels) for spec in package.manifest.outputs]
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / JSON_NAME).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (output / PAGE_NAME).write_text(deploy_page.page(report, pictures, shown), encoding="utf-8")
    except OSError as error:
        raise OutputUnwritable(f"{output} cannot be written: {error.strerror}", hint="choose another -o") from error


def _line(candidate: Candidate) -> str:
    figures = candidate.figures
    if candidate.session is None:
        return f"{candidate.name:16} absent"
    cell, timed = next(iter(figures["latency_ms"].items()))
    fast = f", {cell}: "
    if "failed" in timed:
        fast += timed["failed"]
    else:
        fast += f"{timed['p50']:.1f} ms, {timed['times_as_fast']:.2f} times as fast as {REFERENCE}"
    lowest = min(figures["differences"]["psnr_db"].values())
    return f"{candidate.name:16} {figures['verdict']}, least PSNR {lowest:.1f} dB{fast}" + (
        f": {'; '.join(figures['broken'])}" if figures["broken"] else ""
    )


def _edges(manifest: Manifest, wanted_px: Sequence[int]) -> list[int]:
    """Edges near those wanted that the model makes, each once."""
    size = manifest.size
    near = (min(max(edge_px, size.min_px), size.max_px) for edge_px in wanted_px)
    return list(dict.fromkeys(edge_px - edge_px % size.stride_px for edge_px in near))


def _precision(session: Session) -> str:
    parts = session.backend.split("/")
    return precision_of(session.backend) if len(parts) > 2 else "fp32"


def _session(candidate: Candidate) -> Session:
    if candidate.session is None:
        raise RuntimeError(f"{candidate.name} was not opened")
    return candidate.session


def _shown(found: Differences) -> Figures:
    def finite(value: float, most: float) -> float:
        return round(min(max(value, -most), most), 6) if value == value else -most  # noqa: PLR0124 -- NaN

    return {
        "largest": {name: finite(value, 1e9) for name, value in found.largest.items()},
        "mean": {name: finite(value, 1e9) for name, value in found.mean.items()},
        "psnr_db": {name: round(finite(value, _LARGEST_DB), 1) for name, value in found.psnr_db.items()},
        "normal_degrees": round(found.normal_degrees, 3),
        "largest_normal_degrees": round(found.largest_normal_degrees, 2),
    }


def _machine(threads: int | None) -> Figures:
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {
        "assetgen": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": instruction_family(),
        "cores": usable_cores(),
        "threads": threads or usable_cores(),
        "load_at_the_end": load,
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
