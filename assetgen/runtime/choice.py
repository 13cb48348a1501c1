"""Which runtime ``auto`` takes on a processor: the fastest installed that holds the model's tolerance, found out once.

What was found is kept in the cache, under a key of all that it depends on: a choice that flipped from start to start
would change the bytes of the same request. ``assetgen optimize`` measures longer and keeps its finding in the same
place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from assetgen.errors import AssetgenError, ConfigInvalid, RuntimeMissing
from assetgen.fidelity import Comparison, broken_limits
from assetgen.manifest import Manifest
from assetgen.package import VerifiedPackage
from assetgen.processor import instruction_family, usable_cores
from assetgen.runtime import Session, openvino, ort
from assetgen.runtime.cache import Cache
from assetgen.trial import trial_inputs
from assetgen.types import FloatArray

RUNTIMES = ("onnxruntime", "openvino")
VARIABLE = "ASSETGEN_RUNTIMES"
TRIAL_PX, TRIALS, TRIAL_ROUNDS = 256, 2, 5
# Another runtime than ONNX Runtime must be worth it.
LEAST_GAIN = 1.1
_REFERENCE = "cpu"
NAMES = {
    "openvino": "OpenVINO",
    "openvino:bf16": "OpenVINO in bf16",
    "openvino:int8": "OpenVINO in int8",
    "cpu:int8": "ONNX Runtime in int8",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A device and why it was taken."""

    device: str
    reason: str


def open_fastest(package: VerifiedPackage, threads: int | None = None) -> Session:
    """The session that ``auto`` stands for: CUDA where it opens, else the processor by the fastest runtime that holds.

    Raises:
        RuntimeMissing: no runtime is installed, or the only one is broken.
        ConfigInvalid: ``ASSETGEN_RUNTIMES`` names no runtime.
    """
    allowed = allowed_runtimes()
    has_openvino = "openvino" in allowed and openvino.installed_version() != ""
    if "onnxruntime" not in allowed or (has_openvino and not ort.installed_distributions()):
        return openvino.open_openvino_session(package, "openvino", threads, "no other runtime may be taken")
    exact = ort.open_ort_session(package, "auto", threads)
    if exact.device != "cpu":
        return exact
    others = _others(package.manifest) if has_openvino else [d for d in _others(package.manifest) if d[:3] == "cpu"]
    if not others:
        return exact
    key = choice_key(package, threads)
    choice = read_choice(key)
    if choice is None:
        choice = _measure(package, threads, exact, others)
        keep_choice(key, choice)
    log.info("model %s: %s", package.manifest.id, choice.reason)
    if choice.device == _REFERENCE:
        exact.reason = choice.reason
        return exact
    exact.close()
    return open_chosen(package, choice, threads)


def open_chosen(package: VerifiedPackage, choice: Choice, threads: int | None) -> Session:
    """The session of a choice."""
    if choice.device.startswith("openvino"):
        return openvino.open_openvino_session(package, choice.device, threads, choice.reason)
    session = ort.open_ort_session(package, choice.device, threads)
    session.reason = choice.reason
    return session


def allowed_runtimes() -> tuple[str, ...]:
    """Those that ``auto`` may take: all, or what ``ASSETGEN_RUNTIMES`` says; raises ConfigInvalid."""
    told = os.environ.get(VARIABLE)
    if told is None:
        return RUNTIMES
    names = tuple(name.strip() for name in told.split(",") if name.strip())
    if not names or set(names) - set(RUNTIMES):
        raise ConfigInvalid(f"{VARIABLE} is {told!r:.80}; use some of {', '.join(RUNTIMES)}", field=VARIABLE)
    return names


