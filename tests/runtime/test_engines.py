"""Engines: graphs of every precision are built by TensorRT for RTX, which needs no GPU; keys, profiles, faults."""

import importlib
import subprocess
import types
from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper

from assetgen.errors import InternalError, PackageInvalid, RuntimeMissing
from assetgen.package import verify_package
from assetgen.runtime import engines
from assetgen.runtime.cache import Cache
from assetgen.runtime.cuda import CudaDevice
from assetgen.runtime.engines import (
    Profile,
    TensorRt,
    build_engine,
    engine_for,
    engine_key,
    import_tensorrt,
    profiles_of,
)
from assetgen.store import bundled_models_folder
from tests.helpers.tiny_package import tiny_manifest, tiny_model

GPU = CudaDevice(0, "NVIDIA Test", "8.9", "13.0")
FAKE = TensorRt(types.ModuleType("fake"), "tensorrt-rtx", "1.7.1")


def installed():
    try:
        return import_tensorrt()
    except RuntimeMissing:
        return None


TENSORRT = installed()
needs_tensorrt = pytest.mark.skipif(TENSORRT is None, reason="TENSORRT NOT TESTED: pip install tensorrt-rtx")


def one_size(manifest, edge_px=64):
    """The quickest to build."""
    single = profiles_of(replace(manifest, size=replace(manifest.size, max_px=edge_px, window_px=0)))[0]
    return (Profile(single.largest, single.largest, single.largest),)


# Exported graphs.


def graphs():
    """Every model that is shipped, and the tiny one."""
    shipped = sorted(bundled_models_folder().iterdir())
    return ["tiny", *(folder.name for folder in shipped if (folder / "manifest.json").is_file())]


@pytest.fixture(params=graphs())
def exported(request):
    if request.param == "tiny":
        return tiny_manifest(), tiny_model()
    package = verify_package(bundled_models_folder() / request.param, allow_hard_links=True)
    return package.manifest, onnx.load_from_string(package.read_graph())


@needs_tensorrt
@pytest.mark.slow
@pytest.mark.timeout(1800)  # ten seconds on two idle cores, minutes on busy ones
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_every_exported_graph_builds(exported, precision):
    precisions = pytest.importorskip("export.precision")
    manifest, model = exported
    if precision == "int8":  # all that could pass the gate, whichever of them do
        names = [node.output[0] for node in pytest.importorskip("export.int8").candidates(model)]
        assert names
        ranges = {name: 8.0 for node in model.graph.node for name in (*node.input, *node.output)}
        model = precisions.quantized_model(model, set(names), ranges)
    elif precision != "fp32":
        nodes = precisions.rounded_nodes(model.graph, precisions.spatial_inputs(manifest.inputs))
        model = precisions.cast_model(model, precision, set(nodes))
    plan, timing = build_engine(model.SerializeToString(), TENSORRT, one_size(manifest), "8.9", model_id=manifest.id)
    assert len(plan) > 100_000
    assert (timing == b"") is (TENSORRT.flavour == "tensorrt-rtx")


@needs_tensorrt
def test_profiles_with_free_sizes_and_batches_build():
    plan, _ = build_engine(tiny_model().SerializeToString(), TENSORRT, profiles_of(tiny_manifest()), "8.9")
    assert len(plan) > 100_000


