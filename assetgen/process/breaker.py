"""Who brought the process down too often in a short time is refused for a while; standard library only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

CRASHES, WINDOW_S, PAUSE_S = 3, 60.0, 30.0


class Breaker:
    """Counts crashes by key: after ``CRASHES`` within ``WINDOW_S`` seconds a key is refused for ``PAUSE_S`` seconds.

    After the pause one more crash within the window is enough for the next.

    Args:
        clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._crashes: dict[Hashable, list[float]] = {}
        self._until_s: dict[Hashable, float] = {}

    def crashed(self, key: Hashable) -> bool:
        """Count a crash; returns whether the key is refused from now on."""
        with self._lock:
            now_s = self._clock()
            recent = {
                known: [when_s for when_s in crashes if when_s > now_s - WINDOW_S]
                for known, crashes in self._crashes.items()
            }
            self._crashes = {known: crashes for known, crashes in recent.items() if crashes}
            self._until_s = {known: until_s for known, until_s in self._until_s.items() if until_s > now_s}
            self._crashes.setdefault(key, []).append(now_s)
            if len(self._crashes[key]) < CRASHES:
                return False
            self._until_s[key] = now_s + PAUSE_S
            return True

    def suspects(self, key: Hashable) -> bool:
        """Whether the key has a crash to its name that still counts."""
        crashes = self._crashes.get(key)
        return crashes is not None and crashes[-1] > self._clock() - WINDOW_S

    def pause_s(self, key: Hashable) -> float:
        """Seconds for which the key is refused; 0: it is not."""
        until_s = self._until_s.get(key)
        return 0.0 if until_s is None else max(until_s - self._clock(), 0.0)

    def paused(self) -> list[Hashable]:
        """Keys that are refused."""
        with self._lock:
            return [key for key in self._until_s if self.pause_s(key)]
