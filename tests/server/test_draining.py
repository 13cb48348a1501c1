"""A server that is asked to stop while it works: what clients of both ports, the log and the exit status say."""

import http.client
import json
import os
import signal
import struct
import subprocess
import sys
import uuid

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from assetgen.client import Client
from assetgen.errors import Draining
from assetgen.launch import READY, ServerProcess
from assetgen.types import Finished, Request, Started
from tests.helpers.serving import files, write_model

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")

SMALL = {"model_id": "tiny", "seed": 7, "width_px": 32, "height_px": 32}
# Half a minute of work.
SLOW = Request("slow", seed=1, count=16, width_px=1024, height_px=1024)
JSON = {"modelId": "tiny", "seed": 7, "widthPx": 32, "heightPx": 32}
GENERATE, SUBMIT = "/assetgen.v1.GenerationService/Generate", "/assetgen.v1.JobService/SubmitJob"
END_OF_STREAM = 2


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    write_model(folder, "slow", channels=96)
    return folder


def options(models, *arguments):
    return ["--models", str(models), "--device", "cpu", "--threads", "1", *arguments]


def stop_and_wait_until_told(server, channel):
    """SIGTERM; returns once the server says that it takes no more."""
    health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert next(health).status == health_pb2.HealthCheckResponse.SERVING
    server.process.send_signal(signal.SIGTERM)
    assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_what_does_not_end_in_time_is_told_so_and_the_server_ends_well(models):
    server = ServerProcess(options(models, "--drain-s", "0.5"))
    with Client(server.address) as client:
        events = client.generate(SLOW)
        seen = [next(events)]
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(Draining, match="before the call ended") as caught:
            seen.extend(events)
    assert caught.value.retry_after_s == 5.0
    assert isinstance(seen[0], Started)
    assert not any(isinstance(event, Finished) for event in seen)
    assert server.process.wait() == 0
    log = server.errors()
    assert "draining: 1 calls under way" in log
    assert "1 calls did not end within 0.5 s" in log
    server.stop()


def post(port, path, body, kind):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": kind})
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def test_during_a_drain_the_http_port_says_unavailable(models):
    server = ServerProcess(options(models, "--http-port", "0"))
    with Client(server.address) as client, grpc.insecure_channel(server.address) as channel:
        port = client.server_info().http_port
        running = client.generate(SLOW)
        assert isinstance(next(running), Started)
        stop_and_wait_until_told(server, channel)
        job = {"jobId": str(uuid.uuid4()), "request": JSON}
        status, answer = post(port, SUBMIT, json.dumps(job).encode(), "application/json")
        assert (status, json.loads(answer)["code"]) == (503, "unavailable")
        body = json.dumps(JSON).encode()
        status, answer = post(port, GENERATE, struct.pack(">BI", 0, len(body)) + body, "application/connect+json")
        flags, size_bytes = struct.unpack(">BI", answer[:5])
        assert (status, flags, size_bytes) == (200, END_OF_STREAM, len(answer) - 5)  # streams say it at their end
        assert json.loads(answer[5:])["error"]["code"] == "unavailable"
        assert server.process.poll() is None
        running.close()
    assert server.process.wait() == 0
    server.stop()


@pytest.mark.parametrize("worker", ["process", "thread"])
def test_a_server_whose_log_nobody_reads_any_more_serves_on_and_ends_well(models, worker):
    command = [sys.executable, "-m", "assetgen", "serve", "--port", "0", *options(models), "--worker", worker]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = READY.search(server.stdout.readline()).group(1)
    server.stderr.close()
    with Client(address) as client:
        first = files(client.generate(Request(**SMALL), 60.0))
        for _ in range(20):  # each writes a line
            assert files(client.generate(Request(**SMALL), 60.0)) == first
    server.terminate()
    assert server.wait(60) == 0
    server.stdout.close()
