"""A small but real model package for tests: an untrained tileable generator; numpy, onnx and the package code only.

The graph obeys the contract of a texture model in full: every output depends on every input, everything wraps, and
rolling the spatial inputs rolls the outputs. Its weights are random numbers fixed by ``weight_seed``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from assetgen.manifest import (
    LAYOUT_CHANNELS,
    ClassSpec,
    InputSpec,
    LayoutSpec,
    Manifest,
    OutputMap,
    ParameterSpec,
    SizeSpec,
)
from assetgen.package import write_manifest

LATENT_DIMENSION = 8
CLASSES = ("clay", "steel")
GRID_CHANNELS = 2
GRID_STRIDE_PX = 16
NOISE_STRIDE_PX = 8
OUTPUTS = (("base_color", 3), ("height", 1), ("roughness", 1), ("metallic", 1))


class _Graph:
    """Collects nodes and weights; each method adds an operation and returns the name of its result."""

    def __init__(self, weight_seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(weight_seed)

    def constant(self, values: object, dtype: type[np.generic]) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        fan_in = int(np.prod(shape[1:]))
        values: NDArray[np.float64] = self.rng.standard_normal(shape) * gain / np.sqrt(fan_in)
        return self.constant(values, np.float32)

    def add(self, op_type: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"{op_type}_{name}", **attributes))
        return name

    def wrap(self, x: str) -> str:
        """Pad rows and columns by one cell from the other side."""
        for axis in (2, 3):
            axes = self.constant([axis], np.int64)
            last = self.add("Slice", x, self.constant([-1], np.int64), self.constant([2**31 - 1], np.int64), axes)
            first = self.add("Slice", x, self.constant([0], np.int64), self.constant([1], np.int64), axes)
            x = self.add("Concat", last, x, first, axis=axis)
        return x

    def conv(self, x: str, channels_in: int, channels_out: int) -> str:
        bias = self.constant(self.rng.standard_normal(channels_out) * 0.1, np.float32)
        return self.add("Conv", self.wrap(x), self.weight(channels_out, channels_in, 3, 3), bias, kernel_shape=[3, 3])

    def upsample(self, x: str, factor: int) -> str:
        """Enlarge bilinearly on the torus: wrap, enlarge, cut the wrapped border off."""
        scales = self.constant([1, 1, factor, factor], np.float32)
        large = self.add("Resize", self.wrap(x), "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
        starts, ends = (self.constant([factor, factor], np.int64), self.constant([-factor, -factor], np.int64))
        return self.add("Slice", large, starts, ends, self.constant([2, 3], np.int64))


def tiny_model(weight_seed: int = 0, channels: int = 8) -> onnx.ModelProto:
    """Build the graph: two wrapped convolutions at 16 and 8 px a cell, one at 4 px, then 1x1 heads at 1 px."""
    g = _Graph(weight_seed)
    scaled = g.add("Mul", "z", "truncation")
    features = g.add("Concat", scaled, "class_weights", axis=1)
    style = g.add("Tanh", g.add("MatMul", features, g.weight(LATENT_DIMENSION + len(CLASSES), channels, gain=2.0)))
    style = g.add("Unsqueeze", style, g.constant([2, 3], np.int64))

    start = g.add("Concat", "grid", "layout_0", axis=1)
    x = g.conv(start, GRID_CHANNELS + LAYOUT_CHANNELS, channels)
    x = g.add("LeakyRelu", g.add("Add", g.add("Mul", x, style), style), alpha=0.2)
    x = g.upsample(x, GRID_STRIDE_PX // NOISE_STRIDE_PX)
    x = g.add("Add", x, g.add("Mul", "noise_0", g.constant(0.2, np.float32)))
    x = g.add("Concat", x, "layout_1", axis=1)
    x = g.add("LeakyRelu", g.conv(x, channels + LAYOUT_CHANNELS, channels), alpha=0.2)
    x = g.upsample(x, 2)
    x = g.add("LeakyRelu", g.conv(x, channels, channels), alpha=0.2)
    x = g.upsample(x, NOISE_STRIDE_PX // 2)
    for name, count in OUTPUTS:
        head = g.add("Conv", x, g.weight(count, channels, 1, 1, gain=2.0), kernel_shape=[1, 1])
        g.nodes.append(helper.make_node("Sigmoid", [head], [name], name=name))

    f32 = TensorProto.FLOAT
    graph = helper.make_graph(
        g.nodes,
        "tiny",
        [helper.make_tensor_value_info(spec.name, f32, spec.shape) for spec in tiny_inputs()],
        [helper.make_tensor_value_info(name, f32, ["n", count, "height", "width"]) for name, count in OUTPUTS],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9, producer_name="tests")


def tiny_inputs() -> tuple[InputSpec, ...]:
    """The manifest's input specs, in graph order."""
    return (
        InputSpec("z", "latent", ("n", LATENT_DIMENSION)),
        InputSpec("class_weights", "class_weights", ("n", len(CLASSES))),
        InputSpec("truncation", "truncation", ("n", 1)),
        InputSpec("grid", "grid", ("n", GRID_CHANNELS, "h", "w"), stride_px=GRID_STRIDE_PX),
        InputSpec("layout_0", "layout", ("n", LAYOUT_CHANNELS, "h", "w"), stride_px=GRID_STRIDE_PX),
        InputSpec("layout_1", "layout", ("n", LAYOUT_CHANNELS, "h0", "w0"), stride_px=NOISE_STRIDE_PX),
        InputSpec("noise_0", "noise", ("n", 1, "h0", "w0"), stride_px=NOISE_STRIDE_PX),
    )


