"""A model package on disk: reading, verifying and writing one; standard library, and of ours manifest and errors.

Nothing of a package is used before all of it was verified, and nothing but the manifest is parsed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import stat
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from assetgen import strictjson
from assetgen.errors import ConfigInvalid, OutputUnwritable, PackageInvalid
from assetgen.manifest import MANIFEST_NAME, MAX_FILE_BYTES, SCHEMA, FileEntry, Manifest, check_manifest, is_file_name

MAX_MANIFEST_BYTES = 1 << 20
# Lies beside the manifest, which cannot list it: it is made of the manifest's digest. See signature.py.
SIGNATURE_NAME = "model.sig"
MAX_SIGNATURE_BYTES = 1 << 20

# Suffix to the bytes such a file must begin with; text files must be UTF-8. No pickle, engine or library has a place.
MAGIC = {".onnx": b"\x08", ".png": b"\x89PNG\r\n\x1a\n"}
TEXT_SUFFIXES = frozenset([".json", ".md", ".txt"])
TEXT_NAMES = re.compile(r"(?:LICENSE|NOTICE|COPYING|AUTHORS)(?:-[A-Za-z0-9.+-]+)?")
_ALLOWED = "*.onnx, *.png, *.json, *.md, *.txt, LICENSE, NOTICE, COPYING and AUTHORS"


@dataclass(frozen=True)
class VerifiedPackage:
    """A package whose every file was what its manifest says.

    Attributes:
        folder: where it lies; absolute.
        digest: hex SHA-256 of the bytes of the manifest, the model's identity.
    """

    folder: Path
    manifest: Manifest
    digest: str

    def read_graph(self, precision: str = "fp32") -> bytes:
        """Read the graph in a precision; raises ConfigInvalid, naming those there are."""
        graphs = self.manifest.graphs
        if precision not in graphs:
            raise ConfigInvalid(
                f"model {self.manifest.id} has no graph in {precision}; it has {', '.join(graphs)}",
                field="device",
                hint=f"make one: assetgen export PACKAGE --precision {precision}",
            )
        return self.read(graphs[precision])

    def read(self, name: str) -> bytes:
        """Read a listed file and check it again, so that what is used is what was verified."""
        for entry in self.manifest.files:
            if entry.path == name:
                return _read_entry(self.folder, entry)
        listed = ", ".join(entry.path for entry in self.manifest.files)
        raise PackageInvalid(f"{self.folder}: {name!r:.80} is not listed in the manifest; listed are {listed}")


def read_manifest(path: Path, digest: str | None = None) -> tuple[Manifest, str]:
    """Read a manifest and check everything it says that can be checked without the other files.

    Args:
        path: the manifest file.
        digest: hex SHA-256 that the file must have, compared before anything is parsed; ``None`` accepts any.

    Returns:
        The manifest and its digest, the hex SHA-256 of the file's bytes.

    Raises:
        PackageInvalid: the message names the rule that is broken.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise PackageInvalid(
            f"{path}: the manifest cannot be read: {error.strerror or error}",
            hint="A package is a folder with a manifest.json; check the path and its permissions.",
        ) from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise PackageInvalid(f"{path}: the manifest has more than {MAX_MANIFEST_BYTES} bytes, the largest allowed")
    found = hashlib.sha256(data).hexdigest()
    if digest is not None and not hmac.compare_digest(found.encode(), digest.encode()):
        raise PackageInvalid(
            f"{path}: the digest is {found}, expected {digest}",
            hint="The package is not the one that was pinned; fetch it again, or pin the new digest.",
        )
    try:
        return manifest_from_bytes(data), found
    except ValueError as error:
        raise PackageInvalid(f"{path}: {error}", hint="The package is damaged or hostile; fetch it again.") from error


def manifest_from_bytes(data: bytes) -> Manifest:
    """Parse and check a manifest; raises ValueError naming the field and the rule."""
    document = strictjson.loads(data)
    # The schema first: of a newer manifest the unknown keys are not the news.
    if isinstance(document, dict) and "schema" in document:
        schema = document["schema"]
        if type(schema) is not int or schema != SCHEMA:  # True == 1
            raise strictjson.StrictJsonError(f"schema: got {schema!r:.40}, this version reads {SCHEMA}")
    manifest = strictjson.build(Manifest, document)
    check_manifest(manifest)
    return manifest


