"""From a graph to a TensorRT engine: one builder for TensorRT 10.13 and later, 11 and TensorRT for RTX.

The precision is that of the graph (strongly typed networks); no builder flag changes it. An engine is built in a
process of its own, since a graph that TensorRT does not like can end it, and is kept under a key of all that can
invalidate it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from assetgen.errors import InternalError, PackageInvalid, RuntimeMissing
from assetgen.manifest import SPATIAL_ROLES, Manifest
from assetgen.runtime.cache import Cache
from assetgen.runtime.cuda import CudaDevice

INSTALL = "Install it: pip install 'assetgen[tensorrt]' for RTX cards, or tensorrt-cu13 from NVIDIA's index for others"
# In the order in which they are tried; of the second the bindings alone may be installed.
MODULES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx", "tensorrt_rtx_bindings": "tensorrt-rtx"}
OLDEST = (10, 13)
WORKSPACE_BYTES = 4 << 30
BUILD_TIMEOUT_S = 3600
LARGEST_PX, LARGEST_OF_BATCHES_PX, LARGEST_BATCH = 2048, 1024, 8
_USUAL_PX = 512
_REFUSED = 3

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorRt:
    """What is installed: the module, ``tensorrt`` or ``tensorrt-rtx``, and its version."""

    module: ModuleType
    flavour: str
    version: str


@dataclass(frozen=True)
class Profile:
    """Shapes by input that an engine is tuned for: the smallest, the usual and the largest."""

    smallest: Mapping[str, Shape]
    usual: Mapping[str, Shape]
    largest: Mapping[str, Shape]

    def holds(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether inputs of these shapes lie between the smallest and the largest."""
        return all(
            all(low <= size <= high for low, size, high in zip(*bounds, strict=True))
            for bounds in ((self.smallest[name], shape, self.largest[name]) for name, shape in shapes.items())
        )


def import_tensorrt() -> TensorRt:
    """Import whichever TensorRT is installed; raises RuntimeMissing, with what to do, if none is, or it is too old."""
    broken = ""
    for name, flavour in MODULES.items():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:
            broken = f"{name} is installed but does not load: {error}"
            continue
        version = str(getattr(module, "__version__", ""))
        if flavour == "tensorrt" and _numbers(version) < OLDEST:
            raise RuntimeMissing(
                f"tensorrt {version or 'of no version'} is installed, {'.'.join(map(str, OLDEST))} or later is needed",
                hint=INSTALL,
            )
        return TensorRt(module, flavour, version)
    raise RuntimeMissing(broken or "no TensorRT is installed", hint=INSTALL)


