"""A piece of work on its own thread, and errors meant for people; no Blender here, whose API is not for threads."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class AddonError(Exception):
    """What went wrong, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


class Cancelled(AddonError):
    """The user gave up."""


class Job:
    """Runs ``work(job)`` on a thread; the main thread looks at it by ``poll``.

    Attributes:
        stage: what is being done, for people.
        fraction: share done, in [0, 1].
        result: what ``work`` returned, once ``poll`` was true and ``error`` is None.
    """

    def __init__(self, work: Callable[["Job"], Any]) -> None:
        self.stage, self.fraction, self.done = "starting", 0.0, False
        self.result: Any = None
        self.error: AddonError | None = None
        self.cancelled = threading.Event()
        self._stop: Callable[[], object] | None = None
        self._news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(work,), name="assetgen", daemon=True).start()

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Take in what the thread has said, waiting for the first word up to ``timeout_s``; return whether it ended."""
        while not self.done:
            try:
                kind, value = self._news.get(timeout_s > 0, timeout_s or None)
            except queue.Empty:
                break
            timeout_s = 0.0
            if kind == "progress":
                self.stage, self.fraction = value
            else:
                self.result, self.error, self.done = *value, True
        return self.done

    def cancel(self) -> None:
        """Ask the work to stop; ``poll`` tells when it has."""
        self.cancelled.set()
        if self._stop is not None:
            self._stop()

    def tell(self, stage: str, fraction: float) -> None:
        """Report progress, from the thread."""
        self._news.put(("progress", (stage, fraction)))

    def stop_with(self, stop: Callable[[], object]) -> None:
        """Say, from the thread, how to interrupt what it waits for."""
        self._stop = stop
        if self.cancelled.is_set():
            stop()

    def _run(self, work: Callable[["Job"], Any]) -> None:
        result, error = None, None
        try:
            result = work(self)
        except AddonError as known:
            error = known
        except Exception as unknown:
            if not self.cancelled.is_set():  # a connection closed under a call's feet may say anything
                log.exception("assetgen failed")
            error = AddonError(f"the add-on failed: {unknown!r:.300}", "see Blender's console, and report it")
        self._news.put(("end", (result, Cancelled("cancelled") if self.cancelled.is_set() else error)))
