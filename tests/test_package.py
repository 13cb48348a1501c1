"""Packages on disk: writing, verifying, reading again; hostile ones stand in attacks/."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from assetgen.errors import OutputUnwritable, PackageInvalid
from assetgen.package import verify_package, write_manifest
from tests.helpers.tiny_package import tiny_manifest, write_tiny_package


def test_what_was_written_verifies(tmp_path):
    digest = write_tiny_package(tmp_path / "tiny")
    package = verify_package(tmp_path / "tiny", digest=digest)
    assert package.digest == digest
    assert package.folder.is_absolute()
    assert replace(package.manifest, files=()) == tiny_manifest()
    listed = {entry.path for entry in package.manifest.files}
    assert listed == {"generator.onnx", "preview.png", "LICENSE", "MODEL_CARD.md"}


def test_the_manifest_lists_what_other_tools_count(tmp_path):
    write_tiny_package(tmp_path)
    listed = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))["files"]
    for entry in listed:
        data = (tmp_path / entry["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size_bytes"], entry["sha256"])


def test_the_digest_is_the_same_for_the_same_content(tmp_path):
    assert write_tiny_package(tmp_path / "a") == write_tiny_package(tmp_path / "b")
    assert write_tiny_package(tmp_path / "c", weight_seed=1) != write_tiny_package(tmp_path / "a")


def test_another_digest_is_refused(tmp_path):
    write_tiny_package(tmp_path)
    with pytest.raises(PackageInvalid, match="expected " + "a" * 64):
        verify_package(tmp_path, digest="a" * 64)


def test_read_checks_again(tmp_path):
    write_tiny_package(tmp_path)
    package = verify_package(tmp_path)
    data = package.read("generator.onnx")
    assert hashlib.sha256(data).hexdigest() in {entry.sha256 for entry in package.manifest.files}
    (tmp_path / "generator.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PackageInvalid, match=r"generator.onnx: has SHA-256"):
        package.read("generator.onnx")


@pytest.mark.parametrize("name", ["manifest.json", "../x", "nothing.md", "/etc/passwd"])
def test_read_knows_listed_files_only(tmp_path, name):
    write_tiny_package(tmp_path)
    with pytest.raises(PackageInvalid, match="not listed"):
        verify_package(tmp_path).read(name)


@pytest.mark.skipif(sys.platform == "win32", reason="files that are open stay on Windows")
@pytest.mark.parametrize("moment", ["iterdir", "open", "lstat"])
@pytest.mark.parametrize("times", range(4))
def test_a_package_that_goes_while_it_is_read_is_one_error(tmp_path, monkeypatch, moment, times):
    """An operator replaces it just then: at every look at it that verifying takes."""
    folder = tmp_path / "tiny"
    write_tiny_package(folder)
    look, looks = getattr(Path, moment), []

    def gone(path, *arguments, **named):
        looks.append(path)
        found = look(path, *arguments, **named)
        found = iter(list(found)) if moment == "iterdir" else found
        if len(looks) == times + 1:
            shutil.rmtree(folder)
        return found

    with monkeypatch.context() as patched, suppress(PackageInvalid):
        patched.setattr(Path, moment, gone)
        verify_package(folder)
    assert folder.exists() == (len(looks) <= times)


def test_write_manifest_replaces_in_one_step_and_leaves_nothing_behind(tmp_path):
    first = write_tiny_package(tmp_path)
    (tmp_path / "NOTICE").write_text("hello\n", encoding="utf-8")
    second = write_manifest(tmp_path, tiny_manifest())
    assert second != first
    assert verify_package(tmp_path).digest == second
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / "manifest.json").stat().st_mode) == 0o644


def test_write_manifest_refuses_what_verify_would_refuse(tmp_path):
    write_tiny_package(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(PackageInvalid, match="id: got 'con'"):
        write_manifest(tmp_path, tiny_manifest(id="con"))
    (tmp_path / "weights.pt").write_bytes(b"PK")
    with pytest.raises(PackageInvalid, match=r"weights.pt"):
        write_manifest(tmp_path, tiny_manifest())
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_error_of_ours(tmp_path):
    write_tiny_package(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputUnwritable, match="cannot be written"):
            write_manifest(tmp_path, tiny_manifest())
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_a_full_disk_leaves_the_former_manifest(tmp_path):
    write_tiny_package(tmp_path)
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    code = """
import resource, signal, sys
from pathlib import Path
from assetgen.errors import OutputUnwritable
from assetgen.package import write_manifest
from tests.helpers.tiny_package import tiny_manifest
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    write_manifest(Path(sys.argv[1]), tiny_manifest(max_px=512))
except OutputUnwritable as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before
