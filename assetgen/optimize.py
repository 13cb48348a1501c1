"""``assetgen optimize``: every runtime and precision that exists on this machine, built, compared and measured.

Engines go into the cache, and what ``auto`` is to take, too; figures go into a deploy report. Runs of all sessions take
turns, so that whatever else the machine does meets all alike.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assetgen import __version__, deploy_page
from assetgen.errors import AssetgenError, ConfigInvalid, OutputUnwritable
from assetgen.manifest import PRECISIONS, Manifest
from assetgen.measure import Candidate, compare, peak_bytes, reference, reference_beside, take_times
from assetgen.package import VerifiedPackage
from assetgen.processor import instruction_family, usable_cores
from assetgen.runtime import Session, choice, open_session
from assetgen.store import open_store
from assetgen.trial import trial_inputs

REFERENCE = "cpu"
RUNTIMES = ("cpu", "openvino", "cuda", "tensorrt", "ort-tensorrt", "ort-tensorrt-rtx")
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
    "ort-tensorrt:fp16",
    "ort-tensorrt-rtx:fp16",
)
EDGES_PX, BATCHES = (256, 512, 1024), (1, 2, 4, 8)
QUICK_EDGES_PX, QUICK_BATCHES = (256,), (1, 2)
CHECKS, QUICK_CHECKS = 12, 4
CELL_S, QUICK_CELL_S = 8.0, 2.0
JSON_NAME, PAGE_NAME = "deploy.json", "deploy.html"

Say = Callable[[str], None]
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


def run(
    folder: Path,
    device: str,
    threads: int | None,
    plan: Plan,
    output: Path,
    say: Say,
    others: Mapping[str, Opener] | None = None,
    beside: Sequence[Path] = (),
) -> int:
    """Measure what there is, write the report into ``output``; returns 0, or 1 if anything is out of tolerance.

    Args:
        device: ``all``, or one name that ``open_session`` takes, which must then exist.
        others: more to compare, by name, such as the network itself in PyTorch.
        beside: more packages that make the same from the same inputs, such as students; each is held to its own
            tolerance, and how far it is from the first is told besides.

    Raises:
        ConfigInvalid: ``folder`` is not one package, there is no such device, or a package of ``beside`` makes others.
        RuntimeMissing: the device that was asked for is not here.
        PackageInvalid, PolicyViolated, OutputUnwritable: see there.
    """
    package = one_package(folder)
    more = _labelled(package, [one_package(other) for other in beside])
    asked = device.rpartition(":")[2]
    if asked in PRECISIONS and device not in _ROUNDS_ITSELF:
        package.read_graph(asked)  # refused if it has none, before anything is opened
    begun_s = time.perf_counter()
    candidates = _opened(package, "", device, threads, others or {}, say)
    there = [candidate for candidate in candidates if candidate.session is not None]
    found = reference(there[0], _edges(package.manifest, (256,))[0], plan.checks)
    compare(there, found)
    for label, student in more.items():
        opened = _opened(student, label, device, threads, {}, say)
        ready = [candidate for candidate in opened if candidate.session is not None]
        compare(ready, reference_beside(ready[0], found), found)
        candidates += opened
        there += ready
    say(f"compared on {plan.checks} pictures of {found.edge_px} px")
    for edge_px in _edges(package.manifest, plan.edges_px):
        for batch in plan.batches:
            take_times(there, edge_px, batch, plan.cell_s, say)
    for candidate in candidates:
        _facts(candidate, threads, plan)
    report = {
        "model": _named(package),
        "beside": {label: _named(student) for label, student in more.items()},
        "machine": _machine(threads),
        "took_s": round(time.perf_counter() - begun_s, 1),
        "compared": {"pictures": plan.checks, "edge_px": found.edge_px, "shown": found.shown},
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
    names = [*RUNTIMES, *_ROUNDS_ITSELF]
    names += [name for name in _FROM_GRAPHS if name.partition(":")[2] in graphs]
    names.sort(key=lambda name: RUNTIMES.index(name.partition(":")[0]))
    if device == "all":
        return names
    if device.partition(":")[0] not in RUNTIMES:
        raise ConfigInvalid(
            f"--device {device}: there is no such device", hint=f"use all, or one of {', '.join(names)}", field="device"
        )
    return list(dict.fromkeys([REFERENCE, device]))


def graph_of(manifest: Manifest, device: str) -> str:
    """File of the graph that a device computes; OpenVINO makes its bf16 of the fp32 graph."""
    precision = device.rpartition(":")[2]
    rounds_itself = device in _ROUNDS_ITSELF or precision not in manifest.graphs
    return manifest.graph if rounds_itself else manifest.graphs[precision]


def peak_memory(folder: str, device: str, threads: int | None, edge_px: int) -> int:
    """Open a model in this process and make one picture; returns the largest resident memory in bytes."""
    package = next(iter(open_store([Path(folder)]).values()))
    open_session(package, device, threads).run(trial_inputs(package.manifest, edge_px, 0))
    return peak_bytes()


def one_package(folder: Path) -> VerifiedPackage:
    """The one package in a folder, verified as a server would; raises ConfigInvalid if there is not one."""
    packages = open_store([folder])
    if len(packages) != 1:
        raise ConfigInvalid(f"{folder} holds {len(packages)} packages", hint="give the folder of one")
    return next(iter(packages.values()))


def _labelled(package: VerifiedPackage, others: Sequence[VerifiedPackage]) -> dict[str, VerifiedPackage]:
    """Names for the packages beside the first: their ids, or their folders where an id is taken."""
    found: dict[str, VerifiedPackage] = {}
    for other in others:
        taken = {package.manifest.id, *found}
        name = next((name for name in (other.manifest.id, other.folder.resolve().name) if name not in taken), "")
        if not name:
            raise ConfigInvalid(
                f"{other.folder} has the id {other.manifest.id}, as another has",
                hint="copy it to a folder of another name",
            )
        found[name] = other
    return found


def _opened(
    package: VerifiedPackage, label: str, device: str, threads: int | None, others: Mapping[str, Opener], say: Say
) -> list[Candidate]:
    """A candidate for every device and of ``others``, the reference first; those of a student have its label."""

    def opener(name: str) -> Opener:
        return lambda: open_session(package, name, threads)

    candidates = []
    for name in names_for(package.manifest, device):
        candidate = Candidate(f"{name} of {label}" if label else name, package, name)
        needed = name == REFERENCE or (name == device and not label)
        candidates.append(_open(candidate, opener(name), needed, say))
    candidates += [_open(Candidate(name, package), opener, False, say) for name, opener in others.items()]
    if label:
        for candidate in candidates:
            candidate.figures["of"] = label
    return candidates


def _open(candidate: Candidate, opener: Opener, needed: bool, say: Say) -> Candidate:
    """Open its session; where it is not to be had here, say why, unless it is needed."""
    begun_s = time.perf_counter()
    try:
        session = candidate.session = opener()
    except AssetgenError as error:
        if needed:
            raise
        say(f"{candidate.name}: not here: {error.message}")
        candidate.figures = {"verdict": "absent", "reason": error.message, "hint": error.hint}
        return candidate
    spent_s = round(time.perf_counter() - begun_s, 2)
    candidate.figures = {"open_s": spent_s, "backend": session.backend, "device": session.device}
    say(f"{candidate.name}: {session.backend}, opened in {spent_s:.1f} s")
    return candidate


def _facts(candidate: Candidate, threads: int | None, plan: Plan) -> None:
    """Write the size of its graph, and what a process of its own takes, into its figures."""
    if not candidate.device:
        return
    package = candidate.package
    sizes = {entry.path: entry.size_bytes for entry in package.manifest.files}
    candidate.figures["graph_bytes"] = sizes[graph_of(package.manifest, candidate.device)]
    if plan.memory and candidate.session is not None:
        edge_px = max(_edges(package.manifest, plan.edges_px))
        call = f"peak_memory({str(package.folder)!r}, {candidate.device!r}, {threads!r}, {edge_px})"
        code = f"from assetgen.optimize import peak_memory; print({call})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            candidate.figures["peak_memory_bytes"] = {"edge_px": edge_px, "bytes": int(done.stdout)}


def _keep(package: VerifiedPackage, threads: int | None, there: Sequence[Candidate], say: Say) -> Figures:
    """Decide what ``auto`` takes on the processor, and keep it where the next start looks."""
    edge_px = choice.trial_edge(package.manifest)
    gains, told = {}, []
    for candidate in there[1:]:
        if candidate.package is not package:
            continue
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
    cell, timed = next(iter(figures["latency_ms"].items()), ("", {"failed": "the reference failed"}))
    fast = f", {cell}: "
    if "failed" in timed:
        fast += timed["failed"]
    else:
        fast += f"{timed['p50']:.1f} ms, {timed['times_as_fast']:.2f} times as fast as {REFERENCE}"
    lowest = min(figures["differences"]["psnr_db"].values())
    least = "all equal" if lowest >= deploy_page.EQUAL_DB else f"least PSNR {lowest:.1f} dB"
    return f"{candidate.name:16} {figures['verdict']}, {least}{fast}" + (
        f": {'; '.join(figures['broken'])}" if figures["broken"] else ""
    )


def _named(package: VerifiedPackage) -> Figures:
    return {"id": package.manifest.id, "version": package.manifest.version, "digest": package.digest}


def _edges(manifest: Manifest, wanted_px: Sequence[int]) -> list[int]:
    """Edges near those wanted that the model makes, each once."""
    size = manifest.size
    near = (min(max(edge_px, size.min_px), size.max_px) for edge_px in wanted_px)
    return list(dict.fromkeys(edge_px - edge_px % size.stride_px for edge_px in near))


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
