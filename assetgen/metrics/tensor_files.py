"""Tensors in files of others: what safetensors checks, and what it leaves to us; torch and safetensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from assetgen import strictjson

LENGTH_BYTES = 8
IN_NUMPY = frozenset([torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128])


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file by the name of each tensor.

    Raises:
        SafetensorError: lengths, offsets, shapes and bytes do not fit each other; the message names the rule.
        ValueError: a name is there twice, of which the library keeps the last, or a value is not finite.
        RuntimeError: an element type that cannot be computed with.
        OSError: the file cannot be read.
    """
    tensors = load_file(path)  # first: after it the header is known to lie within the file and to be small
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        strictjson.loads(file.read(length))
    for name, values in tensors.items():
        if not _finite(values):
            raise ValueError(f"tensor {name!r:.80} holds values that are not finite")
    return tensors


def _finite(values: Tensor) -> bool:
    """By numpy, which takes a hundredth of the time: torch would hand small tensors to threads one by one."""
    if not (values.is_floating_point() or values.is_complex()):
        return True
    if values.dtype not in IN_NUMPY:
        values = values.float()
    return bool(np.isfinite(values.numpy()).all())
