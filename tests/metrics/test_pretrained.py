"""Figures of pretrained networks: only with the library, only with the right weights."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from assetgen.errors import ConfigInvalid, RuntimeMissing
from assetgen.metrics.pretrained import inception_distances, lpips_diversity
from tests.helpers.alexnet import digest, lpips_of_mean_differences, write_alexnet
from tests.metrics.synthetic import waves


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "inception.pth"
    path.write_bytes(b"weights")
    return path


def test_without_the_library_the_error_says_what_to_install(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(RuntimeMissing, match="torch-fidelity") as caught:
        inception_distances(waves(2), waves(2), weights, digest(weights))
    assert "pip install torch-fidelity" in caught.value.hint


def test_other_weights_are_refused_before_the_library_sees_them(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    with pytest.raises(ConfigInvalid, match="has the SHA-256"):
        inception_distances(waves(2), waves(2), weights, "0" * 64)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        inception_distances(waves(2), waves(2), weights.with_name("none.pth"), "0" * 64)


def test_the_library_is_given_the_pictures_and_the_checked_file_and_fetches_nothing(weights, monkeypatch):
    asked = {}

    def calculate_metrics(**options):
        asked.update(options)
        return {"frechet_inception_distance": 3.5, "kernel_inception_distance_mean": 0.25}

    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(calculate_metrics=calculate_metrics))
    fakes = waves(3)
    assert inception_distances(fakes, waves(4), weights, digest(weights).upper()) == {"fid": 3.5, "kid": 0.25}
    assert asked["feature_extractor_weights_path"] == str(weights)
    assert asked["cache"] is False
    assert asked["kid_subset_size"] == 3
    assert len(asked["input2"]) == 4
    assert np.array_equal(asked["input1"][1].numpy(), fakes[1].transpose(2, 0, 1))


def test_lpips_compares_halves_of_each_group(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", lpips_of_mean_differences())
    weights = write_alexnet(tmp_path)
    pictures = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    same = lpips_diversity([pictures], weights, digest(weights))
    pictures[2:] = 255
    other = lpips_diversity([pictures, np.zeros_like(pictures)], weights, digest(weights))
    # From -1 to 1 in one group, nothing in the other; and the trunk of the file, which adds its 3.
    assert (same, other) == (3.0, 4.0)


def test_lpips_without_library_or_alexnet_says_what_to_give(tmp_path, monkeypatch):
    weights = write_alexnet(tmp_path)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(RuntimeMissing) as caught:
        lpips_diversity([waves(2)], weights, digest(weights))
    assert caught.value.hint == "pip install lpips"
    monkeypatch.setitem(sys.modules, "lpips", lpips_of_mean_differences())
    weights.write_bytes(b"no tensors")
    with pytest.raises(ConfigInvalid, match="holds no AlexNet") as caught:
        lpips_diversity([waves(2)], weights, digest(weights))
    assert "alexnet-owt" in caught.value.hint
    with pytest.raises(ConfigInvalid, match="has the SHA-256"):
        lpips_diversity([waves(2)], weights, "0" * 64)
