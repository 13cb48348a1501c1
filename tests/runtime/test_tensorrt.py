"""Sessions of TensorRT against a made-up engine in host memory: what is copied where, captured, freed and refused."""

import ctypes
import threading
import types

import numpy as np
import pytest

from assetgen.errors import Cancelled, ConfigInvalid, InternalError, RuntimeMissing
from assetgen.package import verify_package
from assetgen.runtime import open_session, self_check, tensorrt
from assetgen.runtime.cache import Cache
from assetgen.runtime.cuda import CudaDevice
from assetgen.runtime.engines import TensorRt, profiles_of
from assetgen.runtime.tensorrt import TensorRtSession, open_tensorrt_session
from tests.helpers.tiny_package import tiny_feeds, tiny_manifest, write_tiny_package

GPU = CudaDevice(0, "NVIDIA Test", "8.9", "13.0")
INPUTS = tuple(tiny_feeds())


class Driver:
    """A device whose memory is the host's; counts what is not given back."""

    def __init__(self, index=0):
        self.index, self.held, self.captured, self.noted, self.log, self.count = index, {}, None, {}, [], 0

    def enter(self):
        self.log.append("enter")

    def allocate(self, size_bytes):
        memory = ctypes.create_string_buffer(size_bytes)
        self.held[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def free(self, address):
        del self.held[address]

    unpin = free

    def pinned(self, shape):
        address = self.allocate(4 * int(np.prod(shape)))
        return np.frombuffer(self.held[address], np.float32).reshape(shape), address

    def stream(self):
        self.held["stream"] = True
        return 7

    def destroy_stream(self, stream):
        del self.held["stream"]

    def upload(self, address, array, stream):
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, array, address, stream):
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def wait(self, stream):
        self.log.append("wait")

    def begin_capture(self, stream):
        self.captured = []

    def end_capture(self, stream):
        self.count += 1
        self.noted[self.count], self.captured = self.captured, None
        return self.count

    def launch(self, graph, stream):
        self.log.append("launch")
        for work in self.noted[graph]:
            work()

    def destroy_graph(self, graph):
        del self.noted[graph]

    def close(self):
        self.log.append("closed")


class Engine:
    """Adds up the means of its inputs, one number for every picture of the batch."""

    num_io_tensors = len(INPUTS) + 1

    def get_tensor_name(self, i):
        return (*INPUTS, "height")[i]

    def get_tensor_mode(self, name):
        return "out" if name == "height" else "in"


class Context:
    """Computes at the addresses it is told; a capture notes the work down instead."""

    def __init__(self, driver):
        self.driver, self.shapes, self.addresses, self.profiles, self.refuse = driver, {}, {}, [], ""

    def set_optimization_profile_async(self, index, stream):
        self.profiles.append(index)
        return self.refuse != "profile"

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return self.refuse != "shape"

    def get_tensor_shape(self, name):
        n, _, h, w = self.shapes["grid"]
        return n, 1, h * 16, w * 16

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return self.refuse != "address"

    def execute_async_v3(self, stream):
        assert stream == 7
        addresses, shapes = dict(self.addresses), {**self.shapes, "height": self.get_tensor_shape("height")}

        def at(name):
            count = int(np.prod(shapes[name]))
            return np.ctypeslib.as_array((ctypes.c_float * count).from_address(addresses[name])).reshape(shapes[name])

        def work():
            total = sum(at(name).reshape(len(at(name)), -1).mean(axis=1) for name in INPUTS)
            at("height")[:] = total[:, None, None, None]

        if self.driver.captured is None:
            work()
        else:
            self.driver.captured.append(work)
        return self.refuse != "execute"


