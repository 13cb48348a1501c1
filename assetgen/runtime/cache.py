"""A folder of this user's for what is built or measured once on this machine; standard library and errors of ours.

Engines in it are loaded as machine code, so nobody else may be able to put one there: a folder or file that others own
or can write is refused, not repaired.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from assetgen.errors import ConfigInvalid, OutputUnwritable
from assetgen.manifest import is_file_name

VARIABLE = "ASSETGEN_CACHE"
MAX_FILE_BYTES = 4 << 30
_DIGEST_BYTES = 32
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """Where the folder lies: ``ASSETGEN_CACHE``, or what the system has for it; not made."""
    if told := os.environ.get(VARIABLE):
        return Path(told).absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "assetgen" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "assetgen"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assetgen"


class Cache:
    """Files by name, each whole or absent.

    Args:
        folder: made if absent, for this user alone.

    Raises:
        ConfigInvalid: it, or a folder above it, is another user's or can be written by others.
        OutputUnwritable: it cannot be made.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputUnwritable(
                f"{self.folder} cannot be made: {error.strerror or error}", hint=f"set {VARIABLE} to a folder of yours"
            ) from error
        _check_folders(self.folder)

    def read(self, name: str) -> bytes | None:
        """What ``write`` kept; ``None`` if there is nothing, or it was cut off.

        Raises:
            ConfigInvalid: the file is a link, another user's, or can be written by others.
        """
        try:
            handle = os.open(self._path(name), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigInvalid(
                f"{self._path(name)} is a link or cannot be read: {error.strerror}", hint="remove it"
            ) from error
        with os.fdopen(handle, "rb") as file:
            _check_owner(self._path(name), os.fstat(file.fileno()))
            data = file.read(MAX_FILE_BYTES)
        digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else None

    def write(self, name: str, content: bytes) -> Path:
        """Keep ``content``, replacing an older one in one step; raises OutputUnwritable."""
        path = self._path(name)
        try:
            handle, part = tempfile.mkstemp(prefix=".part-", dir=self.folder)  # readable by this user alone
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(content).digest() + content)
                Path(part).replace(path)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise OutputUnwritable(
                f"{path} cannot be written: {error.strerror or error}", hint="check free space and rights"
            ) from error
        return path

    def _path(self, name: str) -> Path:
        if not is_file_name(name):
            raise ValueError(f"{name!r} is no plain file name")
        return self.folder / name


def _check_folders(folder: Path) -> None:
    """Check the folder, and that nobody else can put another in its place."""
    if sys.platform == "win32":  # profiles are this user's alone; rights are lists there, not bits
        return
    folder = folder.resolve()
    _check_owner(folder, folder.stat())
    for above in folder.parents:
        status = above.stat()
        sticky = status.st_mode & stat.S_ISVTX  # others may add to it, not take away
        if (status.st_mode & _OTHERS_WRITE and not sticky) or status.st_uid not in (0, os.geteuid()):
            raise _refusal(above)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if sys.platform == "win32":
        return
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
        raise _refusal(path)


def _refusal(path: Path) -> ConfigInvalid:
    return ConfigInvalid(
        f"{path} belongs to another user or can be written by others; engines from it would run as machine code",
        hint=f"chmod go-w {path}, or set {VARIABLE} to a folder that is yours alone",
    )
