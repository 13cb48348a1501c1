"""A small but real sprite package for tests: coloured discs that depend on every input; numpy and onnx only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from assetgen.manifest import ClassSpec, InputSpec, Manifest, OutputMap, ParameterSpec, SizeSpec
from assetgen.package import VerifiedPackage, verify_package, write_manifest
from tests.helpers.tiny_package import _Graph, write_tiny_package

EDGE_PX = 16
LATENT = 6
CLASSES = ("potion", "sword", "gem")
PARAMETERS = (
    ParameterSpec("class", "Class", "What to make.", "choice", default="potion", values=CLASSES),
    ParameterSpec("blend_class", "Second", "What to mix in.", "choice", default="none", values=("none", *CLASSES)),
    ParameterSpec("blend", "Blend", "How much.", "float", minimum=0.0, maximum=1.0, default=0.5),
    ParameterSpec("truncation", "Variety", "0 is typical.", "float", minimum=0.0, maximum=1.0, default=0.8),
    ParameterSpec("size", "Size", "A slider.", "float", minimum=-1.0, maximum=1.0, default=0.0),
    ParameterSpec("palette", "Colours", "0: all.", "int", minimum=0, maximum=64, default=0),
    ParameterSpec("alpha", "Edge", "Soft or hard.", "choice", default="soft", values=("soft", "hard")),
    ParameterSpec("alpha_threshold", "From", "Of hard alpha.", "float", minimum=0.0, maximum=1.0, default=0.5),
    ParameterSpec("trim", "Trim", "Cut.", "choice", default="off", values=("off", "on")),
    ParameterSpec("trim_margin", "Margin", "In pixels.", "int", minimum=0, maximum=16, default=0),
    ParameterSpec("pixel_size", "Pixel size", "Squares.", "int", minimum=1, maximum=8, default=1),
    ParameterSpec("pivot", "Pivot", "Where it stands.", "choice", default="center", values=("center", "bottom", "top")),
    ParameterSpec("sidecar", "Sidecar", "A JSON file.", "choice", default="off", values=("off", "on")),
)


def sprite_model(*, scaled: bool = False) -> onnx.ModelProto:
    """The graph: discs whose size, place and colour depend on z, class and slider; ``scaled``: and on truncation."""
    g = _Graph(0)
    z = g.add("Mul", "z", "truncation") if scaled else "z"
    features = g.add("Concat", z, "class_weights", "size", axis=1)
    count = LATENT + len(CLASSES) + 1
    shape = g.constant([0, 4, EDGE_PX, EDGE_PX], np.int64)
    picture = g.add("Reshape", g.add("MatMul", features, g.weight(count, 4 * EDGE_PX**2, gain=20.0)), shape)
    y, x = np.mgrid[:EDGE_PX, :EDGE_PX] + 0.5 - EDGE_PX / 2
    disc = np.zeros((1, 4, EDGE_PX, EDGE_PX))
    disc[0, 3] = 2.0 * (EDGE_PX * 0.35 - np.hypot(x, y))
    both = g.add("Sigmoid", g.add("Add", picture, g.constant(disc, np.float32)))
    starts, ends = g.constant([3], np.int64), g.constant([4], np.int64)
    alpha = g.add("Slice", both, starts, ends, g.constant([1], np.int64))
    colors = g.add("Slice", both, g.constant([0], np.int64), g.constant([3], np.int64), g.constant([1], np.int64))
    g.nodes.append(helper.make_node("Concat", [g.add("Mul", colors, alpha), alpha], ["sprite"], name="join", axis=1))
    f32 = TensorProto.FLOAT
    graph = helper.make_graph(
        g.nodes,
        "tiny",
        [helper.make_tensor_value_info(spec.name, f32, spec.shape) for spec in sprite_inputs(scaled=scaled)],
        [helper.make_tensor_value_info("sprite", f32, ["n", 4, EDGE_PX, EDGE_PX])],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9, producer_name="tests")


def sprite_inputs(*, scaled: bool = False) -> tuple[InputSpec, ...]:
    """The manifest's input specs, in graph order."""
    own = (
        InputSpec("z", "latent", ("n", LATENT)),
        InputSpec("class_weights", "class_weights", ("n", len(CLASSES))),
        InputSpec("size", "slider", ("n", 1)),
    )
    return (*own, InputSpec("truncation", "truncation", ("n", 1))) if scaled else own


def sprite_manifest(id: str = "items", *, scaled: bool = False) -> Manifest:
    """The manifest that describes ``sprite_model``, without files."""
    return Manifest(
        schema=1,
        id=id,
        version="1.0.0",
        kind="sprite",
        display_name="Items",
        description="Untrained discs for tests.",
        license="Apache-2.0",
        graph="generator.onnx",
        inputs=sprite_inputs(scaled=scaled),
        outputs=(OutputMap("sprite", "sprite", 4),),
        latent_dimension=LATENT,
        classes=tuple(ClassSpec(name, name.capitalize()) for name in CLASSES),
        parameters=PARAMETERS,
        size=SizeSpec(stride_px=EDGE_PX, min_px=EDGE_PX, max_px=EDGE_PX, default_px=EDGE_PX),
        files=(),
        provenance={"data": [], "seed": 0},
        tolerance={"fp32": {"sprite": 1e-4}},
    )


def write_sprites(folder: Path, id: str = "items", *, scaled: bool = False, **changes: object) -> VerifiedPackage:
    """Write a valid package into ``folder / id``; ``changes`` are of its manifest, which need not make sense."""
    write_tiny_package(folder / id, id)
    (folder / id / "generator.onnx").write_bytes(sprite_model(scaled=scaled).SerializeToString())
    write_manifest(folder / id, replace(sprite_manifest(id, scaled=scaled), **changes))
    return verify_package(folder / id)
