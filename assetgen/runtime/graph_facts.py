"""What is known of a graph before it runs: shapes, constants, who makes what, which pictures are continued."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


class Facts:
    """A graph, read once.

    Attributes:
        shapes: of tensors, as far as they follow from inputs; ``None`` for a side that does not.
        constants: of initializers.
        makers: the node behind each tensor; ``uses``: how many nodes read it, the graph's end included.
    """

    def __init__(self, model: ModelProto) -> None:
        from onnx import numpy_helper

        self.shapes = _shapes(model)
        self.constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        self.makers = {output: node for node in model.graph.node for output in node.output}
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self.uses.update(output.name for output in model.graph.output)

    def channels(self, x: str) -> int | None:
        """Of a tensor of four axes."""
        shape = self.shapes.get(x, ())
        return shape[1] if len(shape) == 4 else None

    def is_vector(self, x: str, channels: int | None = None) -> bool:
        """Whether a tensor is one number a channel, (n, c, 1, 1)."""
        shape = self.shapes.get(x, ())
        return len(shape) == 4 and shape[1] is not None and channels in (None, shape[1]) and shape[2:] == (1, 1)

    def wrapped(self, node: NodeProto) -> tuple[str, int] | None:
        """The picture that ``node`` continues on all four sides, and by how many pixels."""
        across = self._continued(node, 3)
        down = self._continued(self.makers.get(across[0]), 2) if across is not None else None
        return down if across is not None and down is not None and across[1] == down[1] else None

    def _continued(self, node: NodeProto | None, axis: int) -> tuple[str, int] | None:
        """The picture that ``node`` continues on both ends of an axis, and by how many pixels."""
        if node is None or node.op_type != "Concat" or len(node.input) != 3 or attribute(node, "axis") != axis:
            return None
        picture = node.input[1]
        begun, ended = (self._cut(name, picture, axis) for name in (node.input[0], node.input[2]))
        if begun is None or ended is None:
            return None
        border = ended[1]
        whole = border > 0 and ended[0] == 0 and begun[0] == -border and begun[1] >= np.iinfo(np.int32).max
        return (picture, border) if whole else None

    def _cut(self, x: str, picture: str, axis: int) -> tuple[int, int] | None:
        """Where on an axis ``x`` was cut from ``picture``, if it was."""
        node = self.makers.get(x)
        if node is None or node.op_type != "Slice" or node.input[0] != picture or len(node.input) < 4:
            return None
        numbers = [self.constants.get(name, np.empty(0)) for name in node.input[1:]]
        if any(each.shape != (1,) for each in numbers):
            return None
        begin, end, axes, *steps = (int(each[0]) for each in numbers)
        return (begin, end) if axes == axis and steps in ([], [1]) else None


def _shapes(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Of tensors, as far as they are known before anything runs."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    shapes: dict[str, tuple[int | None, ...]] = {each.name: tuple(each.dims) for each in graph.initializer}
    for each in (*graph.input, *graph.output, *graph.value_info):
        if each.type.tensor_type.HasField("shape"):
            sides = each.type.tensor_type.shape.dim
            shapes[each.name] = tuple(side.dim_value if side.HasField("dim_value") else None for side in sides)
    return shapes


def attribute(node: NodeProto, name: str) -> Any:
    """Value of a node's attribute; ``None`` without."""
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), None)
