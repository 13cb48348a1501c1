"""Sessions of ONNX Runtime: right numbers, equal bytes, stopping, closing, and every way a device can be absent."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import threading
import types
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from assetgen.errors import Cancelled, ConfigInvalid, InternalError, PackageInvalid, RuntimeMissing
from assetgen.package import VerifiedPackage, verify_package
from assetgen.processor import instruction_family, usable_cores
from assetgen.runtime import cuda, open_session, ort, self_check
from assetgen.runtime.cuda import CudaDevice, cuda_devices
from assetgen.runtime.devices import describe_devices
from tests.helpers.tiny_package import digest_of, tiny_feeds, write_tiny_package

SHAPES = {"base_color": 3, "height": 1, "roughness": 1, "metallic": 1}
GPU = CudaDevice(0, "NVIDIA Test", "9.0", "13.0")


@pytest.mark.parametrize(("batch", "cells"), [(1, (4, 4)), (1, (2, 5)), (3, (3, 2))])
def test_computes_what_the_reference_computes(package, batch, cells):
    feeds = tiny_feeds(batch=batch, cells=cells)
    found = open_session(package, "cpu").run(feeds)
    model = onnx.load_from_string(package.read("generator.onnx"))
    wanted = dict(zip(SHAPES, ReferenceEvaluator(model).run(list(SHAPES), feeds), strict=True))
    assert list(found) == list(SHAPES)
    for name, values in found.items():
        assert values.dtype == np.float32
        assert values.shape == (batch, SHAPES[name], cells[0] * 16, cells[1] * 16)
        assert 0 <= values.min() < values.max() <= 1
        np.testing.assert_allclose(values, wanted[name], atol=1e-5)


@pytest.mark.parametrize("cells", [(2, 2), (4, 4), (12, 20)])
def test_rolling_the_inputs_rolls_the_outputs(package, cells):
    feeds = tiny_feeds(cells=cells)
    rolled = {
        **feeds,
        **{name: np.roll(feeds[name], (1, -1), (2, 3)) for name in ("grid", "layout_0")},
        **{name: np.roll(feeds[name], (2, -2), (2, 3)) for name in ("layout_1", "noise_0")},
    }
    session = open_session(package)
    straight, moved = session.run(feeds), session.run(rolled)
    for name, values in straight.items():
        np.testing.assert_allclose(np.roll(values, (16, -16), (2, 3)), moved[name], atol=1e-5)


@pytest.mark.parametrize("name", list(tiny_feeds()))
def test_every_output_depends_on_every_input(package, name):
    session = open_session(package)
    feeds = tiny_feeds()
    before, after = session.run(feeds), session.run({**feeds, name: feeds[name] * np.float32(0.5)})
    for output, values in before.items():
        assert np.abs(values - after[output]).max() > 1e-3


def test_equal_backends_give_equal_bytes(package):
    feeds = tiny_feeds()
    one, two = open_session(package, "cpu", 2), open_session(package, "cpu", 2)
    assert one.backend == two.backend
    assert digest_of(one.run(feeds)) == digest_of(two.run(feeds)) == digest_of(one.run(feeds))


def test_equal_backends_give_equal_bytes_in_another_process(package):
    code = """
