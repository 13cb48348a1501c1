"""A graph whose pixels lie as rows of channels between convolutions, the same bytes out; imports onnx when called.

On x86, ONNX Runtime's convolutions read and write blocks of channels, which are put in order before and after each: as
planes, or at the same price as rows, one a pixel with all of its channels. Of rows, a picture is continued on the
torus, or put together from channels of 2 x 2 pixels, by one copy of whole rows on all threads; of planes by two copies
on one thread, or number by number. What that saves, measured: docs/export.md.

Nothing is computed otherwise. Rows move, channels of weights change places, and numbers that many pixels share are
repeated. What an operator that is not known here reads is made planes again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from assetgen.runtime.graph_facts import Facts, attribute

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Below, rows are so short that copying them is copying number by number.
MIN_CHANNELS = 16
# Shorter rows are changed by the line: ONNX Runtime starts anew for each time that a shorter operand is repeated.
LONG_CHANNELS = 96
PREFIX = "rows/"

_TO_ROWS, _TO_PLANES = [0, 2, 3, 1], [0, 3, 1, 2]
_AXES = {1: 3, 2: 1, 3: 2}
_BY_NUMBER = ("Add", "Mul", "Sub", "LeakyRelu", "Relu")

T = TypeVar("T")


@dataclass(frozen=True)
class _Size:
    """Pictures of one size: that of a tensor, and by how many pixels a side has grown since."""

    of: str
    grown: int = 0


@dataclass(frozen=True)
class _Rows:
    """A tensor as rows: (n, h, w, channels); as blocks (n, rows, channels), four rows for each 2 x 2 pixels."""

    name: str
    size: _Size
    channels: int
    blocks: bool = False


def use_rows(model: ModelProto) -> bool:
    """Rewrite a graph in place; returns whether anything changed.

    A graph that has graphs within, or was rewritten before, is left as it is.
    """
    from onnx import AttributeProto

    within = any(each.type == AttributeProto.GRAPH for node in model.graph.node for each in node.attribute)
    names = (name for node in model.graph.node for name in node.output)
    if within or any(name.startswith(PREFIX) for name in names):
        return False
    return _Rewriting(model).run()


class _Rewriting:
    """One walk over the nodes.

    Attributes:
        rows: tensors that there are as rows; ``planes``: those that there are as planes.
        fresh: what lies in blocks, which may become either. What ONNX Runtime does there is left to it,
            for it rounds otherwise.
        wanted: what is worth having as rows.
        sizes: of tensors of four axes.
    """

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.facts = Facts(model)
        self.wanted = self._wanted()
        self.planes = {each.name for each in model.graph.input} | set(self.facts.constants)
        self.rows: dict[str, _Rows] = {}
        self.fresh: set[str] = set()
        self.sizes: dict[str, _Size] = {}
        self.products: dict[str, tuple[str, str]] = {}
        self.copies: dict[str, NodeProto] = {}
        self.once: dict[object, Any] = {}
        self.made: list[NodeProto] = []

    def run(self) -> bool:
        handlers: dict[str, Callable[[NodeProto], bool]] = {
            "Conv": self._convolution,
            "LeakyRelu": self._activation,
            "Relu": self._activation,
            "Add": self._arithmetic,
            "Mul": self._arithmetic,
            "Sub": self._arithmetic,
            "Slice": self._slice,
            "Concat": self._concatenation,
            "Resize": self._resize,
            "DepthToSpace": self._doubling,
        }
        for node in self.graph.node:
            handler = handlers.get(node.op_type)
            if handler is None or not handler(node):
                self._copy(node)
        if not self.rows:
            return False
        for output in self.graph.output:
            self._make_planes(output.name)
        self._keep_what_is_used()
        return True

    def _wanted(self) -> set[str]:
        """Tensors whose rows are copied, at once or after their numbers changed."""
        wanted: set[str] = set()
        for node in reversed(self.graph.node):
            if node.op_type in ("Resize", "DepthToSpace"):
                wanted.add(node.input[0])
            if (wrapped := self.facts.wrapped(node)) is not None:
                wanted.add(wrapped[0])
            if node.op_type in (*_BY_NUMBER, "Slice", "Concat") and node.output[0] in wanted:
                wanted.update(node.input)
        return wanted

    # Nodes: each method says whether it wrote what stands for the node

    def _convolution(self, node: NodeProto) -> bool:
        x, y = node.input[0], node.output[0]
        weight = self.facts.constants.get(node.input[1])
        if weight is None or weight.ndim != 4 or weight.dtype != np.float32:
            return False
        self._copy(node)
        sides, size = set(weight.shape[2:]), self._size(x)
        stays = not any(attribute(node, "pads") or []) and attribute(node, "auto_pad") in (None, b"NOTSET")
        steps = {*(attribute(node, "strides") or [1]), *(attribute(node, "dilations") or [1])}
        if stays and steps == {1} and len(sides) == 1:
            self.sizes[y] = replace(size, grown=size.grown + 1 - sides.pop())
        if len(weight) >= MIN_CHANNELS and len(weight) % 8 == 0:
            self._note_fresh(y)
        return True

    def _activation(self, node: NodeProto) -> bool:
        x, y = node.input[0], node.output[0]
        if x in self.fresh:
            self._copy(node)  # the convolution does it
            self._note_fresh(y)
        elif (rows := self.rows.get(x)) is not None:
            self.rows[y] = replace(rows, name=self._like(node, [rows.name]))
        else:
            return False
        self.sizes[y] = self._size(x)
        return True

    def _arithmetic(self, node: NodeProto) -> bool:
        y = node.output[0]
        if node.op_type in ("Add", "Mul") and all(x in self.fresh or self._is_folded(x, node) for x in node.input):
            self._copy(node)  # a convolution does it
            self._note_fresh(y)
            self._same_size(y, [x for x in node.input if x in self.fresh])
            return True
        rows = next((rows for x in node.input if (rows := self._found(x)) is not None), None)
        if rows is None:
            self._note_product(node)
            return False
        made = self._by_lines(node, rows) or self._by_rows(node, rows)
        if made is None:
            return False
        if made.blocks:
            self.sizes[y] = made.size
        else:
            self._same_size(y, [x for x in node.input if x in self.rows])
        self.rows[y] = replace(made, size=self._size(y))
        return True

    def _is_folded(self, x: str, node: NodeProto) -> bool:
        """Whether ``x`` are numbers that go into the weights of the convolution before ``node``."""
        makers = [self.facts.makers.get(other) for other in node.input if other != x]
        if [maker.op_type for maker in makers if maker is not None] != ["Conv"]:
            return False
        return x in self.facts.constants and (self.facts.constants[x].size == 1 or self.facts.is_vector(x))

    def _same_size(self, y: str, given: Sequence[str]) -> None:
        """Of the size of those it is made from, if they have one; a smaller one may have been repeated."""
        sizes = {self._size(x) for x in given}
        if len(sizes) == 1:
            self.sizes[y] = sizes.pop()

    def _by_lines(self, node: NodeProto, rows: _Rows) -> _Rows | None:
        """Short rows and one number a channel: lines of the picture and these numbers, repeated for a line."""
        vectors = [x for x in node.input if self.facts.is_vector(x, rows.channels)]
        if len(vectors) != 1 or rows.channels >= LONG_CHANNELS:
            return None
        height, width = self._sides(rows)
        shape = self._once((rows.size, rows.blocks, "lines"), lambda: self._lines(height))
        lines = self._emit("Reshape", rows.name, shape)
        places = self._emit("Mul", width, self._ints(4)) if rows.blocks else width
        repeated = self._emit("Concat", self._ints(1, 1), places, self._ints(1), axis=0)
        line = self._emit("Expand", self._one_row(vectors[0], blocks=False), repeated)
        line = self._emit("Reshape", line, self._ints(0, 1, -1))
        made = self._like(node, [line if x == vectors[0] else lines for x in node.input])
        shape = self._ints(0, -1, rows.channels) if rows.blocks else self._ints(0, 0, -1, rows.channels)
        return replace(rows, name=self._emit("Reshape", made, shape))

    def _lines(self, height: str) -> str:
        return self._emit("Concat", self._ints(0), height, self._ints(-1), axis=0)

    def _by_rows(self, node: NodeProto, rows: _Rows) -> _Rows | None:
        operands = [self._operand(x, rows, blocks=rows.blocks) for x in node.input]
        if rows.blocks and None in operands:
            rows = self._in_order(node.input[operands.index(rows.name)], rows)
            operands = [self._operand(x, rows, blocks=False) for x in node.input]
        known = [each for each in operands if each is not None]
        return replace(rows, name=self._like(node, known)) if len(known) == len(operands) else None

    def _operand(self, x: str, beside: _Rows, *, blocks: bool) -> str | None:
        """``x`` as it goes with rows: a single number, one row for all pixels, or rows of the same kind."""
        constant = self.facts.constants.get(x)
        if constant is not None and constant.size == 1 and constant.ndim <= 4:
            return self._constant(constant.reshape(()))
        if self.facts.is_vector(x, beside.channels):
            return self._once((x, blocks), lambda: self._one_row(x, blocks=blocks))
        if x in self.products:
            return self._once((x, blocks), lambda: self._product(x, blocks=blocks))
        rows = self._found(x)
        if rows is None or rows.channels != beside.channels or (blocks and not rows.blocks):
            return None
        return rows.name if blocks else self._in_order(x, rows).name

    def _slice(self, node: NodeProto) -> bool:
        x, y = node.input[0], node.output[0]
        axes = self.facts.constants.get(node.input[3]) if len(node.input) > 3 else None
        rows, channels = self._found(x), self.facts.channels(y)
        if rows is None or axes is None or channels is None or any(int(axis) not in _AXES for axis in axes):
            return False
        moved = self._ints(*(_AXES[int(axis)] for axis in axes))
        name = self._like(node, [self._in_order(x, rows).name, *node.input[1:3], moved, *node.input[4:]])
        self.rows[y] = _Rows(name, self._size(y), channels)
        return True

    def _concatenation(self, node: NodeProto) -> bool:
        y, axis = node.output[0], attribute(node, "axis")
        wrapped = self.facts.wrapped(node)
        rows = self._found(wrapped[0]) if wrapped is not None else None
        if wrapped is not None and rows is not None:
            border = wrapped[1]
            name = self._gathered(rows, border)
            self.rows[y] = _Rows(name, replace(rows.size, grown=rows.size.grown + 2 * border), rows.channels)
            self.sizes[y] = self.rows[y].size
            return True
        if axis == 1 and all(x in self.fresh for x in node.input):
            self._copy(node)  # blocks beside blocks
            self._note_fresh(y)
            self.sizes[y] = self._size(node.input[0])
            return True
        channels = self.facts.channels(y)
        known = None not in [self.facts.channels(x) for x in node.input]
        if axis not in _AXES or channels is None or not known or all(self._found(x) is None for x in node.input):
            return False
        parts = [self._rows_of(x) for x in node.input]
        self.sizes[y] = self._size(node.input[0]) if axis == 1 else _Size(y)
        name = self._emit("Concat", *(part.name for part in parts), axis=_AXES[axis])
        self.rows[y] = _Rows(name, self.sizes[y], channels)
        return True

    def _resize(self, node: NodeProto) -> bool:
        x, y = node.input[0], node.output[0]
        scales = self.facts.constants.get(node.input[2]) if len(node.input) == 3 and not node.input[1] else None
        rows = self.rows.get(x) if x not in self.fresh else None
        if rows is None or scales is None or attribute(node, "mode") != b"linear" or list(scales[:2]) != [1, 1]:
            return False
        name = self._like(node, [self._in_order(x, rows).name, "", self._constant(scales[_TO_ROWS])])
        self.rows[y] = _Rows(name, self._size(y), rows.channels)
        return True

    def _doubling(self, node: NodeProto) -> bool:
        """With the convolution's channels in another order, its rows are rows of 2 x 2 pixels."""
        x, y = node.input[0], node.output[0]
        convolution = self.copies.get(x)
        known = attribute(node, "mode") == b"CRD" and attribute(node, "blocksize") == 2
        if not known or x not in self.fresh or convolution is None or convolution.op_type != "Conv":
            return False
        if self.facts.uses[x] > 1 or attribute(convolution, "group") not in (None, 1):
            return False
        given = self.facts.makers[x].input[1:]
        channels = len(self.facts.constants[given[0]]) // 4
        if any(name not in self.facts.constants for name in given) or channels < MIN_CHANNELS // 2:
            return False
        order = np.arange(4 * channels).reshape(channels, 4).T.ravel()
        for position, name in enumerate(given, 1):
            convolution.input[position] = self._constant(self.facts.constants[name][order])
        picture = self._emit("Transpose", x, perm=_TO_ROWS)
        self._once((self._size(y), True, "sides"), lambda: self._measured(picture))
        name = self._emit("Reshape", picture, self._ints(0, -1, channels))
        self.rows[y] = _Rows(name, self._size(y), channels, blocks=True)
        return True

    # Tensors

    def _found(self, x: str) -> _Rows | None:
        """``x`` as rows, if that costs nothing."""
        return self._rows_of(x) if x in self.fresh else self.rows.get(x)

    def _rows_of(self, x: str) -> _Rows:
        """``x``, which has four axes, as rows in order, whatever it costs."""
        rows = self.rows.get(x)
        if rows is None:
            channels = self.facts.channels(x)
            assert channels is not None  # noqa: S101 -- asked before
            rows = self.rows[x] = _Rows(self._emit("Transpose", x, perm=_TO_ROWS), self._size(x), channels)
        return self._in_order(x, rows)

    def _in_order(self, x: str, rows: _Rows) -> _Rows:
        if not rows.blocks:
            return rows
        name = self._once((x, "in order"), lambda: self._gathered(rows, 0))
        return replace(rows, name=name, blocks=False)

    def _make_planes(self, x: str) -> None:
        rows = self.rows.get(x)
        if x not in self.planes and rows is not None:
            self._emit("Transpose", self._in_order(x, rows).name, output=x, perm=_TO_PLANES)
            self.planes.add(x)

    def _note_fresh(self, x: str) -> None:
        if x in self.wanted and self.facts.channels(x) is not None and not self.facts.is_vector(x):
            self.fresh.add(x)

    def _size(self, x: str) -> _Size:
        return self.sizes.setdefault(x, _Size(x))

    # One number a channel, and what noise makes of it

    def _one_row(self, x: str, *, blocks: bool) -> str:
        return self._emit("Reshape", x, self._ints(*(0, 1) if blocks else (0, 1, 1), -1))

    def _note_product(self, node: NodeProto) -> None:
        """A picture of one channel times one number a channel is the product of a column and a row."""
        if node.op_type == "Mul":
            for picture, vector in (node.input, reversed(node.input)):
                if (
                    self.facts.channels(picture) == 1
                    and 1 not in self.facts.shapes[picture][2:]
                    and self.facts.is_vector(vector)
                ):
                    self.products[node.output[0]] = picture, vector

    def _product(self, x: str, *, blocks: bool) -> str:
        picture, vector = self.products[x]
        if blocks:
            column = self._once(("blocks", picture), lambda: self._in_blocks(picture))
        else:
            column = self._once(("column", picture), lambda: self._emit("Transpose", picture, perm=_TO_ROWS))
        return self._emit("MatMul", column, self._one_row(vector, blocks=blocks))

    def _in_blocks(self, picture: str) -> str:
        """(n, 1, 2 h, 2 w) -> (n, 4 h w, 1)."""
        half = self._emit("Div", self._emit("Shape", picture, start=2, end=4), self._ints(2))
        height, width = self._parts(half)
        shape = self._emit("Concat", self._ints(0), height, self._ints(2), width, self._ints(2), axis=0)
        split = self._emit("Reshape", picture, shape)
        return self._emit("Reshape", self._emit("Transpose", split, perm=[0, 1, 3, 2, 4]), self._ints(0, -1, 1))

    # Pictures continued on the torus

    def _gathered(self, rows: _Rows, border: int) -> str:
        """Rows in order, continued by ``border`` pixels: (n, h + 2 border, w + 2 border, channels)."""
        index = self._once((rows.size, rows.blocks, border), lambda: self._index(rows, border))
        flat = rows.name if rows.blocks else self._emit("Reshape", rows.name, self._ints(0, -1, rows.channels))
        return self._emit("Gather", flat, index, axis=1)

    def _index(self, rows: _Rows, border: int) -> str:
        """Which row is which pixel: (h + 2 border, w + 2 border)."""
        height, width = self._sides(rows)
        if rows.blocks:
            two, four = self._ints(2), self._ints(4)
            row, column = (self._places(self._emit("Mul", side, two), border) for side in (height, width))
            (above, lower), (before, right) = (
                (self._emit("Div", place, two), self._emit("Mod", place, two)) for place in (row, column)
            )
            line = self._emit("Mul", width, four)
            row = self._emit("Add", self._emit("Mul", above, line), self._emit("Mul", lower, two))
            column = self._emit("Add", self._emit("Mul", before, four), right)
        else:
            row, column = (self._places(side, border) for side in (height, width))
            row = self._emit("Mul", row, width)
        row, column = self._emit("Unsqueeze", row, self._ints(1)), self._emit("Unsqueeze", column, self._ints(0))
        return self._emit("Add", row, column)

    def _places(self, side: str, border: int) -> str:
        """Where each pixel of a side that is continued comes from."""
        end = self._emit("Squeeze", self._emit("Add", side, self._ints(border)), self._ints(0))
        begin, step = (self._constant(np.array(value, np.int64)) for value in (-border, 1))
        return self._emit("Mod", self._emit("Range", begin, end, step), side)

    def _sides(self, rows: _Rows) -> tuple[str, str]:
        """Height and width; of blocks, how many are below and beside each other."""
        return self._once((rows.size, rows.blocks, "sides"), lambda: self._measured(rows.name))

    def _measured(self, picture: str) -> tuple[str, str]:
        # Not of a Transpose itself: ONNX Runtime would ask what is before it, and make planes for that alone.
        return self._parts(self._emit("Shape", self._emit("Reshape", picture, self._ints(0, 0, 0, -1)), start=1, end=3))

    def _parts(self, pair: str) -> tuple[str, str]:
        first, second = (self._emit("Slice", pair, self._ints(i), self._ints(i + 1)) for i in (0, 1))
        return first, second

    # Writing

    def _copy(self, node: NodeProto) -> None:
        for name in node.input:
            self._make_planes(name)
        self.made.append(_copied(node))
        self.planes.update(node.output)
        self.copies.update(dict.fromkeys(node.output, self.made[-1]))

    def _like(self, node: NodeProto, inputs: Sequence[str]) -> str:
        """A node with the attributes of another."""
        made = _copied(node)
        made.name, made.input[:], made.output[0] = "", inputs, self._name()
        self.made.append(made)
        return made.output[0]

    def _emit(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or self._name()
        self.made.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _name(self) -> str:
        return f"{PREFIX}{len(self.made)}"

    def _once(self, key: object, make: Callable[[], T]) -> T:
        if key not in self.once:
            self.once[key] = make()
        made: T = self.once[key]
        return made

    def _ints(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def _constant(self, values: np.ndarray[Any, Any]) -> str:
        from onnx import numpy_helper

        values = np.ascontiguousarray(values).reshape(values.shape)

        def add() -> str:
            name = f"{PREFIX}constant{len(self.graph.initializer)}"
            self.graph.initializer.append(numpy_helper.from_array(values, name))
            self.planes.add(name)
            return name

        return self._once((values.dtype, values.shape, values.tobytes()), add)

    def _keep_what_is_used(self) -> None:
        used = {output.name for output in self.graph.output}
        kept = []
        for node in reversed(self.made):
            if used.intersection(node.output):
                kept.append(node)
                used.update(node.input)
        constants = [each for each in self.graph.initializer if each.name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(reversed(kept))
        self.graph.initializer.extend(constants)


def _copied(node: NodeProto) -> NodeProto:
    copy = type(node)()
    copy.CopyFrom(node)
    return copy
