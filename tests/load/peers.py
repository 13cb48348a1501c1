"""Our server beside others that serve the same graph: `python -m tests.load.peers --python PEERS/bin/python`.

PEERS is an environment of its own with litserve, bentoml, onnxruntime, numpy, pillow and isal, on Linux or macOS. All
do the same work for a call, inputs from a seed to raw pixels; the bare server runs the graph on fixed inputs. Calls
alternate one by one, so that the machine's other load meets all alike; each figure is the median of the differences to
the bare run of the graph just before.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from assetgen.client import Client
from assetgen.kinds import example_inputs
from assetgen.launch import ServerProcess
from assetgen.runtime import open_session
from assetgen.runtime.cpu import usable_cores
from assetgen.server.bare import bare_server
from assetgen.store import bundled_models_folder, open_store
from assetgen.types import Encoding, MapKind, OutputSpec, Request

FOLDER = Path(__file__).resolve().parent / "peer_servers"
ROOT = FOLDER.parents[2]
EDGE_PX = 256
PEERS = {
    "litserve": (["litserve_server.py"], "/predict"),
    "bentoml": (["-m", "bentoml", "serve", "bentoml_service:Service", "--port"], "/predict"),
}
START_S = 60.0


@contextmanager
def peer(python: str, name: str, facts: dict[str, object]) -> Iterator[Callable[[], object]]:
    """Start a peer; what is yielded calls it once, over one connection that is kept."""
    command, path = PEERS[name]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"ASSETGEN_PEER": json.dumps(facts), "BENTOML_DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [python, *command, str(port)],
        cwd=FOLDER,
        env=os.environ | own,
        stdout=subprocess.DEVNULL,
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call() -> bytes:
        try:
            connection.request("POST", path, b"{}", {"Content-Type": "application/json"})
        except ConnectionError:  # it was idle for so long that the peer closed it
            connection.close()
            connection.request("POST", path, b"{}", {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
        assert response.status == 200, data[:300]
        return data

    try:
        end_s = time.monotonic() + START_S
        while True:
            try:
                data = call()
                break
            except (OSError, http.client.HTTPException, AssertionError):
                connection.close()
                assert process.poll() is None, f"{name} ended"
                assert time.monotonic() < end_s, f"{name} does not answer"
                time.sleep(0.2)
        assert len(data) == EDGE_PX * EDGE_PX * 3, data[:300]
        yield call
    finally:
        connection.close()
        known = psutil.Process(process.pid)
        for one in (*known.children(recursive=True), known):  # neither peer's workers end with it
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def compare(python: str, names: Sequence[str], calls: int, threads: int) -> dict[str, dict[str, float]]:
    """Milliseconds above the bare run of the graph, by server: p50, p25 and p75 of the differences."""
    store = open_store([bundled_models_folder()])
    package = next(each for each in store.values() if each.manifest.kind == "texture")
    session, inputs = open_session(package, "cpu", threads), example_inputs(package, EDGE_PX)
    facts: dict[str, object] = {"package": str(package.folder), "edge_px": EDGE_PX, "threads": threads}
    with ExitStack() as stack:
        arguments = ["--device", "cpu", "--threads", str(threads), "--log", "error"]
        client = stack.enter_context(Client(stack.enter_context(ServerProcess(arguments)).address))
        wanted = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)

        def ours() -> None:
            seed = len(spent_ms["assetgen"])
            request = Request(package.manifest.id, seed=seed, width_px=EDGE_PX, height_px=EDGE_PX, output=wanted)
            for _ in client.generate(request):
                pass

        ways: dict[str, Callable[[], object]] = {"raw": lambda: session.run(inputs)}
        ways["bare gRPC"] = stack.enter_context(bare_server(package.folder, "cpu", threads, EDGE_PX))
        ways["assetgen"] = ours
        for name in names:
            ways[name] = stack.enter_context(peer(python, name, facts))
        spent_ms: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(calls + 5):
            for name, way in ways.items():
                begun_s = time.perf_counter()
                way()
                if number >= 5:  # the first warm up
                    spent_ms[name].append((time.perf_counter() - begun_s) * 1e3)
    raw = spent_ms.pop("raw")
    found = {}
    for name, values in spent_ms.items():
        above = [value - base for value, base in zip(values, raw, strict=True)]
        low, middle, high = statistics.quantiles(above, n=4)
        found[name] = {"p50_ms": round(middle, 2), "p25_ms": round(low, 2), "p75_ms": round(high, 2)}
    return {"raw": {"p50_ms": round(statistics.median(raw), 2)}, **found}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="of the environment with the peers")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args(argv)
    names = [name for name in options.peers.split(",") if name]
    json.dump(compare(options.python, names, options.calls, options.threads), sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
