"""The driver's calls, against a driver that writes down what it is asked: order, arguments and refusals."""

import ctypes

import numpy as np
import pytest

from assetgen.errors import InternalError
from assetgen.runtime.cuda_driver import CudaDriver


class Library:
    """Answers every call with 0, or what ``status`` says; hands out host memory."""

    def __init__(self, **status):
        self.status, self.calls, self.memory = status, [], []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, [getattr(argument, "value", argument) for argument in arguments]))
            if name in ("cuMemHostAlloc", "cuMemAlloc_v2"):
                self.memory.append(ctypes.create_string_buffer(arguments[1].value))
                arguments[0]._obj.value = ctypes.addressof(self.memory[-1])
            if name in ("cuStreamCreate", "cuGraphInstantiateWithFlags", "cuDevicePrimaryCtxRetain"):
                arguments[0]._obj.value = 4000 + len(self.calls)
            return self.status.get(name, 0)

        return call

    def names(self):
        return [name for name, _ in self.calls]


def test_the_device_is_taken_and_given_back():
    library = Library()
    CudaDriver(2, library).close()
    assert library.names() == [
        "cuInit",
        "cuDeviceGet",
        "cuDevicePrimaryCtxRetain",
        "cuCtxSetCurrent",
        "cuDevicePrimaryCtxRelease_v2",
    ]
    assert library.calls[1][1][1] == 2


def test_pinned_memory_is_an_array_of_its_shape():
    library = Library()
    driver = CudaDriver(0, library)
    array, address = driver.pinned((2, 3, 4))
    array[:] = np.arange(24).reshape(2, 3, 4)
    assert (array.shape, array.dtype, array.nbytes) == ((2, 3, 4), np.float32, 96)
    assert np.frombuffer(library.memory[-1], np.float32).tolist() == list(range(24))
    driver.unpin(address)
    assert library.calls[-1] == ("cuMemFreeHost", [address])


def test_copies_name_addresses_sizes_and_stream():
    library = Library()
    driver = CudaDriver(0, library)
    address, stream = driver.allocate(12), driver.stream()
    array = np.zeros(3, np.float32)
    driver.upload(address, array, stream)
    assert library.calls[-1] == ("cuMemcpyHtoDAsync_v2", [address, array.ctypes.data, 12, stream])
    driver.download(array, address, stream)
    assert library.calls[-1] == ("cuMemcpyDtoHAsync_v2", [array.ctypes.data, address, 12, stream])
    driver.wait(stream)
    assert library.calls[-1] == ("cuStreamSynchronize", [stream])


def test_a_capture_becomes_a_graph_to_launch():
    library = Library()
    driver = CudaDriver(0, library)
    stream = driver.stream()
    driver.begin_capture(stream)
    graph = driver.end_capture(stream)
    driver.launch(graph, stream)
    driver.destroy_graph(graph)
    assert library.names()[-6:] == [
        "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
        "cuGraphLaunch",
        "cuGraphExecDestroy",
    ]
    assert library.calls[-2][1] == [graph, stream]


@pytest.mark.parametrize("name", ["cuInit", "cuDeviceGet", "cuMemAlloc_v2", "cuStreamCreate"])
def test_every_refusal_names_the_call_and_the_status(name):
    def use():
        driver = CudaDriver(0, Library(**{name: 100}))
        driver.allocate(1)
        driver.stream()

    with pytest.raises(InternalError, match=rf"{name} returned 100"):
        use()
