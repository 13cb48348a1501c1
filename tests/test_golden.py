"""Golden requests tell a changed model from an unchanged one."""

import json

import numpy as np
import pytest

from assetgen import golden
from assetgen.errors import PackageInvalid
from assetgen.golden import GoldenRequest
from assetgen.package import verify_package, write_manifest
from assetgen.runtime import open_session
from tests.helpers.serving import write_model

REQUESTS = [GoldenRequest(1), GoldenRequest(2, 3, 96, 32, {"class": "steel", "truncation": 0.5})]


@pytest.fixture
def package(tmp_path):
    return write_model(tmp_path)


def test_what_was_recorded_replays(package):
    session = open_session(package, "cpu", 1)
    recorded = json.loads(json.dumps(golden.record(session, package.manifest, REQUESTS)))
    results = golden.replay(session, package.manifest, recorded)
    assert [result.request for result in results] == REQUESTS
    for result in results:
        assert result.failed == ()
        assert result.bytes_compared
        assert set(result.differences) == {"base_color", "height", "roughness", "metallic"}


def test_another_model_fails(package, tmp_path):
    recorded = golden.record(open_session(package, "cpu", 1), package.manifest, REQUESTS)
    from tests.helpers.tiny_package import write_tiny_package

    write_tiny_package(tmp_path / "other", weight_seed=1)
    write_manifest(tmp_path / "other", package.manifest)
    other = verify_package(tmp_path / "other")
    for result in golden.replay(open_session(other, "cpu", 1), other.manifest, recorded):
        assert "base_color" in result.failed
        assert "bytes of base_color" in result.failed


def test_another_backend_is_held_to_the_tolerance_only(package):
    session = open_session(package, "cpu", 1)
    recorded = golden.record(session, package.manifest, REQUESTS)
    session.backend = "elsewhere"
    assert all(
        not result.failed and not result.bytes_compared for result in golden.replay(session, package.manifest, recorded)
    )
    run = session.run
    session.run = lambda inputs: {name: np.clip(values + 0.001, 0, 1) for name, values in run(inputs).items()}
    assert all(result.failed for result in golden.replay(session, package.manifest, recorded))


def test_thumbnails_are_means_of_cells():
    values = np.arange(2 * 32 * 40, dtype=np.float32).reshape(2, 32, 40) / 4096
    found = np.array(golden.thumbnail(values))
    assert found.shape == (2, 16, 16)
    assert found[1, 3, 0] == pytest.approx(values[1, 6:8, 0:2].mean(), abs=1e-5)
    assert np.array(golden.thumbnail(values[:, :4, :5])).shape == (2, 4, 5)


@pytest.mark.parametrize("content", ["[]", "{", '{"requests": 3}', '{"requests": [{"request": {"sead": 1}}]}', "{}"])
def test_a_broken_file_is_said(package, content):
    (package.folder / golden.FILE_NAME).write_text(content)
    write_manifest(package.folder, package.manifest)
    broken = verify_package(package.folder)
    with pytest.raises(PackageInvalid, match=r"golden\.json"):
        golden.replay(open_session(broken, "cpu", 1), broken.manifest, golden.load(broken))


def test_a_package_without_any(package):
    assert golden.load(package) is None
