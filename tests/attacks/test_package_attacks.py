"""Hostile packages, as files on disk: each is refused with one error that names the rule, before anything is used."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from assetgen.errors import PackageInvalid, PolicyViolated
from assetgen.package import verify_package, write_manifest
from assetgen.store import open_store
from tests.helpers.tiny_package import tiny_manifest, write_tiny_package

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path) -> Path:
    folder = tmp_path / "models" / "tiny"
    write_tiny_package(folder)
    return folder


def refused(folder: Path, rule: str) -> None:
    with pytest.raises(PackageInvalid, match=rule) as caught:
        verify_package(folder)
    assert caught.value.reason == "PACKAGE_INVALID"
    assert len(caught.value.message) < 1000


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as a forger would: its digest changes with it."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def list_file(folder: Path, name: str, data: bytes) -> None:
    """Put a file into the package and list it honestly."""
    (folder / name).write_bytes(data)
    entry = {"path": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(folder, lambda document: document["files"].append(entry))


@pytest.mark.parametrize("name", ["extra.md", ".hidden", "__init__.py", "generator.onnx.bak", "evil.so", "Thumbs.db"])
def test_an_unlisted_file(package, name):
    (package / name).write_bytes(b"x")
    refused(package, f"'{name}' is not listed")


def test_a_sub_folder(package):
    (package / "more").mkdir()
    refused(package, "'more' is not listed")
    edit(package, lambda m: m["files"].append({"path": "more", "size_bytes": 1, "sha256": "0" * 64}))
    refused(package, "'more' has no place")


def test_a_folder_in_place_of_a_listed_file(package):
    (package / "LICENSE").unlink()
    (package / "LICENSE").mkdir()
    refused(package, "LICENSE: not a plain file")


@pytest.mark.parametrize("name", ["generator.onnx", "LICENSE", "preview.png", "manifest.json"])
def test_a_missing_file(package, name):
    (package / name).unlink()
    refused(package, f"{name}'? is missing")


@pytest.mark.parametrize("name", ["generator.onnx", "LICENSE", "preview.png"])
def test_an_altered_file(package, name):
    data = bytearray((package / name).read_bytes())
    data[-1] ^= 1
    (package / name).write_bytes(data)
    refused(package, f"{name}: has SHA-256")


def test_a_longer_and_a_shorter_file(package):
    data = (package / "LICENSE").read_bytes()
    (package / "LICENSE").write_bytes(data + b"x")
    refused(package, f"LICENSE: has more than {len(data)} bytes")
    (package / "LICENSE").write_bytes(data[:-1])
    refused(package, f"LICENSE: has {len(data) - 1} bytes, the manifest says {len(data)}")
    (package / "LICENSE").write_bytes(b"")
    refused(package, "LICENSE: has 0 bytes")


@pytest.mark.parametrize("name", ["LICENSE", "generator.onnx", "manifest.json"])
def test_a_symbolic_link(package, tmp_path, name):
    (package / name).rename(tmp_path / "elsewhere")
    try:
        (package / name).symlink_to(tmp_path / "elsewhere")
    except OSError:
        pytest.skip("symbolic links need a privilege here")
    refused(package, f"{name}: a symbolic link")


def test_a_dangling_symbolic_link(package):
    (package / "LICENSE").unlink()
    try:
        (package / "LICENSE").symlink_to("nowhere")
    except OSError:
        pytest.skip("symbolic links need a privilege here")
    refused(package, "LICENSE: a symbolic link")


@pytest.mark.parametrize("name", ["LICENSE", "generator.onnx", "manifest.json"])
def test_a_hard_link(package, tmp_path, name):
    os.link(package / name, tmp_path / "other-name")
    refused(package, f"{name}: a hard link")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["LICENSE", "manifest.json"])
def test_a_named_pipe_does_not_make_us_wait(package, name):
    (package / name).unlink()
    os.mkfifo(package / name)
    refused(package, f"{name}: not a plain file")


@pytest.mark.parametrize(
    "name", ["../x", "../../etc/passwd", "/etc/passwd", "C:\\x", "a/b", "..", "nul", "LICENSE/", "\0"]
)
def test_a_path_that_leaves_the_folder(package, name):
    (package.parent / "x").write_bytes(b"x")
    edit(package, lambda m: m["files"].append({"path": name, "size_bytes": 1, "sha256": "0" * 64}))
    opened: list[str] = []
    _AUDITED.append(opened)
    try:
        refused(package, r"files.path: got")
    finally:
        _AUDITED.remove(opened)
    assert [path for path in opened if Path(path).name != "manifest.json"] == []


_AUDITED: list[list[str]] = []
sys.addaudithook(
    lambda event, arguments: [opened.append(str(arguments[0])) for opened in _AUDITED] if event == "open" else None
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b'{"schema": 1, "schema": 1}', "duplicate key"),
        (b'{"schema": 1, "provenance": NaN}', "not JSON"),
        (b'{"schema": 1, "provenance": 1e999}', "not finite"),
        (b'{"schema": 1, "provenance": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
        (b'{"schema": 1, "latent_dimension": ' + b"9" * 10_000 + b"}", "characters"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"", "not JSON"),
        (b"\x80\x04.", "not UTF-8"),
    ],
)
def test_a_hostile_manifest(package, text, rule):
    (package / "manifest.json").write_bytes(text)
    refused(package, rule)


def test_a_manifest_of_a_gigabyte(package):
    with (package / "manifest.json").open("wb") as file:
        file.truncate(1 << 30)  # sparse; reading it whole would show in memory
    code = """
