"""Our server beside others that serve the same graph: `python -m tests.load.peers NAME=PYTHON ...`; prints JSON.

Each peer is in the environment that PYTHON belongs to, with onnxruntime, numpy, pillow and deflate, on Linux: litserve,
bentoml, ray (ray[serve]), mlserver, triton (nvidia-pytriton, numpy below 2). All do the same work for a call, inputs
from a seed to raw pixels; the bare server runs the graph on fixed inputs and heeds no deadline. The raw session, which
all is measured by, is the peers' own: ONNX Runtime on the graph as it stands in the package.

In turn: calls alternate one by one, in an order drawn anew each time, so that the machine's other load meets all alike.
What else the rounds might have given for p99, which few calls decide, is said beside it.
Closed loop: 16 clients at once call one server after the other, round by round. Open loop: calls come at moments of a
Poisson process, at shares of what the bare session does a second, and latencies count from these moments; clients give
up after a time. Before each run the session itself runs for two seconds: shares and latencies are of that.

With ``--write`` the page `docs/peers.md` gets the table, and `docs/` the plot and the JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import random
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from assetgen.client import Client
from assetgen.errors import AssetgenError
from assetgen.kinds import example_inputs
from assetgen.launch import ServerProcess
from assetgen.processor import usable_cores
from assetgen.runtime import open_session
from assetgen.server.bare import bare_server
from assetgen.store import bundled_models_folder, open_store
from assetgen.types import Encoding, MapKind, OutputSpec, Request
from tests.load import peers_page
from tests.load.arrivals import connected, ideal_latencies, moments, offer, quantile
from tests.load.peer_servers.graph import plain_session
from tests.load.peer_starts import CALL_S, FAILURES, PEERS, Call, Connect, started, version

EDGE_PX = 256
WARM_UP_CALLS = 5
LOADS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.2)
# Ours, without a server.
OWN_SESSION = "own session"
# Of what rounds drawn anew give for the difference of two p99.
CONFIDENCE, DRAWS = 0.9, 2000
WANTED = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)

Figures = dict[str, object]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        calls: of each server in turn.
        clients, closed_s: of the closed loop, a server and round.
        loads, open_s: of the open loop: shares of the session's capacity; seconds a server, load and round.
        limit: how long a client waits, in calls of the session.
        connections: of a server at most.
        raw_s: for which the session runs before each run of a server.
    """

    calls: int = 1000
    clients: int = 16
    closed_s: float = 5.0
    loads: tuple[float, ...] = LOADS
    open_s: float = 15.0
    limit: float = 30.0
    connections: int = 40
    raw_s: float = 2.0
    rounds: int = 2


@dataclass(frozen=True)
class Speed:
    """Of the bare session, just before a run: its median call, and calls a second one after the other."""

    p50_s: float
    rate: float


@contextmanager
def our_call(address: str, model: str, edge_px: int) -> Iterator[Call]:
    """A connection to our server; each call asks for another seed."""
    seeds = itertools.count(random.randrange(2**31))
    with Client(address) as client:

        def call(limit_s: float) -> bytes:
            request = Request(model, seed=next(seeds), width_px=edge_px, height_px=edge_px, output=WANTED)
            for _ in client.generate(request, limit_s):
                pass
            return b""

        yield call


@contextmanager
def bare_call(call: Callable[[], object]) -> Iterator[Call]:
    """The connection to the bare server, which is one for all."""
    yield lambda _: call()


def speed_of(run: Callable[[], object], seconds: float) -> Speed:
    """Run the session for so long."""
    spent_s, end_s = [timed_s(run)], time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        spent_s.append(timed_s(run))
    return Speed(statistics.median(spent_s), len(spent_s) / sum(spent_s))


