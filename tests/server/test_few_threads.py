"""A server to which the system gives no more threads, as where these are counted: it serves on with those it has."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from assetgen.client import Client
from assetgen.types import Request
from tests.helpers.serving import files, write_model

CODE = """
import sys, threading
from pathlib import Path

begin = threading.Thread.start

def scarce(self):
    pool, _, number = self.name.rpartition("_")
    if pool.startswith("assetgen-") and int(number) >= 2:
        raise RuntimeError("can't start new thread")
    begin(self)

threading.Thread.start = scarce

from assetgen.local import open_service
from assetgen.server.app import ServerConfig, serve

service = open_service([Path(sys.argv[1])], "cpu", 1)
serve(service, ServerConfig(port=0, http_port=0), lambda address: print(address, flush=True))
service.close()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        yield server.stdout.readline().strip()
        server.terminate()
        try:
            _, errors = server.communicate(timeout=30)
        finally:
            server.kill()  # one that is deaf does not end by itself
        assert server.returncode == 0
    assert "Traceback" not in errors


def test_more_calls_at_once_than_threads_are_all_answered(address):
    """Refused threads made gRPC's own loop end, and the server deaf: later calls met silence until their deadline."""

    def ask(seed):
        with Client(address) as client:
            return len(files(client.generate(Request("tiny", seed=seed, width_px=32, height_px=32), 20.0)))

    for _ in range(2):
        with ThreadPoolExecutor(12) as clients:
            assert list(clients.map(ask, range(24))) == [6] * 24
