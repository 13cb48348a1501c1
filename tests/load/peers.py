"""Our server beside others that serve the same graph: `python -m tests.load.peers NAME=PYTHON ...`; prints JSON.

Each peer is in the environment that PYTHON belongs to, with onnxruntime, numpy, pillow and isal, on Linux: litserve,
bentoml, ray (ray[serve]), mlserver. All do the same work for a call, inputs from a seed to raw pixels; the bare server
runs the graph on fixed inputs. Calls alternate one by one, in an order drawn anew each time, so that the machine's
other load meets all alike; each figure is the median of the differences to the bare run of the graph in the same round.
Then 16 clients at once call one server after the other, round by round, and calls a second are counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from assetgen.client import Client
from assetgen.kinds import example_inputs
from assetgen.launch import ServerProcess
from assetgen.runtime import open_session
from assetgen.runtime.cpu import usable_cores
from assetgen.server.bare import bare_server
from assetgen.store import bundled_models_folder, open_store
from assetgen.types import Encoding, MapKind, OutputSpec, Request
from tests.load.peer_starts import PEERS, Connect, started

EDGE_PX = 256
WARM_UP_CALLS = 5
WANTED = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)


@contextmanager
def our_call(address: str, model: str) -> Iterator[Callable[[], bytes]]:
    """A connection to our server; each call asks for another seed."""
    seeds = itertools.count(random.randrange(2**31))
    with Client(address) as client:

        def call() -> bytes:
            request = Request(model, seed=next(seeds), width_px=EDGE_PX, height_px=EDGE_PX, output=WANTED)
            for _ in client.generate(request):
                pass
            return b""

        yield call


def one_by_one(ways: Mapping[str, Callable[[], object]], calls: int) -> dict[str, dict[str, float]]:
    """Milliseconds above the first of ``ways``: p50, p25, p75 of the differences, and p99 of what a call takes."""
    spent_ms: dict[str, list[float]] = {name: [] for name in ways}
    order, chance = list(ways), random.Random(1)
    for number in range(calls + WARM_UP_CALLS):
        chance.shuffle(order)  # what ran just before counts: it has emptied the caches, or still tidies up
        for name in order:
            begun_s = time.perf_counter()
            ways[name]()
            if number >= WARM_UP_CALLS:
                spent_ms[name].append((time.perf_counter() - begun_s) * 1e3)
    (raw_name, raw), *others = spent_ms.items()
    found = {raw_name: {"p50_ms": round(statistics.median(raw), 2)}}
    for name, values in others:
        low, middle, high = statistics.quantiles([a - b for a, b in zip(values, raw, strict=True)], n=4)
        found[name] = {"p50_ms": round(middle, 2), "p25_ms": round(low, 2), "p75_ms": round(high, 2)}
    return found


def at_once(connect: Connect, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Calls a second by so many clients in a closed loop, and the milliseconds that each call took."""
    spent_ms: list[float] = []
    end_s = time.monotonic() + seconds

    def work() -> None:
        with connect() as call:
            while time.monotonic() < end_s:
                begun_s = time.perf_counter()
                call()
                spent_ms.append((time.perf_counter() - begun_s) * 1e3)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    begun_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(spent_ms) / (time.monotonic() - begun_s), spent_ms


def compare(
    pythons: Mapping[str, str], calls: int, threads: int, clients: int, seconds: float, rounds: int
) -> dict[str, object]:
    """Both measurements, by server."""
    store = open_store([bundled_models_folder()])
    package = next(each for each in store.values() if each.manifest.kind == "texture")
    session, inputs = open_session(package, "cpu", threads), example_inputs(package, EDGE_PX)
    facts: dict[str, object] = {"package": str(package.folder), "edge_px": EDGE_PX, "threads": threads}
    with ExitStack() as stack:
        arguments = ["--device", "cpu", "--threads", str(threads), "--log", "error"]
        address = stack.enter_context(ServerProcess(arguments)).address
        ways: dict[str, Connect] = {"assetgen": lambda: our_call(address, package.manifest.id)}
        for name, python in pythons.items():
            ways[name] = stack.enter_context(started(name, python, facts, EDGE_PX * EDGE_PX * 3))
        singles: dict[str, Callable[[], object]] = {"raw": lambda: session.run(inputs)}
        singles["bare gRPC"] = stack.enter_context(bare_server(package.folder, "cpu", threads, EDGE_PX))
        singles |= {name: stack.enter_context(connect()) for name, connect in ways.items()}
        above = one_by_one(singles, calls)
        rates: dict[str, list[float]] = {name: [] for name in ("raw", *ways)}
        spent_ms: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            begun_s, count = time.monotonic(), 0
            while time.monotonic() < begun_s + seconds:
                session.run(inputs)
                count += 1
            rates["raw"].append(count / (time.monotonic() - begun_s))
            for name, connect in ways.items():
                rate, spent = at_once(connect, clients, seconds)
                rates[name].append(rate)
                spent_ms[name] += spent
    raw_rate = statistics.median(rates["raw"])
    together = {
        name: {
            "calls_per_s": round(statistics.median(rates[name]), 2),
            "share_of_raw": round(statistics.median(rates[name]) / raw_rate, 3),
            "p50_ms": round(statistics.median(spent_ms[name]), 1),
            "p99_ms": round(statistics.quantiles(spent_ms[name], n=100)[-1], 1),
        }
        for name in ways
    }
    return {"above_raw": above, "raw_calls_per_s": round(raw_rate, 2), f"clients_{clients}": together}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="NAME=PYTHON", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0, help="a server and round")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(argv)
    pythons = dict(text.split("=", 1) for text in options.peers)
    found = compare(pythons, options.calls, options.threads, options.clients, options.seconds, options.rounds)
    json.dump(found, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
