"""A small but real style package for tests: an untrained network that wraps; numpy, onnx and the package code only.

The picture is shrunk by 4 and enlarged again around a wrapped convolution, so its stride is 4 and everything wraps.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from assetgen.manifest import ClassSpec, InputSpec, Manifest, OutputMap, ParameterSpec, SizeSpec
from assetgen.package import VerifiedPackage, verify_package, write_manifest
from assetgen.postprocess.decode import MEDIA_TYPES
from tests.helpers.tiny_package import _Graph, _grey_png

LOOKS = ("pixel", "retro")
HALO_PX = 8
IMAGE = ParameterSpec("image", "Picture", "What to repaint.", "image", required=True, media_types=MEDIA_TYPES)
PARAMETERS = (
    IMAGE,
    ParameterSpec("class", "Look", "Where to.", "choice", default=LOOKS[0], values=LOOKS),
    ParameterSpec("strength", "Strength", "How far.", "float", minimum=0.0, maximum=1.0, default=1.0),
    ParameterSpec("tiles", "Tiles", "Whether.", "choice", default="auto", values=("auto", "yes", "no")),
    ParameterSpec("pixel_size", "Pixel size", "Edge.", "int", minimum=1, maximum=16, default=1),
    ParameterSpec("palette", "Colours", "How many.", "int", minimum=0, maximum=256, default=0),
)
RELIEF = (
    ParameterSpec("relief", "Relief", "Strength.", "float", minimum=0.0, maximum=4.0, default=1.0),
    ParameterSpec("roughness_shift", "Rough", "Added.", "float", minimum=-1.0, maximum=1.0, default=0.0),
)
COLOR_MAP = (OutputMap("base_color", "base_color", 3),)
DATA_MAPS = tuple(OutputMap(name, name, 1) for name in ("height", "roughness", "metallic"))


def style_model(outputs: tuple[OutputMap, ...], channels: int = 8) -> onnx.ModelProto:
    """Build the graph; every output depends on the picture and on the class weights."""
    g = _Graph(0)
    style = g.add("Tanh", g.add("MatMul", "class_weights", g.weight(len(LOOKS), channels, gain=3.0)))
    style = g.add("Unsqueeze", style, g.constant([2, 3], np.int64))
    x = g.add("AveragePool", "image", kernel_shape=[4, 4], strides=[4, 4])
    x = g.add("LeakyRelu", g.add("Add", g.conv(x, 3, channels), style), alpha=0.2)
    x = g.upsample(x, 4)
    x = g.add("LeakyRelu", g.conv(g.add("Concat", x, "image", axis=1), channels + 3, channels), alpha=0.2)
    for spec in outputs:
        head = g.add("Conv", x, g.weight(spec.channels, channels, 1, 1, gain=2.0), kernel_shape=[1, 1])
        g.nodes.append(helper.make_node("Sigmoid", [head], [spec.name], name=spec.name))
    f32 = TensorProto.FLOAT
    graph = helper.make_graph(
        g.nodes,
        "style",
        [helper.make_tensor_value_info(spec.name, f32, spec.shape) for spec in style_inputs()],
        [helper.make_tensor_value_info(o.name, f32, ["n", o.channels, "height", "width"]) for o in outputs],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9, producer_name="tests")


def style_inputs() -> tuple[InputSpec, ...]:
    """The manifest's input specs."""
    return (
        InputSpec("image", "image", ("n", 3, "h", "w"), stride_px=1),
        InputSpec("class_weights", "class_weights", ("n", len(LOOKS))),
    )


def style_manifest(id: str = "style", *, maps: bool = False, max_px: int = 256, window_px: int = 0) -> Manifest:
    """The manifest of a model that repaints, or with ``maps`` of one that makes maps of a photo."""
    return Manifest(
        schema=1,
        id=id,
        version="1.0.0",
        kind="style",
        display_name="Style",
        description="An untrained network for tests.",
        license="Apache-2.0",
        graph="generator.onnx",
        inputs=style_inputs(),
        outputs=DATA_MAPS if maps else COLOR_MAP,
        latent_dimension=0,
        classes=(ClassSpec(LOOKS[0], "Pixel", metal=True), ClassSpec(LOOKS[1], "Retro", relief_px=4.0)),
        parameters=(*PARAMETERS[:2], PARAMETERS[3], *RELIEF) if maps else PARAMETERS,
        size=SizeSpec(stride_px=4, min_px=16, max_px=max_px, default_px=64, window_px=window_px, halo_px=HALO_PX),
        files=(),
        tolerance={"fp32": {spec.name: 1e-4 for spec in (DATA_MAPS if maps else COLOR_MAP)}},
    )


def write_style_package(folder: Path, manifest: Manifest, channels: int = 8) -> VerifiedPackage:
    """Write a valid package of ``manifest`` into ``folder / id``; more channels make it slower."""
    folder = folder / manifest.id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifest.graph).write_bytes(style_model(manifest.outputs, channels).SerializeToString())
    (folder / "preview.png").write_bytes(_grey_png(16))
    write_manifest(folder, manifest)
    return verify_package(folder)


def photo(edge_px: int = 64, width_px: int = 0, seed: int = 0) -> NDArray[np.uint8]:
    """Waves and noise that tile, ``[edge, width, 3]``."""
    width_px = width_px or edge_px
    rng = np.random.default_rng(seed)
    rows, columns = (np.arange(size) * 2 * np.pi / size for size in (edge_px, width_px))
    waves = np.sin(2 * rows)[:, None] + np.cos(columns)[None, :]
    color = 128 + 40 * waves[:, :, None] * np.array([1, 0.6, 0.3]) + rng.normal(0, 6, (edge_px, width_px, 3))
    return np.clip(color, 0, 255).astype(np.uint8)


def saved(pixels: NDArray[np.uint8], file_format: str = "PNG", **options: object) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()
