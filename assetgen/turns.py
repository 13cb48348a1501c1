"""Turns at something scarce: by priority and fair shares; whoever waits can be called off; standard library only."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Who has waited so long counts as one priority better, so that nobody waits for ever.
AGEING_S = 5.0
MAX_FLOWS = 1024


@dataclass(eq=False)
class Ticket:
    """One who takes turns; with ``error`` set, it gets no more, and ``Turns.call_off`` ends its wait.

    Attributes:
        priority: 0 goes first, and alone may take places that are reserved.
        flow: tickets with the same one share what one flow is due; ``None``: a flow of its own.
        cost: how much of its due a turn takes.
    """

    priority: int = field(default=0, kw_only=True)
    flow: Hashable = field(default=None, kw_only=True)
    cost: float = field(default=1.0, kw_only=True)
    error: Exception | None = field(default=None, init=False)


@dataclass(eq=False)
class _Wait:
    places: int
    finish: float
    since_s: float
    over: threading.Event = field(default_factory=threading.Event)
    admitted: bool = False


class Turns:
    """At most ``places`` at a time: the best priority first, then whoever had least, then in order of arrival.

    Shares are those of self-clocked fair queueing (Golestani, 1994): a turn ends, on a clock that counts work, its cost
    after the turn before it of the same flow, and the earliest end goes first. So long work does not hold up short
    work, short work does not starve long work, and many tickets of one flow get no more than one of another.

    A plain semaphore lets newcomers pass those who wait, which makes the slowest calls half as slow again.

    Args:
        reserved: of the places, how many only tickets of priority 0 may take.
    """

    def __init__(self, places: int, reserved: int = 0) -> None:
        self.places = places
        self._reserved = reserved
        self._free = places
        self._lock = threading.Lock()
        self._waits: dict[Ticket, _Wait] = {}  # in order of arrival
        self._clock = 0.0
        self._finishes: dict[Hashable, float] = {}

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
            finish = self._charged(ticket)
            if not self._waits and self._has_room(ticket, places):
                self._take(places, finish)
                return
            wait = self._waits[ticket] = _Wait(places, finish, time.monotonic())
            self._admit()
        wait.over.wait()
        if not wait.admitted:
            assert ticket.error is not None  # noqa: S101 -- call_off comes after the error
            raise ticket.error

    def _leave(self, places: int) -> None:
        with self._lock:
            self._free += places
            self._admit()
            if self._free == self.places:  # nobody is here, nobody is owed anything
                self._clock = 0.0
                self._finishes.clear()

    def _charged(self, ticket: Ticket) -> float:
        """When the ticket's turn ends on the clock of work."""
        if ticket.flow is None:
            return self._clock + ticket.cost
        finish = max(self._clock, self._finishes.get(ticket.flow, 0.0)) + ticket.cost
        self._finishes[ticket.flow] = finish
        if len(self._finishes) > MAX_FLOWS:  # those that are owed nothing need not be known
            self._finishes = {flow: end for flow, end in self._finishes.items() if end > self._clock}
        return finish

    def _has_room(self, ticket: Ticket, places: int) -> bool:
        return self._free - (self._reserved if ticket.priority else 0) >= places

    def _take(self, places: int, finish: float) -> None:
        self._free -= places
        self._clock = max(self._clock, finish)

    def _admit(self) -> None:
        """Let in the first who wait, as long as there is room for the very first."""
        now_s = time.monotonic() if self._waits else 0.0

        def rank(item: tuple[Ticket, _Wait]) -> tuple[int, float]:
            ticket, wait = item
            return max(ticket.priority - int((now_s - wait.since_s) / AGEING_S), 0), wait.finish

        while self._waits:
            ticket, wait = min(self._waits.items(), key=rank)  # the first of equals
            if not self._has_room(ticket, wait.places):
                return
            del self._waits[ticket]
            self._take(wait.places, wait.finish)
            wait.admitted = True
            wait.over.set()
