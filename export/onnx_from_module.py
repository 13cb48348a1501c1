"""PyTorch to ONNX: one file, free batch, height and width, opset 20; torch and onnx."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from export.graph import OUTPUTS, MaterialGraph
from export.simplify import simplify

# 23 and above turn attention into an operator that TensorRT for RTX refuses; 20 is the exporter's own default.
OPSET = 20
TRACED = (2, 64, 96)  # batch, height and width: all different, so that no free size is mistaken for another


def onnx_from_module(graph: MaterialGraph, path: Path) -> None:
    """Write ``graph`` to ``path``; height and width count grid cells."""
    n = _batch()
    h, w = (torch.export.Dim(name, min=2, max=512) for name in "hw")
    free = []
    for spec in graph.inputs:
        sizes = {0: n}
        if spec.stride_px:
            factor = graph.stride // spec.stride_px
            # The exporter takes no product with 1 for a free size.
            sizes |= {2: factor * h if factor > 1 else h, 3: factor * w if factor > 1 else w}
        free.append(sizes)
    names = [spec.name for spec in graph.inputs]
    _write(graph.baked(), graph.example(*TRACED), names, OUTPUTS, (*free[:4], tuple(free[4:])), path)


def onnx_of_pictures(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    path: Path,
    *,
    named: int = 0,
) -> None:
    """Write a module whose size is fixed, with a free batch only; ``module`` is baked already.

    Args:
        named: how many of the inputs ``forward`` has names for, the others being ``*others``; 0 for all.
    """
    free: tuple[Any, ...] = tuple({0: _batch()} for _ in inputs)
    if 0 < named < len(inputs):
        free = (*free[:named], free[named:])
    _write(module, example, inputs, outputs, free, path)


def onnx_of_images(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    stride_px: int,
    path: Path,
) -> None:
    """Write a module from pictures, its first input, to pictures of the same size; further inputs have no size.

    Args:
        module: its ``forward`` takes the picture and ``*others``; baked already.
        stride_px: heights and widths are multiples of it, two cells or more.
    """
    n = _batch()
    h, w = (stride_px * torch.export.Dim(name, min=2, max=4096 // stride_px + 64) for name in "hw")
    others: tuple[Any, ...] = tuple({0: n} for _ in inputs[1:])
    free = ({0: n, 2: h, 3: w}, others) if others else ({0: n, 2: h, 3: w},)
    _write(module, example, inputs, outputs, free, path)


def _batch() -> Any:
    return torch.export.Dim("n", min=1, max=64)


def _write(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: tuple[Any, ...],
    path: Path,
) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=free,
            verbose=False,
            optimize=False,
        )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    simplify(program.model)
    model = program.model_proto
    _forget_sources(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _forget_sources(model: onnx.ModelProto) -> None:
    """Drop the traces of source files that the exporter attaches: they name folders of this machine."""
    graph = model.graph
    entries: list[Any] = [model, graph, *graph.node, *graph.initializer]
    for entry in [*entries, *graph.value_info, *graph.input, *graph.output]:
        entry.doc_string = ""
        del entry.metadata_props[:]
