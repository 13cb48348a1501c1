"""TensorRT by ONNX Runtime: a device first, refused by name, never elsewhere than asked; nothing here has a GPU."""

import os
import stat
import types
from dataclasses import replace

import pytest

from assetgen.errors import ConfigInvalid, PackageInvalid, RuntimeMissing
from assetgen.package import verify_package
from assetgen.runtime import open_session, ort, ort_tensorrt
from assetgen.runtime.cache import VARIABLE as CACHE_VARIABLE
from assetgen.runtime.cuda import CudaDevice
from assetgen.runtime.engines import Profile, profiles_of
from tests.helpers.tiny_package import tiny_feeds, tiny_manifest, write_tiny_package

GPU = CudaDevice(0, "NVIDIA Test", "8.9", "13.0")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_package(folder)
    return verify_package(folder)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A driver that reports a GPU, and the CPU wheel claiming TensorRT, as the GPU wheel does on every machine."""
    module = ort.import_onnxruntime()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(ort_tensorrt, "cuda_devices", lambda: ([GPU], ""))
    monkeypatch.setattr(module, "get_available_providers", lambda: [ort_tensorrt.PROVIDER, ort.CPU_PROVIDER])
    monkeypatch.setattr(module, "preload_dlls", lambda: None)
    return tmp_path / "cache"


@pytest.mark.parametrize("device", ["ort-tensorrt:fp8", "ort-tensorrt:", "ort-tensorrtx", "ort-tensorrt:1000"])
def test_unknown_devices_are_refused(package, device):
    with pytest.raises(ConfigInvalid, match="use ort-tensorrt or ort-tensorrt-rtx"):
        open_session(package, device)


def test_precisions_that_the_package_lacks_are_refused(package):
    with pytest.raises(ConfigInvalid, match="no graph in fp16"):
        open_session(package, "ort-tensorrt:0:fp16")


@pytest.mark.parametrize("device", ["ort-tensorrt", "ort-tensorrt-rtx"])
def test_without_a_device_nothing_is_imported_or_written(package, monkeypatch, tmp_path, device):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(ort_tensorrt, "cuda_devices", lambda: ([], "no NVIDIA driver"))
    monkeypatch.setattr(ort_tensorrt, "import_onnxruntime", lambda: pytest.fail("imported before a device was found"))
    with pytest.raises(RuntimeMissing, match=r"there is no device 0 for ort-tensorrt.*: no NVIDIA driver") as error:
        open_session(package, device)
    assert error.value.hint
    assert not (tmp_path / "cache").exists()


def test_a_device_beyond_the_last_is_refused(package, gpu):
    with pytest.raises(RuntimeMissing, match="no device 1 for ort-tensorrt: 0 NVIDIA Test"):
        open_session(package, "ort-tensorrt:1")


def test_a_wheel_without_it_is_refused(package, gpu, monkeypatch):
    monkeypatch.setattr(ort.import_onnxruntime(), "get_available_providers", lambda: [ort.CPU_PROVIDER])
    with pytest.raises(RuntimeMissing, match="has no TensorRT") as error:
        open_session(package, "ort-tensorrt")
    assert "tensorrt-cu13" in error.value.hint


@pytest.mark.filterwarnings("ignore:Specified provider 'TensorrtExecutionProvider'")
def test_a_session_that_silently_opened_elsewhere_is_refused(package, gpu, monkeypatch):
    """The trap itself: ONNX Runtime is asked for TensorRT, opens, and would compute on the processor."""
    plain = types.SimpleNamespace(get_providers=lambda: [ort.CPU_PROVIDER])
    monkeypatch.setattr(ort_tensorrt, "load_graph", lambda *_: plain)
    with pytest.raises(RuntimeMissing, match="ort-tensorrt on NVIDIA Test does not open"):
        open_session(package, "ort-tensorrt")


@pytest.mark.filterwarnings("ignore:Specified provider 'TensorrtExecutionProvider'")
def test_a_graph_that_is_not_taken_whole_is_refused(package, gpu):
    """ONNX Runtime itself says so here: of the providers asked for none is there, and all nodes are left."""
    with pytest.raises(PackageInvalid, match="does not take the whole graph") as error:
        open_session(package, "ort-tensorrt")
    assert "cuda" in error.value.hint


@pytest.mark.filterwarnings("ignore:Specified provider 'TensorrtExecutionProvider'")
def test_what_it_builds_lies_in_a_folder_that_is_the_users_alone(package, gpu):
    with pytest.raises(PackageInvalid):
        open_session(package, "ort-tensorrt")
    (kept,) = gpu.iterdir()
    assert kept.name.startswith("ort-")
    if os.name == "posix":
        assert stat.S_IMODE(kept.stat().st_mode) == 0o700
        kept.chmod(0o777)
        with pytest.raises(ConfigInvalid, match="can be written by others"):
            open_session(package, "ort-tensorrt")


def test_another_gpu_driver_or_precision_has_another_folder(package, gpu, monkeypatch):
    opened = []
    monkeypatch.setattr(ort_tensorrt, "load_graph", lambda *_: pytest.fail("not to be reached"))
    monkeypatch.setattr(ort_tensorrt, "_loaded", lambda *arguments: opened.append(arguments) or _Opened())
    for device in (GPU, replace(GPU, driver="13.1"), replace(GPU, name="NVIDIA Other"), GPU):
        monkeypatch.setattr(ort_tensorrt, "cuda_devices", lambda device=device: ([device], ""))
        open_session(package, "ort-tensorrt").close()
    assert len(list(gpu.iterdir())) == 3
    names = [providers[0][1]["trt_engine_cache_path"] for _, _, _, providers, _, _ in opened]
    assert names[0] == names[3]


class _Opened:
    """A session that opened where it was asked to."""

    def get_providers(self):
        return [ort_tensorrt.PROVIDER]

    def get_inputs(self):
        return []

    get_outputs = get_inputs


def test_the_backend_names_what_changes_bytes(package, gpu, monkeypatch):
    monkeypatch.setattr(ort_tensorrt, "_loaded", lambda *_: _Opened())
    session = open_session(package, "ort-tensorrt:0")
    version = ort.import_onnxruntime().__version__
    assert session.backend == f"ort-tensorrt-{version}/cuda/fp32/nvidia-test-sm8.9-driver13.0"
    assert (session.device, session.splits) == ("cuda:0 NVIDIA Test", False)
    session.close()


def test_shapes_are_told_as_the_providers_read_them(tmp_path):
    profiles = (
        Profile(
            {"z": (1, 8), "grid": (1, 2, 4, 4)},
            {"z": (1, 8), "grid": (1, 2, 8, 8)},
            {"z": (1, 8), "grid": (1, 2, 16, 16)},
        ),
        Profile(
            {"z": (2, 8), "grid": (2, 2, 4, 4)},
            {"z": (8, 8), "grid": (8, 2, 8, 8)},
            {"z": (8, 8), "grid": (8, 2, 9, 9)},
        ),
    )
    options = ort_tensorrt.tensorrt_options(profiles, tmp_path, 1, "fp16")
    assert options["trt_profile_min_shapes"] == "z:1x8,grid:1x2x4x4,z:2x8,grid:2x2x4x4"
    assert options["trt_profile_max_shapes"] == "z:1x8,grid:1x2x16x16,z:8x8,grid:8x2x9x9"
    assert (options["device_id"], options["trt_fp16_enable"], options["trt_int8_enable"]) == ("1", "1", "0")
    assert options["trt_engine_cache_path"] == str(tmp_path)
    rtx = ort_tensorrt.rtx_options(profiles, tmp_path)
    assert rtx["nv_profile_opt_shapes"] == "z:1x8,grid:1x2x8x8,z:8x8,grid:8x2x8x8"
    assert set(map(type, (*options.values(), *rtx.values()))) == {str}


def test_every_input_of_a_model_has_its_shapes(tmp_path):
    options = ort_tensorrt.tensorrt_options(profiles_of(tiny_manifest()), tmp_path, 0, "fp32")
    told = [part.partition(":")[0] for part in options["trt_profile_opt_shapes"].split(",")]
    assert told == [*tiny_feeds(), *tiny_feeds()]


def test_rtx_without_its_package_is_refused(package, gpu, monkeypatch):
    monkeypatch.setattr(ort_tensorrt, "RTX_MODULE", "onnxruntime_ep_that_is_not_there")
    with pytest.raises(RuntimeMissing, match="is not installed") as error:
        open_session(package, "ort-tensorrt-rtx")
    assert "onnxruntime-ep-nv-tensorrt-rtx" in error.value.hint


def test_rtx_that_does_not_load_is_refused(package, gpu, monkeypatch, tmp_path):
    """ONNX Runtime's own answer to a library that is none."""
    module = ort.import_onnxruntime()
    (tmp_path / "plugin.so").write_bytes(b"no library")
    plugin = types.SimpleNamespace(get_library_path=lambda: str(tmp_path / "plugin.so"))
    monkeypatch.setattr(ort_tensorrt.importlib, "import_module", lambda _name: plugin)
    with pytest.raises(RuntimeMissing, match="does not take TensorRT for RTX"):
        ort_tensorrt._rtx_device(module, 0)


def test_rtx_without_a_card_of_its_own_is_refused(monkeypatch):
    module = types.SimpleNamespace(
        register_execution_provider_library=lambda *_: None,
        get_ep_devices=lambda: [types.SimpleNamespace(ep_name="CPUExecutionProvider")],
    )
    plugin = types.SimpleNamespace(get_library_path=lambda: "plugin.so")
    monkeypatch.setattr(ort_tensorrt.importlib, "import_module", lambda _name: plugin)
    with pytest.raises(RuntimeMissing, match="lists 0 devices, number 0 is none of them"):
        ort_tensorrt._rtx_device(module, 0)