import sys
from pathlib import Path
from assetgen.errors import PackageInvalid
from assetgen.package import verify_package
try:
    verify_package(Path(sys.argv[1]))
except PackageInvalid as error:
    print(error.message)
if sys.platform == "linux":
    # Not ru_maxrss: Linux counts the process that started this one, here pytest with torch, into it.
    status = Path("/proc/self/status").read_text().splitlines()
    peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert peak_kb < 200 << 10, peak_kb
elif sys.platform == "darwin":
    import resource
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 200 << 20
"""
    done = subprocess.run([sys.executable, "-c", code, package], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "more than 1048576 bytes" in done.stdout


def test_nothing_is_opened_before_the_pinned_digest_passes(package):
    digest = verify_package(package).digest
    edit(package, lambda m: m.update(display_name="Forged"))
    assert verify_package(package).manifest.display_name == "Forged"  # consistent in itself: only the pin tells
    opened: list[str] = []
    _AUDITED.append(opened)
    try:
        with pytest.raises(PackageInvalid, match=f"expected {digest}"):
            verify_package(package, digest=digest)
    finally:
        _AUDITED.remove(opened)
    assert [Path(path).name for path in opened] == ["manifest.json"]


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def zip_of_a_pickle(data: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["weights.pkl", "weights.pt", "weights.pth", "model.engine", "model.plan", "lib.so", "x.dll"]
)
def test_a_listed_file_that_has_no_place(package, tmp_path, name):
    list_file(package, name, pickle.dumps(Evil(tmp_path / "pwned")))
    refused(package, f"'{name}' has no place in a package")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("suffix", [".onnx", ".png", ".json", ".md", ".txt"])
def test_a_pickle_under_another_name(package, tmp_path, suffix):
    data = pickle.dumps(Evil(tmp_path / "pwned"))
    list_file(package, "innocent" + suffix, data)
    refused(package, f"'innocent{suffix}' (begins with|is not UTF-8)")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("disguise", [pickle.dumps, lambda evil: zip_of_a_pickle(pickle.dumps(evil))])
def test_a_pickle_or_checkpoint_in_place_of_the_graph(package, tmp_path, disguise):
    (package / "generator.onnx").write_bytes(disguise(Evil(tmp_path / "pwned")))
    with pytest.raises(PackageInvalid, match=r"generator.onnx' begins with"):
        write_manifest(package, tiny_manifest())
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("data", [b"\x08", b"\x08\x09", b"\x08" * 1000, b"\x08\x09" + os.urandom(500)])
def test_a_graph_that_only_begins_like_one(package, data):
    (package / "generator.onnx").write_bytes(data)
    write_manifest(package, tiny_manifest())
    with pytest.raises(PolicyViolated, match=r"generator.onnx: "):
        open_store([package.parent])


def test_a_package_replaced_while_it_is_served_is_noticed_at_the_next_read(package):
    served = verify_package(package)
    running = served.read("generator.onnx")
    write_tiny_package(package, weight_seed=9)
    assert hashlib.sha256(running).hexdigest() in {entry.sha256 for entry in served.manifest.files}
    with pytest.raises(PackageInvalid, match="the manifest says"):
        served.read("generator.onnx")
    assert verify_package(package).digest != served.digest


def archive_of(name: str, data: bytes, mode: int = 0o100644) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


ARCHIVES = {
    "a package": archive_of("manifest.json", b"{}"),
    "a path upwards": archive_of("../../evil/manifest.json", b"{}"),
    "an absolute path": archive_of("/abs/evil", b"evil"),
    "a bomb": archive_of("manifest.json", bytes(20_000_000)),
    "a link": archive_of("evil", b"/etc", stat.S_IFLNK | 0o777),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_not_a_package(tmp_path, name):
    path = tmp_path / "models" / "tiny" / "tiny.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(ARCHIVES[name])
    before = sorted(tmp_path.rglob("*"))
    refused(path, "not a readable package folder")
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/abs").exists()


@pytest.mark.parametrize("file", ["more.zip", "more.onnx", "more.png", "more.txt"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_in_a_package_is_never_unpacked(package, tmp_path, name, file):
    list_file(package, file, ARCHIVES[name])
    before = sorted(tmp_path.rglob("*"))
    refused(package, f"'{file}' (has no place in a package|begins with|is not UTF-8)")
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/abs").exists()


def test_the_serving_side_reads_no_pickles():
    """Fail if code that touches packages so much as imports what could load one."""
    sources = [*(ROOT / "assetgen").glob("*.py"), *(ROOT / "assetgen" / "runtime").glob("*.py")]
    assert len(sources) > 10
    for path in sources:
        text = path.read_text(encoding="utf-8")
        for word in (
            "import pickle",
            "import marshal",
            "import shelve",
            "torch.load",
            "np.load(",
            "zipfile",
            "tarfile",
        ):
            assert word not in text, f"{path.name} uses {word}"