import hashlib, sys
from pathlib import Path
from assetgen.package import verify_package
from assetgen.runtime import open_session
from tests.helpers.tiny_package import tiny_feeds
session = open_session(verify_package(Path(sys.argv[1])))
outputs = session.run(tiny_feeds())
print(session.backend, hashlib.sha256(b"".join(v.tobytes() for v in outputs.values())).hexdigest())
"""
    runs = [
        subprocess.run([sys.executable, "-c", code, package.folder], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] != ""


def test_the_backend_names_what_changes_bytes(package):
    one, two = open_session(package, "cpu", 1), open_session(package, "cpu", 2)
    assert one.backend == f"onnxruntime-{onnxruntime.__version__}/cpu/fp32/{instruction_family()}/threads1"
    assert two.backend == one.backend.replace("threads1", "threads2")
    assert (one.device, one.reason) == ("cpu", "asked for")
    assert open_session(package).backend.endswith(f"threads{usable_cores()}")


def test_cores_and_family_are_those_of_this_machine():
    assert 1 <= usable_cores() <= (len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1024)
    assert instruction_family().startswith(sys.platform + "-")


def test_terminate_stops_a_run_and_only_that(wide):
    session = open_session(wide, "cpu")
    large, small = tiny_feeds(cells=(96, 96)), tiny_feeds()
    before = digest_of(session.run(small))
    stop = threading.Event()

    def pester() -> None:  # until it has worked: the run may not have begun at the first call
        while not stop.wait(0.002):
            session.terminate()

    thread = threading.Thread(target=pester)
    thread.start()
    try:
        with pytest.raises(Cancelled):
            session.run(large)
    finally:
        stop.set()
        thread.join()
    assert digest_of(session.run(small)) == before


def test_terminate_without_a_run_does_nothing(package):
    session = open_session(package, "cpu")
    session.terminate()
    session.run(tiny_feeds())


def test_terminate_stops_the_runs_of_one_owner(wide):
    session, mine, theirs = open_session(wide, "cpu", 2), object(), object()
    large = tiny_feeds(cells=(96, 96))
    wanted, found, stop = digest_of(session.run(large)), [], threading.Event()

    def pester() -> None:
        while not stop.wait(0.002):
            session.terminate(theirs)

    def run(owner: object) -> None:
        try:
            found.append((owner, digest_of(session.run(large, half=True, owner=owner))))
        except Cancelled:
            found.append((owner, "cancelled"))

    threads = [threading.Thread(target=run, args=(owner,)) for owner in (mine, theirs)]
    pest = threading.Thread(target=pester)
    for thread in (pest, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    pest.join()
    assert dict(found) == {mine: wanted, theirs: "cancelled"}


@pytest.mark.parametrize("threads", [2, 3])
def test_halves_give_the_bytes_of_the_whole(package, threads):
    session = open_session(package, "cpu", threads)
    assert session.splits
    for cells in ((4, 4), (2, 5), (16, 16)):
        feeds = tiny_feeds(cells=cells)
        assert digest_of(session.run(feeds, half=True)) == digest_of(session.run(feeds))
    session.join()
    assert not session.splits
    with pytest.raises(RuntimeError, match="does not split"):
        session.run(tiny_feeds(), half=True)
    session.run(tiny_feeds())


def test_one_thread_does_not_split(package):
    assert not open_session(package, "cpu", 1).splits


def test_several_threads_may_run_one_session(package):
    session = open_session(package, "cpu")
    wanted = [digest_of(session.run(tiny_feeds(seed))) for seed in range(4)]
    found: dict[int, list[bytes]] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: digest_of(session.run(tiny_feeds(seed)))}))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(4)] == wanted


def test_a_closed_session_does_not_run(package):
    session = open_session(package, "cpu")
    session.close()
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.run(tiny_feeds())


@pytest.mark.parametrize(
    "change",
    [
        {"z": np.zeros((1, 9), np.float32)},
        {"z": np.zeros((1, 8), np.float64)},
        {"grid": np.zeros((1, 8, 3, 4), np.float32)},
        {"more": np.zeros(1, np.float32)},
    ],
)
def test_wrong_inputs_are_a_fault_of_ours_that_does_not_break_the_session(package, change):
    session = open_session(package, "cpu")
    with pytest.raises(InternalError, match="the graph failed"):
        session.run({**tiny_feeds(), **change})
    session.run(tiny_feeds())


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:-1", "cuda:x", "CPU", "cpu\n", "cuda:1000"])
def test_unknown_devices_are_refused(package, device):
    with pytest.raises(ConfigInvalid, match="use auto, cpu, cuda or cuda:N"):
        open_session(package, device)


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_impossible_thread_numbers_are_refused(package, threads):
    with pytest.raises(ConfigInvalid, match="threads"):
        open_session(package, "cpu", threads)


def test_a_graph_changed_after_verification_is_not_loaded(tmp_path):
    write_tiny_package(tmp_path)
    package = verify_package(tmp_path)
    (tmp_path / "generator.onnx").write_bytes((tmp_path / "generator.onnx").read_bytes() + b"\0")
    with pytest.raises(PackageInvalid, match="more than"):
        open_session(package)


def test_a_graph_that_does_not_load_is_an_error_of_ours(package, monkeypatch):
    monkeypatch.setattr(VerifiedPackage, "read", lambda self, name: b"\x08\x09garbage")
    with pytest.raises(PackageInvalid, match="cannot load the graph"):
        open_session(package)


class Drifting:
    """A session whose second run differs, as one runtime's did."""

    backend, device, reason = "drifting", "cpu", ""

    def __init__(self, wrong: float, wrong_half: float = 0.0) -> None:
        self.calls = 0
        self.wrong = wrong
        self.wrong_half = wrong_half
        self.splits = True

    def run(self, inputs: Any, *, half: bool = False, owner: object = None) -> dict[str, Any]:
        self.calls += 1
        return {"y": np.float32([1, self.wrong_half if half else self.wrong if self.calls == 3 else 0])}

    def join(self) -> None:
        self.splits = False

    def terminate(self, owner: object = None) -> None: ...

    def close(self) -> None: ...


def test_self_check_passes_a_sound_session(package):
    self_check(open_session(package), tiny_feeds())


