"""Packages of meshes: exported from a run, served, the same bytes each time, and refused where that makes no sense."""

import io

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from assetgen import golden
from assetgen.errors import CheckpointInvalid, ConfigInvalid, ParityFailed
from assetgen.local import open_local
from assetgen.models.mixture import MixturePrior
from assetgen.models.volume import VolumeConfig, VolumeGenerator
from assetgen.package import verify_package
from assetgen.postprocess.slices import volume_from_atlas
from assetgen.runtime import open_session
from assetgen.training.loop import Budget, train
from assetgen.types import Artifact, Request
from export import cli
from export.package_from_volume import VolumeGraph, _example, _thick_enough, golden_requests
from export.parity import parity_of_pictures
from tests.helpers.tiny_meshes import CLASSES, make_task, write_volumes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that rebuilds for a moment, so that there is something inside."""
    folder = tmp_path_factory.mktemp("run")
    changes = {"adversarial": 0.0, "rebuild_kl": 0.05, "batch": 8, "learning_rate": 0.01, "ema_kimg": 0.02}
    task = make_task(write_volumes(folder), total_kimg=1.2, **changes)
    train(folder / "run", task, Budget(tick_s=1e9))
    return folder / "run"


@pytest.fixture(scope="module")
def package(run):
    output = run.parent / "packages" / "props"
    assert cli.main([str(run), "-o", str(output), "--name", "Tiny props"]) == 0
    return output


def small_graph():
    torch.manual_seed(0)
    sizes = {"style": 8, "width": 4, "features": 4, "hidden": 4, "critic_width": 4}
    return VolumeGraph(VolumeGenerator(VolumeConfig(len(CLASSES), 16, 8, **sizes)), MixturePrior(len(CLASSES), 8))


def test_the_graph_hands_over_the_volume_as_slices():
    torch.manual_seed(0)
    generator = VolumeGenerator(VolumeConfig(2, 24, 4, 8, 4, 4, 4, 4))
    z, weights = torch.randn(1, 4), torch.eye(2)[:1]
    with torch.no_grad():
        atlas = VolumeGraph(generator, MixturePrior(2, 4))(z, weights, torch.full((1, 1), 0.5))
        halved = torch.cat([z[:, :1], z[:, 1:] * 0.5], dim=1)  # the first number chooses, whatever the truncation
        volume = _thick_enough(generator(halved, weights) / 2 + 0.5)
    assert volume_from_atlas(atlas[0].numpy()) == pytest.approx(volume[0].numpy(), abs=1e-6)
    assert (atlas[0, :, -24:, -24:] == 1).all()


def test_a_package_tells_what_it_is_and_what_was_measured(package):
    manifest = verify_package(package).manifest
    assert manifest.kind == "mesh"
    assert [known.name for known in manifest.classes] == list(CLASSES)
    assert manifest.size.default_px == 64
    assert manifest.provenance["parity"]["graph_against_network"] <= 1e-4
    figures = manifest.provenance["figures"]
    assert figures["meshes"] == 32
    assert figures["closed"] == figures["within_budget"] == figures["there"]
    assert manifest.provenance["mesh"]["data"]["licenses"] == {"CC0-1.0": 8}
    card = (package / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "CC0-1.0 (8)" in card
    assert "within\ntheir budget" in card
    with Image.open(package / "preview.png") as preview:
        assert max(preview.size) <= 256


def test_a_package_makes_closed_meshes_of_its_classes(package):
    parameters = {"triangles": 300, "levels": 2, "preview": 48, "truncation": 0.3}
    made = {}
    with open_local([package]) as maker:
        (model,) = maker.models()
        assert model.maps == ()
        for name in CLASSES:
            events = list(maker.generate(Request(model.id, seed=1, parameters={"class": name, **parameters})))
            made[name] = [event for event in events if isinstance(event, Artifact)]
    for name, artifacts in made.items():
        assert [a.role for a in artifacts] == ["mesh", "mesh_lod1", "preview"]
        found = trimesh.load(io.BytesIO(artifacts[0].data), file_type="glb", force="mesh")
        found.merge_vertices(merge_norm=True, merge_tex=True)
        assert found.is_watertight, name
        assert len(found.faces) <= 300
    ball, crate = (np.asarray(Image.open(io.BytesIO(made[name][2].data))).astype(int) for name in CLASSES)
    assert ball[ball[:, :, 3] == 255].mean(axis=0)[0] > crate[crate[:, :, 3] == 255].mean(axis=0)[0]


def test_golden_requests_are_met_byte_for_byte(package):
    verified = verify_package(package)
    session = open_session(verified, "cpu", threads=1)
    results = golden.replay(session, verified.manifest, golden.load(verified))
    assert len(results) == 2
    assert all(result.bytes_compared and not result.failed for result in results)


def test_what_is_thinner_than_a_cell_shows_and_nothing_stays_nothing():
    thin, solid, nothing = torch.full((3, 4, 8, 8, 8), 0.9)
    thin[0, 3, 3, :] = 0.6  # a pole that no cell is inside of
    solid[0, 2:6, 2:6, 2:6] = 0.1
    shown = _thick_enough(torch.stack([thin, solid, nothing]))
    assert (shown[0, 0] < 0.5).sum() == 8
    assert torch.equal(shown[1], solid)
    assert (shown[2, 0] > 0.5).all()
    assert torch.equal(shown[:, 1:], torch.stack([thin, solid, nothing])[:, 1:])


def test_a_run_that_makes_nothing_is_not_packed(package):
    graph = small_graph()
    with torch.no_grad():
        graph.generator.write.bias[0] = 100.0
    with pytest.raises(CheckpointInvalid, match="makes nothing of class 'ball'"):
        golden_requests(graph, verify_package(package).manifest)


def test_options_of_other_kinds_are_refused(run, tmp_path):
    with pytest.raises(ConfigInvalid, match="--detail"):
        cli.main([str(run), "-o", str(tmp_path / "p"), "--detail", str(run)])


def test_a_graph_that_differs_is_not_packed():
    class Other:
        def run(self, inputs):
            n = len(inputs["z"])
            return {"volume": np.zeros((n, 4, 64, 64), dtype=np.float32)}

    with pytest.raises(ParityFailed, match="differs from the network"):
        parity_of_pictures(
            small_graph(), Other(), ["z", "class_weights", "truncation"], "volume", [_example(1, 8, len(CLASSES))]
        )