def profiles_of(manifest: Manifest) -> tuple[Profile, ...]:
    """One profile for single pictures of all sizes, one for batches of what fits beside each other."""
    size = manifest.size
    largest_px = min(size.window_px or size.max_px, max(LARGEST_PX, size.min_px), size.max_px)
    usual_px = min(max(_USUAL_PX, size.min_px), largest_px)
    usual_px -= usual_px % size.stride_px
    batch_px = min(max(LARGEST_OF_BATCHES_PX, size.min_px), largest_px)

    def shapes(batch: int, edge_px: int) -> dict[str, Shape]:
        return {
            spec.name: (
                batch,
                int(spec.shape[1]),
                *([edge_px // spec.stride_px] * 2 if spec.role in SPATIAL_ROLES else ()),
            )
            for spec in manifest.inputs
        }

    single = Profile(shapes(1, size.min_px), shapes(1, usual_px), shapes(1, largest_px))
    many = Profile(
        shapes(2, size.min_px), shapes(LARGEST_BATCH, min(usual_px, batch_px)), shapes(LARGEST_BATCH, batch_px)
    )
    return single, many


def engine_key(
    graph: bytes, trt: TensorRt, device: CudaDevice | None, precision: str, profiles: tuple[Profile, ...]
) -> str:
    """Hex digest of all that an engine depends on; other versions, GPUs and drivers have other keys."""
    facts = {
        "graph": hashlib.sha256(graph).hexdigest(),
        "flavour": trt.flavour,
        "version": trt.version,
        "device": None if device is None else [device.name, device.capability, device.driver],
        "precision": precision,
        "profiles": [asdict(profile) for profile in profiles],
        "workspace": WORKSPACE_BYTES,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def engine_for(
    cache: Cache, graph: bytes, trt: TensorRt, device: CudaDevice, precision: str, manifest: Manifest
) -> tuple[bytes, bool]:
    """The engine of ``graph`` for a GPU, from the cache or built into it; the second says whether it was built now.

    Raises:
        PackageInvalid: TensorRT refuses the graph.
        RuntimeMissing: this TensorRT has nothing for the GPU.
        ConfigInvalid, OutputUnwritable: of the cache.
    """
    profiles = profiles_of(manifest)
    name = f"engine-{engine_key(graph, trt, device, precision, profiles)[:40]}.plan"
    kept = cache.read(name)
    if kept is not None:
        return kept, False
    timings = f"timing-{trt.flavour}-{trt.version}-sm{device.capability}.cache"
    plan, timing = build_engine(graph, trt, profiles, device.capability, cache.read(timings) or b"", manifest.id)
    if timing:
        cache.write(timings, timing)
    cache.write(name, plan)
    return plan, True


def build_engine(
    graph: bytes,
    trt: TensorRt,
    profiles: tuple[Profile, ...],
    capability: str = "",
    timing: bytes = b"",
    model_id: str = "the graph",
) -> tuple[bytes, bytes]:
    """Build an engine in a process of its own; returns it and the timing cache, which TensorRT for RTX has none of.

    Args:
        capability: compute capability such as ``8.9``; empty lets TensorRT for RTX build for all that it knows, which
            needs no GPU, and TensorRT for the first GPU.

    Raises:
        PackageInvalid, RuntimeMissing: see ``engine_for``.
        InternalError: the process ended without a word, or took too long.
    """
    head = {"profiles": [asdict(profile) for profile in profiles], "capability": capability, "timing": len(timing)}
    code = "import sys; sys.path.insert(0, sys.argv[1]); from assetgen.runtime import engines; engines.child_main()"
    try:
        child = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).resolve().parents[2])],
            input=json.dumps(head).encode() + b"\n" + timing + graph,
            capture_output=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InternalError(f"{model_id}: {trt.flavour} was not done after {BUILD_TIMEOUT_S} s") from error
    if child.returncode == _REFUSED:
        told = json.loads(child.stdout)
        kind = RuntimeMissing if told["device"] else PackageInvalid
        raise kind(
            f"{model_id}: {trt.flavour} {trt.version} builds no engine: {told['reason']}",
            hint="Use the device cuda, which runs the graph by ONNX Runtime.",
        )
    if child.returncode != 0:
        last = (child.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        raise InternalError(
            f"{model_id}: {trt.flavour} {trt.version} ended the process that built the engine "
            f"(status {child.returncode}): {last[:300]}",
            hint="Use the device cuda, which runs the graph by ONNX Runtime.",
        )
    head_bytes, _, rest = child.stdout.partition(b"\n")
    count = json.loads(head_bytes)["timing"]
    return rest[count:], rest[:count]


class _BuildError(Exception):
    """Why there is no engine; ``device`` if the GPU is the reason."""

    def __init__(self, reason: str, *, device: bool = False) -> None:
        super().__init__(reason)
        self.device = device


def child_main() -> None:
    """Build from standard input to standard output; exits with 0, or with _REFUSED and the reason as JSON."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # TensorRT's own lines
    warnings.simplefilter("ignore")
    head_bytes, _, rest = sys.stdin.buffer.read().partition(b"\n")
    head = json.loads(head_bytes)
    profiles = tuple(Profile(**profile) for profile in head["profiles"])
    timing, graph = rest[: head["timing"]], rest[head["timing"] :]
    try:
        plan, timing = _build(import_tensorrt(), graph, profiles, head["capability"], timing)
    except _BuildError as error:
        answer.write(json.dumps({"reason": str(error)[:600], "device": error.device}).encode())
        answer.close()
        sys.exit(_REFUSED)
    _write(answer, plan, timing)


def _write(answer: BinaryIO, plan: bytes, timing: bytes) -> None:
    answer.write(json.dumps({"timing": len(timing)}).encode() + b"\n" + timing + plan)
    answer.close()


def _build(
    trt: TensorRt, graph: bytes, profiles: tuple[Profile, ...], capability: str, timing: bytes
) -> tuple[bytes, bytes]:
    module: Any = trt.module
    logger = module.Logger(module.Logger.ERROR)
    builder = module.Builder(logger)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, logger)
    if not parser.parse(graph):
        errors = (parser.get_error(i) for i in range(parser.num_errors))
        told = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
        raise _BuildError(told or "no reason given")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(module.BuilderFlag.TF32)  # fp32 means fp32
    for profile in profiles:
        made = builder.create_optimization_profile()
        for name, smallest in profile.smallest.items():
            made.set_shape(name, smallest, profile.usual[name], profile.largest[name])
        if config.add_optimization_profile(made) < 0:
            raise _BuildError(f"the profile {profile.smallest} to {profile.largest} is not one for this graph")
    cache = None
    if trt.flavour == "tensorrt-rtx":
        _target(module, config, capability)
    else:
        cache = config.create_timing_cache(timing)
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _BuildError("the builder gave nothing back; its own lines are in the log")
    return bytes(plan), b"" if cache is None else bytes(config.get_timing_cache().serialize())


def _target(module: Any, config: Any, capability: str) -> None:
    """Build for one kind of GPU, or for all that this version knows."""
    if not capability:
        return
    name = f"SM{capability.replace('.', '')}"
    target = getattr(module.ComputeCapability, name, None)
    if target is None:
        raise _BuildError(f"it does not list compute capability {capability}", device=True)
    config.num_compute_capabilities = 1
    config.set_compute_capability(target, 0)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
