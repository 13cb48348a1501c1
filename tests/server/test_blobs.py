"""Files by their hash: found for a while, never more than the budget, never by anything else."""

import hashlib

import pytest

from assetgen.server import blobs as module
from assetgen.server.blobs import Blobs


def test_a_file_is_found_by_its_path_and_hash():
    blobs = Blobs(100)
    path = blobs.keep(b"pixels", "image/png")
    assert path == f"/v1/blobs/{hashlib.sha256(b'pixels').hexdigest()}.png"
    for known in (path, path.removesuffix(".png"), path.replace(".png", ".glb")):
        assert bytes(blobs.find(known).data) == b"pixels"
    assert blobs.keep(b"pixels", "image/png") == path
    assert blobs.held_bytes == 6


def test_the_oldest_make_room_and_the_newest_stays_whatever_its_size():
    blobs = Blobs(10)
    first, second, third = (blobs.keep(data, "image/png") for data in (b"aaaaa", b"bbbbb", b"ccccc"))
    assert blobs.find(first) is None
    assert blobs.find(second).data == b"bbbbb"
    large = blobs.keep(b"d" * 50, "image/png")
    assert (blobs.find(second), blobs.find(third)) == (None, None)
    assert len(blobs.find(large).data) == 50
    assert blobs.held_bytes == 50


def test_files_leave_after_their_time(monkeypatch):
    monkeypatch.setattr(module, "MAX_AGE_S", 0.0)
    blobs = Blobs(100)
    assert blobs.find(blobs.keep(b"pixels", "image/png")) is None
    assert blobs.held_bytes == 0


@pytest.mark.parametrize("path", ["", "/v1/blobs/", "/v1/blobs/../x", "/v1/blobs/" + "g" * 64, "/v1/blobs/" + "A" * 64])
def test_nothing_else_is_a_path(path):
    blobs = Blobs(100)
    blobs.keep(b"pixels", "image/png")
    assert blobs.find(path) is None
