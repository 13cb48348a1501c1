"""Does an exported graph from picture to picture compute what the network does, and does it tile; torch and numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assetgen.errors import ParityFailed
from assetgen.runtime import Session
from export.image_graph import example_pictures

# Batch, height and width; none is what the graph was traced with.
SIZES = ((1, 64, 64), (3, 128, 128), (1, 96, 160), (2, 16, 24), (1, 256, 256))
LIMIT = 1e-4
CELLS = ((1, 2), (3, 5))

Arrays = list[NDArray[np.float32]]


class ImageGraph(Protocol):
    """A module from pictures, and class weights where it has classes, to maps of the same size."""

    stride: int
    classes: int
    outputs: Sequence[str]

    def __call__(self, image: Tensor, *class_weights: Tensor) -> list[Tensor]:
        """Return the outputs in their order."""


def image_parity(graph: ImageGraph, session: Session, inputs: Sequence[str]) -> dict[str, float]:
    """Largest differences over ``SIZES``: graph against network, and rolled outputs against outputs of rolled pictures.

    Raises:
        ParityFailed: a difference is above ``LIMIT``.
    """

    def network(arrays: Arrays) -> Arrays:
        with torch.no_grad():
            return [output.numpy() for output in graph(*(torch.from_numpy(array) for array in arrays))]

    def served(arrays: Arrays) -> Arrays:
        made = session.run(dict(zip(inputs, arrays, strict=True)))
        return [made[name] for name in graph.outputs]

    found = dict.fromkeys(("graph_against_network", "roll_network", "roll_graph"), 0.0)
    for seed, (n, height_px, width_px) in enumerate(SIZES):
        arrays = [tensor.numpy() for tensor in example_pictures(n, height_px, width_px, graph.classes, seed)]
        expected = network(arrays)
        _widen(found, "graph_against_network", expected, served(arrays))
        _widen(found, "roll_network", *_rolled(network, arrays, graph.stride, CELLS[seed % 2]))
        _widen(found, "roll_graph", *_rolled(served, arrays, graph.stride, CELLS[seed % 2]))
    for name, difference in found.items():
        if not difference <= LIMIT:
            raise ParityFailed(
                f"{name.replace('_', ' ')}: differs by {difference:.2g}, allowed is {LIMIT:.0e}",
                hint="nothing was written; try another version of torch or onnxruntime",
                metadata={"difference": f"{difference:.3g}", "limit": f"{LIMIT:.0e}"},
            )
    return {name: float(f"{difference:.3g}") for name, difference in found.items()}


def _rolled(
    run: Callable[[Arrays], Arrays], arrays: Arrays, stride: int, cells: tuple[int, int]
) -> tuple[Arrays, Arrays]:
    """Outputs, rolled, and outputs of the rolled picture."""
    pixels = tuple(count * stride for count in cells)
    rolled = [np.roll(arrays[0], pixels, axis=(2, 3)), *arrays[1:]]
    return [np.roll(output, pixels, axis=(2, 3)) for output in run(arrays)], run(rolled)


def _widen(worst: dict[str, float], name: str, first: Arrays, second: Arrays) -> None:
    for a, b in zip(first, second, strict=True):
        worst[name] = float(np.maximum(worst[name], np.abs(a - b).max()))  # unlike max(), keeps NaN
