"""Load on a server, `python -m tests.load.generator`: closed loop for its capacity, open loop at multiples.

Without an address it starts a server for itself, with the shipped models on the processor.

Open loop means that calls come at moments drawn beforehand (Poisson), whether or not those before have ended: a server
that slows down meets a queue, as it would in life. `--beside 2048` asks how small calls fare beside a large one, and
`--idle 500` whether connections that do nothing cost anything.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import selectors
import statistics
import sys
import threading
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
# One large call takes minutes on a slow processor.
LARGE_DEADLINE_S = 600.0
# Small calls beside the large one.
BESIDE_CLIENTS = 50
# Each with and without idle connections.
IDLE_ROUNDS = 3
# What a process has open beside connections.
SPARE_DESCRIPTORS = 200


@dataclass
class Outcome:
    """What became of the calls of one run.

    Attributes:
        seconds: how long calls were begun.
        codes: number of calls by status.
        own_cores: processor seconds of this process a second, which a server on the same machine lacks.
        good_s, refused_s: latencies of calls that succeeded, and of those that RESOURCE_EXHAUSTED or DEADLINE_EXCEEDED
            ended within a tenth of a second: refused at the door.
        good_end_s: when those that succeeded had ended, by the monotonic clock.
    """

    seconds: float
    codes: Counter[str] = field(default_factory=Counter)
    own_cores: float = 0.0
    good_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    good_end_s: list[float] = field(default_factory=list)

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
            self._outcome.good_end_s.append(time.monotonic())
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


class LargeCall:
    """One call on a thread of its own, begun after a while.

    Attributes:
        code: its status, once it has ended.
        begun_s, end_s: by the monotonic clock.
    """

    def __init__(self, address: str, body: bytes, after_s: float) -> None:
        self.code, self.begun_s, self.end_s = "", 0.0, 0.0
        self._connection = Connection(address, METHOD, LARGE_DEADLINE_S)
        self._thread = threading.Thread(target=self._run, args=(body, after_s))
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _run(self, body: bytes, after_s: float) -> None:
        time.sleep(after_s)
        with self._connection as connection:
            self.begun_s = time.monotonic()
            connection.call(body)
            try:
                while not self.code:
                    self.code = next((ended.status for ended in connection.ended()), "")
            except ConnectionError as error:
                self.code = str(error)
            self.end_s = time.monotonic()


def beside(
    address: str, model: str, edge_px: int, large_px: int, seconds: float, clients: int = BESIDE_CLIENTS
) -> dict[str, object]:
    """Small calls in a closed loop alone, and again with one call of ``large_px`` begun in the middle.

    The ratio is of small calls that met the large one, not of all in the loop, which would hide what they waited.
    """
    alone = closed_loop(address, model, edge_px, clients, seconds)
    large = LargeCall(address, request(model, large_px), seconds / 2)
    together = closed_loop(address, model, edge_px, clients, seconds)
    large.join()
    met_s = [
        spent_s
        for spent_s, end_s in zip(together.good_s, together.good_end_s, strict=True)
        if end_s >= large.begun_s and end_s - spent_s <= large.end_s
    ]
    alone_ms, met_ms = _quantile_ms(alone.good_s, 0.99), _quantile_ms(met_s, 0.99)
    return {
        "clients": clients,
        "alone": alone.summary(),
        "beside": together.summary(),
        "large_code": large.code,
        "large_ms": round((large.end_s - large.begun_s) * 1e3, 2),
        "small_that_met_it": len(met_s),
        "p99_ms_alone": alone_ms,
        "p99_ms_that_met_it": met_ms,
        "p99_ratio": round(met_ms / alone_ms, 2) if alone_ms and met_ms else None,
    }


def allow_descriptors(count: int) -> None:
    """Let this process, and those that it starts from now on, have so many connections open, where that is limited."""
    if sys.platform == "win32":
        return
    import resource  # here, for Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise OSError(
            f"{count} connections need {wanted} descriptors; the most allowed here is {hard}: raise ulimit -Hn"
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Idle:
    """Connections that the server has greeted, and that ask nothing; what it asks of them, a thread answers."""

    def __init__(self, address: str, count: int) -> None:
        self._count, self._hung_up, self._end = count, 0, threading.Event()
        with ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self.connections = [
                stack.enter_context(Connection(address, METHOD, CLOSED_DEADLINE_S)) for _ in range(count)
            ]
            for connection in self.connections:
                list(connection.ended())  # the server's settings, which it wants to have confirmed
                self._selector.register(connection, selectors.EVENT_READ)
            self._stack = stack.pop_all()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    @property
    def open(self) -> int:
        """How many of them the server has not hung up."""
        return self._count - self._hung_up

    def close(self) -> None:
        """Hang up all."""
        self._end.set()
        self._thread.join()
        self._stack.close()

    def _answer(self) -> None:
        while not self._end.is_set():
            for key, _ in self._selector.select(0.2):
                connection: Any = key.fileobj
                try:
                    list(connection.ended())
                except ConnectionError:
                    self._selector.unregister(connection)
                    self._hung_up += 1


def beside_idle(
    address: str, model: str, edge_px: int, count: int, rate: float, seconds: float, deadline_s: float
) -> dict[str, object]:
    """An open loop with and without ``count`` idle connections in turn; figures are medians of the rounds."""
    found: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    left = count
    for _ in range(IDLE_ROUNDS):
        found["without"].append(open_loop(address, model, edge_px, rate, seconds, deadline_s).summary())
        with closing(Idle(address, count)) as idle:
            found["with"].append(open_loop(address, model, edge_px, rate, seconds, deadline_s).summary())
            left = min(left, idle.open)
    figures: dict[str, object] = {"connections": count, "open_at_the_end": left, "rounds": found}
    for name in ("goodput_per_s", "good_p50_ms", "good_p99_ms"):
        without, with_idle = (_median([each[name] for each in found[way]]) for way in ("without", "with"))
        change = (with_idle / without - 1) * 100 if without and with_idle else None
        figures[name] = {
            "without": without,
            "with": with_idle,
            "change_percent": None if change is None else round(change, 1),
        }
    return figures


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


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
) -> dict[str, Any]:
    """Capacity, then each multiple of it."""
    closed = closed_loop(address, model, edge_px, 16, seconds)
    found: dict[str, Any] = {"closed_16": closed.summary()}
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
    parser.add_argument("--multiples", default="0.7,1,2,10", help="of the capacity; empty for none")
    parser.add_argument("--deadline", type=float, default=2.0)
    parser.add_argument("--beside", type=int, default=0, metavar="PX", help="one call of that size beside small ones")
    parser.add_argument("--idle", type=int, default=0, metavar="COUNT", help="connections that do nothing beside calls")
    options = parser.parse_args(argv)
    multiples = [float(part) for part in options.multiples.split(",") if part]
    allow_descriptors(options.idle)
    with ExitStack() as stack:
        own = ["--device", "cpu", "--log", "error"]
        address = options.address or stack.enter_context(ServerProcess(own)).address
        plan = address, options.model, options.size
        found = measure(*plan, options.seconds, multiples, options.deadline)
        if options.beside:
            found[f"beside_{options.beside}px"] = beside(*plan, options.beside, options.seconds)
        if options.idle:
            rate = found["closed_16"]["goodput_per_s"]
            found[f"idle_{options.idle}"] = beside_idle(*plan, options.idle, rate, options.seconds, options.deadline)
    json.dump(found, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
