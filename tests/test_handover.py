"""Taking files from shared memory: only those a server may hand over, and only once."""

import hashlib
import os
import secrets
import sys

import pytest

from assetgen import handover
from assetgen.errors import TransferDamaged

fcntl = pytest.importorskip("fcntl")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are handed over on Linux only")

DATA = b"pixels" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / f"assetgen-{secrets.token_hex(16)}"
    path.mkdir(mode=0o700)
    return path


def put(folder, data=DATA, sha256=SHA256):
    path = folder / f"{sha256}-{secrets.token_hex(8)}"
    path.write_bytes(data)
    return f"{folder.name}/{path.name}"


def test_a_file_is_taken_once_and_its_name_is_gone(folder, tmp_path):
    name = put(folder)
    view = handover.take(name, len(DATA), SHA256, tmp_path)
    assert (bytes(view), view.readonly) == (DATA, True)
    assert list(folder.iterdir()) == []
    with pytest.raises(TransferDamaged, match="cannot be taken"):
        handover.take(name, len(DATA), SHA256, tmp_path)


def test_the_lock_lasts_as_long_as_the_view(folder, tmp_path):
    name = put(folder)
    with (tmp_path / name).open("rb") as known:
        view = handover.take(name, len(DATA), SHA256, tmp_path)
        with pytest.raises(BlockingIOError):
            fcntl.flock(known, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part = view[:1]
        del view
        with pytest.raises(BlockingIOError):
            fcntl.flock(known, fcntl.LOCK_EX | fcntl.LOCK_NB)
        del part
        fcntl.flock(known, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../{}", "{}/../x", "{}\n", "x{}", "{}/x", "./{}", "assetgen-0/0", "{}\0", "/dev/shm/{}"],
)
def test_nothing_but_names_of_servers_is_opened(folder, tmp_path, name):
    with pytest.raises(TransferDamaged, match="may hand over"):
        handover.take(name.format(put(folder)), len(DATA), SHA256, tmp_path)


def test_a_file_named_by_another_hash_is_refused(folder, tmp_path):
    with pytest.raises(TransferDamaged, match="may hand over"):
        handover.take(put(folder), len(DATA), "0" * 64, tmp_path)


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_a_folder_that_others_can_enter_is_not_ours(folder, tmp_path, mode):
    name = put(folder)
    assert handover.is_ours(folder.name, tmp_path)
    folder.chmod(mode)
    assert not handover.is_ours(folder.name, tmp_path)
    with pytest.raises(TransferDamaged):
        handover.take(name, len(DATA), SHA256, tmp_path)


def test_links_are_not_followed(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    name = put(folder)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(secret)
    with pytest.raises(TransferDamaged):
        handover.take(name, len(DATA), SHA256, tmp_path)
    link = tmp_path / f"assetgen-{secrets.token_hex(16)}"
    link.symlink_to(folder)
    assert not handover.is_ours(link.name, tmp_path)
    assert secret.read_bytes() == DATA


@pytest.mark.parametrize("size", [0, len(DATA) - 1, len(DATA) + 1])
def test_another_size_is_refused_and_the_file_stays(folder, tmp_path, size):
    name = put(folder)
    with pytest.raises(TransferDamaged, match="bytes of account"):
        handover.take(name, size, SHA256, tmp_path)
    assert (tmp_path / name).is_file()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_account_is_not_ours(folder, tmp_path):
    os.chown(folder, 65534, 65534)
    assert not handover.is_ours(folder.name, tmp_path)


def test_a_folder_that_is_not_there_is_not_ours(tmp_path):
    assert not handover.is_ours(f"assetgen-{'0' * 32}", tmp_path)
    assert not handover.is_ours("", tmp_path)
