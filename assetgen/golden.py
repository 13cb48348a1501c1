"""Golden requests of a package: what its graph made where it was exported, to tell a broken driver from a broken model.

Imports kinds, runtime, package and errors. The file ``golden.json``:

    {"requests": [{"request": {"seed", "index", "width_px", "height_px", "parameters"},
                   "outputs": {output: {"thumbnail": [c][h][w], "tolerance"}},
                   "sha256": {backend: {role: hex of the raw pixels}}}]}

Thumbnails are means over at most 16 x 16 cells: pixels within ``tolerance`` keep thumbnails within it on any backend;
the hashes must be met where the backend is one that was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from assetgen import strictjson
from assetgen.errors import PackageInvalid
from assetgen.kinds import KINDS, example_parameters
from assetgen.kinds.windows import run_in_windows
from assetgen.manifest import Manifest
from assetgen.package import VerifiedPackage
from assetgen.runtime import Session
from assetgen.types import Encoding, FloatArray, OutputSpec, ParameterValue, Request

FILE_NAME = "golden.json"
THUMBNAIL_CELLS = 16
DECIMALS = 5
DEFAULT_TOLERANCE = 0.01


@dataclass(frozen=True)
class GoldenRequest:
    """One request of one asset; sizes of 0 are the model's own, and pictures not given are ``example_picture``."""

    seed: int
    index: int = 0
    width_px: int = 0
    height_px: int = 0
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


@dataclass(frozen=True)
class GoldenResult:
    """How one request came out.

    Attributes:
        differences: largest difference of a thumbnail, by output.
        failed: outputs beyond their tolerance, and roles whose bytes differ though the backend was recorded.
        bytes_compared: whether the backend was one of those recorded.
    """

    request: GoldenRequest
    differences: Mapping[str, float]
    failed: tuple[str, ...]
    bytes_compared: bool


def record(session: Session, manifest: Manifest, requests: Sequence[GoldenRequest]) -> dict[str, Any]:
    """Run ``requests`` and return what belongs into ``golden.json``."""
    tolerances = manifest.tolerance.get("fp32", {})
    entries = []
    for request in requests:
        outputs, hashes = _make(session, manifest, request)
        thumbnails = {
            name: {"thumbnail": thumbnail(values[0]), "tolerance": tolerances.get(name, DEFAULT_TOLERANCE)}
            for name, values in outputs.items()
        }
        entries.append({"request": asdict(request), "outputs": thumbnails, "sha256": {session.backend: hashes}})
    return {"requests": entries}


def replay(session: Session, manifest: Manifest, golden: Mapping[str, Any]) -> list[GoldenResult]:
    """Run the recorded requests again and compare; raises PackageInvalid if ``golden`` is not what ``record`` makes."""
    try:
        return [_replay_one(session, manifest, entry) for entry in golden["requests"]]
    except (KeyError, TypeError, ValueError) as error:
        raise PackageInvalid(f"{manifest.id}: {FILE_NAME} is not readable: {error!r:.200}") from error


def load(package: VerifiedPackage) -> dict[str, Any] | None:
    """The golden requests of a package; ``None`` if it has none."""
    if all(entry.path != FILE_NAME for entry in package.manifest.files):
        return None
    try:
        golden = strictjson.loads(package.read(FILE_NAME))
    except ValueError as error:
        raise PackageInvalid(f"{package.folder}: {FILE_NAME}: {error}") from error
    if not isinstance(golden, dict):
        raise PackageInvalid(f"{package.folder}: {FILE_NAME} holds no object")
    return golden


def thumbnail(values: FloatArray) -> list[list[list[float]]]:
    """Means of ``[c, h, w]`` over at most 16 x 16 cells, rounded."""
    means = values.astype(np.float64)
    for axis in (1, 2):
        length = means.shape[axis]
        edges = np.linspace(0, length, min(THUMBNAIL_CELLS, length) + 1).astype(np.int64)
        sizes = np.diff(edges).reshape(-1, *([1] * (2 - axis)))
        means = np.add.reduceat(means, edges[:-1], axis=axis) / sizes
    rows: list[list[list[float]]] = means.round(DECIMALS).tolist()
    return rows


def _replay_one(session: Session, manifest: Manifest, entry: Mapping[str, Any]) -> GoldenResult:
    request = GoldenRequest(**entry["request"])
    outputs, hashes = _make(session, manifest, request)
    differences: dict[str, float] = {}
    failed: list[str] = []
    for name, expected in entry["outputs"].items():
        difference = np.abs(np.array(thumbnail(outputs[name][0])) - np.array(expected["thumbnail"])).max()
        differences[name] = float(difference)
        if not difference <= expected["tolerance"] + 10.0**-DECIMALS:
            failed.append(name)
    recorded = entry["sha256"].get(session.backend)
    if recorded is not None:
        failed += [f"bytes of {role}" for role, digest in recorded.items() if hashes.get(role) != digest]
    return GoldenResult(request, differences, tuple(failed), bytes_compared=recorded is not None)


def _make(session: Session, manifest: Manifest, golden: GoldenRequest) -> tuple[dict[str, FloatArray], dict[str, str]]:
    kind = KINDS[manifest.kind]
    request = Request(
        manifest.id,
        seed=golden.seed,
        first_index=golden.index,
        width_px=golden.width_px,
        height_px=golden.height_px,
        parameters=example_parameters(manifest, golden.width_px, golden.height_px) | dict(golden.parameters),
        output=OutputSpec(encoding=Encoding.RAW),
    )
    plan = kind.resolve(manifest, request)
    outputs = run_in_windows(session.run, manifest, kind.prepare(manifest, plan, golden.index))
    return outputs, {file.role: file.sha256 for file in kind.finish(manifest, plan, golden.index, outputs)}
