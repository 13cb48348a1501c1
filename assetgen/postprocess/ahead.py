"""Files encoded by several threads: DEFLATE lets go of the interpreter, and is most of their time.

Not so the arithmetic of maps: numpy lets go of it for microseconds at a time, and threads that meet there so often were
slower than one (measured: occlusion of 512 px 15 ms by one, 20 by two).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

from assetgen.processor import usable_cores

T = TypeVar("T")
R = TypeVar("R")


def ahead(work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Every item with what ``work`` makes of it, in order; as many are worked on at once as there are cores.

    As many more may wait for the first one: the next item may take longer to come than all that are under way.
    Closing the iterator calls off what has not begun.
    """
    if _cores() == 1:
        yield from ((item, work(item)) for item in items)
        return
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            waiting.append((item, _pool().submit(work, item)))
            while waiting and (waiting[0][1].done() or len(waiting) > 2 * _cores()):
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    finally:
        for _, future in waiting:
            future.cancel()


def _next(waiting: deque[tuple[T, Future[R]]]) -> tuple[T, R]:
    item, future = waiting.popleft()
    return item, future.result()


@functools.cache
def _pool() -> Executor:
    return ThreadPoolExecutor(_cores(), thread_name_prefix="assetgen-encode")


@functools.cache
def _cores() -> int:
    return usable_cores()
