"""Polls that hang on the HTTP port: others are served beside them, and a port that is full says so."""

import http.client
import json
import socket
import time
import uuid
from contextlib import ExitStack, closing

import pytest

from assetgen import job_client
from assetgen.client import Client
from assetgen.jobs import JobLimits
from assetgen.launch import ServerProcess
from assetgen.server.servicer import MAX_AWAITED
from assetgen.types import Request
from tests.helpers.serving import files, write_model
from tests.server.test_web import LIST, Server

SERVICE = "/assetgen.v1.JobService"
SMALL = Request("tiny", seed=7, width_px=32, height_px=32)
SLOW = Request("slow", seed=7, count=64, width_px=1024, height_px=1024)
MAX_CALLS = 4
MAX_WAITS = JobLimits().max_waits


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    write_model(folder, "slow", channels=96)
    calls = ["--max-calls", str(MAX_CALLS)]
    with ServerProcess(
        ["--models", str(folder), "--device", "cpu", "--threads", "1", "--http-port", "0", *calls]
    ) as process:
        yield Server(process)


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


@pytest.fixture
def job(client):
    """One that runs until the test has ended."""
    job = job_client.submit(client, SLOW)
    yield job
    job_client.cancel(client, job.id)
    job_client.wait(client, job.id)


@pytest.fixture
def poll(server):
    """Begins a poll of thirty seconds on a connection of its own, which ends with the test."""
    with ExitStack() as stack:
        yield lambda job_id: stack.enter_context(closing(begun(server, job_id)))


def begun(server, job_id):
    body = json.dumps({"jobId": job_id, "afterRevision": str(10**9), "waitMs": 30_000})
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    connection.request("POST", f"{SERVICE}/GetJob", body, {"content-type": "application/json"})
    return connection


def submit(server):
    """Submit a small job over HTTP; status and body of the answer."""
    request = {"modelId": "tiny", "seed": 7, "widthPx": 32, "heightPx": 32}
    body = json.dumps({"jobId": str(uuid.uuid4()), "request": request}).encode()
    status, _, data = server.post(f"{SERVICE}/SubmitJob", body, "application/json")
    return status, data


def answers(polls):
    found = []
    for connection in polls:
        response = connection.getresponse()
        found.append((response.status, json.loads(response.read())["job"]["id"]))
    return found


def test_polls_that_hang_stop_nobody_on_the_port(server, client, job, poll):
    polls = [poll(job.id) for _ in range(MAX_WAITS)]
    assert server.post(LIST, b"{}", "application/json")[0] == 200
    assert submit(server)[0] == 200
    assert len(files(client.generate(SMALL))) == 6
    begun_s = time.monotonic()
    assert answers([poll(job.id)]) == [(200, job.id)]  # beyond the places to wait it is answered at once
    assert time.monotonic() - begun_s < 25
    job_client.cancel(client, job.id)
    assert answers(polls) == [(200, job.id)] * MAX_WAITS


def test_polls_end_by_the_time_they_were_given(server, job):
    body = json.dumps({"jobId": job.id, "afterRevision": str(10**9), "waitMs": 300}).encode()
    begun_s = time.monotonic()
    status, _, data = server.post(f"{SERVICE}/GetJob", body, "application/json")
    assert (status, json.loads(data)["job"]["id"]) == (200, job.id)
    assert 0.25 < time.monotonic() - begun_s < 25


def test_connections_that_ask_nothing_fill_no_port(server, client, job):
    with ExitStack() as idle:
        for _ in range(4 * MAX_CALLS + MAX_WAITS + MAX_AWAITED):
            idle.enter_context(socket.create_connection(("127.0.0.1", server.http_port), timeout=60))
            assert server.post(LIST, b"{}", "application/json")[0] == 200
        assert len(files(client.generate(SMALL))) == 6
    assert submit(server)[0] == 200
    assert "Traceback" not in server.process.errors()
