"""Files in shared memory, on the side of who takes them: which may be opened, and how; imports errors only.

A server puts large files where only its own account can open them, under names that it alone chooses. A client of the
same account, on the same machine, maps what is there in place of receiving it.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import sys
from pathlib import Path

from assetgen.errors import TransferDamaged

ROOT = Path("/dev/shm")  # noqa: S108 -- folders there are made closed to others, and judged before they are used
FOLDER = re.compile(r"assetgen-[0-9a-f]{32}")
NAME = re.compile(r"(assetgen-[0-9a-f]{32})/([0-9a-f]{64})-[0-9a-f]{16}")


def is_supported() -> bool:
    """Whether this system has what it takes: memory with file names, locks that end with their holder."""
    return sys.platform == "linux" and ROOT.is_dir()


def is_ours(folder: str, root: Path = ROOT) -> bool:
    """Whether ``folder`` lies on this machine, belongs to this account and is closed to others."""
    if not (is_supported() and FOLDER.fullmatch(folder)):
        return False
    try:
        known = (root / folder).lstat()
    except OSError:
        return False
    return stat.S_ISDIR(known.st_mode) and known.st_uid == os.geteuid() and not known.st_mode & 0o077


def take(name: str, size_bytes: int, sha256: str, root: Path = ROOT) -> memoryview:
    """The bytes of a file that a server handed over, read-only; its memory is given back with the last view of it.

    The hash is that of the name and is not computed: these are the server's own bytes, nothing has carried them.

    Args:
        name: ``Artifact.shared``; nothing but such a name is ever opened.
        size_bytes: as the server said.
        sha256: hex digest, as the server said.

    Raises:
        TransferDamaged: the file is not what it should be, or was taken back.
    """
    match = NAME.fullmatch(name)
    if match is None or match[2] != sha256 or not is_ours(match[1], root):
        raise TransferDamaged(
            f"the server names {name!r:.120}, which is no file that it may hand over here",
            hint="use Client(..., shared=False), and do not trust that server",
        )
    path = root / name
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _claim(path, file, size_bytes)
            return memoryview(mmap.mmap(file, size_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ))
        finally:
            os.close(file)  # the map has a descriptor of its own, which keeps the lock
    except OSError as error:
        raise TransferDamaged(
            f"{name}: the file handed over cannot be taken: {error.strerror or error}",
            hint="try again; a client has half a minute to take a file",
        ) from error


def _claim(path: Path, file: int, size_bytes: int) -> None:
    """Make the open file this client's, or raise OSError.

    The order counts: once the lock is there the server does not use the memory again, and if the name still leads to
    the file then, the server had not begun to.
    """
    import fcntl

    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    known = os.fstat(file)
    if not stat.S_ISREG(known.st_mode) or known.st_uid != os.geteuid() or known.st_size != size_bytes or not size_bytes:
        raise OSError(f"it has {known.st_size} bytes of account {known.st_uid}, not {size_bytes} of this one")
    if path.lstat().st_ino != known.st_ino:
        raise OSError("its name leads elsewhere")
    path.unlink()
