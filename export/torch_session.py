"""The networks themselves behind the session protocol, eager and compiled, to measure beside the runtimes; torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch._dynamo import config as dynamo

from assetgen.errors import RuntimeMissing
from assetgen.manifest import Manifest
from assetgen.processor import instruction_family, usable_cores
from assetgen.runtime import Session
from assetgen.types import FloatArray
from export.graph import OUTPUTS, MaterialGraph
from export.networks import graph_of_package

MOST_SIZES = 64


class TorchSession:
    """A material graph in PyTorch on the processor; sliders that the package has beside it stay at 0.

    Args:
        compiled: by ``torch.compile``, anew for every size.
    """

    device = "cpu"
    reason = "asked for"
    splits = False

    def __init__(self, graph: MaterialGraph, threads: int, *, compiled: bool) -> None:
        torch.set_num_threads(threads)
        self._names = [spec.name for spec in graph.inputs]
        module = graph.eval().requires_grad_(False)  # as trained: what export makes of it is to be measured
        if compiled:  # beyond eight sizes PyTorch would go on in eager and say nothing
            dynamo.recompile_limit, dynamo.fail_on_recompile_limit_hit = MOST_SIZES, True
        self._call: Callable[..., list[torch.Tensor]] = torch.compile(module, dynamic=False) if compiled else module
        how = "compiled" if compiled else "eager"
        version = torch.__version__.split("+")[0]
        self.backend = f"pytorch-{version}-{how}/cpu/fp32/{instruction_family()}/threads{threads}"

    def run(
        self, inputs: Mapping[str, FloatArray], *, half: bool = False, owner: object = None
    ) -> dict[str, FloatArray]:
        """Run the network once; it cannot be stopped."""
        if half or owner is not None:
            raise RuntimeError("run() by halves, or of an owner, of a session that is there to be measured")
        with torch.inference_mode():
            outputs = self._call(*(torch.from_numpy(inputs[name]) for name in self._names))
        return {name: output.numpy() for name, output in zip(OUTPUTS, outputs, strict=True)}

    def join(self) -> None:
        """Do nothing: it never splits."""

    def terminate(self, owner: object = None) -> None:
        """Do nothing: it cannot be stopped."""

    def close(self) -> None:
        """Do nothing."""


def openers(
    manifest: Manifest, texture_run: Path, detail_run: Path, threads: int | None
) -> dict[str, Callable[[], Session]]:
    """How to open PyTorch eager and compiled for the networks of two runs, by name.

    Raises:
        CheckpointInvalid: the runs are not sound, or do not belong together.
        ConfigInvalid: they are not those of the package.
    """
    graph = graph_of_package(manifest, texture_run, detail_run)
    count = threads or usable_cores()
    return {
        "pytorch eager": lambda: TorchSession(graph, count, compiled=False),
        "pytorch compiled": lambda: _compiled(graph, count),
    }


def _compiled(graph: MaterialGraph, threads: int) -> TorchSession:
    """Raises RuntimeMissing where the compiler that it needs is absent."""
    session = TorchSession(graph, threads, compiled=True)
    edge_px = 4 * graph.stride
    try:
        example = {
            spec.name: value.numpy()
            for spec, value in zip(graph.inputs, graph.example(1, edge_px, edge_px), strict=True)
        }
        session.run(example)
    except RuntimeError as error:  # torch's own errors of compiling are RuntimeErrors
        raise RuntimeMissing(f"torch.compile does not work here: {str(error).splitlines()[0][:200]}") from error
    return session