def expected(feeds):
    return sum(values.reshape(len(values), -1).mean(axis=1) for values in feeds.values())


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def session(request):
    module = types.SimpleNamespace(TensorIOMode=types.SimpleNamespace(INPUT="in"))
    driver = Driver()
    profiles = profiles_of(tiny_manifest())
    trt = TensorRt(module, request.param, "11.4")
    made = TensorRtSession(trt, Engine(), Context(driver), profiles, driver, "trt/cuda/fp16/x", "cuda:0", "asked for")
    yield made
    made.close()
    assert driver.held == driver.noted == {}, "all memory was given back"
    assert driver.log.count("closed") == 1


@pytest.mark.parametrize(("batch", "cells"), [(1, (2, 2)), (1, (4, 6)), (3, (3, 2))])
def test_what_is_given_is_computed(session, batch, cells):
    for seed in range(3):
        feeds = tiny_feeds(seed, batch, cells)
        found = session.run(feeds)["height"]
        assert found.shape == (batch, 1, cells[0] * 16, cells[1] * 16)
        np.testing.assert_allclose(found[:, 0, 0, 0], expected(feeds), atol=1e-5)


def test_outputs_are_not_those_of_the_next_run(session):
    first = session.run(tiny_feeds(1))["height"]
    kept = first.copy()
    session.run(tiny_feeds(2))
    assert np.array_equal(first, kept)


def test_sizes_in_turn_give_the_same_as_each_alone(session):
    cases = [(seed % 3, 1 + seed % 2, (2 + seed % 5, 3)) for seed in range(24)]  # more sizes than are kept
    for seed, batch, cells in cases:
        feeds = tiny_feeds(seed, batch, cells)
        np.testing.assert_allclose(session.run(feeds)["height"][:, 0, 0, 0], expected(feeds), atol=1e-5)
    assert len(session._sizes) == tensorrt.SIZES_KEPT


def test_the_second_run_of_a_size_is_a_graph_where_tensorrt_makes_none_itself(session):
    for _ in range(3):
        session.run(tiny_feeds())
    assert session._driver.log.count("launch") == (2 if session._captures else 0)


def test_a_batch_takes_the_other_profile(session):
    session.run(tiny_feeds())
    session.run(tiny_feeds(batch=4))
    session.run(tiny_feeds())
    assert session._context.profiles == [1, 0]


def test_shapes_beyond_the_profiles_are_refused(session):
    with pytest.raises(InternalError, match="no profile of the engine holds"):
        session.run(tiny_feeds(batch=9))
    session.run(tiny_feeds())


@pytest.mark.parametrize("change", [{"more": np.zeros(1, np.float32)}, {"z": np.zeros((1, 8), np.float64)}])
def test_wrong_inputs_do_not_break_the_session(session, change):
    before = session.run(tiny_feeds())["height"].tobytes()
    with pytest.raises((InternalError, TypeError)):
        session.run({**tiny_feeds(), **change})
    assert session.run(tiny_feeds())["height"].tobytes() == before


@pytest.mark.parametrize("refusal", ["profile", "shape", "address", "execute"])
def test_every_false_of_tensorrt_is_an_error(session, refusal):
    session.run(tiny_feeds())
    session._context.refuse = refusal
    with pytest.raises(InternalError, match=r"refused|did not run"):
        session.run(tiny_feeds(batch=2))
    session._context.refuse = ""
    np.testing.assert_allclose(session.run(tiny_feeds())["height"][:, 0, 0, 0], expected(tiny_feeds()), atol=1e-5)


def test_waiting_runs_are_stopped_and_only_those(session):
    mine, theirs, found = object(), object(), {}

    def run(owner):
        try:
            found[owner] = session.run(tiny_feeds(), owner=owner)["height"].shape
        except Cancelled:
            found[owner] = "cancelled"

    with session._turn:
        threads = [threading.Thread(target=run, args=(owner,)) for owner in (mine, theirs)]
        for thread in threads:
            thread.start()
        while len(session._calls) < 2:
            pass
        session.terminate(theirs)
    for thread in threads:
        thread.join()
    assert found == {mine: (1, 1, 64, 64), theirs: "cancelled"}


