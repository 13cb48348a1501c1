"""A server under mixed load with faults for a long time: `python -m tests.load.soak --minutes 30`; prints JSON.

Previews that supersede each other, requests, batches, refused requests, clients that leave, connections that are cut;
beside it memory, descriptors and threads of the server, and whether one request still gives the bytes it gave at first.
What grows beyond the limits ends it with status 1, as does an error that is not of ours.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psutil

from assetgen.client import Client, Priority
from assetgen.errors import AssetgenError
from assetgen.launch import ServerProcess
from assetgen.types import Artifact, Encoding, OutputSpec, Request
from tests.load.proxy import Faults, Proxy

GOLDEN = {"seed": 424242, "width_px": 128, "height_px": 128}
WARM_UP_SHARE = 1 / 6
SLOPE_LIMIT_MIB = 1.0
# Clients come and go, and files in shared memory with them: so many more in the second half are chance.
DESCRIPTOR_SLACK, THREAD_SLACK = 32, 8


def golden(client: Client, model: str) -> list[str]:
    """Hashes of one request's files."""
    return [event.sha256 for event in client.generate(Request(model, **GOLDEN)) if isinstance(event, Artifact)]


class Load:
    """Clients on threads until ``end`` is set; ``seen`` counts what they met."""

    def __init__(self, address: str, faulty: str, model: str) -> None:
        self.address, self.faulty, self.model = address, faulty, model
        self.end, self.seen, self.strange = threading.Event(), Counter[str](), []
        work = (self.preview, self.preview, self.request, self.batch, self.wrong, self.leave, self.cut)
        self.threads = [threading.Thread(target=self._run, args=(one, number)) for number, one in enumerate(work)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Let them end."""
        self.end.set()
        for thread in self.threads:
            thread.join()

    def _run(self, work, number):
        chance = random.Random(number)
        while not self.end.is_set():
            address = self.faulty if work == self.cut else self.address
            with Client(address) as client:
                for _ in range(20):
                    if self.end.is_set():
                        break
                    try:
                        work(client, chance)
                        self.seen[f"{work.__name__} OK"] += 1
                    except AssetgenError as error:
                        self.seen[f"{work.__name__} {error.reason}"] += 1
                        self.end.wait(0.05)
                    except Exception as error:  # noqa: BLE001 -- whatever it is, the report shall have it
                        self.strange.append(f"{work.__name__}: {error!r}")

    def _ask(self, chance, edges, **changes):
        edge_px = chance.choice(edges)
        raw = OutputSpec(encoding=chance.choice(list(Encoding)))
        facts = {"seed": chance.randrange(2**32), "width_px": edge_px, "height_px": edge_px, "output": raw}
        return Request(self.model, **facts | changes)

    def preview(self, client, chance):
        for _ in client.generate(self._ask(chance, [64, 128]), priority=Priority.PREVIEW, supersede_key="soak"):
            pass

    def request(self, client, chance):
        for _ in client.generate(self._ask(chance, [64, 256, 512])):
            pass

    def batch(self, client, chance):
        for _ in client.generate(self._ask(chance, [64, 128], count=6), priority=Priority.BATCH):
            pass

    def wrong(self, client, chance):
        self.end.wait(0.05)
        changes = chance.choice(({"width_px": 33}, {"model_digest": "00" * 32}, {"parameters": {"glow": 1.0}}))
        list(client.generate(self._ask(chance, [64], **changes)))

    def leave(self, client, chance):
        events = client.generate(self._ask(chance, [256], count=4))
        for _ in range(chance.randrange(8)):
            next(events)
        events.close()

    def cut(self, client, chance):
        list(client.generate(self._ask(chance, [128], count=2)))


def family(server: psutil.Process) -> list[psutil.Process]:
    """The server and what it has started, as it is now: the process of a device is replaced when it fails or grows."""
    return [server, *server.children(recursive=True)]


def held(processes: Sequence[psutil.Process]) -> tuple[float, int, int]:
    """Resident MiB, descriptors and threads of all together; those that have ended meanwhile hold nothing."""
    total = np.zeros(3)
    for process in processes:
        try:
            descriptors = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
            total += process.memory_info().rss / 2**20, descriptors, process.num_threads()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return float(total[0]), int(total[1]), int(total[2])


def soak(minutes: float, model: str, models: str, threads: int) -> dict[str, object]:
    """Run it; returns the figures."""
    options = ["--device", "cpu", "--threads", str(threads), "--log", "error"]
    options += ["--models", models] if models else []
    samples: list[tuple[float, float, int, int]] = []
    with ServerProcess(options) as server, Client(server.address) as client:
        before = golden(client, model)
        server_itself = psutil.Process(server.process.pid)
        with Proxy(server.address, Faults(cut_after_bytes=40_000, reset=True)) as proxy:
            load, begun_s = Load(server.address, proxy.address, model), time.monotonic()
            while (now_s := time.monotonic() - begun_s) < minutes * 60:
                samples.append((now_s, *held(family(server_itself))))
                time.sleep(min(2.0, minutes * 6))
            load.stop()
        after, errors = golden(client, model), server.errors()
    return {
        "minutes": minutes,
        "calls": dict(sorted(load.seen.items())),
        "strange": load.strange[:10],
        "golden_unchanged": before == after,
        **growth(samples, minutes),
        "server_errors": errors.splitlines()[:10],
    }


def growth(samples: Sequence[tuple[float, float, int, int]], minutes: float) -> dict[str, object]:
    """Figures of samples (seconds, MiB, descriptors, threads) after the warm-up.

    MiB first, last and most; their slope; of descriptors and threads the most in the first and in the second half.
    """
    steady = np.array([sample for sample in samples if sample[0] >= WARM_UP_SHARE * minutes * 60])
    slope = np.polyfit(steady[:, 0] / 600, steady[:, 1], 1)[0]
    half = len(steady) // 2
    return {
        "resident_mib": [round(float(value), 1) for value in (steady[0, 1], steady[-1, 1], steady[:, 1].max())],
        "slope_mib_per_10_min": round(float(slope), 2),
        "descriptors": [int(steady[:half, 2].max()), int(steady[half:, 2].max())],
        "threads": [int(steady[:half, 3].max()), int(steady[half:, 3].max())],
    }


def faults(
    found: Mapping[str, Any],
    slope_limit_mib: float = SLOPE_LIMIT_MIB,
    descriptor_slack: int = DESCRIPTOR_SLACK,
    thread_slack: int = THREAD_SLACK,
) -> list[str]:
    """What of the figures must not be, in words; empty for a good run.

    Args:
        slope_limit_mib: that memory may grow by in ten minutes.
        descriptor_slack, thread_slack: how many the second half may have beyond the first.
    """
    wrong = []
    if not found["golden_unchanged"]:
        wrong.append("one request gave other bytes at the end than at the beginning")
    if found["strange"]:
        wrong.append(f"errors that are not of ours: {found['strange'][0]}")
    if found["server_errors"]:
        wrong.append(f"the server wrote errors: {found['server_errors'][0]}")
    if found["slope_mib_per_10_min"] > slope_limit_mib:
        wrong.append(f"memory grew by {found['slope_mib_per_10_min']} MiB in 10 min; {slope_limit_mib:g} are allowed")
    for name, slack in (("descriptors", descriptor_slack), ("threads", thread_slack)):
        first, second = found[name]
        if second > first + slack:
            wrong.append(f"{name} grew from {first} to {second}; {slack} more are allowed")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--model", default="starter-materials")
    parser.add_argument("--models", default="", help="folder (those of assetgen)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slope-limit", type=float, default=SLOPE_LIMIT_MIB, help="MiB in 10 min (1)")
    parser.add_argument("--descriptor-slack", type=int, default=DESCRIPTOR_SLACK, help="more that are chance (32)")
    parser.add_argument("--thread-slack", type=int, default=THREAD_SLACK, help="more that are chance (8)")
    options = parser.parse_args(argv)
    found = soak(options.minutes, options.model, options.models, options.threads)
    found["faults"] = faults(found, options.slope_limit, options.descriptor_slack, options.thread_slack)
    json.dump(found, sys.stdout, indent=2)
    print()
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
