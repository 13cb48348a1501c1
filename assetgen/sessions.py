"""The open models of one device: opened when first needed, closed when memory or their package is needed no more.

Imports kinds, runtime and package.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from assetgen.kinds import example_inputs
from assetgen.package import VerifiedPackage
from assetgen.runtime import Session, open_session, self_check

log = logging.getLogger(__name__)

# What a session holds, by the bytes of its graph: the weights, laid out anew for the processor, twice where it splits.
HELD_BY_GRAPH = 4


@dataclass(eq=False)
class _Open:
    session: Session
    held_bytes: int
    users: int = 0
    retired: bool = False
    used_s: float = field(default_factory=time.monotonic)


class Sessions:
    """Sessions by package; usable from several threads.

    Args:
        device, threads: as ``open_session`` takes them.
        budget_bytes: what open models may hold, by estimate; the one used longest ago is closed first, one in use never
            is. 0 sets no limit.
        open_model: opens a package elsewhere than in this process, and checks it.
    """

    def __init__(
        self,
        device: str,
        threads: int | None,
        budget_bytes: int = 0,
        open_model: Callable[[VerifiedPackage], Session] | None = None,
    ) -> None:
        self._device, self._threads, self._budget_bytes = device, threads, budget_bytes
        self._open_model = open_model or self._open_here
        self._sessions: dict[str, _Open] = {}
        self._backends: dict[str, str] = {}
        self._pins: Counter[str] = Counter()
        self._retired: set[str] = set()
        self._opening = threading.Lock()
        self._lock = threading.Lock()

    @property
    def device(self) -> str:
        """Where models run, such as ``cpu``; what was asked for while none is open."""
        return next((opened.session.device for opened in list(self._sessions.values())), self._device)

    @property
    def held_bytes(self) -> int:
        """What the open models hold, by estimate."""
        return sum(opened.held_bytes for opened in list(self._sessions.values()))

    @property
    def digests(self) -> list[str]:
        """Of the packages that are open."""
        return list(self._sessions)

    def session(self, package: VerifiedPackage) -> Session:
        """The session of ``package``, opened and checked at its smallest size if it is not open."""
        opened = self._sessions.get(package.digest)
        if opened is None:
            opened = self._open(package)
        return opened.session

    def backend(self, package: VerifiedPackage) -> str:
        """What computes ``package``; opens it only if it never was."""
        backend = self._backends.get(package.digest)
        return self.session(package).backend if backend is None else backend

    @contextmanager
    def used(self, package: VerifiedPackage) -> Iterator[Session]:
        """The session of ``package``, which stays open meanwhile."""
        while True:
            opened = self._sessions.get(package.digest) or self._open(package)
            with self._lock:
                if self._sessions.get(package.digest) is opened:  # it was not closed in between
                    opened.users += 1
                    break
        try:
            yield opened.session
        finally:
            with self._lock:
                opened.users -= 1
                opened.used_s = time.monotonic()
                leaves = opened.retired and not opened.users
            if leaves:
                opened.session.close()

    def pin(self, digest: str) -> None:
        """Keep a package's session from being retired until ``unpin``; it may still be closed to make room."""
        with self._lock:
            self._pins[digest] += 1

    def unpin(self, digest: str) -> None:
        """Take one pin out; the last lets go of what was retired meanwhile."""
        with self._lock:
            self._pins[digest] -= 1
            if self._pins[digest]:
                return
            del self._pins[digest]
            retired = digest in self._retired
        if retired:
            self.retire(digest)

    def retire(self, digest: str) -> None:
        """Close a package's session as soon as nobody uses or pins it; its files may be gone."""
        with self._lock:
            if digest in self._pins:
                self._retired.add(digest)
                return
            self._retired.discard(digest)
            self._backends.pop(digest, None)
        self._close(digest)

    def close(self) -> None:
        """Free the models; nobody may be using one."""
        for opened in self._sessions.values():
            opened.session.close()

    def _open(self, package: VerifiedPackage) -> _Open:
        with self._opening:
            opened = self._sessions.get(package.digest)
            if opened is not None:
                return opened
            sizes = {entry.path: entry.size_bytes for entry in package.manifest.files}
            held_bytes = HELD_BY_GRAPH * sizes.get(package.manifest.graph, 0)
            self._make_room(held_bytes)
            session = self._open_model(package)
            opened = _Open(session, held_bytes)
            with self._lock:
                self._backends[package.digest] = session.backend
                self._sessions[package.digest] = opened
            return opened

    def _open_here(self, package: VerifiedPackage) -> Session:
        session = open_session(package, self._device, self._threads)
        # First runs also allocate and choose kernels.
        self_check(session, example_inputs(package, package.manifest.size.min_px))
        return session

    def _make_room(self, held_bytes: int) -> None:
        """Close idle sessions until ``held_bytes`` more fit the budget, or none is idle."""
        while self._budget_bytes and self.held_bytes + held_bytes > self._budget_bytes:
            with self._lock:
                idle = [(opened.used_s, digest) for digest, opened in self._sessions.items() if not opened.users]
            if not idle:
                log.warning("all open models are in use: %d bytes are held, more than the budget", self.held_bytes)
                return
            log.info("model %s is closed to make room", min(idle)[1][:12])
            self._close(min(idle)[1])

    def _close(self, digest: str) -> None:
        with self._lock:
            opened = self._sessions.pop(digest, None)
            if opened is None:
                return
            opened.retired = True
            idle = not opened.users
        if idle:
            opened.session.close()
