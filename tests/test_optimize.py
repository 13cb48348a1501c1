"""The deploy report: what is measured is what runs, what is absent says so, and what is broken is called so."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from assetgen import cli, optimize
from assetgen.errors import ConfigInvalid, OutputUnwritable, PackageInvalid, PolicyViolated, RuntimeMissing
from assetgen.manifest import PrecisionSpec
from assetgen.package import verify_package, write_manifest
from assetgen.runtime import choice, open_session
from assetgen.runtime.cache import VARIABLE as CACHE_VARIABLE
from export import precisions, triton
from tests.helpers.tiny_package import tiny_manifest, tiny_model, write_tiny_package

PLAN = optimize.Plan(edges_px=(64,), batches=(1, 2), checks=2, cell_s=0.01, memory=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "TRIAL_PX", 64)
    write_tiny_package(tmp_path / "tiny")
    return tmp_path / "tiny"


class Wrong:
    """ONNX Runtime with an error on top, in a precision of our choice."""

    splits = False

    def __init__(self, folder, precision, error, noise=0.0):
        self.exact = open_session(verify_package(folder), "cpu", 1)
        self.backend, self.device, self.reason = f"wrong/cpu/{precision}/x", "cpu", ""
        self.error, self.rng, self.noise = np.float32(error), np.random.default_rng(0), noise

    def run(self, inputs, *, half=False, owner=None):
        shift = self.error + np.float32(self.noise * self.rng.random())
        return {name: values + shift for name, values in self.exact.run(inputs).items()}

    def join(self):
        pass

    def close(self):
        self.exact.close()


def made(folder, tmp_path, device="cpu", plan=PLAN, **others):
    status = optimize.run(folder, device, 1, plan, tmp_path / "out", lambda _line: None, others)
    report = json.loads((tmp_path / "out" / "deploy.json").read_text())
    assert (tmp_path / "out" / "deploy.html").read_text().startswith("<!doctype html>")
    return status, report


def test_the_reference_holds_and_is_measured(folder, tmp_path):
    status, report = made(folder, tmp_path)
    found = report["candidates"]["cpu"]
    assert (status, found["verdict"], found["precision"]) == (0, "holds", "fp32")
    assert set(found["differences"]["largest"].values()) == {0}
    assert max(found["seam"].values()) < 1e-5
    assert found["determinism"] == "the same bytes three times"
    assert list(found["latency_ms"]) == ["64 px x 1", "64 px x 2"]
    cell = found["latency_ms"]["64 px x 2"]
    assert 0 < cell["least"] <= cell["p50"] <= cell["p95"]
    assert (cell["times_as_fast"], cell["batch"]) == (1, 2)
    assert found["graph_bytes"] == (folder / "generator.onnx").stat().st_size
    assert report["model"]["digest"] == verify_package(folder).digest


def test_what_is_out_of_tolerance_is_called_broken_and_is_the_status(folder, tmp_path):
    others = {
        "near": lambda: Wrong(folder, "bf16", 0.005),
        "far": lambda: Wrong(folder, "bf16", 0.05),
        "exact?": lambda: Wrong(folder, "fp32", 0.005),
    }
    status, report = made(folder, tmp_path, **others)
    verdicts = {name: figures["verdict"] for name, figures in report["candidates"].items()}
    assert verdicts == {"cpu": "holds", "near": "holds", "far": "broken", "exact?": "broken"}
    assert status == 1
    assert "base_color has 26.0 dB, at least 40 are asked for" in report["candidates"]["far"]["broken"]


def test_one_that_does_not_repeat_itself_is_broken(folder, tmp_path):
    _, report = made(folder, tmp_path, unsteady=lambda: Wrong(folder, "bf16", 0.0, noise=1e-3))
    found = report["candidates"]["unsteady"]
    assert found["verdict"] == "broken"
    assert "gave another 'base_color' than the first" in found["determinism"]


def test_one_that_does_not_tile_is_broken(folder, tmp_path):
    class Seam(Wrong):
        def run(self, inputs, *, half=False, owner=None):
            found = super().run(inputs)
            found["height"][:, :, :, 0] = 0.0
            return found

    _, report = made(folder, tmp_path, seam=lambda: Seam(folder, "fp32", 0.0))
    assert any(line.startswith("rolled: height") for line in report["candidates"]["seam"]["broken"])


def test_all_measures_what_is_here_says_why_the_rest_is_not_and_keeps_the_choice(folder, tmp_path, monkeypatch):
    real = open_session

    def opened(package, device, threads):
        if device == "openvino:bf16":
            return Wrong(package.folder, "bf16", 0.001)
        if device != "cpu":
            raise RuntimeMissing(f"{device} is not installed", hint="install it")
        return real(package, device, threads)

    monkeypatch.setattr(optimize, "open_session", opened)
    status, report = made(folder, tmp_path, "all")
    verdicts = {name: figures["verdict"] for name, figures in report["candidates"].items()}
    absent = dict.fromkeys(("openvino", "cuda", "tensorrt", "ort-tensorrt", "ort-tensorrt-rtx"), "absent")
    assert (status, verdicts) == (0, {"cpu": "holds", "openvino:bf16": "holds"} | absent)
    assert report["candidates"]["cuda"]["reason"] == "cuda is not installed"
    package = verify_package(folder)
    kept = choice.read_choice(choice.choice_key(package, 1))
    assert report["auto"] == {"device": kept.device, "reason": kept.reason}


def test_a_device_that_was_asked_for_must_be_there(folder, tmp_path):
    with pytest.raises(RuntimeMissing, match="no device 63 for TensorRT"):
        made(folder, tmp_path, "tensorrt:63")
    with pytest.raises(ConfigInvalid, match="there is no such device"):
        made(folder, tmp_path, "npu")
    assert not (tmp_path / "out").exists()


def test_a_precision_that_the_package_lacks_is_told_before_anything_is_opened(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(optimize, "open_session", lambda *_: pytest.fail("opened"))
    with pytest.raises(ConfigInvalid, match="tiny has no graph in fp16; it has fp32"):
        made(folder, tmp_path, "cuda:1:fp16")


def test_precisions_of_the_package_are_tried():
    known = ["cpu", "openvino", "openvino:bf16", "cuda", "tensorrt", "ort-tensorrt", "ort-tensorrt-rtx"]
    assert optimize.names_for(tiny_manifest(), "all") == known
    assert optimize.names_for(tiny_manifest(), "openvino") == ["cpu", "openvino"]
    specs = {name: PrecisionSpec(f"generator.{name}.onnx", {}) for name in ("fp16", "int8")}
    more = optimize.names_for(replace(tiny_manifest(), precisions=specs), "all")
    assert {"cpu:int8", "openvino:int8", "cuda:fp16", "tensorrt:fp16", "tensorrt:int8"} <= set(more)
    assert "tensorrt:bf16" not in more


def test_a_student_stands_in_the_same_tables(folder, tmp_path, monkeypatch):
    """Held to its own fp32, with its difference from the first; what it does says nothing about what auto takes."""
    real = open_session
    write_tiny_package(tmp_path / "student" / "tiny")

    def opened(package, device, threads):
        if device != "cpu":
            raise RuntimeMissing(f"{device} is not installed", hint="install it")
        return Wrong(package.folder, "fp32", 0.1) if package.folder.name == "small" else real(package, "cpu", 1)

    monkeypatch.setattr(optimize, "open_session", opened)
    with pytest.raises(ConfigInvalid, match="has the id tiny, as another has"):
        optimize.run(folder, "all", 1, PLAN, tmp_path / "out", print, beside=[tmp_path / "student" / "tiny"])
    (tmp_path / "student" / "tiny").rename(tmp_path / "student" / "small")
    lines = []
    status = optimize.run(folder, "all", 1, PLAN, tmp_path / "out", lines.append, beside=[tmp_path / "student"])
    report = json.loads((tmp_path / "out" / "deploy.json").read_text())
    found = report["candidates"]["cpu of small"]
    assert (status, found["verdict"], found["of"]) == (0, "holds", "small")
    assert found["beside"]["psnr_db"]["base_color"] == pytest.approx(20.0, abs=0.1)
    assert found["latency_ms"]["64 px x 2"]["times_as_fast"] > 0
    assert report["candidates"]["cuda of small"]["verdict"] == "absent"
    assert report["beside"]["small"]["digest"] == verify_package(tmp_path / "student" / "small").digest
    assert report["auto"]["device"] == "cpu"
    page = (tmp_path / "out" / "deploy.html").read_text()
    assert "small, held to its own fp32" in page
    assert "Differences from tiny" in page


def test_the_graph_of_a_device_is_the_one_it_computes():
    specs = {name: PrecisionSpec(f"generator.{name}.onnx", {}) for name in ("bf16", "int8")}
    manifest = replace(tiny_manifest(), precisions=specs)
    named = {
        "cpu": manifest.graph,
        "cpu:int8": "generator.int8.onnx",
        "cuda:1": manifest.graph,
        "openvino:bf16": manifest.graph,
        "tensorrt:0:bf16": "generator.bf16.onnx",
    }
    assert {device: optimize.graph_of(manifest, device) for device in named} == named


def test_memory_is_that_of_a_process_of_its_own(folder, tmp_path):
    plan = optimize.Plan((64,), (1,), 1, 0.01, memory=True)
    large = np.ones(1 << 29, np.uint8)  # which a process that this one starts must not be charged with
    _, report = made(folder, tmp_path, plan=plan)
    assert large[-1] == 1
    assert 20e6 < report["candidates"]["cpu"]["peak_memory_bytes"]["bytes"] < 500e6


def test_the_command_line_knows_it(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(optimize, "QUICK", PLAN)
    arguments = ["optimize", str(folder), "--device", "cpu", "--quick", "-o", str(tmp_path / "report")]
    assert cli.main(arguments) == 0
    assert "open it in a browser" in capsys.readouterr().out
    assert (tmp_path / "report" / "deploy.json").is_file()


def asks_for_terabytes():
    """A graph of less than 100 bytes that is valid ONNX and makes 4 TB of zeros."""
    made = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["k"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([2**40]), "k")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    model.ClearField("producer_name")
    data = model.SerializeToString()
    onnx.checker.check_model(model)
    assert len(data) < 100
    return data


def newer():
    model = tiny_model()
    model.opset_import[0].version = 99
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("graph", "rule"),
    [
        (asks_for_terabytes(), "inputs"),
        (tiny_model().SerializeToString()[:-40], "not an ONNX model, or is cut off|not hold|cut"),
        (newer(), "has opset 99, allowed are"),
        (b"\x08\x08" + b"foreign" * 9, "not an ONNX model"),
    ],
    ids=["terabytes", "truncated", "newer", "foreign"],
)
@pytest.mark.parametrize("command", ["optimize", "export", "triton"])
def test_a_graph_that_no_package_may_hold_is_refused_before_anything_runs(
    folder, tmp_path, monkeypatch, graph, rule, command
):
    (folder / "generator.onnx").write_bytes(graph)
    write_manifest(folder, tiny_manifest())
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("it was opened"))
    work = {
        "optimize": lambda: made(folder, tmp_path),
        "export": lambda: precisions.add_precisions(folder, tmp_path / "out", ["fp16"], lambda _line: None),
        "triton": lambda: triton.write_repository(folder, tmp_path / "out"),
    }
    with pytest.raises(PolicyViolated, match=rule) as error:
        work[command]()
    assert "assetgen export" in error.value.hint
    assert not (tmp_path / "out").exists()


def test_bad_packages_and_outputs_are_refused(folder, tmp_path):
    with pytest.raises(PackageInvalid):
        made(tmp_path / "absent", tmp_path)
    write_tiny_package(tmp_path / "two" / "a", "a")
    write_tiny_package(tmp_path / "two" / "b", "b")
    with pytest.raises(ConfigInvalid, match="holds 2 packages"):
        made(tmp_path / "two", tmp_path)
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputUnwritable):
        made(folder, tmp_path)
