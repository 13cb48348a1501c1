"""Between jobs and their messages, both ways; imports wire, status, describe and v1, protobuf but no gRPC."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from assetgen import status, wire
from assetgen.describe import JobInfo, JobState
from assetgen.errors import AssetgenError
from assetgen.types import Artifact
from assetgen.v1 import asset_pb2, job_service_pb2

_STATES = {state: job_service_pb2.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState}
_STATE_OF: dict[int, JobState] = {number: state for state, number in _STATES.items()}


def job_to_message(
    job: JobInfo, artifact_to_message: Callable[[Artifact], asset_pb2.Artifact] = wire.artifact_to_message
) -> job_service_pb2.Job:
    """A job, its files by what is said before their bytes."""
    message = job_service_pb2.Job(
        id=job.id,
        revision=job.revision,
        state=_STATES[job.state],
        stage=job.stage,
        fraction=job.fraction,
        artifacts=[artifact_to_message(artifact) for artifact in job.artifacts],
        expires_in_s=math.ceil(job.expires_in_s),
    )
    if job.started is not None:
        wire.fill_started(message.started, job.started)
    if job.finished is not None:
        wire.fill_finished(message.finished, job.finished)
    if job.error is not None:
        message.error.CopyFrom(_error_to_message(job.error))
    return message


def job_from_message(message: job_service_pb2.Job) -> JobInfo:
    """A job; its files have no bytes. A state that this version does not know counts as running."""
    return JobInfo(
        id=message.id,
        revision=message.revision,
        state=_STATE_OF.get(message.state, JobState.RUNNING),
        stage=message.stage,
        fraction=message.fraction,
        started=wire.started_from_message(message.started) if message.HasField("started") else None,
        artifacts=tuple(wire.artifact_from_message(artifact, b"") for artifact in message.artifacts),
        finished=wire.finished_from_message(message.finished) if message.HasField("finished") else None,
        error=_error_from_message(message.error) if message.HasField("error") else None,
        expires_in_s=float(message.expires_in_s),
    )


def watched_file(placed: asset_pb2.Artifact, artifact: Artifact, *, follows: bool) -> Iterator[bytes]:
    """The serialised messages of a file in WatchJob's stream."""
    yield job_service_pb2.WatchJobResponse(artifact=placed).SerializeToString()
    if follows:
        for part in wire.chunks(artifact.data):
            yield job_service_pb2.WatchJobResponse(chunk=bytes(part)).SerializeToString()


def _error_to_message(error: AssetgenError) -> job_service_pb2.JobError:
    return job_service_pb2.JobError(
        code=error.status,
        reason=error.reason,
        message=error.message,
        hint=error.hint,
        field=error.field,
        metadata=error.metadata,
    )


def _error_from_message(message: job_service_pb2.JobError) -> AssetgenError:
    facts = {"hint": message.hint, "field": message.field, "metadata": dict(message.metadata)}
    return status.error_from_reason(message.code, message.reason, message.message, **facts)
