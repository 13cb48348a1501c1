"""What ``auto`` takes: the fastest runtime that holds the tolerance, found out once, and told."""

import errno
import logging
import os
import tempfile
from dataclasses import replace

import numpy as np
import pytest

from assetgen.errors import ConfigInvalid, RuntimeMissing
from assetgen.manifest import PrecisionSpec
from assetgen.package import verify_package
from assetgen.runtime import choice, open_session, openvino
from assetgen.runtime.cache import VARIABLE as CACHE_VARIABLE
from assetgen.runtime.choice import Choice, choice_key, decide, keep_choice, open_fastest, read_choice
from assetgen.runtime.devices import describe_devices
from tests.helpers.tiny_package import tiny_manifest, write_tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_package(folder)
    return verify_package(folder)


class Other:
    """A session of ONNX Runtime that says it is OpenVINO, with an error on top."""

    splits = False

    def __init__(self, package, device, threads, reason):
        self.exact = open_session(package, "cpu", 1)
        precision = device.partition(":")[2] or "fp32"
        self.backend, self.device, self.reason = f"openvino-1/cpu/{precision}/x", "cpu", reason
        self.error = Other.errors.get(device, 0.0)

    def run(self, inputs, *, half=False, owner=None):
        return {name: values + np.float32(self.error) for name, values in self.exact.run(inputs).items()}

    def close(self):
        self.exact.close()


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A machine with OpenVINO, whose devices have errors and speeds as a test says; counts measurements."""
    monkeypatch.setenv(choice.VARIABLE, "onnxruntime,openvino")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(openvino, "installed_version", lambda: "2026.4.1")
    world = {"errors": {}, "missing": (), "gains": [2.0], "measured": 0}
    Other.errors = world["errors"]

    def opened(package, device, threads, reason="asked for"):
        if device in world["missing"]:
            raise RuntimeMissing(f"device {device!r}: this processor has no bf16")
        return Other(package, device, threads, reason)

    def ratio(*_):
        world["measured"] += 1
        return world["gains"].pop(0)

    monkeypatch.setattr(openvino, "open_openvino_session", opened)
    monkeypatch.setattr(choice, "ratio_of_times", ratio)
    return world


def test_the_fastest_that_holds_is_taken_and_says_why(package, world):
    session = open_session(package)
    assert session.backend.startswith("openvino-1/cpu/bf16")
    assert (
        session.reason
        == "OpenVINO in bf16 is 2.0 times as fast as ONNX Runtime at 256 px, and within the model's tolerance"
    )


def test_what_was_found_is_not_measured_again(package, world):
    first, second = open_session(package), open_session(package)
    assert world["measured"] == 1
    assert (first.backend, first.reason) == (second.backend, second.reason)


def test_another_package_or_number_of_threads_is_measured_for_itself(package, world, tmp_path):
    world["gains"] = [2.0, 2.0, 1.0, 2.0]
    open_fastest(package)
    open_fastest(package, 3)
    write_tiny_package(tmp_path / "other", weight_seed=1)
    assert open_fastest(verify_package(tmp_path / "other")).backend.startswith("onnxruntime")
    assert world["measured"] == 3


def test_what_is_no_faster_is_not_worth_it(package, world):
    world["gains"] = [1.05]
    session = open_session(package)
    assert session.backend.startswith("onnxruntime")
    assert session.reason == "nothing installed beats ONNX Runtime: OpenVINO in bf16 is 1.1 times as fast"


def test_out_of_tolerance_is_out_however_fast(package, world):
    world["errors"] |= {"openvino:bf16": 0.02}
    world["gains"] = [1.5]
    session = open_session(package)
    assert session.backend.startswith("openvino-1/cpu/fp32")
    assert "openvino:bf16 is out of tolerance: base_color has 34.0 dB, at least 40 are asked for" in session.reason


def test_the_packages_own_tolerance_counts(package, world):
    asked = PrecisionSpec("", dict.fromkeys((o.name for o in package.manifest.outputs), 30.0))
    loose = replace(package, manifest=replace(package.manifest, precisions={"bf16": asked}))
    world["errors"] |= {"openvino:bf16": 0.02}
    assert open_session(loose).backend.startswith("openvino-1/cpu/bf16")


def test_without_bf16_the_other_is_tried_and_why_is_told(package, world):
    world["missing"] = ("openvino:bf16",)
    world["gains"] = [1.3]
    session = open_session(package)
    assert session.backend.startswith("openvino-1/cpu/fp32")
    assert "this processor has no bf16" in session.reason


@pytest.mark.parametrize(("told", "backend"), [("onnxruntime", "onnxruntime"), ("openvino", "openvino-1/cpu/fp32")])
def test_what_may_be_taken_can_be_told(package, world, monkeypatch, told, backend):
    monkeypatch.setenv(choice.VARIABLE, told)
    assert open_session(package).backend.startswith(backend)
    assert world["measured"] == 0


@pytest.mark.parametrize("told", ["", "tensorflow", "onnxruntime, pytorch"])
def test_unknown_runtimes_are_refused(package, monkeypatch, told):
    monkeypatch.setenv(choice.VARIABLE, told)
    with pytest.raises(ConfigInvalid, match="use some of onnxruntime, openvino"):
        open_session(package)


def test_an_asked_for_device_is_taken_whatever_is_faster(package, world):
    assert open_session(package, "cpu").reason == "asked for"
    assert world["measured"] == 0


def test_a_cache_that_others_can_write_is_told_and_costs_a_measurement_each_time(
    package, world, monkeypatch, tmp_path, caplog
):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv(CACHE_VARIABLE, str(shared))
    world["gains"] = [2.0, 2.0]
    with caplog.at_level(logging.WARNING):
        open_session(package)
        open_session(package)
    assert world["measured"] == 2
    assert any("can be written by others" in line for line in caplog.messages)
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_cache_that_ends_to_be_writable_while_the_choice_is_made_costs_that_measurement_only(
    package, world, monkeypatch, caplog, number
):
    """It was read before, and its disk is full, or it was mounted anew for reading, when the finding is to be kept."""
    world["gains"] = [2.0, 2.0]
    make = tempfile.mkstemp

    def fail(**_):
        raise OSError(number, os.strerror(number))

    def ratio(*_):
        monkeypatch.setattr(tempfile, "mkstemp", fail)
        return measured()

    measured = choice.ratio_of_times
    monkeypatch.setattr(choice, "ratio_of_times", ratio)
    with caplog.at_level(logging.WARNING):
        assert open_session(package).backend.startswith("openvino-1/cpu/bf16")
    (warning,) = (line for line in caplog.messages if "is not kept" in line)
    assert os.strerror(number) in warning
    monkeypatch.setattr(tempfile, "mkstemp", make)
    monkeypatch.setattr(choice, "ratio_of_times", measured)
    for _ in range(2):
        assert open_session(package).backend.startswith("openvino-1/cpu/bf16")
    assert world["measured"] == 2


@pytest.mark.parametrize("content", [b"", b"[]", b'{"device": "cpu"}', b'{"device": 1, "what": 2}', b"\xff"])
def test_a_kept_choice_that_makes_no_sense_is_none(package, world, content):
    from assetgen.runtime.cache import Cache

    key = choice_key(package, None)
    keep_choice(key, Choice("cpu", "x"))
    assert read_choice(key) == Choice("cpu", "x")
    Cache().write(choice._name(key), content)
    assert read_choice(key) is None


def test_doctor_shows_what_auto_takes(package, world):
    report = describe_devices(package)
    assert (report.chosen, report.tested) == ("cpu", True)
    assert report.reason.startswith("OpenVINO in bf16 is 2.0 times as fast")


def test_the_decision_is_by_the_largest_gain():
    assert decide({"openvino": 1.5, "cpu:int8": 1.9}, [], 64).device == "cpu:int8"
    assert decide({"openvino": 1.5, "cpu:int8": 1.9}, ["x: is absent"], 64).reason.endswith("; x: is absent")
    assert decide({}, ["x: is absent"], 64) == Choice(
        "cpu", "nothing installed beats ONNX Runtime: nothing else works; x: is absent"
    )


def test_int8_is_tried_where_the_package_has_it():
    assert choice._others(tiny_manifest()) == ["openvino:bf16", "openvino"]
    spec = PrecisionSpec("generator.int8.onnx", {})
    assert choice._others(replace(tiny_manifest(), precisions={"int8": spec}))[:2] == ["openvino:int8", "cpu:int8"]


def test_the_key_is_the_same_in_another_process(package, world):
    assert choice_key(package, 2) == choice_key(package, 2) != choice_key(package, 3)


def test_the_edge_of_trials_is_one_that_the_model_makes():
    assert choice.trial_edge(tiny_manifest()) == 256
    assert choice.trial_edge(tiny_manifest(max_px=64)) == 64
