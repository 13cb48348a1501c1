"""What every figure starts from: pictures ``[n, h, w, 3]`` uint8, checked, as tensors or grey; numpy and torch."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assetgen import check
from assetgen.types import FloatArray

ByteArray: TypeAlias = NDArray[np.uint8]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def tensor_of(pictures: ByteArray) -> Tensor:
    """Pictures as ``[n, 3, h, w]`` in [-1, 1]; raises ValueError for another shape or type."""
    _check(pictures)
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def grey_of(pictures: ByteArray) -> FloatArray:
    """Luma ``[n, h, w]`` in [0, 1] (ITU-R BT.601); raises ValueError for another shape or type."""
    _check(pictures)
    grey: FloatArray = (pictures.astype(np.float32) @ LUMA) / np.float32(255)
    return grey


def shrunk(pictures: ByteArray, scale: int) -> ByteArray:
    """Means over ``scale`` x ``scale`` pixels; raises ValueError if it does not divide the edges."""
    n, height, width, channels = pictures.shape
    if scale < 1 or height % scale or width % scale:
        raise ValueError(f"scale {scale} does not divide {width} x {height} px")
    blocks = pictures.reshape(n, height // scale, scale, width // scale, scale, channels)
    means: ByteArray = np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)
    return means


def check_pair(fakes: ByteArray, reals: ByteArray) -> None:
    """Raise ValueError unless both sides hold pictures of one size."""
    _check(fakes)
    check.shape(reals, f"n {fakes.shape[1]} {fakes.shape[2]} 3", "reals")


def _check(pictures: ByteArray) -> None:
    check.shape(pictures, "n h w 3", "pictures")
    if pictures.dtype != np.uint8:
        raise ValueError(f"pictures: got {pictures.dtype}, expected uint8")
    if not len(pictures):
        raise ValueError("pictures: there is none")
