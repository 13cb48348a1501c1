"""The methods of JobService, whatever carries them; imports jobs, wire_jobs and of this package exchange, delivery."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from google.protobuf.message import Message

from assetgen import wire, wire_jobs
from assetgen.callers import Terms
from assetgen.describe import JobInfo
from assetgen.errors import FieldInvalid
from assetgen.jobs import Jobs
from assetgen.server.blobs import blob_path
from assetgen.server.delivery import Deliverer
from assetgen.server.exchange import Exchange, Front
from assetgen.types import Artifact
from assetgen.v1 import asset_pb2, job_service_pb2

# Who does not read a stream is cut off so long after its time is up.
OVERDUE_S = 2.0


def submit(front: Front, request: job_service_pb2.SubmitJobRequest, exchange: Exchange) -> Message:
    """What SubmitJob answers."""
    asked = request.request
    exchange.facts |= {"model": asked.model_id[:80], "seed": asked.seed, "count": asked.count}
    terms = Terms(exchange.caller, exchange.caller.name or exchange.peer, wire.priority_from_message(asked))
    job = _jobs(front).submit(request.job_id, wire.request_from_message(asked), terms)
    return job_service_pb2.SubmitJobResponse(job=_told(front, job))


def get(front: Front, request: job_service_pb2.GetJobRequest, exchange: Exchange) -> Message:
    """What GetJob answers, when it has something to answer."""
    wait_s = request.wait_ms / 1000
    if exchange.deadline_s is not None:
        wait_s = min(wait_s, max(exchange.deadline_s - 0.2, 0.0))  # to answer in time
    job = _jobs(front).get(request.job_id, exchange.caller.name, request.after_revision, wait_s)
    return job_service_pb2.GetJobResponse(job=_told(front, job))


def cancel(front: Front, request: job_service_pb2.CancelJobRequest, exchange: Exchange) -> Message:
    """What CancelJob answers."""
    return job_service_pb2.CancelJobResponse(
        job=_told(front, _jobs(front).cancel(request.job_id, exchange.caller.name))
    )


def watch(front: Front, request: job_service_pb2.WatchJobRequest, exchange: Exchange) -> Iterator[bytes]:
    """The serialised messages that follow a job, until it has ended or the longest time of a call is up."""
    jobs, owner = _jobs(front), exchange.caller.name
    deliverer = Deliverer(request.delivery, front.blobs, front.shared, local=exchange.local)
    cap_s = front.service.limits.call_cap_s
    end_s = time.monotonic() + min(exchange.deadline_s or cap_s, cap_s)
    left = threading.Event()

    def leave() -> None:
        left.set()
        jobs.wake()

    job, sent = jobs.get(request.job_id, owner), request.first_artifact
    jobs.wait_place()
    overdue = threading.Timer(end_s + OVERDUE_S - time.monotonic(), exchange.give_up)
    overdue.daemon = True
    overdue.start()
    try:
        exchange.on_end(leave)
        seen: JobInfo | None = None
        while not left.is_set() and time.monotonic() < end_s:
            job = jobs.next(request.job_id, owner, seen, left.is_set, end_s)
            before = sent
            if seen is None or seen.revision < job.revision:
                yield _watched(job)
            for artifact in job.artifacts[sent:]:
                placed, follows = deliverer.place(artifact)
                yield from wire_jobs.watched_file(placed, artifact, follows=follows)
                sent += 1
            if job.state.ended:
                if sent > before:
                    yield _watched(job)
                return
            seen = job
    except GeneratorExit:
        deliverer.withdraw()
        raise
    finally:
        overdue.cancel()
        jobs.give_place_back()


def _watched(job: JobInfo) -> bytes:
    message = wire_jobs.job_to_message(replace(job, artifacts=()))
    return job_service_pb2.WatchJobResponse(job=message).SerializeToString()


def _jobs(front: Front) -> Jobs:
    if front.jobs is None:
        raise FieldInvalid("this server keeps no jobs", hint="use Generate")
    return front.jobs


def _told(front: Front, job: JobInfo) -> job_service_pb2.Job:
    def file(artifact: Artifact) -> asset_pb2.Artifact:
        message = wire.artifact_to_message(artifact)
        if front.blobs is not None:
            message.blob = blob_path(artifact.sha256, artifact.media_type)
        return message

    return wire_jobs.job_to_message(job, file)