@pytest.mark.parametrize("wrong", [1e-7, -0.0, np.nan])
def test_self_check_finds_a_third_run_that_differs(wrong):
    with pytest.raises(InternalError, match="run 3 of the same inputs gave another 'y'"):
        self_check(Drifting(wrong), {})


@pytest.mark.parametrize("wrong_half", [0.0, 1e-7, -0.0])
def test_a_session_whose_half_gives_other_bytes_splits_no_more(wrong_half):
    session = Drifting(0.0, wrong_half)
    self_check(session, {})
    assert session.splits is (np.float32(wrong_half).tobytes() == np.float32(0).tobytes())


def test_self_check_finds_values_that_are_not_finite(package):
    feeds = tiny_feeds()
    feeds["z"][0, 0] = np.nan
    with pytest.raises(InternalError, match="not finite"):
        self_check(open_session(package), feeds)


def with_distributions(monkeypatch, **versions: str) -> None:
    def version(name: str) -> str:
        try:
            return versions[name.replace("-", "_")]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_two_distributions_are_refused_with_the_repair(package, monkeypatch):
    with_distributions(monkeypatch, onnxruntime="1.31.1", onnxruntime_gpu="1.31.1")
    with pytest.raises(RuntimeMissing, match="onnxruntime and onnxruntime-gpu are installed together") as caught:
        open_session(package)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in caught.value.hint
    report = describe_devices(package)
    assert (report.chosen, report.reason, report.hint) == ("", caught.value.message, caught.value.hint)


def without_onnxruntime(monkeypatch) -> None:
    real = importlib.import_module

    def missing(name: str, *rest: Any) -> types.ModuleType:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)


def test_no_distribution_names_the_extra(package, monkeypatch):
    with_distributions(monkeypatch)
    without_onnxruntime(monkeypatch)
    with pytest.raises(RuntimeMissing, match="is not installed") as caught:
        open_session(package)
    assert "pip install 'assetgen[cpu]'" in caught.value.hint
    assert describe_devices().chosen == ""


def test_a_distribution_that_does_not_load_is_to_be_reinstalled(package, monkeypatch):
    with_distributions(monkeypatch, onnxruntime="1.31.1")
    without_onnxruntime(monkeypatch)
    with pytest.raises(RuntimeMissing, match="does not load") as caught:
        open_session(package)
    assert "--force-reinstall --no-deps onnxruntime" in caught.value.hint


def test_what_is_left_of_a_removed_distribution_is_recognised(package, monkeypatch):
    with_distributions(monkeypatch, onnxruntime_gpu="1.31.1")
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(RuntimeMissing, match="its files are gone") as caught:
        open_session(package)
    assert "onnxruntime-gpu" in caught.value.hint


def test_nobody_is_told_what_is_run(package, tmp_path):
    code = """
import sys
from pathlib import Path
from assetgen.package import verify_package
from assetgen.runtime import open_session
open_session(verify_package(Path(sys.argv[1])), "cpu").close()
"""
    told = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI")  # in the last it is quiet, too
    env = {name: value for name, value in os.environ.items() if name not in told}
    env |= {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, package.folder], env=env, check=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "a number for this machine, or events to send"


needs_cpu_wheel = pytest.mark.skipif(
    "onnxruntime" not in ort.installed_distributions(), reason="about the CPU wheel; another is installed"
)


@needs_cpu_wheel
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_asked_of_the_cpu_wheel_is_refused(package, device):
    with pytest.raises(RuntimeMissing, match="has no CUDA") as caught:
        open_session(package, device)
    assert "assetgen[cuda]" in caught.value.hint


@needs_cpu_wheel
def test_auto_takes_the_cpu_and_says_why(package):
    session = open_session(package, "auto")
    assert (session.device, session.reason) == ("cpu", "the installed onnxruntime has no CUDA")


def pretend_cuda(monkeypatch, devices: list[CudaDevice], problem: str = "") -> None:
    """Make the CPU wheel claim CUDA, as the GPU wheel does on every machine, and the driver report these devices."""
    module = ort.import_onnxruntime()
    claimed = [ort.CUDA_PROVIDER, ort.CPU_PROVIDER]
    monkeypatch.setattr(module, "get_available_providers", lambda: claimed)
    monkeypatch.setattr(module, "preload_dlls", lambda: None)
    monkeypatch.setattr(ort, "cuda_devices", lambda: (devices, problem))


@needs_cpu_wheel
def test_a_claimed_provider_without_a_driver_is_not_believed(package, monkeypatch):
    pretend_cuda(monkeypatch, [], "no NVIDIA driver")
    with pytest.raises(RuntimeMissing, match="there is no device cuda:0: no NVIDIA driver"):
        open_session(package, "cuda")
    assert open_session(package, "auto").reason == "no NVIDIA driver"


