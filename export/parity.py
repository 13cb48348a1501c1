"""Does the exported graph compute what the network does, and does it tile: measured, not assumed; torch and numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assetgen.errors import ParityFailed
from assetgen.runtime import Session
from export.graph import OUTPUTS, MaterialGraph

# Batch, height and width; none is what the graph was traced with.
SIZES = ((1, 64, 64), (3, 256, 256), (1, 192, 320), (2, 64, 128))
PARITY_LIMIT = 1e-4
ROLL_LIMIT = 1e-5

Arrays = list[NDArray[np.float32]]
Runner = Callable[[Sequence[NDArray[np.float32]]], Arrays]


@dataclass(frozen=True)
class ParityReport:
    """Largest differences by output: graph against network, and rolled outputs against outputs of rolled inputs."""

    parity: dict[str, float]
    roll_network: dict[str, float]
    roll_graph: dict[str, float]


def check_parity(graph: MaterialGraph, run: Runner) -> ParityReport:
    """Compare ``run`` with ``graph`` over ``SIZES`` and test both for tiling.

    Args:
        run: takes the graph's inputs in order, returns its outputs in order.

    Raises:
        ParityFailed: a difference is above its limit.
    """

    def network(inputs: Sequence[NDArray[np.float32]]) -> Arrays:
        with torch.no_grad():
            return [output.numpy() for output in graph(*(torch.from_numpy(array) for array in inputs))]

    parity = dict.fromkeys(OUTPUTS, 0.0)
    for seed, (n, height_px, width_px) in enumerate(SIZES):
        inputs = _arrays(graph.example(n, height_px, width_px, seed))
        _widen(parity, network(inputs), run(inputs))
    report = ParityReport(parity, roll_errors(graph, network), roll_errors(graph, run))
    _judge("graph differs from the network", report.parity, PARITY_LIMIT)
    _judge("network does not tile", report.roll_network, ROLL_LIMIT)
    _judge("graph does not tile", report.roll_graph, ROLL_LIMIT)
    return report


def parity_of_pictures(
    graph: nn.Module, session: Session, inputs: Sequence[str], output: str, examples: Iterable[tuple[Tensor, ...]]
) -> float:
    """Largest difference of a graph of one size from its network over ``examples``, each the inputs in order.

    Raises:
        ParityFailed: it is above ``PARITY_LIMIT``.
    """
    worst = 0.0
    for example in examples:
        made = session.run({name: value.numpy() for name, value in zip(inputs, example, strict=True)})[output]
        with torch.no_grad():
            worst = float(np.maximum(worst, np.abs(graph(*example).numpy() - made).max()))  # unlike max(), keeps NaN
    _judge("graph differs from the network", {output: worst}, PARITY_LIMIT)
    return worst


def roll_errors(graph: MaterialGraph, run: Runner, cells: tuple[int, int] = (1, 2)) -> dict[str, float]:
    """Roll the spatial inputs by ``cells`` grid cells and compare with the rolled output, at every size."""
    worst = dict.fromkeys(OUTPUTS, 0.0)
    strides = [spec.stride_px for spec in graph.inputs]
    for seed, (n, height_px, width_px) in enumerate(SIZES):
        inputs = _arrays(graph.example(n, height_px, width_px, seed))
        pixels = tuple(count * graph.stride for count in cells)
        rolled = [
            np.roll(array, tuple(count // stride for count in pixels), axis=(2, 3)) if stride else array
            for array, stride in zip(inputs, strides, strict=True)
        ]
        expected = [np.roll(output, pixels, axis=(2, 3)) for output in run(inputs)]
        _widen(worst, expected, run(rolled))
    return worst


def _arrays(tensors: tuple[Tensor, ...]) -> Arrays:
    return [tensor.numpy() for tensor in tensors]


def _widen(worst: dict[str, float], first: Arrays, second: Arrays) -> None:
    for name, a, b in zip(OUTPUTS, first, second, strict=True):
        worst[name] = float(np.maximum(worst[name], np.abs(a - b).max()))  # unlike max(), keeps NaN


def _judge(what: str, differences: dict[str, float], limit: float) -> None:
    for name, difference in differences.items():
        if not difference <= limit:
            raise ParityFailed(
                f"{what}: {name} by {difference:.2g}, allowed is {limit:.0e}",
                hint="nothing was written; try another version of torch or onnxruntime",
                metadata={"output": name, "difference": f"{difference:.3g}", "limit": f"{limit:.0e}"},
            )
