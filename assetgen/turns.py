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
    places: int
    over: threading.Event = field(default_factory=threading.Event)
    admitted: bool = False


class Turns:
    """At most ``places`` at a time, strictly in order of arrival.

    A plain semaphore lets newcomers pass those who wait, which makes the slowest calls half as slow again.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._free = places
        self._lock = threading.Lock()
        self._waits: dict[Ticket, _Wait] = {}  # in order of arrival

    @property
    def used(self) -> int:
        """How many places are taken."""
        return self.places - self._free

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waits)

    @contextmanager
    def taken(self, ticket: Ticket, places: int = 1) -> Iterator[None]:
        """Wait for that many places and hold them; raises the ticket's error when it is called off before."""
        self._enter(ticket, places)
        try:
            yield
        finally:
            self._leave(places)

    def call_off(self, ticket: Ticket) -> None:
        """End the wait of ``ticket``, whose error is set, if it waits here."""
        with self._lock:
            wait = self._waits.pop(ticket, None)
            self._admit()  # it may have been in the way of those behind it, who want fewer places
        if wait is not None:
            wait.over.set()

    def _enter(self, ticket: Ticket, places: int) -> None:
        with self._lock:
            if ticket.error is not None:
                raise ticket.error
            if self._free >= places and not self._waits:
                self._free -= places
                return
            wait = self._waits[ticket] = _Wait(places)
        wait.over.wait()
        if not wait.admitted:
            assert ticket.error is not None  # noqa: S101 -- call_off comes after the error
            raise ticket.error

    def _leave(self, places: int) -> None:
        with self._lock:
            self._free += places
            self._admit()

    def _admit(self) -> None:
        """Let in the first who wait, as long as there is room for the very first."""
        while self._waits:
            ticket, wait = next(iter(self._waits.items()))
            if wait.places > self._free:
                return
            del self._waits[ticket]
            self._free -= wait.places
            wait.admitted = True
            wait.over.set()
