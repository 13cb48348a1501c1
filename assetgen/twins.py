"""The same thing asked for twice at once is made once; standard library and turns only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from assetgen.turns import Ticket

T = TypeVar("T")


@dataclass(eq=False)
class _Work(Generic[T]):
    key: object
    lead: Ticket
    made: list[T] = field(default_factory=list)
    fault: BaseException | None = None
    followers: dict[Ticket, threading.Event] = field(default_factory=dict)


class Twins(Generic[T]):
    """Who asks for what another is making waits for it instead; keys are compared, not hashed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: list[_Work[T]] = []

    @property
    def following(self) -> int:
        """How many wait for what another makes."""
        return sum(len(work.followers) for work in self._under_way)

    def make(
        self, key: object, ticket: Ticket, work: Callable[[Callable[[T], object]], None], tell: Callable[[T], object]
    ) -> None:
        """Call ``work(tell)``, or wait for one of an equal key and tell what that told.

        Who was followed and is stopped is replaced by a follower; its priority is the best of all who wait for it.

        Raises:
            Exception: what ``work`` raised, for followers too; the ticket's error if it was called off.
        """
        while True:
            with self._lock:
                found = next((other for other in self._under_way if other.key == key), None)
                if found is None:
                    mine = _Work[T](key, ticket)
                    self._under_way.append(mine)
                    break
                if ticket.error is not None:
                    raise ticket.error
                over = found.followers[ticket] = threading.Event()
                found.lead.priority = min(found.lead.priority, ticket.priority)
            over.wait()
            if ticket.error is not None:
                raise ticket.error
            if found.fault is None:
                for news in found.made:
                    tell(news)
                return
            if found.lead.error is None:
                raise found.fault
        self._lead(mine, work, tell)

    def call_off(self, ticket: Ticket) -> None:
        """End the wait of ``ticket``, whose error is set, if it follows another."""
        with self._lock:
            for work in self._under_way:
                if (over := work.followers.pop(ticket, None)) is not None:
                    over.set()

    def _lead(self, mine: _Work[T], work: Callable[[Callable[[T], object]], None], tell: Callable[[T], object]) -> None:
        def told(news: T) -> None:
            mine.made.append(news)
            tell(news)

        try:
            work(told)
        except BaseException as error:
            mine.fault = error
            raise
        finally:
            with self._lock:
                self._under_way.remove(mine)
                followers = list(mine.followers.values())
            for over in followers:
                over.set()
