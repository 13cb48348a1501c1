"""Jobs on a server: begun, looked at, waited for and fetched by whoever knows their id; imports client and wire_jobs.

with Client("127.0.0.1:50051") as client:
    job = submit(client, Request("starter-materials", seed=7, count=64))
    ...                                                              # even in another process, later
    write_assets(events(client, job.id), Path("out"))
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from assetgen import wire, wire_jobs
from assetgen.attach import with_files
from assetgen.callers import Priority
from assetgen.client import Client
from assetgen.describe import JobInfo, JobState
from assetgen.errors import InternalError, TransferDamaged, WorkerLost
from assetgen.receive import Files
from assetgen.types import Event, Progress, Request
from assetgen.v1 import job_service_pb2

SERVICE = "/assetgen.v1.JobService"
# The longest wait that a server grants; and the pause where it had no place to wait.
WAIT_S, PAUSE_S = 30.0, 0.5
# How often a stream that broke is begun anew without anything having come.
TRIES = 5


def submit(client: Client, request: Request, job_id: str = "", priority: Priority = Priority.GENERATE) -> JobInfo:
    """Begin a job.

    Args:
        request: with its seed.
        job_id: a random UUID; with the one of an equal request that was submitted before, nothing is made twice. Empty:
            one is drawn.

    Raises:
        AssetgenError: what ``generate`` would raise, at once.
    """
    message = wire.request_to_message(with_files(request))
    message.priority = wire.priority_to_message(priority)
    asked = job_service_pb2.SubmitJobRequest(job_id=job_id or str(uuid.uuid4()), request=message)
    answer = client.unary(f"{SERVICE}/SubmitJob", asked, job_service_pb2.SubmitJobResponse, client.timeout_s)
    return wire_jobs.job_from_message(answer.job)


def get(client: Client, job_id: str, after_revision: int = 0, wait_s: float = 0.0) -> JobInfo:
    """A job as it is now, or as soon as its revision is above ``after_revision``, within ``wait_s``.

    Raises:
        JobNotFound: there is none of that id, or no longer.
    """
    asked = job_service_pb2.GetJobRequest(
        job_id=job_id, after_revision=after_revision, wait_ms=round(min(wait_s, WAIT_S) * 1e3)
    )
    timeout_s = client.timeout_s + min(wait_s, WAIT_S)
    answer = client.unary(f"{SERVICE}/GetJob", asked, job_service_pb2.GetJobResponse, timeout_s)
    return wire_jobs.job_from_message(answer.job)


def wait(client: Client, job_id: str) -> JobInfo:
    """A job once it has ended; raises JobNotFound."""
    job = get(client, job_id)
    while not job.state.ended:
        begun_s, before = time.monotonic(), job.revision
        job = get(client, job_id, before, WAIT_S)
        if job.revision == before and time.monotonic() - begun_s < PAUSE_S:
            time.sleep(PAUSE_S)  # too many wait there
    return job


def cancel(client: Client, job_id: str) -> JobInfo:
    """Stop a job; one that has ended stays as it is. Raises JobNotFound."""
    asked = job_service_pb2.CancelJobRequest(job_id=job_id)
    answer = client.unary(f"{SERVICE}/CancelJob", asked, job_service_pb2.CancelJobResponse, client.timeout_s)
    return wire_jobs.job_from_message(answer.job)


def events(client: Client, job_id: str, first_artifact: int = 0) -> Iterator[Event]:
    """What ``generate`` would give, from the first file on or a later one, until the job has ended.

    A stream that breaks is begun anew behind the last file that came whole.

    Raises:
        JobNotFound: there is none of that id, or no longer.
        AssetgenError: that which ended the job, after the files that were done before.
    """
    came, tries, started, whole = first_artifact, 0, False, False
    job: JobInfo | None = None
    while job is None or not (whole and job.state.ended):
        before = came
        try:
            for news in _watch(client, job_id, came):
                if not isinstance(news, JobInfo):
                    came += 1
                    yield news
                    continue
                job = news
                if job.started is not None and not started:
                    started = True
                    yield job.started
                if not job.state.ended:
                    yield Progress(job.stage, job.fraction)
            whole = True
        except (WorkerLost, TransferDamaged):
            tries = tries + 1 if came == before else 0
            if tries >= TRIES:
                raise
            time.sleep(PAUSE_S)
    if job.state is not JobState.SUCCEEDED or job.finished is None:
        raise job.error or InternalError("the job failed, and the server does not say why")
    yield job.finished


def _watch(client: Client, job_id: str, first_artifact: int) -> Iterator[JobInfo | Event]:
    asked = job_service_pb2.WatchJobRequest(job_id=job_id, first_artifact=first_artifact)
    asked.delivery = wire.delivery_to_message(client.way(None))
    files = Files()
    for message in client.stream(f"{SERVICE}/WatchJob", asked, job_service_pb2.WatchJobResponse, None):
        case = message.WhichOneof("event")
        if case == "job":
            files.check_complete()
            yield wire_jobs.job_from_message(message.job)
        elif case in ("chunk", "artifact"):
            file = files.add(message.chunk) if case == "chunk" else files.open(message.artifact)
            if file is not None:
                yield file
    files.check_complete()