def choice_key(package: VerifiedPackage, threads: int | None) -> str:
    """Hex digest of all that a choice depends on."""
    facts = {
        "package": package.digest,
        "runtimes": {**ort.installed_distributions(), "openvino": openvino.installed_version()},
        "allowed": allowed_runtimes(),
        "processor": instruction_family(),
        "threads": threads or usable_cores(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_choice(key: str) -> Choice | None:
    """What was kept; ``None`` if nothing was, or it cannot be read."""
    try:
        data = Cache().read(_name(key))
        return None if data is None else Choice(**json.loads(data))
    except (AssetgenError, ValueError, TypeError) as error:
        log.warning("what was measured earlier is not used: %s", error)
        return None


def keep_choice(key: str, choice: Choice) -> None:
    """Keep a choice for later starts; a cache that cannot be used is told, and costs the measurement each time."""
    try:
        Cache().write(_name(key), json.dumps(asdict(choice)).encode())
    except AssetgenError as error:
        log.warning("what was measured is not kept: %s", error.message)


def trial_edge(manifest: Manifest) -> int:
    """An edge near ``TRIAL_PX`` that the model makes."""
    edge_px = min(max(TRIAL_PX, manifest.size.min_px), manifest.size.max_px)
    return edge_px - edge_px % manifest.size.stride_px


def ratio_of_times(first: Callable[[], object], second: Callable[[], object], rounds: int) -> float:
    """How many times as long ``first`` takes as ``second``: the median over rounds in which both run in turn."""
    ratios = []
    for _ in range(rounds):
        spent_s = []
        for work in (first, second):
            begun_s = time.perf_counter()
            work()
            spent_s.append(time.perf_counter() - begun_s)
        ratios.append(spent_s[0] / spent_s[1])
    return statistics.median(ratios)


def _others(manifest: Manifest) -> list[str]:
    """Devices to try beside ONNX Runtime in fp32, what should be fastest first."""
    quantised = ["openvino:int8", "cpu:int8"] if "int8" in manifest.graphs else []
    return [*quantised, "openvino:bf16", "openvino"]


def _measure(package: VerifiedPackage, threads: int | None, exact: Session, others: Sequence[str]) -> Choice:
    manifest = package.manifest
    inputs = [trial_inputs(manifest, trial_edge(manifest), seed) for seed in range(TRIALS)]
    reference = [exact.run(feeds) for feeds in inputs]
    gains: dict[str, float] = {}
    told = []
    for device in others:
        if device == "openvino" and "openvino:bf16" in gains:  # the same kernels with twice the work
            continue
        try:
            session = open_chosen(package, Choice(device, ""), threads)
        except RuntimeMissing as error:
            told.append(f"{device}: {error.message}")
            continue
        broken = _broken(manifest, device, inputs, reference, session)
        if broken:
            told.append(f"{device} is out of tolerance: {broken[0]}")
        else:
            feeds = inputs[0]
            gains[device] = ratio_of_times(
                lambda feeds=feeds: exact.run(feeds),  # type: ignore[misc]
                lambda feeds=feeds, session=session: session.run(feeds),  # type: ignore[misc]
                TRIAL_ROUNDS,
            )
        session.close()
    return decide(gains, told, trial_edge(manifest))


def decide(gains: Mapping[str, float], told: Sequence[str], edge_px: int) -> Choice:
    """The fastest device, or ONNX Runtime in fp32; ``gains`` say how many times as fast as that each is."""
    best = max(gains, key=lambda device: gains[device], default="")
    rest = "".join(f"; {line}" for line in told)
    compared = ", ".join(f"{NAMES[device]} is {_times(gain)} times as fast" for device, gain in gains.items())
    if best and gains[best] >= LEAST_GAIN:
        return Choice(best, f"{compared} as ONNX Runtime at {edge_px} px, and within the model's tolerance{rest}")
    return Choice(_REFERENCE, f"nothing installed beats ONNX Runtime: {compared or 'nothing else works'}{rest}")


def _times(gain: float) -> str:
    return f"{gain:.1f}" if gain >= 1 else f"{gain:.2g}"


def _broken(
    manifest: Manifest,
    device: str,
    inputs: Sequence[Mapping[str, FloatArray]],
    reference: Sequence[Mapping[str, FloatArray]],
    session: Session,
) -> list[str]:
    comparison = Comparison(manifest)
    for feeds, wanted in zip(inputs, reference, strict=True):
        comparison.add(feeds, wanted, session.run(feeds))
    return broken_limits(manifest, device.partition(":")[2] or "fp32", comparison.result())


def _name(key: str) -> str:
    return f"choice-{key[:40]}.json"
