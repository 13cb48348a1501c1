"""A server takes as many descriptors as it may have: connections that say nothing use up none that others need."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest

from assetgen.client import Client
from assetgen.launch import ServerProcess
from assetgen.server.descriptors import MOST, allow_many_descriptors
from tests.helpers.serving import write_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
FEW, SILENT = 64, 150


@contextmanager
def soft_limit(count):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_silent_connections_than_descriptors_that_are_usual(tmp_path):
    write_model(tmp_path)
    with ExitStack() as stack:
        with soft_limit(FEW):
            server = stack.enter_context(ServerProcess(["--models", str(tmp_path), "--device", "cpu"]))
        host, _, port = server.address.rpartition(":")
        for _ in range(SILENT):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
        begun_s = time.monotonic()
        with Client(server.address) as client:
            assert [model.id for model in client.models()] == ["tiny"]
        assert time.monotonic() - begun_s < 5
        assert "Traceback" not in server.errors()


def test_the_limit_is_what_the_system_allows():
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with soft_limit(min(FEW, soft)) as hard:
        allow_many_descriptors()
        wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
        allow_many_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
