"""What is promised of the exports that are shipped: graphs equal to their networks, and halves that hold."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from assetgen.fidelity import broken_limits
from assetgen.package import verify_package
from assetgen.runtime import open_session
from assetgen.store import bundled_models_folder
from export import precisions
from export.graph import OUTPUTS
from export.networks import graph_of_package
from export.parity import PARITY_LIMIT
from export.probe import real_inputs

FOLDERS = sorted(path.parent for path in bundled_models_folder().glob("*/manifest.json"))
CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
STARTER = bundled_models_folder() / "starter-materials"


@pytest.fixture(scope="module", params=FOLDERS, ids=[path.name for path in FOLDERS])
def shipped(request):
    return verify_package(request.param, allow_hard_links=True)


def test_the_graph_was_compared_with_its_network_when_it_was_exported(shipped):
    parity = shipped.manifest.provenance["parity"]
    assert 0 < parity["graph_against_network"] <= PARITY_LIMIT == 1e-4


@pytest.mark.parametrize(("n", "height_px", "width_px"), [(1, 64, 64), (3, 96, 128)])
def test_the_starter_graph_is_still_the_networks_that_lie_beside_it(n, height_px, width_px):
    package = verify_package(STARTER, allow_hard_links=True)
    network = graph_of_package(package.manifest, CHECKPOINTS / "starter-texture", CHECKPOINTS / "starter-detail")
    example = network.example(n, height_px, width_px, 3)
    feeds = {spec.name: value.numpy() for spec, value in zip(network.inputs, example, strict=True)}
    still = [spec for spec in package.manifest.inputs if spec.name not in feeds]
    assert {spec.role for spec in still} <= {"slider"}
    feeds |= {spec.name: np.zeros((n, 1), np.float32) for spec in still}
    made = open_session(package, "cpu", 1).run(feeds)
    with torch.no_grad():
        wanted = dict(zip(OUTPUTS, network(*example), strict=True))
    for name, values in wanted.items():
        assert np.abs(values.numpy() - made[name]).max() <= PARITY_LIMIT, name


def test_half_floats_hold_what_is_asked_of_them(shipped, monkeypatch):
    """45 dB and normals within a degree, of every shipped model, at few requests; an export takes more."""
    monkeypatch.setattr(precisions, "PROBES", 3)
    manifest = shipped.manifest
    model = onnx.load_from_string(shipped.read_graph())
    found = precisions._fp16(model, manifest, lambda _line: None)
    assert found.facts["probe"]["rounded"] > len(found.facts["probe"]["kept_fp32"])
    checks = real_inputs(manifest, 3, precisions.FIRST_CHECK_SEED, 64)
    differences = precisions._measure(model, found, manifest, checks)
    assert broken_limits(manifest, "fp16", differences) == []
    assert min(differences.psnr_db.values()) >= 45
    assert differences.normal_degrees <= 1
