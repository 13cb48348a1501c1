"""Files that a request names."""

import pytest

from assetgen import attach
from assetgen.attach import with_files
from assetgen.errors import FieldInvalid
from assetgen.types import Request


def test_a_path_becomes_the_bytes_of_its_file(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    given = Request("style", parameters={"image": tmp_path / "photo.png", "strength": 0.5, "class": "retro"})
    sent = with_files(given)
    assert sent.parameters == {"image": b"\x89PNG", "strength": 0.5, "class": "retro"}
    assert with_files(sent) is sent


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(FieldInvalid, match=r"^parameters\[image\]: .* cannot be read") as caught:
            with_files(Request("style", parameters={"image": path}))
        assert caught.value.field == "parameters[image]"


def test_a_file_that_no_server_takes_is_refused_before_it_is_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(attach, "MAX_FILE_BYTES", 3)
    (tmp_path / "photo.png").write_bytes(b"1234")
    with pytest.raises(FieldInvalid, match="more than"):
        with_files(Request("style", parameters={"image": tmp_path / "photo.png"}))
