"""A server in little memory under its worst legal load: `python -m tests.load.small --limits-mib 0,2048,1024`; Linux.

The limit is one on addresses (RLIMIT_AS), of the server and of each process that it starts: an allocation beyond it
fails, and nothing is killed from outside. The load is as many calls of the largest maps as the queue takes, and more.
What must be left is a server that lives and answers a small call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil

from assetgen.client import Client
from assetgen.errors import AssetgenError
from assetgen.launch import READY
from assetgen.types import MapKind, OutputSpec, Request
from assetgen.v1 import asset_pb2, generation_service_pb2
from tests.load.generator import METHOD, Calls, Outcome
from tests.load.lean import Connection
from tests.load.soak import family

START_TIMEOUT_S, STOP_TIMEOUT_S, SAMPLE_S = 120.0, 40.0, 0.1
# How long the small call may be refused while the last of the large ones ends, and how long it may take.
PATIENCE_S = 60.0
# More than the queue takes.
CALLS = 80


class Limited:
    """``assetgen serve`` on a free loopback port, each of its processes with so many MiB of addresses; 0: no limit.

    Attributes:
        process: the server itself.
        address: host and port; empty if it ended, or was not ready in time.
    """

    def __init__(self, limit_mib: int, arguments: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._errors = Path(self._folder.name) / "errors.txt"  # by name, as ServerProcess does it
        limiter = ["prlimit", f"--as={limit_mib << 20}"] if limit_mib else []
        with self._errors.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [*limiter, sys.executable, "-m", "assetgen", "serve", "--port", "0", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        late = threading.Timer(START_TIMEOUT_S, self._kill)
        late.start()
        found = (READY.search(line) for line in self.process.stdout)
        self.address = next((match.group(1) for match in found if match), "")
        late.cancel()
        if not self.address:
            self._kill()

    @property
    def lives(self) -> bool:
        """Whether the server itself still runs; not that which runs models for it."""
        return self.process.poll() is None

    def family(self) -> list[psutil.Process]:
        """It and what it has started; nothing if it has ended."""
        try:
            return family(psutil.Process(self.process.pid)) if self.lives else []
        except psutil.NoSuchProcess:
            return []

    def errors(self) -> str:
        """What it has written to its standard error so far."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> bool:
        """Ask it to end, and make it; returns whether asking was enough."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
            willing = True
        except subprocess.TimeoutExpired:
            self._kill()
            willing = False
        self.process.stdout.close()
        self._folder.cleanup()
        return willing

    def _kill(self) -> None:
        for process in reversed(self.family()):
            process.kill()
        self.process.wait()


class Peak:
    """Looks at a server's memory until it is closed.

    Attributes:
        resident_mib: the most that all its processes held at one time; what they share counts for each.
        addresses_mib: the most of any one process, which is what the limit is on.
        workers: processes seen beside the server itself.
    """

    def __init__(self, server: Limited) -> None:
        self.resident_mib, self.addresses_mib, self.workers = 0.0, 0.0, set[int]()
        self._server, self._end = server, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(SAMPLE_S):
            resident = 0
            try:
                for process in self._server.family():
                    held = process.memory_info()
                    resident += held.rss
                    self.addresses_mib = max(self.addresses_mib, held.vms / 2**20)
                    self.workers |= {process.pid} - {self._server.process.pid}
            except psutil.NoSuchProcess:  # the next look meets those that are left
                continue
            self.resident_mib = max(self.resident_mib, resident / 2**20)


def worst(model: str, edge_px: int, count: int, seed: int) -> bytes:
    """All maps of ``count`` assets, as pixels: the most bytes that a call can ask for."""
    message = generation_service_pb2.GenerateRequest(
        model_id=model, seed=seed, count=count, width_px=edge_px, height_px=edge_px
    )
    message.output.encoding = asset_pb2.ENCODING_RAW
    return message.SerializeToString()


def load(address: str, bodies: Sequence[bytes], seconds: float) -> dict[str, int]:
    """All calls at once, given up after ``seconds``; returns how many ended with which status."""
    outcome = Outcome(seconds)
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(address, METHOD, seconds)) for _ in bodies]
        calls = stack.enter_context(closing(Calls(connections, seconds, outcome)))
        try:
            for connection, body in zip(connections, bodies, strict=True):
                calls.begin(connection, body)
            while len(calls):
                calls.wait(time.monotonic() + 1.0)
        except OSError as error:  # it is no more
            outcome.codes[f"broken: {error}"] += len(calls)
    return dict(outcome.codes)


def small_call(address: str, model: str) -> str:
    """OK, or the reason why one small call is not answered for a minute."""
    request = Request(model, seed=1, width_px=64, height_px=64, output=OutputSpec(maps=(MapKind.BASE_COLOR,)))
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with Client(address) as client:
                list(client.generate(request, deadline_s=PATIENCE_S))
            return "OK"
        except AssetgenError as error:
            if time.monotonic() > end_s:
                return error.reason
        time.sleep(0.5)


def measure(
    limit_mib: int, model: str, sizes: Sequence[tuple[int, int]], seconds: float, arguments: Sequence[str]
) -> dict[str, Any]:
    """What becomes of a server with so much memory.

    Args:
        sizes: edge in pixels and number of assets of each kind of call; one load after the other.
        arguments: of ``assetgen serve``.
    """
    server = Limited(limit_mib, arguments)
    found: dict[str, Any] = {"limit_mib": limit_mib, "ready": bool(server.address)}
    if server.address:
        with closing(Peak(server)) as peak:
            for edge_px, count in sizes:
                bodies = [worst(model, edge_px, count, seed) for seed in range(CALLS)]
                found[f"codes of {count} x {edge_px} px"] = (
                    load(server.address, bodies, seconds) if server.lives else {}
                )
            found["small_afterwards"] = small_call(server.address, model) if server.lives else "no server"
        found |= {"resident_mib": round(peak.resident_mib), "addresses_mib": round(peak.addresses_mib)}
        found["workers"] = len(peak.workers)
    found["lived"] = server.lives
    found["server_errors"] = server.errors().splitlines()[-10:]
    found["stopped_when_asked"] = server.stop()
    return found


def usable(found: dict[str, Any]) -> bool:
    """Whether the server lived through it and serves on."""
    return bool(found["ready"] and found["lived"] and found["small_afterwards"] == "OK" and found["stopped_when_asked"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; status 1 if a server did not live and serve on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits-mib", default="0", help="one run each, such as 0,4096,2048; 0: no limit")
    parser.add_argument("--model", default="starter-materials")
    parser.add_argument("--models", default="", help="folder (those of assetgen)")
    parser.add_argument("--sizes", default="4096x64,2048x1", help="EDGExCOUNT of the calls, one load each")
    parser.add_argument("--seconds", type=float, default=30.0, help="deadline of these calls")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    sizes = [(int(edge), int(count)) for edge, _, count in (part.partition("x") for part in options.sizes.split(","))]
    arguments = ["--device", "cpu", "--threads", str(options.threads), "--log", "error"]
    arguments += ["--models", options.models] if options.models else []
    all_found = []
    for limit_mib in map(int, options.limits_mib.split(",")):
        all_found.append(measure(limit_mib, options.model, sizes, options.seconds, arguments))
        print(json.dumps(all_found[-1], indent=2), flush=True)
    return 0 if all(map(usable, all_found)) else 1


if __name__ == "__main__":
    sys.exit(main())
