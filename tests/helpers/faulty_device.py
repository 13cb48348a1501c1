"""The process of a device, with sessions that fail as their inputs say: what cannot be had from a sound runtime."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from assetgen.package import VerifiedPackage
from assetgen.process import child
from assetgen.runtime import Session, open_session

PROGRAM = "from tests.helpers.faulty_device import main; main({arguments})"
# Values of the input "truncation", which no request can have.
CRASH, HANG, RAISE, LEAK, NO_MEMORY, SLOW = -1.0, -2.0, -3.0, -4.0, -5.0, -6.0
LEAK_BYTES = 64 << 20
SLOW_S = 0.5  # and begins when memory was lost

log = logging.getLogger("assetgen.faulty")

_leaked: list[bytes] = []


class FaultySession:
    """A session that does what its inputs say, and else what the real one does."""

    def __init__(self, session: Session, device: str) -> None:
        self._session, self.device = session, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, inputs: Mapping[str, Any], **options: Any) -> Any:
        """Run, or fail."""
        self._fail(inputs)
        return self._session.run(inputs, **options)

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """As the real one does."""
        return self._session.bind(inputs, outputs)  # type: ignore[attr-defined]

    def run_bound(self, bound: Any, **options: Any) -> Any:
        """The same where inputs and outputs lie."""
        self._fail(bound.inputs)
        return self._session.run_bound(bound, **options)  # type: ignore[attr-defined]

    def _fail(self, inputs: Mapping[str, Any]) -> None:
        wanted = float(inputs["truncation"][0, 0])
        if wanted == CRASH:
            signal.raise_signal(signal.SIGSEGV)
        elif wanted == HANG:
            log.warning("a run hangs")
            time.sleep(600)  # `terminate` does not reach it
        elif wanted == RAISE:
            raise KeyError("a fault of ours")
        elif wanted == LEAK:
            _leaked.append(os.urandom(LEAK_BYTES))
        elif wanted == NO_MEMORY:
            raise MemoryError
        elif wanted == SLOW:
            while not _leaked:
                time.sleep(0.01)
            time.sleep(SLOW_S)


@contextmanager
def little_memory(pid: int, spare_bytes: int) -> Iterator[None]:
    """Let a process have no more than what it has and so much; real allocations fail then. Linux only."""
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_AS)
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + spare_bytes, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_AS, before)


def main(parent: int, level: int, control: int, lanes: Sequence[int]) -> None:
    """As ``child.main``; packages that begin with "poison" crash when opened, with "gpu" are on one."""
    child.LOOK_S = 0.0
    child.main(parent, level, control, lanes, open_model=_open)


def _open(package: VerifiedPackage, device: str, threads: int | None) -> Session:
    if package.manifest.id.startswith("poison"):
        signal.raise_signal(signal.SIGSEGV)
    said = "cuda:0 of the tests" if package.manifest.id.startswith("gpu") else "cpu"
    return FaultySession(open_session(package, device, threads), said)  # type: ignore[return-value]
