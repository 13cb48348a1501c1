"""Load in an open loop: calls at moments drawn beforehand, latencies counted from these; standard library only.

A client that waits for one answer before it asks again asks less of a slow server, and leaves out just those waits that
its users would have had (coordinated omission). Here the moments do not depend on the answers.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

# One call, which may take so many seconds.
Call = Callable[[float], object]
Connect = Callable[[], AbstractContextManager[Call]]


@dataclass(frozen=True)
class Answer:
    """What became of one call.

    Attributes:
        end_s: when it had ended, from the beginning of the run.
        latency_s: from the moment that was drawn for it to its end; infinite if no answer came in time.
    """

    end_s: float
    latency_s: float


def moments(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments from 0 to ``seconds`` of a Poisson process, ``rate`` a second on average."""
    chance, at_s, drawn = random.Random(seed), 0.0, []
    while (at_s := at_s + chance.expovariate(rate)) < seconds:
        drawn.append(at_s)
    return drawn


def ideal_latencies(due_s: Iterable[float], service_s: float) -> list[float]:
    """Latencies if calls took ``service_s`` each, one after the other, and nothing else (Lindley's recursion, 1952)."""
    free_s, latencies = 0.0, []
    for moment in due_s:
        free_s = max(free_s, moment) + service_s
        latencies.append(free_s - moment)
    return latencies


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that ``share`` of all do not exceed (nearest rank); infinite values count."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


@contextmanager
def connected(connect: Connect, count: int) -> Iterator[list[Call]]:
    """So many connections, each used once already."""
    with ExitStack() as stack:
        calls = [stack.enter_context(connect()) for _ in range(count)]
        for call in calls:
            call(60.0)
        yield calls


def offer(
    calls: Sequence[Call], due_s: Iterable[float], limit_s: float, failures: tuple[type[Exception], ...]
) -> list[Answer]:
    """Make a call at each moment, over whichever connection was used last and is free.

    When none is free the call waits, which counts. A client gives up ``limit_s`` after the moment: what had no
    connection until then is not sent at all.

    Args:
        failures: what a call raises that had no answer; anything else ends the run.
    """
    free, lock = list(calls), threading.Lock()
    begun_s = time.perf_counter()

    def make(moment: float) -> Answer:
        with lock:
            call = free.pop()  # there are as many threads as connections
        answered, left_s = False, begun_s + moment + limit_s - time.perf_counter()
        try:
            if left_s > 0:
                call(left_s)
                answered = True
        except failures:
            pass
        finally:
            with lock:
                free.append(call)
        end_s = time.perf_counter() - begun_s
        latency_s = end_s - moment
        return Answer(end_s, latency_s if answered and latency_s <= limit_s else math.inf)

    with ThreadPoolExecutor(len(calls)) as pool:
        made = []
        for moment in due_s:
            time.sleep(max(begun_s + moment - time.perf_counter(), 0.0))
            made.append(pool.submit(make, moment))
        return [each.result() for each in made]