def timed_s(work: Callable[[], object]) -> float:
    """How long it takes."""
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def in_turn(ways: Mapping[str, Callable[[], object]], calls: int) -> Figures:
    """Milliseconds above the first of ``ways``: quartiles of the differences, and the difference of both p99, with what
    ``CONFIDENCE`` of all drawings of as many rounds from these give for it (Efron, 1979: percentiles of the bootstrap).

    Beside these, what calls take in units of the first's median.
    """
    spent_ms: dict[str, list[float]] = {name: [] for name in ways}
    order, chance = list(ways), random.Random(1)
    for number in range(calls + WARM_UP_CALLS):
        chance.shuffle(order)  # what ran just before counts: it has emptied the caches, or still tidies up
        for name in order:
            spent_s = timed_s(ways[name])
            if number >= WARM_UP_CALLS:
                spent_ms[name].append(spent_s * 1e3)
    (raw_name, raw), *others = spent_ms.items()
    unit_ms = statistics.median(raw)
    found: Figures = {raw_name: {"p50_ms": round(unit_ms, 2), **in_units(raw, unit_ms)}}
    for name, values in others:
        low, middle, high = statistics.quantiles([a - b for a, b in zip(values, raw, strict=True)], n=4)
        above = {"above_p50_ms": middle, "above_p25_ms": low, "above_p75_ms": high}
        above["above_p99_ms"] = quantile(values, 0.99) - quantile(raw, 0.99)
        above["above_p99_low_ms"], above["above_p99_high_ms"] = between(values, raw)
        found[name] = {key: round(value, 2) for key, value in above.items()} | in_units(values, unit_ms)
    return found


