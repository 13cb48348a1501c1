"""Calls that are given up at random moments: `python -m tests.load.cancels --cancels 10000`; prints JSON.

Beside them memory, descriptors and threads of the server, and in the end what it still has under way. Exit status 1 if
memory grows by a MiB per 1,000 cancels, anything is left, or a request no longer gives the bytes it gave at first.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from assetgen.client import Client
from assetgen.launch import ServerProcess
from assetgen.types import Encoding, OutputSpec, Request
from assetgen.wire import request_to_message
from tests.helpers.figures import figure
from tests.load.lean import Connection
from tests.load.soak import family, golden, held

METHOD = "/assetgen.v1.GenerationService/Generate"
AT_ONCE, MAX_CALLS = 8, 16
DEADLINE_S, QUIET_S = 60.0, 60.0
# A cancel comes at a random moment of twice the time that an uncancelled call takes: some come too late.
LATE = 2.0
SAMPLES = 60
# The first half warms up: some thousand cancels pass before threads and pieces of memory have come to their number.
# After each half the server rests until it has given freed memory back, which it keeps for a minute.
REST_S = 65.0
MOST_MIB_PER_1000 = 1.0
# Threads, and memory that both processes see, are kept for the next runs; what is lost would be thousands.
MORE = (4 * MAX_CALLS, MAX_CALLS)  # descriptors, threads
FIGURES = ("assetgen_calls_under_way", "assetgen_held_pixels", "assetgen_assets_waiting")


@dataclass
class Canceller:
    """Keeps some calls under way and gives each up at its moment."""

    connection: Connection
    bodies: Sequence[bytes]
    longest_s: float
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    cancels: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    _moments_s: dict[int, float] = field(default_factory=dict)

    def go_on(self, cancels: int) -> None:
        """Until so many have been cancelled in all."""
        while self.cancels < cancels:
            while len(self._moments_s) < AT_ONCE:
                call = self.connection.call(self.chance.choice(self.bodies))
                self._moments_s[call] = time.monotonic() + self.chance.uniform(0, self.longest_s)
            self._read(max(min(self._moments_s.values()) - time.monotonic(), 0.0))
            now_s = time.monotonic()
            for call in [call for call, moment_s in self._moments_s.items() if moment_s <= now_s]:
                del self._moments_s[call]
                self.connection.cancel(call)
                self.cancels += 1

    def rest(self, seconds: float) -> None:
        """Cancel those under way, too, and only answer the server's pings."""
        for call in self._moments_s:
            self.connection.cancel(call)
        self.cancels += len(self._moments_s)
        self._moments_s.clear()
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._read(min(left_s, 1.0))

    def _read(self, timeout_s: float) -> None:
        if select.select([self.connection], [], [], timeout_s)[0]:
            for ended in self.connection.ended():
                del self._moments_s[ended.call]
                self.ended[ended.status] += 1


def cancel(cancels: int, model: str, models: str, threads: int, rest_s: float) -> dict[str, object]:
    """Do it; returns the figures."""
    options = ["--device", "cpu", "--threads", str(threads), "--log", "info", "--metrics-port", "0"]
    options = [*options, "--max-calls", str(MAX_CALLS), *(["--models", models] if models else [])]
    peak_mib, rests = 0.0, []
    with ServerProcess(options) as server, Client(server.address) as client:
        before = golden(client, model)
        requests = [_request(model, 1, 64), _request(model, 1, 256), _request(model, 4, 64)]
        longest_s = max(_seconds(client, request) for request in requests)
        bodies = [request_to_message(request).SerializeToString() for request in requests]
        processes = family(psutil.Process(server.process.pid))
        with Connection(server.address, METHOD, DEADLINE_S) as connection:
            canceller = Canceller(connection, bodies, LATE * longest_s)
            begun_s = time.monotonic()
            for number in range(1, SAMPLES + 1):
                canceller.go_on(cancels * number // SAMPLES)
                peak_mib = max(peak_mib, held(processes)[0])
                if number in (SAMPLES // 2, SAMPLES):
                    canceller.rest(rest_s)
                    rests.append((canceller.cancels, *held(processes)))
            spent_s = time.monotonic() - begun_s
            left = _left(server)
        after = golden(client, model)
    (warm, first_mib, *first), (done, last_mib, *last) = rests
    for name, before_it, after_it, more in zip(("descriptors", "threads"), first, last, MORE, strict=True):
        if after_it - before_it > more:
            left[name] = after_it - before_it
    return {
        "cancels": canceller.cancels,
        "seconds": round(spent_s, 1),
        "ended_before": dict(sorted(canceller.ended.items())),
        "golden_unchanged": before == after,
        "resident_mib": [round(first_mib, 1), round(last_mib, 1), round(peak_mib, 1)],
        "slope_mib_per_1000": round((last_mib - first_mib) / (done - warm) * 1000, 3),
        "descriptors": [first[0], last[0]],
        "threads": [first[1], last[1]],
        "left": left,
    }


def _request(model: str, count: int, edge_px: int) -> Request:
    raw = OutputSpec(encoding=Encoding.RAW)
    return Request(model, seed=7, count=count, width_px=edge_px, height_px=edge_px, output=raw)


def _seconds(client: Client, request: Request) -> float:
    """How long it takes once it has been made before."""
    for _ in range(2):
        begun_s = time.monotonic()
        list(client.generate(request))
    return time.monotonic() - begun_s


def _left(server: ServerProcess) -> dict[str, float]:
    """What is under way when nobody asks any more; what ends within a while is not left."""
    end_s = time.monotonic() + QUIET_S
    while left := {name: value for name in FIGURES if (value := figure(server, name))}:
        if time.monotonic() > end_s:
            break
        time.sleep(0.05)
    return left


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=10_000)
    parser.add_argument("--model", default="starter-materials")
    parser.add_argument("--models", default="", help="folder (those of assetgen)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    found = cancel(options.cancels, options.model, options.models, options.threads, REST_S)
    json.dump(found, sys.stdout, indent=2)
    print()
    grows = float(str(found["slope_mib_per_1000"])) >= MOST_MIB_PER_1000
    return 1 if grows or found["left"] or not found["golden_unchanged"] else 0


if __name__ == "__main__":
    sys.exit(main())
