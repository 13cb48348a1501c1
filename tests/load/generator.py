"""Load on a server, `python -m tests.load.generator`: closed loop for its capacity, open loop at multiples.

Without an address it starts a server for itself, with the shipped models on the processor.

Open loop means that calls come at moments drawn beforehand (Poisson), whether or not those before have ended: a server
that slows down meets a queue, as it would in life.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import grpc

from assetgen.launch import ServerProcess
from assetgen.v1 import asset_pb2, generation_service_pb2
from tests.load.arrivals import moments

METHOD = "/assetgen.v1.GenerationService/Generate"


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


async def closed_loop(address: str, model: str, edge_px: int, clients: int, seconds: float) -> Outcome:
    """``clients`` that each call again as soon as they have an answer."""
    outcome, begun_s, spent_s = Outcome(seconds), time.monotonic(), time.process_time()

    async def client(number: int) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            seed = number * 1_000_000
            while time.monotonic() < begun_s + seconds:
                seed += 1
                await _call(channel, request(model, edge_px, seed), 60.0, outcome)

    await asyncio.gather(*(client(number) for number in range(clients)))
    outcome.own_cores = (time.process_time() - spent_s) / (time.monotonic() - begun_s)
    return outcome


async def open_loop(
    address: str, model: str, edge_px: int, rate: float, seconds: float, deadline_s: float, channels: int = 8
) -> Outcome:
    """Calls at ``rate`` a second, at random moments."""
    outcome, tasks = Outcome(seconds), []
    connections = [
        grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) for _ in range(channels)
    ]
    begun_s, spent_s = time.monotonic(), time.process_time()
    for seed, due_s in enumerate(moments(rate, seconds, seed=0), 1):
        await asyncio.sleep(max(begun_s + due_s - time.monotonic(), 0.0))
        body = request(model, edge_px, seed)
        tasks.append(asyncio.create_task(_call(connections[seed % channels], body, deadline_s, outcome)))
    await asyncio.gather(*tasks)
    outcome.own_cores = (time.process_time() - spent_s) / (time.monotonic() - begun_s)
    for connection in connections:
        await connection.close()
    return outcome


async def _call(channel: grpc.aio.Channel, body: bytes, deadline_s: float, outcome: Outcome) -> None:
    begun_s = time.monotonic()
    try:
        async for _ in channel.unary_stream(METHOD)(body, timeout=deadline_s):
            pass
    except grpc.aio.AioRpcError as error:
        spent_s = time.monotonic() - begun_s
        outcome.codes[error.code().name] += 1
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED or spent_s < 0.1:
            outcome.refused_s.append(spent_s)
    else:
        outcome.codes["OK"] += 1
        outcome.good_s.append(time.monotonic() - begun_s)


def _quantile_ms(values: Sequence[float], share: float) -> float | None:
    if len(values) < 2:
        return None
    return round(statistics.quantiles(values, n=100)[round(share * 100) - 1] * 1e3, 2)


async def measure(
    address: str, model: str, edge_px: int, seconds: float, multiples: Sequence[float], deadline_s: float
) -> dict[str, object]:
    """Capacity, then each multiple of it."""
    closed = await closed_loop(address, model, edge_px, 16, seconds)
    found: dict[str, object] = {"closed_16": closed.summary()}
    for multiple in multiples:
        outcome = await open_loop(address, model, edge_px, multiple * closed.goodput, seconds, deadline_s)
        found[f"open_{multiple:g}x"] = outcome.summary()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?", help="of a server that runs")
    parser.add_argument("--model", default="starter-materials")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--multiples", default="0.7,1,2,10")
    parser.add_argument("--deadline", type=float, default=2.0)
    options = parser.parse_args(argv)
    multiples = [float(part) for part in options.multiples.split(",")]
    with ExitStack() as stack:
        own = ["--device", "cpu", "--log", "error"]
        address = options.address or stack.enter_context(ServerProcess(own)).address
        found = asyncio.run(measure(address, options.model, options.size, options.seconds, multiples, options.deadline))
    json.dump(found, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
