"""Turns at something scarce: first come, first served, and whoever waits can be called off; standard library only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class Ticket:
    """One who takes turns; with ``error`` set, it gets no more, and ``Turns.call_off`` ends its wait."""

    error: Exception | None = field(default=None, init=False)


@dataclass(eq=False)
class _Wait:
    over: threading.Event = field(default_factory=threading.Event)
    admitted: bool = False


class Turns:
    """At most ``places`` at a time, strictly in order of arrival.

    A plain semaphore lets newcomers pass those who wait, which makes the slowest calls half as slow again.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._waits: dict[Ticket, _Wait] = {}  # in order of arrival

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waits)

    @contextmanager
    def taken(self, ticket: Ticket) -> Iterator[None]:
        """Wait for a place and hold it; raises the ticket's error when it is called off before it gets one."""
        self._enter(ticket)
        try:
            yield
        finally:
            self._leave()

    def call_off(self, ticket: Ticket) -> None:
        """End the wait of ``ticket``, whose error is set, if it waits here."""
        with self._lock:
            wait = self._waits.pop(ticket, None)
        if wait is not None:
            wait.over.set()

    def _enter(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket.error is not None:
                raise ticket.error
            if self._free:
                self._free -= 1
                return
            wait = self._waits[ticket] = _Wait()
        wait.over.wait()
        if not wait.admitted:
            assert ticket.error is not None  # noqa: S101 -- call_off comes after the error
            raise ticket.error

    def _leave(self) -> None:
        with self._lock:
            if not self._waits:
                self._free += 1
                return
            wait = self._waits.pop(next(iter(self._waits)))
            wait.admitted = True
        wait.over.set()
