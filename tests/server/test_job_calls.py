"""Jobs over real sockets: submitted, left alone, found again, by gRPC, Connect and the command line."""

import json
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from assetgen import job_client
from assetgen.client import Client, write_assets
from assetgen.describe import JobState
from assetgen.errors import AssetgenError, Cancelled, Draining, FieldInvalid, JobIdTaken, JobNotFound, QueueFull
from assetgen.launch import ServerProcess
from assetgen.types import Artifact, Encoding, Finished, OutputSpec, Request, Started
from assetgen.v1 import job_service_pb2
from tests.helpers.serving import files, write_model
from tests.load.proxy import Faults, Proxy
from tests.server.test_web import Server, envelope, envelopes

SMALL = Request("tiny", seed=7, width_px=32, height_px=32)
LARGE = Request("tiny", seed=7, count=4, width_px=512, height_px=512, output=OutputSpec(encoding=Encoding.RAW))
SLOW = Request("slow", seed=7, count=24, width_px=1024, height_px=1024)
SERVICE = "/assetgen.v1.JobService"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    write_model(folder, "slow", channels=96)
    options = ["--models", str(folder), "--device", "cpu", "--threads", "1", "--max-calls", "4", "--http-port", "0"]
    with ServerProcess(options) as process:
        yield Server(process)


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


def submitted(client, request):
    """A job, once there is a place for it: those of other tests may still be ending."""
    end_s = time.monotonic() + 30
    while True:
        try:
            return job_client.submit(client, request)
        except QueueFull:
            assert time.monotonic() < end_s
            time.sleep(0.05)


def test_a_job_outlives_the_connection_that_began_it(server):
    with Client(server.address) as first:
        job = submitted(first, LARGE)
    with Client(server.address) as second:
        found = files(job_client.events(second, job.id))
        assert found == files(second.generate(LARGE))
        assert files(job_client.events(second, job.id)) == found  # as often as one likes
        info = job_client.wait(second, job.id)
        assert info.state is JobState.SUCCEEDED
        assert {(each.index, each.role): each.sha256 for each in info.artifacts} == found
        assert 0 < info.expires_in_s <= 3600


def test_files_come_in_the_stream_too_and_from_any_one_on(server):
    with Client(server.address, shared=False) as client:
        job = submitted(client, LARGE)
        events = list(job_client.events(client, job.id))
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Finished)
        names = [event.name for event in events if isinstance(event, Artifact)]
        rest = [event.name for event in job_client.events(client, job.id, 20) if isinstance(event, Artifact)]
        assert (len(names), rest) == (24, names[20:])


def test_a_stream_that_breaks_goes_on_behind_the_last_whole_file(server):
    with Client(server.address) as client:
        job = submitted(client, LARGE)
        expected = files(job_client.events(client, job.id))
    with (
        Proxy(server.address, Faults(cut_after_bytes=3 * 2**20, reset=True)) as proxy,
        Client(proxy.address, shared=False) as client,
    ):
        assert files(job_client.events(client, job.id)) == expected


def test_a_repeated_submission_is_the_same_job_and_another_request_is_refused(client):
    job_id = str(uuid.uuid4())
    first = job_client.submit(client, SMALL, job_id)
    assert job_client.submit(client, SMALL, job_id).id == first.id
    with pytest.raises(JobIdTaken):
        job_client.submit(client, LARGE, job_id)
    with pytest.raises(FieldInvalid, match="UUID"):
        job_client.submit(client, SMALL, "my job")
    with pytest.raises(FieldInvalid, match="seed"):
        job_client.submit(client, Request("tiny"))
    with pytest.raises(JobNotFound):
        job_client.get(client, str(uuid.uuid4()))
    with pytest.raises(JobNotFound):
        list(job_client.events(client, "../../etc/passwd"))


def test_cancel_is_told_by_everything_that_follows(client):
    job = submitted(client, SLOW)
    follower = ThreadPoolExecutor(1).submit(lambda: list(job_client.events(client, job.id)))
    job_client.get(client, job.id, after_revision=3, wait_s=30)
    job_client.cancel(client, job.id)
    info = job_client.wait(client, job.id)
    assert info.state is JobState.CANCELLED
    assert isinstance(info.error, Cancelled)
    with pytest.raises(Cancelled):
        follower.result(30)
    assert job_client.cancel(client, job.id).revision == info.revision


def test_polls_that_hang_stop_nobody(server, client):
    job = submitted(client, SLOW)
    asked = job_service_pb2.GetJobRequest(job_id=job.id, after_revision=10**9, wait_ms=30_000).SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        get = channel.unary_unary(f"{SERVICE}/GetJob")
        polls = [get.future(asked) for _ in range(500)]
        deadline_s = time.monotonic() + 30
        while sum(poll.done() for poll in polls) < 436:  # beyond 64 they are answered at once
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert len(files(client.generate(SMALL))) == 6
        assert len(client.models()) == 2
        job_client.cancel(client, job.id)
        for poll in polls:
            assert job_service_pb2.GetJobResponse.FromString(poll.result(30)).job.id == job.id


