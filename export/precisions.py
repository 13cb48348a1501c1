"""Smaller precisions for a package: made, measured against its fp32 graph, and written only if they hold.

Works on any package, with no networks at hand: the fp32 graph is the reference, since it was compared with them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from assetgen import foreign
from assetgen.errors import ConfigInvalid, OutputUnwritable, ParityFailed
from assetgen.fidelity import LEAST_PSNR_DB, MOST_NORMAL_DEGREES, Comparison, Differences, broken_limits
from assetgen.manifest import PRECISIONS, Manifest, PrecisionSpec
from assetgen.optimize import one_package
from assetgen.package import VerifiedPackage, verify_package, write_manifest
from assetgen.runtime.choice import ratio_of_times
from assetgen.types import FloatArray, MapKind
from export.assemble import Notify, replace_folder
from export.int8 import quantize
from export.precision import cast_model, nodes_of_extreme_weights, round_trip_model, rounded_nodes, spatial_inputs
from export.probe import magnitudes, open_bytes, real_inputs, run

PROBES, CALIBRATION, CHECKS = 36, 12, 12
CHECK_PX, SPEED_PX = 256, 256
# Seeds of the pictures that judge are none of those that were measured to decide.
FIRST_CHECK_SEED = 100_000
# fp16 holds numbers to 65504; a value must stay this many times below in what was seen, and weights above its least.
FP16_LARGEST, HEADROOM = 65504.0, 16.0
# Quantised models lose a little more on pictures they were not calibrated on.
INT8_MARGIN_DB, INT8_ANGLE_SHARE = 1.0, 0.8
SPEED_ROUNDS = 7
_SHOWN_DB = 200.0  # JSON has no infinity

Feeds = dict[str, FloatArray]


@dataclass(frozen=True)
class _Made:
    """A graph, the graph that is run here in its place, and what is worth remembering of it."""

    model: onnx.ModelProto
    measured: onnx.ModelProto
    facts: Mapping[str, Any]
    optimise: bool = True


def add_precisions(package: Path, output: Path, precisions: Sequence[str], notify: Notify) -> str:
    """Write ``package`` with graphs in ``precisions`` beside its own into ``output``; returns the new digest.

    Args:
        output: may be ``package`` itself; it is replaced only when everything is made and checked.

    Raises:
        ConfigInvalid: no such precision, or a model that cannot be tried on latents.
        ParityFailed: one does not hold its tolerance, or int8 is no faster; nothing was written.
        PolicyViolated, PackageInvalid, OutputUnwritable: see there.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ConfigInvalid(f"--precision {precision}: use {', '.join(('fp32', *PRECISIONS))}")
    verified = one_package(package)  # whose graph is about to be run, and may be anybody's
    manifest = verified.manifest
    model = onnx.load_from_string(verified.read(manifest.graph))
    checks = real_inputs(manifest, CHECKS, FIRST_CHECK_SEED, CHECK_PX)
    made: dict[str, _Made] = {}
    told: dict[str, Any] = dict(manifest.provenance.get("precisions", {}))
    specs = dict(manifest.precisions)
    for precision in precisions:
        notify(f"{precision}: made and measured on {CHECKS} requests")
        made[precision] = found = _MAKERS[precision](model, manifest, notify)
        specs[precision] = _spec(manifest, precision)
        manifest = replace(manifest, precisions=specs)
        differences = _measure(model, found, manifest, checks)
        _judge(manifest, precision, differences)
        told[precision] = {"differences": _shown(manifest, differences), **found.facts}
        if precision == "int8":
            told[precision]["times_as_fast"] = _speed(model, found.model, manifest)
        notify(f"{precision}: {_line(manifest, differences)}")
    return _write(verified, output, replace(manifest, provenance={**manifest.provenance, "precisions": told}), made)


def _fp16(model: onnx.ModelProto, manifest: Manifest, notify: Notify) -> _Made:
    """Half floats where the probe saw that nothing comes near their largest number."""
    nodes = rounded_nodes(model.graph, spatial_inputs(manifest.inputs))
    found = {
        name: float(values.max()) for name, values in magnitudes(model, nodes, real_inputs(manifest, PROBES)).items()
    }
    extreme = nodes_of_extreme_weights(model, set(nodes), HEADROOM)
    kept = [name for name, largest in found.items() if name in extreme or not largest <= FP16_LARGEST / HEADROOM]
    made = cast_model(model, "fp16", set(nodes) - set(kept))
    largest_of_all = max(found, key=lambda name: found[name], default="")
    notify(
        f"fp16: largest value of {PROBES} requests {found.get(largest_of_all, 0.0):.3g}, {len(kept)} nodes kept fp32"
    )
    probe = {
        "requests": PROBES,
        "largest": found.get(largest_of_all, 0.0),
        "where": largest_of_all,
        "allowed": FP16_LARGEST / HEADROOM,
        "kept_fp32": kept,
        "rounded": len(nodes) - len(kept),
    }
    return _Made(made, made, {"probe": probe})


