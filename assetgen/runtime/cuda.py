"""Which CUDA devices the driver knows, asked of the driver itself; standard library only.

ONNX Runtime names CUDA as available without a driver, and TensorRT's runtime may crash without a device, so the driver
is asked first.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

_MAJOR_ATTRIBUTE, _MINOR_ATTRIBUTE = 75, 76


@dataclass(frozen=True)
class CudaDevice:
    """One GPU.

    Attributes:
        index: number for ``cuda:N``, after CUDA_VISIBLE_DEVICES.
        capability: compute capability, such as ``9.0``.
        driver: newest CUDA version the driver supports, such as ``13.0``.
    """

    index: int
    name: str
    capability: str
    driver: str


def cuda_devices() -> tuple[list[CudaDevice], str]:
    """The GPUs, and when there is none why."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return [], f"no NVIDIA driver ({library} cannot be loaded)"
    status = cuda.cuInit(0)
    if status:
        return [], f"the NVIDIA driver reports no usable device (cuInit returned {status})"
    count, version = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDeviceGetCount(ctypes.byref(count)) or cuda.cuDriverGetVersion(ctypes.byref(version)):
        return [], "the NVIDIA driver does not answer"
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    devices = [_describe(cuda, index, driver) for index in range(count.value)]
    return devices, "" if devices else "the NVIDIA driver sees no device (is CUDA_VISIBLE_DEVICES empty?)"


def _describe(cuda: ctypes.CDLL, index: int, driver: str) -> CudaDevice:
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    failed = (
        cuda.cuDeviceGet(ctypes.byref(handle), index)
        or cuda.cuDeviceGetName(name, len(name), handle)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR_ATTRIBUTE, handle)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR_ATTRIBUTE, handle)
    )
    if failed:
        return CudaDevice(index, "unknown", "0.0", driver)
    return CudaDevice(index, name.value.decode("utf-8", "replace"), f"{major.value}.{minor.value}", driver)
