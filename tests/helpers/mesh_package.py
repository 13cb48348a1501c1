"""A small but real mesh package for tests: balls as slices of a distance grid; numpy, onnx and package code only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from assetgen.manifest import ClassSpec, InputSpec, Manifest, OutputMap, ParameterSpec, SizeSpec
from assetgen.package import VerifiedPackage, verify_package, write_manifest
from assetgen.postprocess.slices import atlas_edge, columns_of
from tests.helpers.tiny_package import _Graph, _grey_png

EDGE = 16
ATLAS_PX = atlas_edge(EDGE)
CLASSES = ("ball", "pea")
PARAMETERS = (
    ParameterSpec("class", "Class", "What to make.", "choice", default="ball", values=CLASSES),
    ParameterSpec("preview", "Preview", "Edge of a picture.", "int", minimum=0, maximum=512, default=0),
)


def ball(radius: float) -> np.ndarray:
    """The slices ``[4, atlas, atlas]`` of a ball, its colour by height."""
    axis = np.arange(EDGE) + 0.5
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt((z - 8) ** 2 + (y - 8) ** 2 + (x - 8) ** 2) - radius
    volume = np.stack([np.clip(distance / 6 + 0.5, 0, 1), y / 16, 0 * y + 0.1, 0 * y + 0.2])
    columns = columns_of(EDGE)
    tiles = volume.reshape(4, columns, columns, EDGE, EDGE).transpose(0, 1, 3, 2, 4)
    return tiles.reshape(4, ATLAS_PX, ATLAS_PX)


def write_mesh_package(folder: Path, id: str = "solids") -> VerifiedPackage:
    """Write a valid package into ``folder / id``; z changes nothing but a hair's breadth."""
    g = _Graph(0)
    solids = np.stack([ball(6.0), ball(3.0)]).reshape(2, -1)
    flat = g.add("MatMul", "class_weights", g.constant(solids, np.float32))
    moved = g.add("Add", flat, g.add("Mul", "z", g.constant(1e-6, np.float32)))
    inside = g.add("Clip", moved, g.constant(0.0, np.float32), g.constant(1.0, np.float32))
    shape = g.constant([0, 4, ATLAS_PX, ATLAS_PX], np.int64)
    g.nodes.append(helper.make_node("Reshape", [inside, shape], ["volume"], name="volume"))
    inputs = (InputSpec("z", "latent", ("n", 1)), InputSpec("class_weights", "class_weights", ("n", 2)))
    f32 = TensorProto.FLOAT
    graph = helper.make_graph(
        g.nodes,
        "mesh",
        [helper.make_tensor_value_info(spec.name, f32, spec.shape) for spec in inputs],
        [helper.make_tensor_value_info("volume", f32, ["n", 4, ATLAS_PX, ATLAS_PX])],
        g.weights,
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    manifest = Manifest(
        schema=1,
        id=id,
        version="1.0.0",
        kind="mesh",
        display_name="Solids",
        description="Balls for tests.",
        license="Apache-2.0",
        graph="generator.onnx",
        inputs=inputs,
        outputs=(OutputMap("volume", "volume", 4),),
        latent_dimension=1,
        classes=tuple(ClassSpec(name, name.capitalize()) for name in CLASSES),
        parameters=PARAMETERS,
        size=SizeSpec(ATLAS_PX, ATLAS_PX, ATLAS_PX, ATLAS_PX),
        files=(),
        tolerance={"fp32": {"volume": 1e-4}},
    )
    package = folder / id
    package.mkdir(parents=True, exist_ok=True)
    (package / manifest.graph).write_bytes(model.SerializeToString())
    (package / "preview.png").write_bytes(_grey_png(16))
    write_manifest(package, manifest)
    return verify_package(package)
