"""Hostile training files: of pictures and of volumes, each is refused with our error before much is unpacked."""

import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assetgen.datasets import archive, pack
from assetgen.datasets.tiles import MAX_EDGE_PX, load, read_index
from assetgen.datasets.volumes import load_volumes
from assetgen.errors import DataInvalid
from tests.helpers.picture_files import png, saved

READERS = {"index.json": load, "volumes.json": load_volumes}
FACTS = {"class": "rock", "group": "g", "split": "train", "license": "CC0-1.0", "facts": {}}
PICTURE = {"file": "0.png", "width_px": 16, "height_px": 16}
PICTURES = {"schema": 1, "items": [{"id": "a", "contrast": 9.0, "maps": {"base_color": PICTURE}, **FACTS}]}
VOLUMES = {"schema": 1, "edge": 16, "items": [{"id": "a", "file": "0.grid", **FACTS}]}
NOISE = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)), "PNG")
GRID = np.random.default_rng(0).integers(0, 9, 4 * 16**3).astype(np.uint8).tobytes()
MEMBERS = {"0.png": NOISE, "0.grid": GRID}
DIRECTORY_ENTRY = b"PK\x01\x02"


def write(path, index, members=MEMBERS, method=zipfile.ZIP_DEFLATED):
    """A training file that both readers know; ``index`` is text, or bytes as they are."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, own in (("index.json", PICTURES), ("volumes.json", VOLUMES)):
            content = own if index is None else index
            file.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
        for name, data in members.items():
            file.writestr(name, data)
    return path


def change_directory(path, offset, form, value):
    """Write ``value`` into all entries of the directory."""
    data = bytearray(path.read_bytes())
    at = data.find(DIRECTORY_ENTRY)
    while at >= 0:
        struct.pack_into(form, data, at + offset, value)
        at = data.find(DIRECTORY_ENTRY, at + 4)
    path.write_bytes(data)


def refused(path, name):
    """The error, and how much memory was taken for it in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(DataInvalid) as caught:
            READERS[name](path)
        return caught.value, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_sound_file_is_read(tmp_path):
    (item,) = load(write(tmp_path / "a.zip", None))
    assert item.maps["base_color"].shape == (16, 16, 3)
    (item,) = load_volumes(tmp_path / "a.zip")
    assert item.grid.tobytes() == GRID


@pytest.mark.parametrize("name", READERS)
def test_a_deep_index_is_refused(tmp_path, name):
    error, _ = refused(write(tmp_path / "a.zip", b'{"schema": 1, "items": ' + b"[" * 10**6), name)
    assert "recursion" in error.message
    assert error.hint


@pytest.mark.parametrize("name", READERS)
def test_an_index_is_not_unpacked_beyond_its_bound(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archive, "MAX_INDEX_BYTES", 1000)
    write(tmp_path / "a.zip", b" " * 30_000_000)
    error, taken_bytes = refused(tmp_path / "a.zip", name)
    assert f"{name} has more than 1000 bytes" in error.message
    assert taken_bytes < 1_000_000


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("told_bytes", [10, 900])
def test_a_directory_that_lies_about_sizes_is_not_believed(tmp_path, monkeypatch, name, told_bytes):
    monkeypatch.setattr(archive, "MAX_INDEX_BYTES", 1000)
    write(tmp_path / "a.zip", b" " * 30_000_000)
    change_directory(tmp_path / "a.zip", 24, "<I", told_bytes)
    _, taken_bytes = refused(tmp_path / "a.zip", name)
    assert taken_bytes < 1_000_000


@pytest.mark.parametrize("name", READERS)
def test_members_are_not_unpacked_beyond_what_they_can_hold(tmp_path, monkeypatch, name):
    monkeypatch.setattr("assetgen.datasets.tiles.MAX_PICTURE_BYTES", 20_000)
    write(tmp_path / "a.zip", None, {"0.png": NOISE + bytes(30_000_000), "0.grid": bytes(30_000_000)})
    error, taken_bytes = refused(tmp_path / "a.zip", name)
    assert "has more than" in error.message
    assert taken_bytes < 1_000_000