def test_it_runs_by_no_halves_and_not_once_closed(session):
    assert not session.splits
    with pytest.raises(RuntimeError, match="does not split"):
        session.run(tiny_feeds(), half=True)
    self_check(session, tiny_feeds())
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.run(tiny_feeds())


# Opening.


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_package(folder)
    return verify_package(folder)


@pytest.mark.parametrize("device", ["tensorrt:", "tensorrt:x", "tensorrt:fp8", "tensorrt:fp16:0", "tensorrts"])
def test_unknown_devices_are_refused(package, device):
    with pytest.raises(ConfigInvalid, match="use tensorrt or tensorrt:N") as caught:
        open_session(package, device)
    assert caught.value.field == "device"


@pytest.mark.parametrize(("devices", "device"), [([], "tensorrt"), ([GPU], "tensorrt:1")])
def test_nothing_of_tensorrt_is_touched_before_a_device_was_found(package, monkeypatch, devices, device):
    monkeypatch.setattr(tensorrt, "cuda_devices", lambda: (devices, "no NVIDIA driver"))
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: pytest.fail("imported"))
    with pytest.raises(RuntimeMissing, match=r"no device . for TensorRT: (no NVIDIA driver|0 NVIDIA Test)"):
        open_session(package, device)


def test_a_precision_that_the_package_lacks_is_told_first(package, monkeypatch):
    monkeypatch.setattr(tensorrt, "cuda_devices", lambda: pytest.fail("asked"))
    with pytest.raises(ConfigInvalid, match="no graph in fp16"):
        open_session(package, "tensorrt:0:fp16")


class Runtime:
    """Deserialises nothing but ``plan``."""

    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, plan):
        if plan != b"plan":
            return None
        engine = Engine()
        config = types.SimpleNamespace()
        engine.create_runtime_config = lambda: config
        engine.create_execution_context = lambda *given: Context(Runtime.driver)
        return engine


@pytest.fixture
def opened(package, monkeypatch, tmp_path):
    class Logger:
        ERROR = 1

        def __init__(self, level):
            pass

    module = types.SimpleNamespace(
        Logger=Logger,
        Runtime=Runtime,
        TensorIOMode=types.SimpleNamespace(INPUT="in"),
        CudaGraphStrategy=types.SimpleNamespace(WHOLE_GRAPH_CAPTURE=1),
        DynamicShapesKernelSpecializationStrategy=types.SimpleNamespace(EAGER=1),
    )

    def make_driver(index):
        Runtime.driver = Driver(index)
        return Runtime.driver

    monkeypatch.setattr(tensorrt, "cuda_devices", lambda: ([GPU], ""))
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: TensorRt(module, "tensorrt-rtx", "1.7.1"))
    monkeypatch.setattr(tensorrt, "CudaDriver", make_driver)
    cache = Cache(tmp_path / "cache")

    def open_with(plan, built):
        monkeypatch.setattr(tensorrt, "engine_for", lambda *_: (plan, built))
        return open_tensorrt_session(package, "tensorrt", cache)

    return open_with


def test_a_session_names_what_changes_bytes(opened):
    session = opened(b"plan", built=True)
    assert session.backend == "tensorrt-rtx-1.7.1/cuda/fp32/nvidia-test-sm8.9-driver13.0"
    assert session.device == "cuda:0 NVIDIA Test"
    assert "built now" in session.reason
    assert "in the cache" in opened(b"plan", built=False).reason
    np.testing.assert_allclose(session.run(tiny_feeds())["height"][:, 0, 0, 0], expected(tiny_feeds()), atol=1e-5)


def test_an_engine_that_does_not_load_is_told(opened):
    with pytest.raises(RuntimeMissing, match="does not load its own engine"):
        opened(b"other", built=False)
    assert Runtime.driver.log[-1] == "closed"
