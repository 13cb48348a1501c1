"""Files in shared memory for clients of this machine and account, within a budget; imports handover, errors, numpy.

A folder that only this account can open, with a random name, holds slots: files whose memory is used again, since fresh
pages cost several times the copy. A slot is handed over by a second name for it, which the client removes when it takes
it; the client's shared lock, which ends with its map or its process, keeps the slot from being used again.
"""

from __future__ import annotations

import logging
import mmap
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from assetgen.errors import ConfigInvalid, RuntimeMissing
from assetgen.handover import FOLDER, ROOT, is_supported

log = logging.getLogger(__name__)

# Smaller files come sooner in the stream.
MIN_BYTES = 256 * 1024
# Each keeps two descriptors open, of which a process has 1,024 where nobody gave it more. PNG files have many sizes.
MAX_SLOTS = 128
# A client has so long to take a file; a slot that nobody needs for so long goes.
TAKE_S, IDLE_S = 30.0, 60.0
TICK_S = 5.0
# A folder without a lock may be one that is just being made.
YOUNG_S = 60.0
ALIVE = "alive"


@dataclass(eq=False)
class _Slot:
    """Memory of one exact size, so that nothing of an older file is ever behind the newer one."""

    path: Path
    file: int
    view: np.ndarray[tuple[int], np.dtype[np.uint8]]
    offered: Path | None = None
    busy: bool = True
    since_s: float = field(default_factory=time.monotonic)


class SharedFiles:
    """Hands files over until closed; usable from several threads.

    Args:
        max_bytes: of all slots, those that clients still hold included.
        root: where folders of this kind lie; those of servers that ended without closing theirs are removed.

    Attributes:
        folder: its name below ``root``.

    Raises:
        RuntimeMissing: the system has no such memory.
        ConfigInvalid: it has, but no folder can be made there.
    """

    def __init__(self, max_bytes: int, root: Path = ROOT) -> None:
        if not is_supported():
            raise RuntimeMissing(
                "files can be handed over in shared memory only on Linux, with /dev/shm",
                hint="leave --shared-mb out, or give 0",
            )
        self._max_bytes, self._root = max_bytes, root
        self.folder = f"assetgen-{secrets.token_hex(16)}"
        self._path = root / self.folder
        try:
            sweep(root)
            self._path.mkdir(mode=0o700)
            self._alive = _locked(self._path / ALIVE)
        except OSError as error:
            raise ConfigInvalid(
                f"no folder can be made in {root}: {error.strerror or error}", hint="leave --shared-mb out, or give 0"
            ) from error
        self._slots: list[_Slot] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="assetgen-shared", daemon=True)
        self._thread.start()

    @property
    def held_bytes(self) -> int:
        """Of all slots."""
        return sum(slot.view.nbytes for slot in list(self._slots))

    def offer(self, data: bytes | memoryview, sha256: str) -> str:
        """Hand ``data`` over; returns its name for ``handover.take``, empty if it is too small or there is no room."""
        source = np.frombuffer(data, np.uint8)
        if source.nbytes < MIN_BYTES:
            return ""
        with self._lock:
            slot = self._free_slot(source.nbytes)
        if slot is None:
            return ""
        np.copyto(slot.view, source)
        name = f"{sha256}-{secrets.token_hex(8)}"
        offered = self._path / name
        with self._lock:
            if self._end.is_set():
                return ""
            offered.hardlink_to(slot.path)
            slot.offered, slot.busy, slot.since_s = offered, False, time.monotonic()
        return f"{self.folder}/{name}"

    def withdraw(self, name: str) -> None:
        """Take a file back that was offered, if nobody has taken it."""
        (self._root / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove everything; what clients have taken stays theirs."""
        self._end.set()
        self._thread.join()
        with self._lock:
            for slot in self._slots:
                self._forget(slot)
            self._slots.clear()
        _remove(self._path)
        os.close(self._alive)

    def _free_slot(self, size_bytes: int) -> _Slot | None:
        """A slot that nobody uses, or a new one if the budget allows it; idle ones of other sizes make room."""
        self._collect()
        idle = [slot for slot in self._slots if not slot.busy and slot.offered is None]
        for slot in idle:
            if slot.view.nbytes == size_bytes:
                slot.busy = True
                return slot
        held_bytes = self.held_bytes
        for slot in sorted(idle, key=lambda slot: slot.since_s):
            if held_bytes + size_bytes <= self._max_bytes and len(self._slots) < MAX_SLOTS:
                break
            held_bytes -= slot.view.nbytes
            self._slots.remove(slot)
            self._forget(slot)
        if held_bytes + size_bytes > self._max_bytes or len(self._slots) >= MAX_SLOTS:
            return None
        try:
            slot = _new_slot(self._path / f"slot-{secrets.token_hex(8)}", size_bytes)
        except OSError as error:
            said = error.strerror or error
            log.warning("no shared memory for %d bytes: %s; the budget is %d bytes now", size_bytes, said, held_bytes)
            self._max_bytes = held_bytes  # the system has less than was promised; not to be tried with every file
            return None
        self._slots.append(slot)
        return slot

    def _collect(self) -> None:
        """Take back what was not taken in time, and find out which slots their clients have let go of."""
        import fcntl

        now_s = time.monotonic()
        for slot in self._slots:
            if slot.offered is None:
                continue
            if slot.since_s + TAKE_S <= now_s:
                slot.offered.unlink(missing_ok=True)
            if os.fstat(slot.file).st_nlink > 1:
                continue
            with suppress(BlockingIOError):  # a client holds it
                fcntl.flock(slot.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(slot.file, fcntl.LOCK_UN)  # whoever comes later finds the name gone
                slot.offered, slot.since_s = None, now_s

    def _tick(self) -> None:
        while not self._end.wait(TICK_S):
            with self._lock:
                self._collect()
                old_s = time.monotonic() - IDLE_S
                for slot in [each for each in self._slots if not each.busy and each.offered is None]:
                    if slot.since_s < old_s:
                        self._slots.remove(slot)
                        self._forget(slot)

    def _forget(self, slot: _Slot) -> None:
        for path in (slot.path, slot.offered):
            if path is not None:
                path.unlink(missing_ok=True)
        os.close(slot.file)


def sweep(root: Path = ROOT) -> None:
    """Remove the folders of servers of this account that did not end in order."""
    import fcntl

    for folder in root.glob("assetgen-*"):
        try:
            known = folder.lstat()
            if not FOLDER.fullmatch(folder.name) or folder.is_symlink() or known.st_uid != os.geteuid():
                continue
            alive = os.open(folder / ALIVE, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            if time.time() - known.st_mtime > YOUNG_S:
                _remove(folder)
            continue
        except OSError:
            continue
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
            log.debug("%s: left behind by a server that ended without notice; removed", folder)
        except BlockingIOError:
            pass  # that server lives
        finally:
            os.close(alive)


def _locked(path: Path) -> int:
    import fcntl

    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _new_slot(path: Path, size_bytes: int) -> _Slot:
    """Its memory is claimed at once: a write to a page that the system cannot give would end the process."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, size_bytes)
        mapped = mmap.mmap(file, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    except OSError:
        os.close(file)
        path.unlink(missing_ok=True)
        raise
    return _Slot(path, file, np.frombuffer(mapped, np.uint8))


def _remove(folder: Path) -> None:
    """Remove a folder of plain files; what cannot be removed stays."""
    with suppress(OSError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