def dense_model(operator):
    """One node of ``operator`` on pictures."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [value("y", TensorProto.FLOAT, ["n", 1, "h", "w"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()


PLAIN = (Profile(*({"x": (1, 1, 8, 8)},) * 3),)


@needs_tensorrt
def test_an_operator_that_it_does_not_know_is_named():
    with pytest.raises(PackageInvalid, match=r"(?s)builds no engine: .*NoSuchOperator"):
        build_engine(dense_model("NoSuchOperator"), TENSORRT, PLAIN, model_id="odd")


@needs_tensorrt
@pytest.mark.skipif(TENSORRT is not None and TENSORRT.flavour != "tensorrt-rtx", reason="only for RTX has a list")
def test_a_gpu_that_it_does_not_list_is_told():
    with pytest.raises(RuntimeMissing, match=r"does not list compute capability 9\.0") as caught:
        build_engine(dense_model("Abs"), TENSORRT, PLAIN, "9.0")
    assert "cuda" in caught.value.hint


@needs_tensorrt
def test_what_is_no_graph_is_refused():
    with pytest.raises(PackageInvalid, match="builds no engine"):
        build_engine(b"no graph", TENSORRT, PLAIN)


@needs_tensorrt
def test_a_profile_that_does_not_fit_is_refused():
    wrong = (Profile({"x": (2, 1, 8, 8)}, {"x": (1, 1, 8, 8)}, {"x": (2, 1, 8, 8)}),)
    with pytest.raises((PackageInvalid, InternalError)):
        build_engine(dense_model("Abs"), TENSORRT, wrong)


# What needs no TensorRT.


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (subprocess.CompletedProcess([], -11, b"", b"last words\n"), r"status -11\): last words"),
        (subprocess.TimeoutExpired([], 1), "was not done after"),
    ],
)
def test_a_builder_that_dies_or_hangs_is_a_fault_that_is_told(monkeypatch, done, message):
    def run(*_, **__):
        if isinstance(done, Exception):
            raise done
        return done

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(InternalError, match=message):
        build_engine(b"graph", FAKE, PLAIN)


def without(monkeypatch, **modules):
    def imported(name):
        found = modules.get(name, ModuleNotFoundError(name))
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(importlib, "import_module", imported)


def module(version):
    made = types.ModuleType("tensorrt")
    made.__version__ = version
    return made


def test_its_absence_names_the_extra(monkeypatch):
    without(monkeypatch)
    with pytest.raises(RuntimeMissing, match="no TensorRT is installed") as caught:
        import_tensorrt()
    assert "pip install 'assetgen[tensorrt]'" in caught.value.hint


def test_one_that_does_not_load_is_told(monkeypatch):
    without(monkeypatch, tensorrt=ImportError("libnvinfer.so.11: cannot open"))
    with pytest.raises(RuntimeMissing, match=r"does not load: libnvinfer\.so\.11"):
        import_tensorrt()


@pytest.mark.parametrize("version", ["8.6.1", "10.12.0", "", "nightly"])
def test_versions_that_are_too_old_are_refused(monkeypatch, version):
    without(monkeypatch, tensorrt=module(version))
    with pytest.raises(RuntimeMissing, match=r"10\.13 or later is needed"):
        import_tensorrt()


@pytest.mark.parametrize(
    ("name", "version", "flavour"),
    [
        ("tensorrt", "10.13.2", "tensorrt"),
        ("tensorrt", "11.4.0", "tensorrt"),
        ("tensorrt_rtx", "1.7.1", "tensorrt-rtx"),
        ("tensorrt_rtx_bindings", "1.7.1", "tensorrt-rtx"),
    ],
)
def test_what_is_installed_is_taken(monkeypatch, name, version, flavour):
    without(monkeypatch, **{name: module(version)})
    found = import_tensorrt()
    assert (found.flavour, found.version) == (flavour, version)


def test_profiles_hold_what_is_served():
    single, many = profiles_of(tiny_manifest())

    def shapes(batch, cells):
        return {
            "z": (batch, 8), "class_weights": (batch, 2), "truncation": (batch, 1), "grid": (batch, 2, *cells),
            "layout_0": (batch, 8, *cells), "layout_1": (batch, 8, *(2 * c for c in cells)),
            "noise_0": (batch, 1, *(2 * c for c in cells)),
        }  # fmt: skip

    assert single.holds(shapes(1, (2, 64)))
    assert not single.holds(shapes(2, (2, 2)))
    assert not single.holds(shapes(1, (1, 2)))
    assert many.holds(shapes(8, (64, 2)))
    assert not many.holds(shapes(9, (2, 2)))
    assert single.usual["grid"] == (1, 2, 32, 32)


def test_all_that_can_invalidate_an_engine_changes_its_key():
    profiles = profiles_of(tiny_manifest())
    base = (b"graph", FAKE, GPU, "fp16", profiles)
    changes = {
        0: b"other",
        1: replace(FAKE, version="1.8.0"),
        2: replace(GPU, driver="13.1"),
        3: "fp32",
        4: profiles[:1],
    }
    others = [engine_key(*(changes[i] if i == at else part for i, part in enumerate(base))) for at in changes]
    others += [engine_key(b"graph", replace(FAKE, flavour="tensorrt"), GPU, "fp16", profiles)]
    others += [
        engine_key(b"graph", FAKE, device, "fp16", profiles) for device in (replace(GPU, capability="12.0"), None)
    ]
    assert len({engine_key(*base), *others}) == 9
    assert engine_key(*base) == engine_key(*base)


def test_an_engine_is_built_once(monkeypatch, tmp_path):
    built = []

    def build(graph, trt, profiles, capability, timing, model_id):
        built.append((capability, timing))
        return b"plan" + graph, b"times"

    monkeypatch.setattr(engines, "build_engine", build)
    cache = Cache(tmp_path / "cache")
    manifest = tiny_manifest()
    assert engine_for(cache, b"graph", FAKE, GPU, "fp32", manifest) == (b"plangraph", True)
    assert engine_for(cache, b"graph", FAKE, GPU, "fp32", manifest) == (b"plangraph", False)
    assert engine_for(cache, b"other", FAKE, GPU, "fp32", manifest) == (b"planother", True)
    assert built == [("8.9", b""), ("8.9", b"times")], "the second build knows the times of the first"
