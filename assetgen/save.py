"""Writing artifacts so that no partial file is ever seen under its name; imports manifest, types and errors."""

from __future__ import annotations

import errno
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from assetgen.errors import OutputUnwritable, TransferDamaged
from assetgen.manifest import is_file_name
from assetgen.types import Artifact, Event

# What lies beside a file while it is written; who was killed meanwhile leaves it.
_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")
# Nobody still writes to it then: a file that another process writes is younger.
STALE_S = 600.0


def write_assets(events: Iterable[Event], folder: Path, notify: Callable[[Event], None] = lambda _: None) -> list[Path]:
    """Write every artifact of ``events`` into ``folder``, made if absent; existing files are replaced.

    A file appears whole under its name or not at all, whatever interrupts. What an earlier run of the same names left
    behind when it was killed ten minutes ago or earlier is removed.

    Args:
        events: what a maker's ``generate`` gives.
        folder: where to write.
        notify: called with every event, for an artifact after it was written.

    Returns:
        The paths written, in order.

    Raises:
        OutputUnwritable: disk full, no permission, not a folder.
        TransferDamaged: an artifact's name is not a plain file name.
    """
    paths: list[Path] = []
    stale = _stale_partials(folder)
    for event in events:
        if isinstance(event, Artifact):
            paths.append(write_artifact(event, folder))
            for partial in stale.pop(event.name, ()):
                with suppress(OSError):
                    partial.unlink()
        notify(event)
    return paths


def write_artifact(artifact: Artifact, folder: Path) -> Path:
    """Write one artifact; see ``write_assets``."""
    if not is_file_name(artifact.name):
        raise TransferDamaged(f"{artifact.name!r:.80} is not a plain file name", hint="do not trust that server")
    path = folder / artifact.name
    partial = folder / f".{artifact.name}.{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(artifact.data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _stale_partials(folder: Path) -> dict[str, list[Path]]:
    """What killed runs left behind, by the name that it should have got."""
    found: dict[str, list[Path]] = {}
    with suppress(OSError):  # there is no such folder yet
        for path in folder.iterdir():
            match = _PARTIAL.fullmatch(path.name)
            if match is None:
                continue
            with suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > STALE_S:
                    found.setdefault(match.group(1), []).append(path)
    return found


def _unwritable(path: Path, error: OSError) -> OutputUnwritable:
    hints = {
        errno.ENOSPC: "free some space, or choose another folder",
        errno.EDQUOT: "free some space, or choose another folder",
        errno.EACCES: "choose a folder you may write to, and close programs that hold the file",
        errno.EROFS: "choose a folder on a disk that can be written to",
        errno.ENOTDIR: "a file stands where a folder is wanted; choose another folder",
        errno.EEXIST: "a file stands where a folder is wanted; choose another folder",
    }
    return OutputUnwritable(
        f"{path} cannot be written: {error.strerror or error}",
        hint=hints.get(error.errno or 0, "choose another folder"),
        metadata={"path": str(path)},
    )
