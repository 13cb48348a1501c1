"""Sessions of a model beside each other: how far their maps are from the reference's, and how long they take, in turn.

Imports runtime, fidelity and trial of ours, numpy and psutil. The reference comes first: fp32 by ONNX Runtime.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from assetgen.deploy_pictures import pictures_of
from assetgen.errors import AssetgenError, ConfigInvalid
from assetgen.fidelity import Comparison, Differences, broken_limits, limits
from assetgen.manifest import SPATIAL_ROLES, Manifest
from assetgen.package import VerifiedPackage
from assetgen.runtime import Session, precision_of, self_check
from assetgen.trial import trial_inputs
from assetgen.types import FloatArray, MapKind

LEAST_ROUNDS, MOST_ROUNDS = 5, 60
# Of a size at which one run of all sessions alone takes longer than what was planned for it.
LEAST_SLOW_ROUNDS = 3
# Left to the rest of the machine when batches get large.
SPARE_BYTES = 1 << 30
_LOOK_S = 0.005
_LARGEST_DB = 200.0  # JSON has no infinity
_DIGITS = 3
# Inputs that change nothing at 0: a student need not have its teacher's.
_OPTIONAL_ROLES = ("slider", "mix", "second_latent")
# Kinds that promise to tile, or to leave tiles tiles.
_TILING_KINDS = ("texture", "style")

Say = Callable[[str], None]
Feeds = dict[str, FloatArray]
Figures = dict[str, Any]


@dataclass
class Candidate:
    """One runtime and precision of a package, and what was found of it.

    Attributes:
        name: unique in the report; device: what ``open_session`` was asked for, empty if it was not asked.
        pictures: of one request, see ``pictures_of``.
        grown: pixels of the largest batch that it has run, and by how much memory grew meanwhile.
    """

    name: str
    package: VerifiedPackage
    device: str = ""
    session: Session | None = None
    figures: Figures = field(default_factory=dict)
    pictures: dict[str, FloatArray] = field(default_factory=dict)
    grown: tuple[int, int] = (0, 0)

    @property
    def running(self) -> Session:
        """The session; raises RuntimeError if there is none."""
        if self.session is None:
            raise RuntimeError(f"{self.name} was not opened")
        return self.session


@dataclass(frozen=True)
class Reference:
    """What pictures a package makes in fp32 by ONNX Runtime, and of what.

    Attributes:
        shown: index of the picture that is shown: the one with most contrast.
    """

    manifest: Manifest
    edge_px: int
    inputs: list[Feeds]
    outputs: list[Feeds]
    shown: int


def reference(candidate: Candidate, edge_px: int, count: int) -> Reference:
    """Make ``count`` pictures of ``edge_px``, each of another class and seed."""
    manifest = candidate.package.manifest
    inputs = [trial_inputs(manifest, edge_px, seed) for seed in range(count)]
    outputs = [candidate.running.run(feeds) for feeds in inputs]
    first = manifest.outputs[0].name
    shown = int(np.argmax([float(made[first].std()) for made in outputs]))
    return Reference(manifest, edge_px, inputs, outputs, shown)


def reference_beside(candidate: Candidate, first: Reference) -> Reference:
    """The same requests as another package's, made by this one's reference; raises ConfigInvalid if it has others."""
    manifest = candidate.package.manifest
    inputs = [beside(first.manifest, manifest, feeds, first.edge_px) for feeds in first.inputs]
    return Reference(manifest, first.edge_px, inputs, [candidate.running.run(feeds) for feeds in inputs], first.shown)


def beside(first: Manifest, other: Manifest, feeds: Mapping[str, FloatArray], edge_px: int) -> Feeds:
    """Inputs of ``first`` as inputs of ``other``; sliders and mixing that only one of them has are left at 0.

    Raises:
        ConfigInvalid: they make different maps, or from different inputs.
    """
    made = [(spec.name, spec.channels) for spec in first.outputs]
    if [(spec.name, spec.channels) for spec in other.outputs] != made:
        raise _unlike(first, other, f"{other.id} makes {', '.join(spec.name for spec in other.outputs)}")
    if (first.kind, first.size.stride_px) != (other.kind, other.size.stride_px):
        raise _unlike(first, other, f"{other.id} is a {other.kind} with steps of {other.size.stride_px} px")
    if [known.name for known in first.classes] != [known.name for known in other.classes]:
        raise _unlike(first, other, "their classes differ")
    told = {(spec.name, spec.role, spec.shape[1], spec.stride_px) for spec in first.inputs}
    wanted = {(spec.name, spec.role, spec.shape[1], spec.stride_px) for spec in other.inputs}
    if strange := sorted(name for name, role, *_ in told ^ wanted if role not in _OPTIONAL_ROLES):
        raise _unlike(first, other, f"{', '.join(dict.fromkeys(strange))} {'is' if len(strange) == 1 else 'are'} not")
    plain = trial_inputs(other, edge_px, 0)
    batch = len(next(iter(feeds.values())))
    return {name: feeds.get(name, np.repeat(values, batch, axis=0)) for name, values in plain.items()}


def _unlike(first: Manifest, other: Manifest, what: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"{other.id} does not make what {first.id} does from the same inputs: {what}",
        hint="give a student of it, or the same model in another precision",
    )


def compare(candidates: Sequence[Candidate], found: Reference, first: Reference | None = None) -> None:
    """Write differences from the reference, seams, determinism and verdict into the figures of the candidates.

    Args:
        first: of another package, which these are compared with besides; that decides nothing.
    """
    for candidate in candidates:
        outputs = [candidate.running.run(feeds) for feeds in found.inputs]
        _judge(candidate, found, outputs)
        if first is not None:
            candidate.figures["beside"] = _shown(found.manifest, _differences(found, first.outputs, outputs))
        candidate.pictures = pictures_of(found.manifest, found.inputs[found.shown], outputs[found.shown])


def _judge(candidate: Candidate, found: Reference, outputs: Sequence[Feeds]) -> None:
    manifest, session = found.manifest, candidate.running
    precision = _precision(session)
    differences = _differences(found, found.outputs, outputs)
    broken = broken_limits(manifest, precision, differences)
    seam = None
    if manifest.kind in _TILING_KINDS and any(spec.role in SPATIAL_ROLES for spec in manifest.inputs):
        seam = _seam(manifest, session, found.inputs[0], outputs[0])
        broken += [f"rolled: {line}" for line in broken_limits(manifest, precision, seam)]
    try:
        self_check(session, found.inputs[0])
        repeats = "the same bytes three times"
    except AssetgenError as error:
        repeats, broken = error.message, [*broken, error.message]
    exact = precision == "fp32"
    candidate.figures |= {
        "precision": precision,
        "differences": _shown(manifest, differences),
        "seam": None if seam is None else _shown(manifest, seam)["largest"],
        "determinism": repeats,
        "halves": session.splits,
        "allowed": dict(manifest.tolerance.get("fp32", {})) if exact else asdict(limits(manifest, precision)),
        "verdict": "broken" if broken else "holds",
        "broken": broken,
    }


def _differences(found: Reference, wanted: Sequence[Feeds], given: Sequence[Feeds]) -> Differences:
    comparison = Comparison(found.manifest)
    for feeds, one, other in zip(found.inputs, wanted, given, strict=True):
        comparison.add(feeds, one, other)
    return comparison.result()


def _seam(manifest: Manifest, session: Session, feeds: Feeds, made: Feeds) -> Differences:
    """Rolled outputs beside the outputs of rolled inputs."""
    cells, stride_px = (1, 2), manifest.size.stride_px
    wanted = {name: np.roll(values, tuple(n * stride_px for n in cells), axis=(2, 3)) for name, values in made.items()}
    seams = Comparison(manifest)
    seams.add(feeds, wanted, session.run(rolled(manifest, feeds, cells)))
    return seams.result()


def rolled(manifest: Manifest, feeds: Mapping[str, FloatArray], cells: tuple[int, int]) -> Feeds:
    """The inputs with those that are spatial rolled by whole strides of the model."""
    strides = {spec.name: spec.stride_px for spec in manifest.inputs if spec.role in SPATIAL_ROLES}
    return {
        name: np.roll(values, tuple(count * manifest.size.stride_px // strides[name] for count in cells), axis=(2, 3))
        if name in strides
        else values
        for name, values in feeds.items()
    }


def batch_of(manifest: Manifest, edge_px: int, count: int, first_seed: int = 0) -> Feeds:
    """Inputs of ``count`` pictures at once."""
    parts = [trial_inputs(manifest, edge_px, first_seed + i) for i in range(count)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def take_times(there: Sequence[Candidate], edge_px: int, batch: int, cell_s: float, say: Say) -> None:
    """Latencies of one size and batch, all sessions in turn; what cannot do it says why."""
    first = there[0].package.manifest
    plain = batch_of(first, edge_px, batch)
    inputs: dict[str, Feeds] = {}
    spent_ms: dict[str, list[float]] = {}
    cell = f"{edge_px} px x {batch}"
    begun_s = time.perf_counter()
    for candidate in there:
        latencies = candidate.figures.setdefault("latency_ms", {})
        other = candidate.package.manifest
        feeds = plain if other is first else beside(first, other, plain, edge_px)
        try:
            _run_first(candidate, feeds, batch * edge_px**2)
        except (AssetgenError, RuntimeError, MemoryError) as error:
            latencies[cell] = {"failed": str(error)[:200]}
            continue
        inputs[candidate.name], spent_ms[candidate.name] = feeds, []
    least = LEAST_ROUNDS if time.perf_counter() - begun_s < cell_s else LEAST_SLOW_ROUNDS
    end_s = time.perf_counter() + cell_s
    rounds = 0
    while rounds < least or (time.perf_counter() < end_s and rounds < MOST_ROUNDS):
        rounds += 1
        for candidate in there:
            if candidate.name in spent_ms:
                begun_s = time.perf_counter()
                candidate.running.run(inputs[candidate.name])
                spent_ms[candidate.name].append((time.perf_counter() - begun_s) * 1e3)
    exact = spent_ms.get(there[0].name)
    for candidate in there:
        values = spent_ms.get(candidate.name)
        if values is not None and exact is None:
            candidate.figures["latency_ms"][cell] = {"failed": f"not compared, for {there[0].name} was not timed"}
        elif values is not None and exact is not None:
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


def _run_first(candidate: Candidate, feeds: Feeds, pixels: int) -> None:
    """The first run of a size, which compiles and allocates; raises MemoryError, before it is run, if it would not fit.

    Sessions keep what they took, all of them at once, and the system ends a process that takes too much.
    """
    largest, growth = candidate.grown
    needed, free = growth * pixels // max(largest, 1), psutil.virtual_memory().available
    if pixels > largest and needed > free - SPARE_BYTES:
        raise MemoryError(f"left out: it would take {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} are free")
    with PeakGrowth() as peak:
        candidate.running.run(feeds)
    if pixels > largest:
        candidate.grown = pixels, peak.size_bytes


class PeakGrowth:
    """By how many bytes the resident memory of this process grew within a ``with``, at its largest.

    It is looked at every few milliseconds: what a run takes and gives back counts, too, for it must fit.
    """

    size_bytes = 0

    def __enter__(self) -> PeakGrowth:
        self._process, self._done = psutil.Process(), threading.Event()
        self._before = self._process.memory_info().rss
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_S):
            self._look()

    def _look(self) -> None:
        self.size_bytes = max(self.size_bytes, self._process.memory_info().rss - self._before)


def _precision(session: Session) -> str:
    parts = session.backend.split("/")
    return precision_of(session.backend) if len(parts) > 2 else "fp32"


def _shown(manifest: Manifest, found: Differences) -> Figures:
    """Differences for JSON; those of normals where the model makes a height."""

    def finite(value: float, most: float) -> float:
        held = min(max(value, -most), most) if value == value else -most  # noqa: PLR0124 -- NaN
        return float(f"{held:.{_DIGITS}g}")

    shown: Figures = {
        "largest": {name: finite(value, 1e9) for name, value in found.largest.items()},
        "mean": {name: finite(value, 1e9) for name, value in found.mean.items()},
        "psnr_db": {
            name: round(min(max(value, -_LARGEST_DB), _LARGEST_DB), 1) for name, value in found.psnr_db.items()
        },
    }
    if any(spec.map_kind == MapKind.HEIGHT for spec in manifest.outputs):
        shown["normal_degrees"] = finite(found.normal_degrees, 180.0)
        shown["largest_normal_degrees"] = finite(found.largest_normal_degrees, 180.0)
    return shown


def peak_bytes() -> int:
    """The most memory that this process has held resident."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":  # where getrusage counts what the process that started this one had
        told = Path("/proc/self/status").read_text(encoding="ascii").partition("VmHWM:")[2]
        return int(told.split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
