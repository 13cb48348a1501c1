"""Packages of the other families: exported from a run, served, tiling, and refused where they cannot tile."""

import numpy as np
import pytest

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.local import open_local
from assetgen.package import verify_package
from assetgen.training import checkpoint
from assetgen.training.loop import Budget, train
from assetgen.types import Artifact, Encoding, OutputSpec, Request
from export import cli
from tests.helpers.tiny_runs import make_task, write_data

FAMILIES = ("dcgan", "conditional", "progressive", "biggan")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def packages(data, tmp_path_factory):
    """Package folders by family, of runs of two steps."""
    folder, made = tmp_path_factory.mktemp("families"), {}
    for name in FAMILIES:
        train(folder / name, make_task(name, data, total_kimg=0.008, grown_by=0.1), Budget(tick_s=1e9))
        made[name] = folder / "packages" / name
        assert cli.main([str(folder / name), "-o", str(made[name]), "--name", "Tiny"]) == 0
    return made


def pictures(package, **parameters):
    with open_local([package]) as maker:
        (model,) = maker.models()
        request = Request(model.id, seed=3, count=3, parameters=parameters, output=OutputSpec(encoding=Encoding.RAW))
        made = [event for event in maker.generate(request) if isinstance(event, Artifact)]
    assert {artifact.role for artifact in made} == {"base_color"}
    return [np.frombuffer(artifact.data, np.uint8).reshape(16, 16, 3) for artifact in made]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_package_is_valid_and_makes_different_pictures(packages, name):
    manifest = verify_package(packages[name]).manifest
    assert manifest.provenance["parity"]["graph_against_network"] <= 1e-4
    assert manifest.provenance["parity"]["roll_network"] <= 1e-5
    assert manifest.provenance["texture"]["data"]["licenses"].keys() == {"CC0-1.0"}
    assert (manifest.size.min_px, manifest.size.max_px) == (16, 16)
    first, second, third = pictures(packages[name])
    assert (first != second).any()
    assert (second != third).any()
    assert all((a == b).all() for a, b in zip(pictures(packages[name]), (first, second, third), strict=True))


@pytest.mark.parametrize("name", FAMILIES[1:])
def test_classes_are_parameters_where_they_are_told(packages, name):
    brick, metal = (pictures(packages[name], **{"class": label})[0] for label in ("brick", "metal"))
    assert (brick != metal).any()


def test_without_classes_there_is_no_such_parameter(packages):
    assert [spec.name for spec in verify_package(packages["dcgan"]).manifest.parameters] == ["truncation"]


def test_truncation_zero_makes_one_picture(packages):
    first, second, _ = pictures(packages["conditional"], truncation=0.0)
    assert (first == second).all()


def test_what_cannot_tile_is_no_texture(data, tmp_path):
    train(tmp_path / "run", make_task("vanilla", data, total_kimg=0.004), Budget(tick_s=1e9))
    with pytest.raises(ConfigInvalid, match="do not tile"):
        cli.main([str(tmp_path / "run"), "-o", str(tmp_path / "package")])


def test_networks_that_have_not_grown_up_are_refused(data, tmp_path):
    task = make_task("progressive", data, total_kimg=10.0)
    train(tmp_path / "run", task, Budget(tick_s=1e9, steps=1))
    assert checkpoint.load(tmp_path / "run" / "checkpoint").progress.step == 1
    with pytest.raises(CheckpointInvalid, match=r"stage 0\.0 of 2"):
        cli.main([str(tmp_path / "run"), "-o", str(tmp_path / "package")])


def test_a_detail_network_goes_with_texture_runs_only(packages, runs, tmp_path):
    family = str(packages["dcgan"].parent.parent / "dcgan")
    with pytest.raises(ConfigInvalid, match="not for a run of another family"):
        cli.main([family, "--detail", str(runs[1]), "-o", str(tmp_path / "package")])
    with pytest.raises(ConfigInvalid, match="--detail is missing"):
        cli.main([str(runs[0]), "-o", str(tmp_path / "package")])
