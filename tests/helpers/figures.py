"""What a server that was started with ``--metrics-port 0`` says of itself."""

from __future__ import annotations

import re
import time
import urllib.request

from assetgen.launch import ServerProcess

GONE_S = 60.0


def figure(server: ServerProcess, name: str) -> float:
    """A figure by its name, with its labels if it has some."""
    found = re.search(r"metrics on http://127\.0\.0\.1:(\d+)", server.errors())
    assert found, "the server has no port for metrics"
    with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name} "))
    return float(line.rpartition(" ")[2])


def assert_no_call_is_left(server: ServerProcess) -> None:
    """Give the server a moment to notice that its clients are gone; then nothing may be under way."""
    end_s = time.monotonic() + GONE_S
    for name in ("assetgen_calls_under_way", "assetgen_held_pixels", "assetgen_assets_waiting"):
        while (left := figure(server, name)) != 0:
            assert time.monotonic() < end_s, f"{name} is {left}, though all clients are gone"
            time.sleep(0.02)
