"""Load on a server, `python -m tests.load.generator`: closed loop for its capacity, open loop at multiples.

Without an address it starts a server for itself, with the shipped models on the processor.

Open loop means that calls come at moments drawn beforehand (Poisson), whether or not those before have ended: a server
that slows down meets a queue, as it would in life.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import selectors
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from assetgen.launch import ServerProcess
from assetgen.v1 import asset_pb2, generation_service_pb2
from tests.load.arrivals import moments
from tests.load.lean import Connection

METHOD = "/assetgen.v1.GenerationService/Generate"
CLOSED_DEADLINE_S = 60.0


@dataclass
class Outcome:
    """What became of the calls of one run.

    Attributes:
        seconds: how long calls were begun.
        codes: number of calls by status.
        own_cores: processor seconds of this process a second, which a server on the same machine lacks.
        good_s, refused_s: latencies of calls that succeeded, and of those that RESOURCE_EXHAUSTED or DEADLINE_EXCEEDED
            ended within a tenth of a second: refused at the door.
    """

    seconds: float
    codes: Counter[str] = field(default_factory=Counter)
    own_cores: float = 0.0
    good_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Calls that succeeded, a second."""
        return len(self.good_s) / self.seconds

    def summary(self) -> dict[str, object]:
        """Figures for people."""
        return {
            "goodput_per_s": round(self.goodput, 2),
            "codes": dict(self.codes),
            "own_cores": round(self.own_cores, 3),
            "good_p50_ms": _quantile_ms(self.good_s, 0.5),
            "good_p99_ms": _quantile_ms(self.good_s, 0.99),
            "refused_p99_ms": _quantile_ms(self.refused_s, 0.99),
        }


def request(model: str, edge_px: int, seed: int = 0) -> bytes:
    """One raw base colour."""
    output = generation_service_pb2.OutputSpec(maps=[asset_pb2.MAP_KIND_BASE_COLOR], encoding=asset_pb2.ENCODING_RAW)
    message = generation_service_pb2.GenerateRequest(
        model_id=model, seed=seed, width_px=edge_px, height_px=edge_px, output=output, inline_bytes=2**20
    )
    return message.SerializeToString()


class Calls:
    """Calls under way on some connections, each with the same deadline, and what became of those that have ended."""

    def __init__(self, connections: Sequence[Connection], deadline_s: float, outcome: Outcome) -> None:
        self._selector = selectors.DefaultSelector()
        for connection in connections:
            self._selector.register(connection, selectors.EVENT_READ)
        self._deadline_s, self._outcome = deadline_s, outcome
        self._begun_s: dict[tuple[Connection, int], float] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._begun_s)

    def begin(self, connection: Connection, body: bytes) -> None:
        """Make a call."""
        self._begun_s[connection, connection.call(body)] = time.monotonic()

    def wait(self, end_s: float) -> list[Connection]:
        """Wait for calls to end, until a time at most; returns their connections."""
        free = []
        for key, _ in self._selector.select(max(min(end_s, self._expires_s) - time.monotonic(), 0.0)):
            connection: Any = key.fileobj
            for ended in connection.ended():
                self._count(ended.status, time.monotonic() - self._begun_s.pop((connection, ended.call)))
                free.append(connection)
        while self._expires_s <= time.monotonic():
            connection, call = next(iter(self._begun_s))
            connection.cancel(call)
            self._count("DEADLINE_EXCEEDED", time.monotonic() - self._begun_s.pop((connection, call)))
            free.append(connection)
        return free

    def close(self) -> None:
        """Give the selector back."""
        self._selector.close()

    @property
    def _expires_s(self) -> float:
        return next(iter(self._begun_s.values()), math.inf) + self._deadline_s

    def _count(self, status: str, spent_s: float) -> None:
        self._outcome.codes[status] += 1
        if status == "OK":
            self._outcome.good_s.append(spent_s)
        elif status == "RESOURCE_EXHAUSTED" or spent_s < 0.1:
            self._outcome.refused_s.append(spent_s)


def closed_loop(address: str, model: str, edge_px: int, clients: int, seconds: float) -> Outcome:
    """``clients`` that each call again as soon as they have an answer."""
    bodies = (request(model, edge_px, seed) for seed in itertools.count(1))
    with _under_load(address, clients, CLOSED_DEADLINE_S, seconds) as (outcome, connections, calls, begun_s):
        for connection in connections:
            calls.begin(connection, next(bodies))
        while len(calls):
            for connection in calls.wait(math.inf):
                if time.monotonic() < begun_s + seconds:
                    calls.begin(connection, next(bodies))
    return outcome


def open_loop(
    address: str, model: str, edge_px: int, rate: float, seconds: float, deadline_s: float, channels: int = 8
) -> Outcome:
    """Calls at ``rate`` a second, at random moments."""
    due_s = moments(rate, seconds, seed=0)
    bodies = [request(model, edge_px, seed) for seed in range(1, len(due_s) + 1)]
    with _under_load(address, channels, deadline_s, seconds) as (outcome, connections, calls, begun_s):
        for number, (moment, body) in enumerate(zip(due_s, bodies, strict=True)):
            while time.monotonic() < begun_s + moment:
                calls.wait(begun_s + moment)
            calls.begin(connections[number % channels], body)
        while len(calls):
            calls.wait(math.inf)
    return outcome


@contextmanager
def _under_load(
    address: str, count: int, deadline_s: float, seconds: float
) -> Iterator[tuple[Outcome, list[Connection], Calls, float]]:
    """Connections for a run of so many seconds, and when it begins."""
    outcome = Outcome(seconds)
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(address, METHOD, deadline_s)) for _ in range(count)]
        calls = stack.enter_context(closing(Calls(connections, deadline_s, outcome)))
        begun_s, spent_s = time.monotonic(), time.process_time()
        yield outcome, connections, calls, begun_s
        outcome.own_cores = (time.process_time() - spent_s) / (time.monotonic() - begun_s)


def _quantile_ms(values: Sequence[float], share: float) -> float | None:
    if len(values) < 2:
        return None
    return round(statistics.quantiles(values, n=100)[round(share * 100) - 1] * 1e3, 2)


def measure(
    address: str, model: str, edge_px: int, seconds: float, multiples: Sequence[float], deadline_s: float
) -> dict[str, object]:
    """Capacity, then each multiple of it."""
    closed = closed_loop(address, model, edge_px, 16, seconds)
    found: dict[str, object] = {"closed_16": closed.summary()}
    for multiple in multiples:
        outcome = open_loop(address, model, edge_px, multiple * closed.goodput, seconds, deadline_s)
        found[f"open_{multiple:g}x"] = outcome.summary()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?", help="of a server that runs")
    parser.add_argument("--model", default="starter-materials")
    parser.add_argument("--size", type=int, default=512, help="of the maps in pixels; a refusal costs the same for all")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--multiples", default="0.7,1,2,10")
    parser.add_argument("--deadline", type=float, default=2.0)
    options = parser.parse_args(argv)
    multiples = [float(part) for part in options.multiples.split(",")]
    with ExitStack() as stack:
        own = ["--device", "cpu", "--log", "error"]
        address = options.address or stack.enter_context(ServerProcess(own)).address
        found = measure(address, options.model, options.size, options.seconds, multiples, options.deadline)
    json.dump(found, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
