"""Graphs that are not ours, checked in a process of their own: imports package; policy is imported there only.

onnx's own checks are native code, which a hostile graph can end. And a process that listens needs onnx for nothing
else, a third of a second of its start.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from assetgen.errors import PolicyViolated
from assetgen.package import VerifiedPackage, manifest_from_bytes, manifest_to_bytes

TIMEOUT_S = 120  # a graph
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from assetgen import foreign; foreign.child_main()"
_passed: set[bytes] = set()  # digests of manifest and graph: a process has the same ones checked once


def check_graphs(packages: Sequence[VerifiedPackage]) -> None:
    """Raise PolicyViolated for the first graph that holds what none may hold; see ``policy``."""
    every = ((package, graph) for package in packages for graph in package.manifest.graphs.values())
    framed = ((package.folder / graph, _frame(package, graph)) for package, graph in every)
    digested = ((path, frame, hashlib.sha256(frame).digest()) for path, frame in framed)
    frames = [each for each in digested if each[2] not in _passed]
    if not frames:
        return
    command = [sys.executable, "-c", _CODE, str(Path(__file__).resolve().parents[1])]
    data, limit_s = b"".join(frame for _, frame, _ in frames), TIMEOUT_S * len(frames)
    try:
        child = subprocess.run(command, input=data, capture_output=True, timeout=limit_s, check=False)
        said, end = child.stdout, _end(child.returncode, child.stderr)
    except subprocess.TimeoutExpired as error:
        said, end = error.stdout or b"", f"was not checked after {limit_s:g} s"
    # The graph that has no verdict is the one at which the process ended.
    for (path, _, _), verdict in zip(frames, [*_verdicts(said), end], strict=False):
        if verdict:
            raise PolicyViolated(f"{path}: {verdict}", hint=PolicyViolated.HINT)
    _passed.update(digest for *_, digest in frames)


def child_main() -> None:
    """Check graphs from standard input; a line each on standard output, empty or the broken rule, which is the last."""
    from assetgen.policy import broken_rule

    while sizes := sys.stdin.buffer.readline():
        manifest, graph = (_read(sys.stdin.buffer, size) for size in json.loads(sizes))
        broken = broken_rule(graph, manifest_from_bytes(manifest))
        sys.stdout.write(json.dumps(broken) + "\n")
        sys.stdout.flush()
        if broken:
            return


def _frame(package: VerifiedPackage, graph: str) -> bytes:
    parts = manifest_to_bytes(package.manifest), package.read(graph)
    return json.dumps([len(part) for part in parts]).encode() + b"\n" + b"".join(parts)


def _read(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    assert len(data) == size  # noqa: S101 -- the parent writes all
    return data


def _verdicts(said: bytes) -> Iterator[str]:
    """Whole lines, up to the first that is none of ``child_main``."""
    for line in said.split(b"\n")[:-1]:
        try:
            verdict = json.loads(line)
        except ValueError:
            return
        if not isinstance(verdict, str):
            return
        yield verdict


def _end(status: int, errors: bytes) -> str:
    last = (errors.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
    return f"ended the process that checked it (status {status}): {last[:300]}"
