"""The store: every package verified once, ids as keys only."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from assetgen import store as store_module
from assetgen.errors import ModelNotFound, PackageInvalid, PolicyViolated
from assetgen.manifest import PrecisionSpec
from assetgen.package import write_manifest
from assetgen.store import bundled_models_folder, open_store
from tests.helpers.tiny_package import tiny_manifest, tiny_model, write_tiny_package
from tests.test_manifest import HOSTILE_IDS


def test_finds_packages_and_folders_of_packages(tmp_path):
    digests = {
        "b": write_tiny_package(tmp_path / "models" / "b", "b"),
        "a": write_tiny_package(tmp_path / "models" / "folder-named-otherwise", "a"),
        "c": write_tiny_package(tmp_path / "single", "c", weight_seed=2),
    }
    (tmp_path / "models" / "README.md").write_text("not a package\n", encoding="utf-8")
    (tmp_path / "models" / ".git").mkdir()
    store = open_store([tmp_path / "models", tmp_path / "single"])
    assert list(store) == ["a", "b", "c"]
    assert {model_id: package.digest for model_id, package in store.items()} == digests


def test_the_same_folder_twice_is_no_conflict(tmp_path):
    write_tiny_package(tmp_path / "a", "a")
    assert list(open_store([tmp_path, tmp_path / "a"])) == ["a"]


def test_two_packages_with_one_id_are_refused(tmp_path):
    write_tiny_package(tmp_path / "one", "same")
    write_tiny_package(tmp_path / "two", "same", weight_seed=1)
    with pytest.raises(PackageInvalid, match=r"two packages have the id 'same': .*one and .*two"):
        open_store([tmp_path])


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    write_tiny_package(tmp_path / "good", "good")
    (tmp_path / "half-copied").mkdir()
    with pytest.raises(PackageInvalid, match=r"half-copied: manifest.json is missing"):
        open_store([tmp_path])


def test_an_absent_folder_is_refused(tmp_path):
    with pytest.raises(PackageInvalid, match="nowhere: not a readable folder"):
        open_store([tmp_path / "nowhere"])


@pytest.mark.parametrize("model_id", [*HOSTILE_IDS, "../etc", "model/..", "tiny2", "tiny/", "./tiny", "TINY"])
def test_an_unknown_id_opens_no_file(tmp_path, model_id):
    write_tiny_package(tmp_path / "tiny")
    store = open_store([tmp_path])
    opened: list[object] = []
    _AUDITED.append(opened)
    try:
        with pytest.raises(ModelNotFound, match="served are tiny") as caught:
            store[model_id]
        assert model_id not in store
    finally:
        _AUDITED.remove(opened)
    assert opened == []
    assert caught.value.status == "NOT_FOUND"
    assert len(caught.value.message) < 300


_AUDITED: list[list[object]] = []
sys.addaudithook(lambda event, arguments: [a.append(arguments) for a in _AUDITED] if event == "open" else None)


def test_get_answers_as_a_mapping_does(tmp_path):
    write_tiny_package(tmp_path / "tiny")
    store = open_store([tmp_path])
    assert store.get("tiny") is store["tiny"]
    assert store.get("x") is None
    with pytest.raises(ModelNotFound):
        store["x" * 100_000]


def test_a_foreign_graph_is_checked_against_the_policy(tmp_path):
    write_tiny_package(tmp_path / "tiny")
    model = tiny_model()
    model.graph.node[0].domain = "com.evil"
    (tmp_path / "tiny" / "generator.onnx").write_bytes(model.SerializeToString())
    write_manifest(tmp_path / "tiny", tiny_manifest())
    with pytest.raises(PolicyViolated, match=r"generator.onnx: .*com\.evil"):
        open_store([tmp_path])


def test_graphs_of_every_precision_are_checked(tmp_path):
    write_tiny_package(tmp_path / "tiny")
    model = tiny_model()
    model.graph.node[0].domain = "com.evil"
    (tmp_path / "tiny" / "generator.fp16.onnx").write_bytes(model.SerializeToString())
    least = {output.name: 45.0 for output in tiny_manifest().outputs}
    precisions = {"fp16": PrecisionSpec("generator.fp16.onnx", least)}
    write_manifest(tmp_path / "tiny", replace(tiny_manifest(), precisions=precisions))
    with pytest.raises(PolicyViolated, match=r"generator.fp16.onnx: .*com\.evil"):
        open_store([tmp_path])


def test_the_bundled_folder_lies_in_the_package():
    assert bundled_models_folder() == Path(store_module.__file__).resolve().parent / "packages"


@pytest.mark.skipif(not hasattr(os, "link"), reason="no hard links here")
def test_hard_links_are_allowed_in_the_bundled_folder_only(tmp_path, monkeypatch):
    write_tiny_package(tmp_path / "models" / "tiny")
    os.link(tmp_path / "models" / "tiny" / "LICENSE", tmp_path / "cache")
    with pytest.raises(PackageInvalid, match="LICENSE: a hard link"):
        open_store([tmp_path / "models"])
    monkeypatch.setattr(store_module, "bundled_models_folder", lambda: tmp_path / "models")
    assert list(open_store([tmp_path / "models"])) == ["tiny"]


def test_weights_that_are_not_finite_never_get_in(tmp_path):
    model: onnx.ModelProto = tiny_model()
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    write_tiny_package(tmp_path)
    (tmp_path / "generator.onnx").write_bytes(model.SerializeToString())
    write_manifest(tmp_path, tiny_manifest())
    with pytest.raises(PolicyViolated, match="not finite"):
        open_store([tmp_path])