def tiny_manifest(id: str = "tiny", max_px: int = 1024) -> Manifest:
    """The manifest that describes ``tiny_model``, without files."""
    return Manifest(
        schema=1,
        id=id,
        version="1.0.0",
        kind="texture",
        display_name="Tiny",
        description="An untrained generator for tests.",
        license="Apache-2.0",
        graph="generator.onnx",
        inputs=tiny_inputs(),
        outputs=tuple(OutputMap(name, name, count) for name, count in OUTPUTS),
        latent_dimension=LATENT_DIMENSION,
        classes=(
            ClassSpec("clay", "Clay", layout=LayoutSpec(pitch=(2.0, 4.0), turned=0.0)),
            ClassSpec("steel", "Steel", relief_px=4.0, metal=True),
        ),
        parameters=(
            ParameterSpec("class", "Material", "What to make.", "choice", default="clay", values=CLASSES),
            ParameterSpec("truncation", "Variety", "0 is typical.", "float", minimum=0.0, maximum=1.0, default=0.7),
        ),
        size=SizeSpec(stride_px=GRID_STRIDE_PX, min_px=32, max_px=max_px, default_px=64),
        files=(),
        provenance={"data": [], "seed": 0},
        tolerance={"fp32": {name: 1e-4 for name, _ in OUTPUTS}},
    )


def write_tiny_package(
    folder: Path, id: str = "tiny", *, weight_seed: int = 0, max_px: int = 1024, channels: int = 8
) -> str:
    """Write a valid package into ``folder`` itself, made if absent, and return its digest in hex.

    Args:
        folder: becomes the package folder; give ``models / id`` for a folder of packages.
        weight_seed: other seeds give other weights, so other digests.
        max_px: largest edge the manifest allows.
        channels: width of the network; more make it slower, for tests of cancelling.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = tiny_manifest(id, max_px)
    (folder / manifest.graph).write_bytes(tiny_model(weight_seed, channels).SerializeToString())
    (folder / "preview.png").write_bytes(_grey_png(16))
    (folder / "LICENSE").write_text("Apache-2.0, see https://www.apache.org/licenses/LICENSE-2.0\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text("# Tiny\n\nRandom weights, for tests.\n", encoding="utf-8")
    return write_manifest(folder, manifest)


def tiny_feeds(seed: int = 0, batch: int = 1, cells: tuple[int, int] = (4, 4)) -> dict[str, NDArray[np.float32]]:
    """Random inputs for ``tiny_model`` at ``cells`` (rows, columns) of 16 px."""
    rng = np.random.default_rng(seed)
    rows, columns = cells
    factor = GRID_STRIDE_PX // NOISE_STRIDE_PX
    return {
        "z": rng.standard_normal((batch, LATENT_DIMENSION), dtype=np.float32),
        "class_weights": np.tile(np.float32([0.25, 0.75]), (batch, 1)),
        "truncation": np.full((batch, 1), 0.7, np.float32),
        "grid": rng.standard_normal((batch, GRID_CHANNELS, rows, columns), dtype=np.float32),
        "layout_0": rng.standard_normal((batch, LAYOUT_CHANNELS, rows, columns), dtype=np.float32),
        "layout_1": rng.standard_normal((batch, LAYOUT_CHANNELS, rows * factor, columns * factor), dtype=np.float32),
        "noise_0": rng.standard_normal((batch, 1, rows * factor, columns * factor), dtype=np.float32),
    }


def _grey_png(edge_px: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", edge_px, edge_px, 8, 0, 0, 0, 0)
    rows = (b"\0" + b"\x80" * edge_px) * edge_px
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def digest_of(values: Mapping[str, Any]) -> list[bytes]:
    """What outputs are compared by."""
    return [array.tobytes() for array in values.values()]
