"""``python -m export.finishing``: writes the graphs by which a device turns maps into pixels itself; onnx and numpy.

It computes what ``postprocess.pbr`` and ``postprocess.profiles`` do, which its test holds it to, in few operators that
every runtime has: wrapped neighbours are convolutions with fixed weights over a picture that was continued all round.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from assetgen.postprocess import finishing
from assetgen.postprocess.pbr import DIRECTIONS, OCCLUSION_RADII_PX
from assetgen.runtime.finish import GRAPHS, PIXELS
from assetgen.types import MapKind
from export.onnx_from_module import OPSET

IR_VERSION = 10
_END = 1 << 30


class _Graph:
    """Nodes and constants, each named as it is made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def constant(self, values: object, dtype: str = "float32") -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def wrapped(self, x: str, margin_px: int) -> str:
        """Continue ``[n, c, h, w]`` on the torus, so far on each side."""
        for axis in (2, 3):
            ends = [[-margin_px], [_END]], [[0], [margin_px]]
            before, after = (
                self.node("Slice", x, *(self.constant(place, "int64") for place in (*span, [axis]))) for span in ends
            )
            x = self.node("Concat", before, x, after, axis=axis)
        return x

    def neighbours(self, x: str, weights: NDArray[np.float32], step_px: int = 1) -> str:
        """Sums of the 3 x 3 neighbours ``step_px`` away by ``weights`` ``[out, 3, 3]``, of one wrapped channel."""
        kernel = self.constant(weights[:, None])
        return self.node("Conv", self.wrapped(x, step_px), kernel, dilations=[step_px, step_px])

    def pixels(self, x: str, kind: MapKind, scale: float, shift: float, to: int = TensorProto.UINT8) -> None:
        """Values times ``scale`` and ``shift``, cut off to whole numbers, as the output of that map."""
        scaled = self.node("Add", self.node("Mul", x, self.constant(scale)), self.constant(shift))
        if kind in (MapKind.BASE_COLOR, MapKind.NORMAL):
            self.node("Transpose", self.node("Cast", scaled, to=to), name=kind + PIXELS, perm=[0, 2, 3, 1])
        else:
            self.node("Cast", scaled, name=kind + PIXELS, to=to)


