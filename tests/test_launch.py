"""A server as a child process: what it writes is all there, whenever it is read."""

from __future__ import annotations

import threading

from assetgen.client import Client
from assetgen.launch import ServerProcess
from assetgen.types import Request
from tests.helpers.serving import write_model

CALLS = 200


def test_what_a_server_writes_is_read_whole_while_it_writes(tmp_path):
    write_model(tmp_path)
    with ServerProcess(["--models", str(tmp_path), "--device", "cpu", "--metrics-port", "0"]) as server:

        def write() -> None:
            with Client(server.address) as client:
                for seed in range(CALLS):
                    list(client.generate(Request("tiny", seed=seed, width_px=32, height_px=32)))

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            assert "metrics on http://" in server.errors()
        assert server.errors().count("request_id") >= CALLS