def test_watchers_that_leave_give_their_places_back(server, client):
    job = submitted(client, SLOW)
    asked = job_service_pb2.WatchJobRequest(job_id=job.id).SerializeToString()
    for _ in range(3):
        with grpc.insecure_channel(server.address) as channel:
            watch = channel.unary_stream(f"{SERVICE}/WatchJob")
            watchers = [watch(asked) for _ in range(40)]
            for watcher in watchers:
                assert job_service_pb2.WatchJobResponse.FromString(next(watcher)).job.id == job.id
    job_client.cancel(client, job.id)


def test_connect_with_json_has_no_pixels_and_files_at_their_paths(server):
    job_id = str(uuid.uuid4())
    request = {"modelId": "tiny", "seed": 7, "widthPx": 32, "heightPx": 32}
    body = json.dumps({"jobId": job_id, "request": request}).encode()
    status, _, answer = server.post(f"{SERVICE}/SubmitJob", body, "application/json")
    assert (status, json.loads(answer)["job"]["id"]) == (200, job_id)
    ask = {"jobId": job_id, "afterRevision": "0", "waitMs": 30_000}
    while True:
        _, _, answer = server.post(f"{SERVICE}/GetJob", json.dumps(ask).encode(), "application/json")
        job = json.loads(answer)["job"]
        if job["state"] == "JOB_STATE_SUCCEEDED":
            break
        ask["afterRevision"] = job["revision"]
    with Client(server.address) as client:
        expected = {event.name: event.data for event in client.generate(SMALL) if isinstance(event, Artifact)}
    assert {file["name"]: server.ask("GET", file["blob"])[2] for file in job["artifacts"]} == expected
    watched = server.post(
        f"{SERVICE}/WatchJob", envelope(json.dumps({"jobId": job_id}).encode()), "application/connect+json"
    )
    *messages, (flags, end) = envelopes(watched[2])
    events = [json.loads(data) for _, data in messages]
    assert (flags, json.loads(end)) == (2, {})
    assert {event["artifact"]["name"] for event in events if "artifact" in event} == set(expected)
    assert not any("chunk" in event for event in events)
    status, _, answer = server.post(f"{SERVICE}/GetJob", b'{"jobId": "x"}', "application/json")
    assert (status, json.loads(answer)["code"]) == (404, "not_found")


def test_the_command_line_detaches_and_fetches(server, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "assetgen", *arguments, "--server", server.address]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    asked = ["--model", "tiny", "--size", "32", "--seed", "5", "--count", "2"]
    begun = run("generate", "--detach", "--patience", "30", *asked)
    assert begun.returncode == 0, begun.stderr
    job_id = begun.stdout.split()[1]
    fetched = run("job", job_id, "-o", str(tmp_path))
    assert fetched.returncode == 0, fetched.stderr
    with Client(server.address) as client:
        request = Request("tiny", seed=5, count=2, width_px=32, height_px=32)
        expected = write_assets(client.generate(request), tmp_path / "direct")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == {
        path.name: path.read_bytes() for path in expected
    }
    assert run("job", job_id, "--status").stdout.startswith("succeeded  100%  12 files")
    assert run("job", job_id, "--cancel").stdout.startswith("succeeded")
    assert run("job", str(uuid.uuid4())).returncode == 2
    command = [sys.executable, "-m", "assetgen", "generate", "--detach"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


def submit_until_refused(client):
    for _ in range(600):  # a signal may arrive later than the next submission
        job_client.submit(client, SMALL)
        time.sleep(0.01)


def test_jobs_under_way_end_before_the_server_does(tmp_path):
    write_model(tmp_path)
    with ServerProcess(["--models", str(tmp_path), "--device", "cpu", "--threads", "1"]) as process:
        with Client(process.address) as client:
            job = job_client.submit(client, Request("tiny", seed=1, count=64, width_px=512, height_px=512))
            job_client.get(client, job.id, after_revision=2, wait_s=30)
            process.process.terminate()
            with pytest.raises(Draining):
                submit_until_refused(client)
        assert process.process.wait(60) == 0
        assert f"job {job.id[:8]}... succeeded" in process.errors()
        assert job.id not in process.errors()  # who knows an id has the files


def test_statuses_of_jobs_are_errors_of_ours(client):
    for call in (job_client.get, job_client.cancel):
        with pytest.raises(AssetgenError) as caught:
            call(client, "x" * 1000)
        assert caught.value.reason == "JOB_NOT_FOUND"
