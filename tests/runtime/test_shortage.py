"""Runs that do not fit: told from faults by the runtimes' own words, and by real ones where memory is really short."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from assetgen.errors import InternalError
from assetgen.runtime import openvino
from assetgen.runtime.shortage import shortage
from tests.helpers.tiny_package import tiny_feeds
from tests.runtime import test_tensorrt
from tests.runtime.test_tensorrt import expected

ROOT = Path(__file__).resolve().parents[2]
NODE = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running X node. Name:'{}' Status Message: "
CUDA_CALL = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 onnxruntime::CudaCall "
CUDA_TAIL = " ; GPU=0 ; hostname=h ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/x.cc ; line=9 ; expr={};"

LACKING = [
    # ONNX Runtime 1.32 on the processor, and on CUDA, where the second line is what counts.
    NODE.format("") + "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) "
    "Failed to allocate memory for requested buffer of size 69222400\n",
    NODE.format("c") + "\n/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 "
    "Failed to allocate memory for requested buffer of size 939524096",
    NODE.format("MatMul") + "bad allocation",
    NODE.format("MatMul") + "std::bad_alloc",
    CUDA_CALL + "CUDA failure 2: out of memory" + CUDA_TAIL.format("cudaMalloc((void**)&p, size)"),
    CUDA_CALL + "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED" + CUDA_TAIL.format("cublasCreate(&handle)"),
    CUDA_CALL + "CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED" + CUDA_TAIL.format("cudnnCreate(&handle)"),
    # OpenVINO 2026.4.
    "Exception from src/inference/src/cpp/core.cpp:117:\nException from src/inference/src/dev/plugin.cpp:54:\nCheck "
    "'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\nFailed to allocate 541081600 bytes of memory\n",
    "Exception from src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc\n\n",
    # Ours, of the driver under TensorRT.
    "the NVIDIA driver's cuMemAlloc_v2 returned 2",
]  # fmt: skip
OTHERS = [
    CUDA_CALL + "CUDA failure 700: an illegal memory access was encountered" + CUDA_TAIL.format("cudaMemcpy(a, b, 2)"),
    CUDA_CALL + "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED" + CUDA_TAIL.format("cublasSgemm(h, 2)"),
    CUDA_CALL + "CUDA failure 200: device kernel image is invalid" + CUDA_TAIL.format("cudaGetLastError()"),
    NODE.format("std::bad_alloc, out of memory") + "the dimensions do not fit",
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: z for the following indices",
    "Cannot allocate memory for incompatible descriptors.",
    "the NVIDIA driver's cuMemAlloc_v2 returned 201",
    "the NVIDIA driver's cuGraphLaunch returned 700",
    "",
]


@pytest.mark.parametrize("said", LACKING)
def test_what_runtimes_say_where_memory_is_short_is_told_as_that(said, caplog):
    found = shortage("b/cpu/fp32/x", RuntimeError(said))
    assert isinstance(found, MemoryError)
    assert str(found).startswith("b/cpu/fp32/x: not enough memory: ")
    assert len(str(found)) < 300
    assert "\n" not in str(found)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "b/cpu/fp32/x: not enough memory for a run" in caplog.text


@pytest.mark.parametrize("said", OTHERS)
def test_other_faults_are_not_taken_for_it_whatever_a_node_is_called(said, caplog):
    assert shortage("b", RuntimeError(said)) is None
    assert not caplog.records


def test_a_lack_that_python_told_stays_one():
    assert isinstance(shortage("b", MemoryError()), MemoryError)


# What is given back to glibc is given back to the system, so that it can be seen.
UNMAPS = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072:glibc.malloc.arena_max=1"}
REAL = """
import resource, sys
from pathlib import Path
from assetgen.package import verify_package
from assetgen.runtime import open_session
from tests.helpers.tiny_package import digest_of, tiny_feeds

def held():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