def finishing_graph(*, relief: bool) -> onnx.ModelProto:
    """The graph; inputs ``[1, c, h, w]`` by the names of maps, and numbers ``[1]``.

    Args:
        relief: also make normals and occlusion, which are most of the work.
    """
    graph = _Graph()
    base_color, roughness, metallic, height = finishing.SOURCES
    graph.pixels(base_color, base_color, 255, 0.5)
    shifted = graph.node("Add", roughness, "roughness_shift")
    graph.pixels(graph.node("Clip", shifted, graph.constant(0), graph.constant(1)), roughness, 255, 0.5)
    graph.pixels(graph.node("Mul", metallic, "metal"), metallic, 255, 0.5)
    graph.pixels(height, height, 65535, 0.5, TensorProto.UINT16)
    if relief:
        graph.pixels(_normal(graph), MapKind.NORMAL, 127.5, 128)
        graph.pixels(_occlusion(graph), MapKind.AMBIENT_OCCLUSION, 255, 0.5)
    _count_strange(graph)
    numbers = ("relief_px", "green", "roughness_shift", "metal") if relief else ("roughness_shift", "metal")
    inputs = [
        *(_port(kind, TensorProto.FLOAT, [1, channels, "h", "w"]) for kind, channels in finishing.SOURCES.items()),
        *(_port(name, TensorProto.FLOAT, [1]) for name in numbers),
    ]
    colors = (MapKind.BASE_COLOR, MapKind.NORMAL) if relief else (MapKind.BASE_COLOR,)
    greys = (MapKind.ROUGHNESS, MapKind.METALLIC, *((MapKind.AMBIENT_OCCLUSION,) if relief else ()))
    outputs = [
        *(_port(kind + PIXELS, TensorProto.UINT8, [1, "h", "w", 3]) for kind in colors),
        *(_port(kind + PIXELS, TensorProto.UINT8, [1, 1, "h", "w"]) for kind in greys),
        _port(MapKind.HEIGHT + PIXELS, TensorProto.UINT16, [1, 1, "h", "w"]),
        _port(finishing.STRANGE, TensorProto.FLOAT, [1]),
    ]
    made = helper.make_graph(graph.nodes, "finishing", inputs, outputs, graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "assetgen"
    onnx.checker.check_model(model, full_check=True)
    return model


def _normal(graph: _Graph) -> str:
    """As ``pbr.normal_from_height``, ``[1, 3, h, w]``."""
    weights = np.zeros((2, 3, 3), dtype=np.float32)
    weights[0, 1, 0], weights[0, 1, 2] = 1, -1  # left less right
    weights[1, 2, 1], weights[1, 0, 1] = 1, -1  # below less above
    half = graph.node("Mul", "relief_px", graph.constant(0.5))
    slopes = graph.node("Mul", graph.neighbours(MapKind.HEIGHT, weights), half)
    x, y = (
        graph.node("Slice", slopes, *(graph.constant([place], "int64") for place in (start, start + 1, 1)))
        for start in (0, 1)
    )
    squares = graph.node("Add", graph.node("Mul", x, x), graph.node("Mul", y, y))
    length = graph.node("Sqrt", graph.node("Add", squares, graph.constant(1)))
    up = graph.node("Div", graph.node("Mul", y, "green"), length)
    return graph.node("Concat", graph.node("Div", x, length), up, graph.node("Reciprocal", length), axis=1)


def _occlusion(graph: _Graph) -> str:
    """As ``pbr.ambient_occlusion_from_height``, ``[1, 1, h, w]``: a channel a direction."""
    ground = level = graph.node("Mul", MapKind.HEIGHT, "relief_px")
    blur = np.array([[[1, 2, 1], [2, 4, 2], [1, 2, 1]]], dtype=np.float32) / np.float32(16)
    steepest = ""
    for near, far in pairwise((*OCCLUSION_RADII_PX, 0)):
        nearness = np.array([1 / (near * math.hypot(*way)) for way in DIRECTIONS], dtype=np.float32)
        there = np.zeros((len(DIRECTIONS), 3, 3), dtype=np.float32)
        for number, (down, right) in enumerate(DIRECTIONS):
            there[number, 1 + down, 1 + right] = nearness[number]
        here = graph.node("Mul", ground, graph.constant(nearness[None, :, None, None]))
        rise = graph.node("Sub", graph.neighbours(level, there, near), here)
        steepest = graph.node("Max", steepest, rise) if steepest else rise
        level = graph.neighbours(level, blur, near) if far else level
    slope = graph.node("Relu", steepest)
    seen = graph.node("Reciprocal", graph.node("Add", graph.node("Mul", slope, slope), graph.constant(1)))
    return graph.node("ReduceMean", seen, graph.constant([1], "int64"))


def _count_strange(graph: _Graph) -> None:
    """How many values of all maps are not in [0, 1]; a NaN is in no range."""
    counts = []
    for kind in finishing.SOURCES:
        low = graph.node("GreaterOrEqual", kind, graph.constant(0))
        high = graph.node("LessOrEqual", kind, graph.constant(1))
        out = graph.node("Cast", graph.node("Not", graph.node("And", low, high)), to=TensorProto.FLOAT)
        counts.append(graph.node("ReduceSum", out, graph.constant([0, 1, 2, 3], "int64"), keepdims=0))
    total = counts[0]
    for count in counts[1:]:
        total = graph.node("Add", total, count)
    graph.node("Reshape", total, graph.constant([1], "int64"), name=finishing.STRANGE)


def _port(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(str(name), kind, shape)


def main(arguments: list[str] | None = None) -> int:
    """Write the graphs to where the runtime reads them."""
    parser = argparse.ArgumentParser(prog="python -m export.finishing", description="Write the graphs of finishing.")
    parser.add_argument("-o", "--output", type=Path, default=GRAPHS[True].parent, help="folder")
    folder: Path = parser.parse_args(arguments).output
    for relief, shipped in GRAPHS.items():
        path = folder / shipped.name
        path.write_bytes(finishing_graph(relief=relief).SerializeToString(deterministic=True))
        print(f"{path}: {path.stat().st_size} bytes", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
