"""So many at once, and one more takes the place of the oldest; standard library only."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Places(Generic[T]):
    """Who is in, at most ``most``; usable from several threads.

    For what costs a client nothing to begin: whoever fills all places holds up nobody, since newcomers get in.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside: dict[T, None] = {}  # the oldest first
        self._lock = threading.Lock()

    def enter(self, who: T) -> T | None:
        """Let ``who`` in, who keeps the place if inside already; returns who is out for it and is to be told so."""
        with self._lock:
            self._inside.setdefault(who)
            if len(self._inside) <= self._most:
                return None
            oldest = next(iter(self._inside))
            del self._inside[oldest]
            return oldest

    def leave(self, who: T) -> None:
        """Give a place back; whoever is out already may leave, too."""
        with self._lock:
            self._inside.pop(who, None)
