"""Memory, streams and graphs of one CUDA device, by the driver's own interface; standard library and numpy only.

TensorRT takes addresses and a stream and brings nothing to make them with; the driver is there wherever it runs.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

from assetgen.errors import InternalError
from assetgen.types import FloatArray

_NON_BLOCKING = 1  # streams that do not wait for the default one
_THREAD_LOCAL = 1  # captures mind the calling thread only
_INVALID_CONTEXT_HINT = "Restart the server; if it happens again, update the driver."


class CudaDriver:
    """One device's primary context; every method makes it current in the calling thread first.

    Args:
        index: as in ``cuda_devices``.
        library: the driver; found by its name if not given.
    """

    def __init__(self, index: int, library: Any | None = None) -> None:
        self._cuda = library or ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        self._call("cuInit", 0)
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._device = device
        self._context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.enter()

    def enter(self) -> None:
        """Make the device current in this thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size_bytes: int) -> int:
        """Address of new memory on the device."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        return address.value

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def pinned(self, shape: tuple[int, ...]) -> tuple[FloatArray, int]:
        """A float32 array in host memory that the device reads by itself, and its address for ``unpin``."""
        address = ctypes.c_void_p()
        count = int(np.prod(shape))
        self._call("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(4 * count), 0)
        if address.value is None:
            raise InternalError("cuMemHostAlloc gave no address", hint=_INVALID_CONTEXT_HINT)
        array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address.value)).reshape(shape)
        return array, address.value

    def unpin(self, address: int) -> None:
        """Give pinned memory back; its array must not be used any more."""
        self._call("cuMemFreeHost", ctypes.c_void_p(address))

    def stream(self) -> int:
        """A new stream."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        return stream.value or 0

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def upload(self, address: int, array: FloatArray, stream: int) -> None:
        """Copy to the device, in the order of the stream."""
        source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, size, ctypes.c_void_p(stream))

    def download(self, array: FloatArray, address: int, stream: int) -> None:
        """Copy from the device, in the order of the stream."""
        target, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", target, ctypes.c_uint64(address), size, ctypes.c_void_p(stream))

    def wait(self, stream: int) -> None:
        """Wait until the stream is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def begin_capture(self, stream: int) -> None:
        """Note down what the stream is given, instead of doing it."""
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """What was noted, ready to launch."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_uint64(0))
        self._call("cuGraphDestroy", graph)
        return ready.value or 0

    def launch(self, graph: int, stream: int) -> None:
        """Do what was noted."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def close(self) -> None:
        """Give the device back."""
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status:
            raise InternalError(f"the NVIDIA driver's {name} returned {status}", hint=_INVALID_CONTEXT_HINT)