@needs_cpu_wheel
def test_a_device_beyond_the_last_is_refused(package, monkeypatch):
    pretend_cuda(monkeypatch, [GPU])
    with pytest.raises(RuntimeMissing, match="there is no device cuda:1: cuda:0 NVIDIA Test"):
        open_session(package, "cuda:1")


@needs_cpu_wheel
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_a_session_that_silently_fell_back_to_the_cpu_is_refused(package, monkeypatch, caplog):
    """The trap itself: ONNX Runtime is asked for CUDA, opens, and would compute on the CPU."""
    pretend_cuda(monkeypatch, [GPU])
    with pytest.raises(RuntimeMissing, match="cuda:0 NVIDIA Test does not open") as caught:
        open_session(package, "cuda")
    assert "assetgen[cuda]" in caught.value.hint
    session = open_session(package, "auto")
    assert session.device == "cpu"
    assert session.reason.startswith("CUDA does not open: cuda:0 NVIDIA Test")
    assert "running on the CPU" in caplog.text


@needs_cpu_wheel
@pytest.mark.parametrize(("precision", "allowed"), [("fp32", "0"), ("fp16", "1")])
def test_convolutions_may_use_tensor_cores_unless_they_are_fp32(package, monkeypatch, precision, allowed):
    """ONNX Runtime takes them all off the tensor cores where TF32 is not allowed, and finds no kernel for halves."""
    pretend_cuda(monkeypatch, [GPU])
    module, asked = ort.import_onnxruntime(), []

    class Recorded(module.InferenceSession):
        def __init__(self, *told: Any, providers: Any, **more: Any) -> None:
            asked.extend(options["use_tf32"] for _, options in providers)
            super().__init__(*told, providers=[ort.CPU_PROVIDER], **more)

    monkeypatch.setattr(module, "InferenceSession", Recorded)
    with pytest.raises(RuntimeMissing, match="does not open"):
        ort._open_cuda(module, package.read_graph("fp32"), package, 0, "", precision)
    assert set(asked) == {allowed}


def test_the_driver_is_asked_without_crashing():
    devices, problem = cuda_devices()
    assert bool(devices) != bool(problem)


def test_no_driver_library_is_no_device(monkeypatch):
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(cuda.ctypes, "CDLL", absent)
    assert cuda_devices() == (
        [],
        f"no NVIDIA driver ({'nvcuda.dll' if sys.platform == 'win32' else 'libcuda.so.1'} cannot be loaded)",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="builds a shared library with the C compiler")
@pytest.mark.parametrize(("status", "count"), [(0, 2), (0, 0), (100, 0)])
def test_the_driver_is_asked_by_its_real_calling_convention(tmp_path, monkeypatch, status, count):
    """A shared library with the driver's signatures, compiled here, stands in for libcuda."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    source = tmp_path / "cuda.c"
    source.write_text(
        f"""#include <string.h>
int cuInit(unsigned flags) {{ return {status}; }}
int cuDeviceGetCount(int *count) {{ *count = {count}; return 0; }}
int cuDriverGetVersion(int *version) {{ *version = 13020; return 0; }}
int cuDeviceGet(int *device, int index) {{ *device = 40 + index; return 0; }}
int cuDeviceGetName(char *name, int length, int device) {{ strncpy(name, "Test GPU", length); return device < 40; }}
int cuDeviceGetAttribute(int *value, int what, int device) {{ *value = what == 75 ? 9 : 0; return device < 40; }}
""",
        encoding="ascii",
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True)
    real = cuda.ctypes.CDLL
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: real(str(tmp_path / "libcuda.so.1")))
    devices, problem = cuda_devices()
    assert devices == [CudaDevice(index, "Test GPU", "9.0", "13.2") for index in range(count)]
    assert ("cuInit returned 100" in problem) == (status == 100)


def test_doctor_reports_the_device_that_is_really_used(package):
    report = describe_devices(package)
    assert report.tested
    assert report.chosen == open_session(package).device
    assert report.cores == usable_cores()
    assert list(report.installed) == list(ort.installed_distributions())


@pytest.mark.gpu
def test_cuda_computes_what_the_cpu_computes(package):
    if ort.CUDA_PROVIDER not in ort.import_onnxruntime().get_available_providers() or not cuda_devices()[0]:
        pytest.skip("NO GPU: CUDA was not tested")
    feeds = tiny_feeds(cells=(8, 8))
    session = open_session(package, "cuda")
    self_check(session, feeds)
    again = open_session(package, "cuda:0")
    assert session.backend == again.backend
    assert digest_of(session.run(feeds)) == digest_of(again.run(feeds))
    cpu = open_session(package, "cpu").run(feeds)
    for name, values in session.run(feeds).items():
        np.testing.assert_allclose(values, cpu[name], atol=1e-4)