@pytest.mark.parametrize("name", READERS)
def test_members_with_a_password_or_of_another_method_are_refused(tmp_path, name):
    write(tmp_path / "a.zip", None)
    change_directory(tmp_path / "a.zip", 8, "<H", 1)
    assert "encrypted" in refused(tmp_path / "a.zip", name)[0].message
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        write(tmp_path / "a.zip", None, method=method)
        assert f"packed by method {method}" in refused(tmp_path / "a.zip", name)[0].message


@pytest.mark.parametrize("name", READERS)
def test_members_that_do_not_unpack_are_refused(tmp_path, name):
    data = bytearray(write(tmp_path / "a.zip", None).read_bytes())
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        for entry in file.infolist():
            begin = entry.header_offset + 30 + len(entry.filename)
            data[begin : begin + 8] = b"\xff" * 8
    (tmp_path / "a.zip").write_bytes(data)
    assert "invalid" in refused(tmp_path / "a.zip", name)[0].message


def changed(document, **changes):
    return {**document, "items": [{**document["items"][0], **changes}]}


STRANGE = {
    "nothing": {},
    "no items": {"schema": 1},
    "items that are none": {"schema": 1, "items": 3},
    "items by name": {"schema": 1, "items": {"class": {"class": "rock"}}},
    "numbers": {"schema": 1, "items": [1, 2]},
    "no class": {"schema": 1, "items": [{}]},
    "a class that is none": {"schema": 1, "items": [{"class": ["rock"]}]},
    "a bare item": {"schema": 1, "items": [{"class": "rock"}]},
    "another schema": {"schema": [1], "items": []},
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("index", STRANGE.values(), ids=STRANGE)
def test_a_strange_index_is_refused(tmp_path, name, index):
    write(tmp_path / "a.zip", index)
    assert refused(tmp_path / "a.zip", name)[0].message.startswith(str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"facts": []},
        {"contrast": "high"},
        {"maps": []},
        {"maps": {"base_color": {}}},
        {"maps": {"base_color": PICTURE, "scent": PICTURE}},
        {"maps": {"base_color": {**PICTURE, "file": "../0.png"}}},
        {"maps": {"base_color": {**PICTURE, "file": ["0.png"]}}},
        {"maps": {"base_color": {**PICTURE, "width_px": None}}},
    ],
    ids=range(8),
)
def test_strange_records_of_pictures_are_refused(tmp_path, changes):
    refused(write(tmp_path / "a.zip", changed(PICTURES, **changes)), "index.json")


@pytest.mark.parametrize(
    "index",
    [
        {**VOLUMES, "edge": 10**6},
        {**VOLUMES, "edge": -16},
        {**VOLUMES, "edge": "large"},
        {**VOLUMES, "edge": 17},
        changed(VOLUMES, file="1.grid"),
        changed(VOLUMES, facts=[]),
    ],
    ids=range(6),
)
def test_strange_records_of_volumes_are_refused(tmp_path, index):
    refused(write(tmp_path / "a.zip", index), "volumes.json")


@pytest.mark.parametrize("edge_px", [MAX_EDGE_PX + 1, 9_500, 13_000, 100_000])
def test_pictures_larger_than_are_packed_are_not_decoded(tmp_path, edge_px):
    assert pack.MAX_EDGE_PX == MAX_EDGE_PX
    write(tmp_path / "a.zip", None, {"0.png": png(edge_px, edge_px)})
    error, taken_bytes = refused(tmp_path / "a.zip", "index.json")
    assert error.message.startswith(f"0.png in {tmp_path / 'a.zip'} is damaged")
    assert taken_bytes < 1_000_000


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4)


@given(changes=CHANGES, name=st.sampled_from(sorted(READERS)), method=st.sampled_from([0, 8]))
def test_any_damage_is_our_error_or_harmless(tmp_path_factory, changes, name, method):
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    data = bytearray(write(path, None, method=method).read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    try:
        assert len(READERS[name](path)) == 1
    except DataInvalid:
        return
    if name == "index.json":
        assert len(read_index(path)["items"]) == 1