def between(values: Sequence[float], raw: Sequence[float]) -> tuple[float, float]:
    """Where the difference of both p99 lies, by rounds drawn anew; rounds stay whole, for what else ran met both."""

    def above(ours: np.ndarray, theirs: np.ndarray, axis: int = -1) -> np.ndarray:
        ours_s, theirs_s = (np.quantile(each, 0.99, axis=axis, method="inverted_cdf") for each in (ours, theirs))
        return ours_s - theirs_s

    drawn = bootstrap(
        (np.asarray(values), np.asarray(raw)),
        above,
        paired=True,
        confidence_level=CONFIDENCE,
        n_resamples=DRAWS,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(drawn.low), float(drawn.high)


def in_units(values: Sequence[float], unit: float) -> Figures:
    """p50, p95 and p99; none where so many calls had no answer."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    found = {name: quantile(values, share) / unit for name, share in shares.items()}
    return {name: round(value, 3) if math.isfinite(value) else None for name, value in found.items()}


def closed_loop(calls: Sequence[Call], seconds: float) -> tuple[float, list[float]]:
    """Calls a second by clients that each ask again as soon as they have an answer, and the seconds each call took."""
    spent_s: list[float] = []
    end_s = time.monotonic() + seconds

    def work(call: Call) -> None:
        while time.monotonic() < end_s:
            spent_s.append(timed_s(lambda: call(CALL_S)))

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    begun_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(spent_s) / (time.monotonic() - begun_s), spent_s


def all_closed(run: Callable[[], object], servers: Mapping[str, list[Call]], plan: Plan) -> Figures:
    """Shares of the session's throughput, latencies in its calls, and p99 in the time that a queue of all takes."""
    shares: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(plan.rounds):
        for name, calls in servers.items():
            speed = speed_of(run, plan.raw_s)
            rate, spent_s = closed_loop(calls[: plan.clients], plan.closed_s)
            shares[name].append(rate / speed.rate)
            spent[name] += [each / speed.p50_s for each in spent_s]
    return {
        name: {
            "throughput": round(statistics.mean(shares[name]), 3),
            **in_units(spent[name], 1.0),
            "p99_of_ideal": round(quantile(spent[name], 0.99) / plan.clients, 3),
        }
        for name in servers
    }


def all_open(run: Callable[[], object], servers: Mapping[str, list[Call]], plan: Plan, load: float) -> Figures:
    """What becomes of calls at ``load`` times the session's capacity; the same pattern for all servers.

    Beside them an ideal queue, without a server: call after call at the session's speed, none refused.
    """
    names, chance = list(servers), random.Random(2)
    latencies: dict[str, list[float]] = defaultdict(list)
    goodput: dict[str, list[float]] = defaultdict(list)
    for number in range(plan.rounds):
        chance.shuffle(names)
        for name in names:
            speed = speed_of(run, plan.raw_s)
            due_s, limit_s = moments(load * speed.rate, plan.open_s, seed=number), plan.limit * speed.p50_s
            answers = offer(servers[name], due_s, limit_s, (*FAILURES, AssetgenError))
            servers[name][0](CALL_S)  # once it has done what nobody waits for any more
            in_time = [each for each in answers if math.isfinite(each.latency_s)]
            lasted_s = max([plan.open_s, *(each.end_s for each in in_time)])
            goodput[name].append(len(in_time) / lasted_s / speed.rate)
            latencies[name] += [each.latency_s / speed.p50_s for each in answers]
            ideal = ideal_latencies(due_s, 1 / speed.rate)
            latencies["ideal queue"] += [each / speed.p50_s if each <= limit_s else math.inf for each in ideal]
    found: Figures = {}
    for name in [*servers, "ideal queue"]:
        values = latencies[name]
        answered = sum(map(math.isfinite, values)) / max(len(values), 1)
        found[name] = {"calls": len(values), "in_time": round(answered, 3)} | in_units(values or [math.inf], 1.0)
        if name in goodput:
            found[name] |= {"goodput": round(statistics.mean(goodput[name]), 3)}
    return found


def compare(
    pythons: Mapping[str, str], threads: int, plan: Plan, models: Path | None = None, edge_px: int = EDGE_PX
) -> Figures:
    """All measurements, by server."""
    folder = models or bundled_models_folder()
    package = next(each for each in open_store([folder]).values() if each.manifest.kind == "texture")
    raw, own, inputs = (
        plain_session(package, threads),
        open_session(package, "cpu", threads),
        example_inputs(package, edge_px),
    )

    def run() -> object:
        return raw.run(None, inputs)

    facts: Figures = {"package": str(package.folder), "edge_px": edge_px, "threads": threads}
    with ExitStack() as stack:
        arguments = ["--models", str(folder), "--device", "cpu", "--threads", str(threads), "--log", "error"]
        address = stack.enter_context(ServerProcess(arguments)).address
        bare = stack.enter_context(bare_server(package.folder, "cpu", threads, edge_px))
        ways: dict[str, Connect] = {"assetgen": lambda: our_call(address, package.manifest.id, edge_px)}
        ways["bare gRPC"] = lambda: bare_call(bare)
        for name, python in pythons.items():
            ways[name] = stack.enter_context(started(name, python, facts, edge_px * edge_px * 3))
        servers = {name: stack.enter_context(connected(way, plan.connections)) for name, way in ways.items()}
        speed = speed_of(run, plan.raw_s)
        found: Figures = {
            "machine": {"processor": processor(), "cores": usable_cores(), "load": round(os.getloadavg()[0], 1)},
            "versions": {name: version(name, python) for name, python in pythons.items()},
            "model": {"id": package.manifest.id, "edge_px": edge_px, "threads": threads},
            "plan": vars(plan),
            "raw": {"p50_ms": round(speed.p50_s * 1e3, 2), "calls_per_s": round(speed.rate, 2)},
        }
        alone = {"raw": run, OWN_SESSION: lambda: own.run(inputs)} | {
            name: _first(calls) for name, calls in servers.items()
        }
        found["in_turn"] = in_turn(alone, plan.calls)
        found["closed"] = all_closed(run, servers, plan)
        by_load = {f"{load:g}": all_open(run, servers, plan, load) for load in plan.loads}
        found["open"] = by_load
    return found


def processor() -> str:
    """Its name, as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _first(calls: Sequence[Call]) -> Callable[[], object]:
    return lambda: calls[0](CALL_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="NAME=PYTHON", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--calls", type=int, default=Plan.calls, help="in turn")
    parser.add_argument("--clients", type=int, default=Plan.clients, help="in the closed loop")
    parser.add_argument("--closed-seconds", type=float, default=Plan.closed_s, help="a server and round")
    parser.add_argument("--loads", default=",".join(f"{load:g}" for load in LOADS), help="of the open loop")
    parser.add_argument("--open-seconds", type=float, default=Plan.open_s, help="a server, load and round")
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--write", action="store_true", help="write table, plot and JSON into docs/")
    options = parser.parse_args(argv)
    plan = Plan(
        calls=options.calls,
        clients=options.clients,
        closed_s=options.closed_seconds,
        loads=tuple(float(part) for part in options.loads.split(",")),
        open_s=options.open_seconds,
        rounds=options.rounds,
    )
    found = compare(dict(text.split("=", 1) for text in options.peers), options.threads, plan)
    json.dump(found, sys.stdout, indent=2)
    print()
    if options.write:
        peers_page.write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
