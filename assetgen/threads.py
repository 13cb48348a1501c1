"""Pools of threads that go on with those they have where the system gives no more; standard library only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class Pool(ThreadPoolExecutor):
    """A pool that has one thread from the beginning, and more as they are needed and can be had.

    ``submit`` of the library lays work ready, and then raises if no thread can be started for it. The work is done all
    the same, by a thread that is there, but who submitted it does not know: the loop by which gRPC takes calls ends at
    such an error, and the server lives on without ever hearing a call again.

    Args:
        threads: the most.
        name: what the names of its threads begin with.

    Raises:
        RuntimeError: not even one can be started.
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.submit(int).result()

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except (RuntimeError, MemoryError):
            if not self._threads:
                raise