def _bf16(model: onnx.ModelProto, manifest: Manifest, _notify: Notify) -> _Made:
    """Brain floats, which hold what fp32 does; measured by rounding in fp32, for ONNX Runtime has no kernels here."""
    nodes: Set[str] = set(rounded_nodes(model.graph, spatial_inputs(manifest.inputs)))
    # Unoptimised: an optimiser may take a cast there and back for nothing.
    return _Made(
        cast_model(model, "bf16", nodes),
        round_trip_model(model, "bf16", nodes),
        {"rounded": len(nodes)},
        optimise=False,
    )


def _int8(model: onnx.ModelProto, manifest: Manifest, notify: Notify) -> _Made:
    least = {output.name: LEAST_PSNR_DB["int8"] + INT8_MARGIN_DB for output in manifest.outputs}
    degrees = MOST_NORMAL_DEGREES * INT8_ANGLE_SHARE
    stricter = replace(manifest, precisions={"int8": PrecisionSpec("", least, degrees)})
    inputs = real_inputs(manifest, CALIBRATION)

    def holds(reference: Sequence[Feeds], given: Sequence[Feeds]) -> bool:
        comparison = Comparison(manifest)
        for feeds, one, other in zip(inputs, reference, given, strict=True):
            comparison.add(feeds, one, other)
        return not broken_limits(stricter, "int8", comparison.result())

    found = quantize(model, manifest.inputs, inputs, least, holds, notify)
    if found is None:
        raise ParityFailed(
            f"int8: no convolution can be rounded at {LEAST_PSNR_DB['int8']:g} dB and {MOST_NORMAL_DEGREES:g} degree",
            hint="nothing was written; use fp16 or bf16",
        )
    return _Made(found[0], found[0], {"calibration": CALIBRATION, "convolutions": found[1]})


_MAKERS: dict[str, Callable[[onnx.ModelProto, Manifest, Notify], _Made]] = {
    "fp16": _fp16,
    "bf16": _bf16,
    "int8": _int8,
}


def _spec(manifest: Manifest, precision: str) -> PrecisionSpec:
    least = dict.fromkeys((output.name for output in manifest.outputs), LEAST_PSNR_DB[precision])
    return PrecisionSpec(f"generator.{precision}.onnx", least, MOST_NORMAL_DEGREES if _turns(manifest) else 0.0)


def _measure(model: onnx.ModelProto, made: _Made, manifest: Manifest, checks: Sequence[Feeds]) -> Differences:
    reference, given = open_bytes(model), open_bytes(made.measured, optimise=made.optimise)
    comparison = Comparison(manifest)
    for feeds in checks:
        comparison.add(feeds, run(reference, feeds), run(given, feeds))
    return comparison.result()


def _judge(manifest: Manifest, precision: str, found: Differences) -> None:
    if broken := broken_limits(manifest, precision, found):
        raise ParityFailed(
            f"{precision}: {'; '.join(broken)}",
            hint=f"nothing was written; leave --precision {precision} out",
            metadata={"precision": precision},
        )


def _speed(model: onnx.ModelProto, made: onnx.ModelProto, manifest: Manifest) -> float:
    """How many times faster int8 is by ONNX Runtime on this processor, in turn; refused unless above 1."""
    feeds = real_inputs(manifest, 1, FIRST_CHECK_SEED, SPEED_PX)[0]
    exact, rounded = (open_bytes(each) for each in (model, made))
    ratio = ratio_of_times(lambda: run(exact, feeds), lambda: run(rounded, feeds), SPEED_ROUNDS)
    if ratio <= 1:
        raise ParityFailed(
            f"int8: {ratio:.2f} times as fast as fp32 on this processor, so there is no use in it",
            hint="nothing was written; leave --precision int8 out",
        )
    return round(ratio, 2)


def _write(verified: VerifiedPackage, output: Path, manifest: Manifest, made: Mapping[str, _Made]) -> str:
    partial = output.with_name(output.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for entry in verified.manifest.files:
            (partial / entry.path).write_bytes(verified.read(entry.path))
        for precision, found in made.items():
            (partial / manifest.precisions[precision].graph).write_bytes(found.model.SerializeToString())
        digest = write_manifest(partial, manifest)
        foreign.check_graphs([verify_package(partial)])
        replace_folder(partial, output)
    except OSError as error:
        raise OutputUnwritable(
            f"{output} cannot be written: {error.strerror}", hint="check space and rights"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest


def _turns(manifest: Manifest) -> bool:
    """Whether normals are derived from what the model makes."""
    return any(output.map_kind == MapKind.HEIGHT for output in manifest.outputs)


def _shown(manifest: Manifest, found: Differences) -> dict[str, Any]:
    rounded = {
        "largest": {name: float(f"{value:.3g}") for name, value in found.largest.items()},
        "mean": {name: float(f"{value:.3g}") for name, value in found.mean.items()},
        "psnr_db": {name: round(min(value, _SHOWN_DB), 1) for name, value in found.psnr_db.items()},
    }
    return rounded | ({"normal_degrees": round(found.normal_degrees, 3)} if _turns(manifest) else {})


def _line(manifest: Manifest, found: Differences) -> str:
    told = ", ".join(
        f"{name} {'equal' if math.isinf(value) else f'{value:.1f} dB'}" for name, value in found.psnr_db.items()
    )
    return told + (f", normals {found.normal_degrees:.2f} degrees" if _turns(manifest) else "")