def manifest_to_bytes(manifest: Manifest) -> bytes:
    """Write a manifest canonically: sorted keys, two spaces, UTF-8, a newline at the end."""
    text = json.dumps(asdict(manifest), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def verify_package(folder: Path, *, digest: str | None = None, allow_hard_links: bool = False) -> VerifiedPackage:
    """Check that a folder is exactly what its manifest says; nothing but the manifest is parsed.

    Args:
        folder: the package folder.
        digest: hex digest it must have; ``None`` accepts any.
        allow_hard_links: for files that a package installer put there: some link them from their cache.

    Raises:
        PackageInvalid: for a missing, altered, extra, linked or forbidden file; names the file and the rule.
    """
    folder = folder.absolute()
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise PackageInvalid(
            f"{folder}: not a readable package folder: {error.strerror or error}",
            hint="Give the folder that holds manifest.json; archives are to be unpacked first.",
        ) from error
    if MANIFEST_NAME not in names:
        raise PackageInvalid(
            f"{folder}: {MANIFEST_NAME} is missing", hint="Give the folder that holds manifest.json, not one above it."
        )
    _check_plain_file(folder / MANIFEST_NAME, allow_hard_links)
    manifest, found = read_manifest(folder / MANIFEST_NAME, digest)
    listed = {entry.path for entry in manifest.files}
    if SIGNATURE_NAME in names:
        _check_signature_file(folder / SIGNATURE_NAME, allow_hard_links)
    for name in names:
        if name not in (MANIFEST_NAME, SIGNATURE_NAME) and name not in listed:
            raise PackageInvalid(
                f"{folder}: {name!r:.80} is not listed in the manifest",
                hint="Remove it, or fetch the package again; a package holds nothing unlisted.",
            )
    for entry in manifest.files:
        _check_name(folder, entry.path)
        if entry.path not in names:
            raise PackageInvalid(
                f"{folder}: {entry.path!r} is missing", hint="The package is incomplete; fetch it again."
            )
        _check_plain_file(folder / entry.path, allow_hard_links)
        _check_content(folder, entry.path, _read_entry(folder, entry))
    return VerifiedPackage(folder, manifest, found)


def write_manifest(folder: Path, manifest: Manifest) -> str:
    """List the files of ``folder`` in the manifest, write it there in one step, and return its hex digest.

    Args:
        folder: holds every file of the package; an older manifest is replaced.
        manifest: what to write; its ``files`` are ignored and computed.

    Raises:
        PackageInvalid: what was to be written is not a valid package; nothing was written.
        OutputUnwritable: the folder cannot be read or written.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST_NAME)
        entries = [_entry_of(folder, name) for name in names]
    except OSError as error:
        raise OutputUnwritable(f"{folder}: cannot be read: {error.strerror or error}") from error
    data = manifest_to_bytes(replace(manifest, files=tuple(entries)))
    try:
        manifest_from_bytes(data)
    except ValueError as error:
        raise PackageInvalid(f"{folder}: the manifest to be written is invalid: {error}") from error
    try:
        write_atomically(folder / MANIFEST_NAME, data)
    except OSError as error:
        raise OutputUnwritable(
            f"{folder / MANIFEST_NAME}: cannot be written: {error.strerror or error}",
            hint="Check free space and permissions; the former file is untouched.",
        ) from error
    return hashlib.sha256(data).hexdigest()


def _check_name(folder: Path, name: str) -> None:
    if not is_file_name(name):
        raise PackageInvalid(f"{folder}: {name!r:.80} is not a plain file name")
    if Path(name).suffix not in (*MAGIC, *TEXT_SUFFIXES) and TEXT_NAMES.fullmatch(name) is None:
        raise PackageInvalid(
            f"{folder}: {name!r} has no place in a package; allowed are {_ALLOWED}",
            hint="Weights travel as ONNX; engines are built on the machine that runs them.",
        )


def _check_plain_file(path: Path, allow_hard_links: bool = False) -> int:
    """Returns its size in bytes."""
    try:
        status = path.lstat()
    except OSError as error:  # gone since its name was read, as when a package is replaced
        raise PackageInvalid(f"{path}: cannot be read: {error.strerror or error}") from error
    if stat.S_ISLNK(status.st_mode):
        raise PackageInvalid(f"{path}: a symbolic link; a package holds its files itself")
    if not stat.S_ISREG(status.st_mode):
        raise PackageInvalid(f"{path}: not a plain file; a package has no folders or devices")
    if status.st_nlink > 1 and not allow_hard_links:
        raise PackageInvalid(
            f"{path}: a hard link, the file has {status.st_nlink} names; a package holds its files itself",
            hint="Copy the folder without linking: cp -r, not cp -l.",
        )
    return status.st_size


def _check_signature_file(path: Path, allow_hard_links: bool) -> None:
    """Its size only: what it says is read by who wants it signed."""
    size_bytes = _check_plain_file(path, allow_hard_links)
    if size_bytes > MAX_SIGNATURE_BYTES:
        raise PackageInvalid(f"{path}: has {size_bytes} bytes, allowed are {MAX_SIGNATURE_BYTES}")


def _check_content(folder: Path, name: str, data: bytes) -> None:
    magic = MAGIC.get(Path(name).suffix)
    if magic is None:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PackageInvalid(f"{folder}: {name!r} is not UTF-8 text, at byte {error.start}") from error
        if "\0" in text:
            raise PackageInvalid(f"{folder}: {name!r} is not text, it holds a NUL")
    elif not data.startswith(magic):
        raise PackageInvalid(f"{folder}: {name!r} begins with {data[:8]!r}, which is not a {Path(name).suffix} file")


def _read_entry(folder: Path, entry: FileEntry) -> bytes:
    path = folder / entry.path
    try:
        with path.open("rb") as file:
            data = file.read(entry.size_bytes + 1)
    except OSError as error:
        raise PackageInvalid(f"{path}: cannot be read: {error.strerror or error}") from error
    hint = "The package was altered or damaged; fetch it again."
    if len(data) != entry.size_bytes:
        size = f"more than {entry.size_bytes}" if len(data) > entry.size_bytes else str(len(data))
        raise PackageInvalid(f"{path}: has {size} bytes, the manifest says {entry.size_bytes}", hint=hint)
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise PackageInvalid(f"{path}: has SHA-256 {found}, the manifest says {entry.sha256}", hint=hint)
    return data


def _entry_of(folder: Path, name: str) -> FileEntry:
    _check_name(folder, name)
    size_bytes = _check_plain_file(folder / name)
    if size_bytes > MAX_FILE_BYTES:
        raise PackageInvalid(f"{folder / name}: has {size_bytes} bytes, allowed are {MAX_FILE_BYTES}")
    data = (folder / name).read_bytes()
    _check_content(folder, name, data)
    return FileEntry(name, len(data), hashlib.sha256(data).hexdigest())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file of a package, all or nothing; raises OSError."""
    # The temporary file lies beside its goal: a rename works within one file system only.
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(part).unlink()
        raise
