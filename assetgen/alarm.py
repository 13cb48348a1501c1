"""A thread that wakes for the next of many moments, and sleeps without limit while there is none; standard library."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable


class Alarm:
    """Calls a method when its moment comes; it is woken only for a moment before all it knows of.

    Args:
        ring: a bound method, called with the time now; returns when to call it again, or ``math.inf``. It is held
            weakly: the thread ends when its object is gone.
    """

    def __init__(self, ring: Callable[[float], float]) -> None:
        self._ring = weakref.WeakMethod(ring)
        self._changed = threading.Condition()
        self._next_s = math.inf
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="assetgen-alarm", daemon=True)
        self._thread.start()

    def set(self, when_s: float) -> None:
        """Ring at ``when_s``, on the clock of ``time.monotonic``, at the latest."""
        if when_s < self._next_s:
            with self._changed:
                self._next_s = min(self._next_s, when_s)
                self._changed.notify()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                left_s = self._next_s - time.monotonic()
                if left_s > 0:
                    self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
                    continue
                self._next_s = math.inf
            ring = self._ring()
            if ring is None:
                return
            self.set(ring(time.monotonic()))
            del ring
