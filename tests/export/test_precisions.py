"""Smaller precisions of a package: written when they hold, refused when they do not, and served."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from assetgen.errors import ConfigInvalid, ParityFailed
from assetgen.fidelity import psnr_db
from assetgen.package import verify_package, write_manifest
from assetgen.runtime import open_session, precision_of
from assetgen.store import open_store
from export import cli, precisions
from export.precisions import add_precisions
from tests.helpers.tiny_package import tiny_feeds, tiny_manifest, tiny_model, write_tiny_package


@pytest.fixture(autouse=True)
def few(monkeypatch):
    for name, value in {"PROBES": 3, "CALIBRATION": 3, "CHECKS": 2, "CHECK_PX": 64, "SPEED_PX": 64}.items():
        monkeypatch.setattr(precisions, name, value)


@pytest.fixture
def folder(tmp_path):
    write_tiny_package(tmp_path / "tiny")
    return tmp_path / "tiny"


def silent(_line):
    pass


def test_graphs_are_added_measured_and_told(folder, tmp_path):
    output = tmp_path / "more" / "tiny"
    digest = add_precisions(folder, output, ["fp16", "bf16"], silent)
    package = verify_package(output, digest=digest)
    assert package.manifest.graphs == {
        "fp32": "generator.onnx",
        "fp16": "generator.fp16.onnx",
        "bf16": "generator.bf16.onnx",
    }
    told = package.manifest.provenance["precisions"]
    assert told["fp16"]["differences"]["psnr_db"]["base_color"] > 60
    assert told["fp16"]["probe"]["kept_fp32"] == []
    assert 0 < told["fp16"]["probe"]["largest"] < told["fp16"]["probe"]["allowed"]
    assert package.manifest.precisions["fp16"].least_psnr_db["height"] == 45
    assert (output / "generator.onnx").read_bytes() == (folder / "generator.onnx").read_bytes()
    assert [path.name for path in output.parent.iterdir()] == ["tiny"], "no partial folder is left"
    open_store([output])  # the policy holds for all of its graphs


def test_the_package_itself_can_be_given_more(folder):
    before = verify_package(folder).digest
    assert cli.main([str(folder), "--precision", "fp16", "--precision", "fp32"]) == 0
    package = verify_package(folder)
    assert package.digest != before
    assert list(package.manifest.graphs) == ["fp32", "fp16"]
    exact, rounded = open_session(package, "cpu", 1), open_session(package, "cpu:fp16", 1)
    assert (precision_of(exact.backend), precision_of(rounded.backend)) == ("fp32", "fp16")
    for name, values in exact.run(tiny_feeds()).items():
        assert 60 < psnr_db(values, rounded.run(tiny_feeds())[name]) < 120


def test_a_precision_that_the_package_lacks_names_those_it_has(folder):
    with pytest.raises(ConfigInvalid, match="no graph in int8; it has fp32") as caught:
        open_session(verify_package(folder), "cpu:int8")
    assert "assetgen export PACKAGE --precision int8" in caught.value.hint


def test_values_too_large_for_fp16_stay_in_fp32(tmp_path):
    """A convolution whose output is a million times as large, which the next layer makes small again."""
    model = tiny_model()
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = {weight.name: weight for weight in model.graph.initializer}
    for node, factor in ((convolutions[1], 1e6), (convolutions[2], 1e-6)):
        weight = weights[node.input[1]]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    folder = tmp_path / "large"
    write_tiny_package(folder, "large")
    (folder / "generator.onnx").write_bytes(model.SerializeToString())
    write_manifest(folder, tiny_manifest("large"))
    add_precisions(folder, folder, ["fp16"], silent)
    package = verify_package(folder)
    kept = package.manifest.provenance["precisions"]["fp16"]["probe"]["kept_fp32"]
    assert {convolutions[1].output[0], convolutions[2].output[0]} <= set(kept), "the small weights, too"
    assert convolutions[0].output[0] not in kept


def test_what_breaks_its_tolerance_is_not_written(folder, monkeypatch):
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    monkeypatch.setitem(precisions.LEAST_PSNR_DB, "bf16", 150.0)
    with pytest.raises(ParityFailed, match=r"bf16: .* at least 150 are asked for") as caught:
        add_precisions(folder, folder, ["fp16", "bf16"], silent)
    assert "nothing was written" in caught.value.hint
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before


@pytest.mark.parametrize(("ratio", "written"), [(1.0, False), (1.4, True)])
def test_int8_is_written_only_where_it_is_faster(folder, monkeypatch, ratio, written):
    monkeypatch.setitem(precisions.LEAST_PSNR_DB, "int8", 25.0)
    monkeypatch.setattr(precisions, "MOST_NORMAL_DEGREES", 30.0)
    monkeypatch.setattr(precisions, "ratio_of_times", lambda *_: ratio)
    if not written:
        with pytest.raises(ParityFailed, match=r"1\.00 times as fast as fp32"):
            add_precisions(folder, folder, ["int8"], silent)
        assert list(verify_package(folder).manifest.graphs) == ["fp32"]
        return
    add_precisions(folder, folder, ["int8"], silent)
    told = verify_package(folder).manifest.provenance["precisions"]["int8"]
    assert told["times_as_fast"] == 1.4
    assert told["convolutions"]
    model = onnx.load(folder / "generator.int8.onnx")
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}


def test_int8_that_cannot_hold_is_refused(folder, monkeypatch):
    monkeypatch.setitem(precisions.LEAST_PSNR_DB, "int8", 140.0)
    with pytest.raises(ParityFailed, match="no convolution can be rounded at 140 dB"):
        add_precisions(folder, folder, ["int8"], silent)


def test_unknown_precisions_are_refused(folder):
    with pytest.raises(ConfigInvalid, match="--precision fp8: use fp32, fp16, bf16, int8"):
        add_precisions(folder, folder, ["fp8"], silent)


def test_an_older_manifest_is_read_without_the_field(folder):
    document = json.loads((folder / "manifest.json").read_text())
    assert document.pop("precisions") == {}
    (folder / "manifest.json").write_text(json.dumps(document))
    assert verify_package(folder).manifest.graphs == {"fp32": "generator.onnx"}
