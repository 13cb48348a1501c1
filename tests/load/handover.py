"""How long 36 MiB of maps take to a client on the same machine: `python -m tests.load.handover`; prints JSON.

A server in a process of its own answers with maps that are ready, so that nothing but the way to the client is
measured, by the code that serves: in the stream, with the client's hash, and through shared memory. Beside it, in turn,
a copy of the same bytes from memory to memory, and reading every byte of what arrived.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import numpy as np

from assetgen.allocator import keep_freed_memory
from assetgen.client import Client
from assetgen.server.delivery import Deliverer
from assetgen.server.exchange import GENERATION_SERVICE, Front
from assetgen.server.servicer import handlers
from assetgen.server.shared import SharedFiles
from assetgen.service import Service
from assetgen.types import Artifact, ColorSpace, Event, Finished, PixelFormat, Request, Started
from assetgen.v1 import generation_service_pb2
from assetgen.worker import Worker

EDGE_PX = 2048
MAPS = {"base_color": 3, "normal": 3, "roughness": 1, "metallic": 1, "ambient_occlusion": 1}
FORMATS = {1: PixelFormat.R8, 3: PixelFormat.RGB8}


def answer() -> list[Event]:
    """Events of a call whose maps have 36 MiB."""
    events: list[Event] = [Started(1, "00" * 32, "none")]
    for number, (role, channels) in enumerate(MAPS.items()):
        data = np.random.default_rng(number).bytes(EDGE_PX * EDGE_PX * channels)
        kind = (role, f"{role}.raw", "application/octet-stream", FORMATS[channels], ColorSpace.LINEAR)
        events.append(Artifact(0, *kind, EDGE_PX, EDGE_PX, data))
    return [*events, Finished(0.0, 0.0)]


def serve() -> None:
    """Answer until the standard input ends."""
    keep_freed_memory()
    events, service, shared = answer(), Service({}, Worker("cpu", 1)), SharedFiles(256 * 2**20)
    front = Front(service, shared=shared)

    def make(data: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        request = generation_service_pb2.GenerateRequest.FromString(data)
        deliverer = Deliverer(request.delivery, None, shared, local=True)
        for event in events:
            yield from deliverer.messages(event)

    server = grpc.server(ThreadPoolExecutor(4))
    generation = {"Generate": grpc.unary_stream_rpc_method_handler(make)}
    server.add_generic_rpc_handlers((handlers(front)[0],))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(GENERATION_SERVICE, generation),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None).wait()
    shared.close()
    service.close()


def read(artifacts: Sequence[Artifact]) -> int:
    """Every byte of them, as a program would that uses them."""
    return sum(int(np.frombuffer(artifact.data, np.uint64).sum(dtype=np.uint64)) for artifact in artifacts)


def measure(rounds: int) -> dict[str, object]:
    """Milliseconds by way, medians of ``rounds``."""
    keep_freed_memory()
    sources = [np.frombuffer(event.data, np.uint8) for event in answer() if isinstance(event, Artifact)]
    targets = [np.ones_like(source) for source in sources]
    size = sum(source.nbytes for source in sources)
    command = [sys.executable, "-m", "tests.load.handover", "--serve"]

    def copy() -> list[Artifact]:
        for source, target in zip(sources, targets, strict=True):
            np.copyto(target, source)
        return []

    def by(client: Client) -> Callable[[], list[Artifact]]:
        return lambda: [event for event in client.generate(Request("any")) if isinstance(event, Artifact)]

    spent_ms: dict[str, list[float]] = {}
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )  # leaving it closes its input, which ends it
        assert process.stdout is not None
        address = f"127.0.0.1:{int(process.stdout.readline())}"
        stream, shared = (stack.enter_context(Client(address, shared=way)) for way in (False, True))
        ways = {"copy": copy, "grpc": by(stream), "shared": by(shared)}
        for number in range(rounds + 3):
            for name, way in ways.items():
                begun_s = time.perf_counter()
                found = way()
                made_s = time.perf_counter()
                read(found)
                read_s = time.perf_counter()
                if number >= 3:  # the first warm up
                    spent_ms.setdefault(name, []).append((made_s - begun_s) * 1e3)
                    spent_ms.setdefault(f"{name}, read", []).append((read_s - begun_s) * 1e3)
                assert sum(len(artifact.data) for artifact in found) in (0, size)
                del found
    middle = {name: statistics.median(values) for name, values in spent_ms.items() if name != "copy, read"}
    return {
        "bytes": size,
        "p50_ms": {name: round(value, 2) for name, value in middle.items()},
        "shared_to_copy": round(middle["shared"] / middle["copy"], 2),
        "shared_and_read_to_copy": round(middle["shared, read"] / middle["copy"], 2),
        "grpc_mb_per_s": round(size / middle["grpc"] / 1e3),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--serve", action="store_true", help="be the server")
    options = parser.parse_args(argv)
    if options.serve:
        serve()
        return 0
    json.dump(measure(options.rounds), sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