small, middle, large = tiny_feeds(), tiny_feeds(cells=(16, 16)), tiny_feeds(cells=(128, 128))
session = open_session(verify_package(Path(sys.argv[2])), sys.argv[1], 1)
wanted = digest_of(session.run(small))
before, unlimited = held(), resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (before + (200 << 20), unlimited[1]))
for _ in range(3):
    try:
        session.run(large)
        print("it fits")
    except MemoryError as error:
        print("MemoryError:", error)
    print(held() - before >> 20)
    assert digest_of(session.run(small)) == wanted
resource.setrlimit(resource.RLIMIT_AS, unlimited)
fresh = open_session(verify_package(Path(sys.argv[2])), sys.argv[1], 1)
assert digest_of(session.run(middle)) == digest_of(fresh.run(middle))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space of a process")
@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_real_run_that_does_not_fit_costs_itself_only_and_keeps_little(wide, device):
    if device == "openvino" and not openvino.installed_version():
        pytest.skip("OPENVINO NOT TESTED: pip install openvino")
    command = [sys.executable, "-c", REAL, device, str(wide.folder)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | UNMAPS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in said[::2]] == 3 * ["MemoryError"]
    assert all(int(kept_mib) < 64 for kept_mib in said[1::2]), said


session = test_tensorrt.session  # of a made-up engine, which counts what is not given back


class Full:
    """The device has room for so many more pieces; the words are those of ``CudaDriver``."""

    def __init__(self, driver, left):
        self.allocate, self.left = driver.allocate, left

    def __call__(self, size_bytes):
        if not self.left:
            raise InternalError("the NVIDIA driver's cuMemAlloc_v2 returned 2")
        self.left -= 1
        return self.allocate(size_bytes)


@pytest.mark.parametrize("left", [0, 1, 2, 3, 2 * len(tiny_feeds()) + 1])
def test_tensorrt_gives_all_of_a_run_back_that_does_not_fit(session, left, monkeypatch):
    small, large = tiny_feeds(), tiny_feeds(batch=2)
    session.run(small)
    held = set(session._driver.held)
    with monkeypatch.context() as full:
        full.setattr(session._driver, "allocate", Full(session._driver, left))
        with pytest.raises(MemoryError, match="cuMemAlloc_v2 returned 2"):
            session.run(large)
    assert set(session._driver.held) == held
    for feeds in (small, large):
        np.testing.assert_allclose(session.run(feeds)["height"][:, 0, 0, 0], expected(feeds), atol=1e-5)


@pytest.mark.parametrize("session", ["tensorrt"], indirect=True)
def test_tensorrt_does_not_launch_half_a_graph_after_a_run_failed_that_was_captured(session, monkeypatch):
    begin = session._driver.begin_capture

    def refused(stream):
        begin(stream)
        monkeypatch.setattr(session._context, "execute_async_v3", lambda stream: False)

    with monkeypatch.context() as full:
        full.setattr(session._driver, "begin_capture", refused)
        with pytest.raises(InternalError, match="did not run"):
            session.run(tiny_feeds(seed=1))
    monkeypatch.undo()
    for seed in (2, 3):
        feeds = tiny_feeds(seed)
        np.testing.assert_allclose(session.run(feeds)["height"][:, 0, 0, 0], expected(feeds), atol=1e-5)


@pytest.mark.parametrize("session", ["tensorrt"], indirect=True)
def test_tensorrt_goes_on_after_there_was_no_memory_for_a_graph(session, monkeypatch):
    end = session._driver.end_capture

    def refused(stream):
        del session._driver.noted[end(stream)]
        raise InternalError("the NVIDIA driver's cuGraphInstantiateWithFlags returned 2")

    with monkeypatch.context() as full:
        full.setattr(session._driver, "end_capture", refused)
        with pytest.raises(MemoryError):
            session.run(tiny_feeds(seed=1))
    for seed in (2, 3):
        feeds = tiny_feeds(seed)
        np.testing.assert_allclose(session.run(feeds)["height"][:, 0, 0, 0], expected(feeds), atol=1e-5)
