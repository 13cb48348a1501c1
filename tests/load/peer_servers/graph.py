"""What every peer serves: the same work as ours for a call, inputs from a seed and the base colour as raw pixels.

Needs onnxruntime, numpy, pillow and deflate beside assetgen's own files, which the path names.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from assetgen.kinds import KINDS
from assetgen.package import VerifiedPackage, verify_package
from assetgen.runtime.ort import session_options
from assetgen.types import Encoding, MapKind, OutputSpec, Request


def plain_session(package: VerifiedPackage, threads: int) -> onnxruntime.InferenceSession:
    """The graph as it stands in the package, with our settings of threads and memory."""
    options = session_options(onnxruntime)
    options.intra_op_num_threads = threads
    graph = package.read(package.manifest.graph)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Graph:
    """The package that the environment names: ASSETGEN_PEER is JSON with package, edge_px and threads."""

    def __init__(self) -> None:
        facts = json.loads(os.environ["ASSETGEN_PEER"])
        self._package = verify_package(Path(facts["package"]), allow_hard_links=True)
        self._kind = KINDS[self._package.manifest.kind]
        self._session = plain_session(self._package, facts["threads"])
        self._names = [output.name for output in self._session.get_outputs()]
        output = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)
        edge_px = facts["edge_px"]
        self._request = Request(self._package.manifest.id, seed=0, width_px=edge_px, height_px=edge_px, output=output)

    def pixels(self) -> bytes:
        """Make one asset of the next seed."""
        manifest = self._package.manifest
        self._request = replace(self._request, seed=(self._request.seed or 0) + 1)
        plan = self._kind.resolve(manifest, self._request)
        values = self._session.run(self._names, self._kind.prepare(manifest, plan, 0))
        (artifact,) = self._kind.finish(manifest, plan, 0, dict(zip(self._names, values, strict=True)))
        return bytes(artifact.data)

    def array(self) -> np.ndarray:
        """The same as an array of bytes."""
        return np.frombuffer(self.pixels(), np.uint8)
