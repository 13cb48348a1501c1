"""The whole product in a minute: train, export, serve in a process of its own, and write a material by the client."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from assetgen.client import Client
from assetgen.launch import ServerProcess
from assetgen.save import write_assets
from assetgen.types import Artifact, Finished, MapKind, Request, Started

REQUEST = Request("tiny-real", seed=7, width_px=128, height_px=64, parameters={"class": "metal"})


@pytest.fixture(scope="module")
def server(exported):
    arguments = ["--models", str(exported), "--device", "cpu", "--threads", "1"]
    with ServerProcess(arguments) as running:
        yield running


def test_train_export_serve_generate(server, exported, tmp_path):
    seen = []
    with Client(server.address) as client:
        (model,) = client.models()
        assert (model.id, model.digest) == (
            "tiny-real",
            hashlib.sha256((exported / "manifest.json").read_bytes()).hexdigest(),
        )
        paths = write_assets(client.generate(REQUEST), tmp_path, seen.append)
    assert isinstance(seen[0], Started)
    assert isinstance(seen[-1], Finished)
    files = {event.role: event for event in seen if isinstance(event, Artifact)}
    assert set(files) == {kind.value for kind in MapKind}
    assert len(paths) == 6
    for event in files.values():
        with Image.open(tmp_path / event.name) as picture:
            picture.load()
            assert picture.size == (128, 64)
        assert hashlib.sha256((tmp_path / event.name).read_bytes()).hexdigest() == event.sha256


def test_classes_and_seeds_differ_and_repeat(server):
    def bytes_of(client, **changes):
        request = Request(**{**REQUEST.__dict__, **changes})
        return [bytes(event.data) for event in client.generate(request) if isinstance(event, Artifact)]

    with Client(server.address) as client:
        first = bytes_of(client)
        assert bytes_of(client) == first
        assert bytes_of(client, seed=8) != first
        assert bytes_of(client, parameters={"class": "brick"}) != first


def test_a_trained_material_tiles(server, tmp_path):
    """Across the seam neighbours differ as they do elsewhere; a picture that does not tile would show a step there."""
    with Client(server.address) as client:
        write_assets(client.generate(REQUEST), tmp_path)
    (path,) = tmp_path.glob("*base_color*")
    with Image.open(path) as picture:
        pixels = np.asarray(picture).astype(float)
    for axis in (0, 1):
        steps = np.abs(np.diff(pixels, axis=axis, append=pixels.take([0], axis))).mean(axis=(1 - axis, 2))
        assert steps[-1] <= 3 * np.median(steps) + 1
