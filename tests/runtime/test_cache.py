"""The cache: whole files or none, and nothing that others could have put there."""

import os
import stat
import sys

import pytest

from assetgen.errors import ConfigInvalid, OutputUnwritable
from assetgen.runtime import cache
from assetgen.runtime.cache import Cache, cache_folder

posix = pytest.mark.skipif(sys.platform == "win32", reason="rights are lists there, not bits")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def test_what_was_written_is_read(folder):
    kept = Cache(folder)
    assert kept.read("a.plan") is None
    kept.write("a.plan", b"first")
    kept.write("a.plan", b"second")
    assert Cache(folder).read("a.plan") == b"second"
    assert [path.name for path in folder.iterdir()] == ["a.plan"], "no temporary file is left"


@pytest.mark.parametrize("length", [0, 10, 31, 40, 60])
def test_a_file_that_was_cut_off_counts_as_absent(folder, length):
    path = Cache(folder).write("a.plan", b"x" * 100)
    path.write_bytes(path.read_bytes()[:length])
    assert Cache(folder).read("a.plan") is None


@posix
def test_it_is_made_for_this_user_alone(folder):
    path = Cache(folder).write("a.plan", b"x")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigInvalid, match="can be written by others") as caught:
        Cache(folder)
    assert f"chmod go-w {folder}" in caught.value.hint
    assert stat.S_IMODE(folder.stat().st_mode) == mode, "nothing is repaired silently"


@posix
def test_a_folder_below_one_that_others_can_write_is_refused(tmp_path):
    above = tmp_path / "shared"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(ConfigInvalid, match="shared"):
        Cache(above / "cache")
    above.chmod(0o1777)  # as /tmp: others add, and take nothing away
    Cache(above / "cache")


@posix
def test_another_users_folder_is_refused(folder, monkeypatch):
    Cache(folder)
    mine = os.geteuid()
    monkeypatch.setattr(cache.os, "geteuid", lambda: mine + 1)
    with pytest.raises(ConfigInvalid, match="another user"):
        Cache(folder)


@posix
def test_a_file_that_others_can_write_is_refused(folder):
    kept = Cache(folder)
    kept.write("a.plan", b"x").chmod(0o666)
    with pytest.raises(ConfigInvalid, match=r"a\.plan .*written by others"):
        kept.read("a.plan")


@posix
def test_a_link_is_refused(folder, tmp_path):
    kept = Cache(folder)
    kept.write("a.plan", b"x").rename(tmp_path / "elsewhere")
    (folder / "a.plan").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigInvalid, match="is a link"):
        kept.read("a.plan")


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".hidden"])
def test_names_are_plain(folder, name):
    with pytest.raises(ValueError, match="plain file name"):
        Cache(folder).read(name)


def test_a_folder_that_cannot_be_made_names_the_variable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable) as caught:
        Cache(tmp_path / "file" / "cache")
    assert cache.VARIABLE in caught.value.hint


def test_a_full_disk_leaves_the_older_file(folder, monkeypatch):
    kept = Cache(folder)
    kept.write("a.plan", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.Path, "replace", full)
    with pytest.raises(OutputUnwritable, match="No space left"):
        kept.write("a.plan", b"new")
    monkeypatch.undo()
    assert kept.read("a.plan") == b"old"
    assert [path.name for path in folder.iterdir()] == ["a.plan"]


def test_the_variable_says_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv(cache.VARIABLE)
    assert cache_folder().name in ("assetgen", "cache")
