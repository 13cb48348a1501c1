"""Requests that are carried out while their client is away, and their files for a while; imports service and types.

A job is a call of the same service, admitted and refused like any other, with a thread here that reads its events.
"""

from __future__ import annotations

import contextvars
import hashlib
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from assetgen.alarm import Alarm
from assetgen.callers import Terms
from assetgen.calls import Call
from assetgen.describe import JobInfo, JobState
from assetgen.errors import (
    AssetgenError,
    Cancelled,
    FieldInvalid,
    InternalError,
    JobIdTaken,
    JobNotFound,
    QueueFull,
    QuotaExceeded,
)
from assetgen.service import Service
from assetgen.threads import Pool
from assetgen.types import Artifact, Event, Finished, Progress, Request, Started

log = logging.getLogger(__name__)

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MAX_WAIT_S = 30.0

Made = Callable[[str, Mapping[str, float]], object]
Ended = Callable[[str, str, Mapping[str, object]], object]


@dataclass(frozen=True)
class JobLimits:
    """What is kept; nothing is unlimited.

    Attributes:
        max_jobs: those that have ended included; of these the oldest goes first.
        max_bytes: of all their files; a job whose own files do not fit fails.
        keep_s: how long a job is kept after its end.
        max_waits: who may wait for a job at once.
    """

    max_jobs: int = 256
    max_bytes: int = 2**30
    keep_s: float = 3600.0
    max_waits: int = 64


@dataclass(eq=False)
class _Job:
    info: JobInfo
    owner: str
    request: object
    call: Call | None = None
    held_bytes: int = 0
    ended_s: float = math.inf


class Jobs:
    """Jobs by id; usable from several threads. An id is known only to who made it, and each job only to its caller.

    Args:
        made: told of each job that has ended: the model's id, and seconds by stage.
        begin: called where a job begins, in the context of the call that submitted it; what it returns is told the end:
            status, reason, and the facts that the log has of a call.
    """

    def __init__(
        self,
        service: Service,
        limits: JobLimits = JobLimits(),
        made: Made | None = None,
        begin: Callable[[], Ended] | None = None,
    ) -> None:
        self._service, self.limits, self._made, self._begin = service, limits, made, begin
        self._jobs: dict[str, _Job] = {}  # in order of submission
        self._changed = threading.Condition()
        self._submitting = threading.Lock()
        self._waits = 0
        self._pool = Pool(service.limits.max_calls, "assetgen-job")
        self._alarm = Alarm(self._expire)

    @property
    def held_bytes(self) -> int:
        """Of the files of all jobs."""
        with self._changed:
            return sum(job.held_bytes for job in self._jobs.values())

    def submit(self, job_id: str, request: Request, terms: Terms) -> JobInfo:
        """Begin a job, or find the one that an equal request began under this id.

        Raises:
            FieldInvalid: the id is no random UUID, or the request leaves the seed open.
            JobIdTaken: another request, or another caller, has it.
            AssetgenError: what ``Service.admit`` raises.
        """
        _check(job_id, request)
        same = _fingerprint(request, terms)
        with self._submitting:
            with self._changed:
                known = self._jobs.get(job_id)
                if known is not None:
                    if known.owner != terms.caller.name or known.request != same:
                        raise JobIdTaken(
                            "job_id: it was used for another request",
                            field="job_id",
                            hint="draw a new random UUID for each request",
                        )
                    return self._told(known)
            call = self._service.admit(request, None, terms)
            begun = JobInfo(job_id, 1, JobState.QUEUED, "queued")
            job = _Job(begun, terms.caller.name, same, call)
            with self._changed:
                self._jobs[job_id] = job
                self._make_room()
        self._pool.submit(contextvars.copy_context().run, self._run, job, call)
        return begun

    def get(self, job_id: str, owner: str, after_revision: int | None = None, wait_s: float = 0.0) -> JobInfo:
        """A job as it is now; with ``after_revision``, as soon as it has a later one or has ended, within ``wait_s``.

        When too many wait, it answers at once. Raises JobNotFound.
        """
        end_s = time.monotonic() + min(wait_s, MAX_WAIT_S)
        with self._changed:
            job = self._find(job_id, owner)
            if after_revision is None or self._waits >= self.limits.max_waits:
                return self._told(job)
            self._waits += 1
            try:
                while not job.info.state.ended and job.info.revision <= after_revision:
                    left_s = end_s - time.monotonic()
                    if left_s <= 0 or not self._changed.wait(left_s):
                        break
            finally:
                self._waits -= 1
            return self._told(job)

    def wait_place(self) -> None:
        """Take a place among those who wait, for as long as a stream lasts; raises QueueFull."""
        with self._changed:
            if self._waits >= self.limits.max_waits:
                raise QueueFull(
                    f"{self._waits} clients wait for jobs, the most at once", hint="try again", retry_after_s=1.0
                )
            self._waits += 1

    def give_place_back(self) -> None:
        """The stream has ended."""
        with self._changed:
            self._waits -= 1

    def next(self, job_id: str, owner: str, seen: JobInfo | None, gone: Callable[[], bool], end_s: float) -> JobInfo:
        """The job as soon as it is unlike ``seen``; as it is, if it has ended, the reader is gone, or at ``end_s``."""
        with self._changed:
            while True:
                job = self._find(job_id, owner)
                left_s = end_s - time.monotonic()
                unlike = seen is None or seen.revision < job.info.revision
                if unlike or job.info.state.ended or gone() or left_s <= 0:
                    return self._told(job)
                self._changed.wait(left_s)

    def wake(self) -> None:
        """Have those who wait look whether their reader is gone."""
        with self._changed:
            self._changed.notify_all()

    def cancel(self, job_id: str, owner: str) -> JobInfo:
        """Stop a job; one that has ended stays as it is. Raises JobNotFound."""
        with self._changed:
            job = self._find(job_id, owner)
            call = job.call
        if call is None:
            return self.get(job_id, owner)
        call.stop(Cancelled("the job was cancelled"))
        with self._changed:  # it ends within the step that it is at
            self._changed.wait_for(lambda: job.info.state.ended, 1.0)
            return self._told(job)

    def file(self, sha256: str) -> Artifact | None:
        """A file of any job, by the hex digest that only who was told of the file knows."""
        with self._changed:
            jobs = list(self._jobs.values())
        return next((each for job in jobs for each in job.info.artifacts if each.sha256 == sha256), None)

    def close(self) -> None:
        """Stop the jobs under way and forget all."""
        with self._changed:
            calls = [job.call for job in self._jobs.values() if job.call is not None]
        for call in calls:
            call.stop(Cancelled("the server stopped"))
        self._pool.shutdown()
        self._alarm.close()

    def _run(self, job: _Job, call: Call) -> None:
        error: AssetgenError | None = None
        ended = self._begin() if self._begin is not None else None
        try:
            for event in call.events():
                self._note(job, event)
        except AssetgenError as caught:
            error = caught
        except Exception as caught:
            log.exception("a job of model %s failed", call.package.manifest.id)
            error = InternalError("the server failed; this is a fault of ours", hint="see the log of the server")
            error.__cause__ = caught
        finally:
            call.release()
        if self._made is not None:
            self._made(call.package.manifest.id, dict(call.spent_s))
        if ended is not None:
            ended(error.status if error else "OK", error.reason if error else "", _facts(job, call))
        with self._changed:
            job.call, job.ended_s = None, time.monotonic()
            if error is not None:
                state = JobState.CANCELLED if isinstance(error, Cancelled) else JobState.FAILED
                self._change(job, state=state, error=error)
        log.info("job %s... %s", job.info.id[:8], job.info.state, extra={"facts": {"reason": error and error.reason}})
        self._alarm.set(job.ended_s + self.limits.keep_s)

    def _note(self, job: _Job, event: Event) -> None:
        with self._changed:
            match event:
                case Started():
                    self._change(job, started=event)
                case Progress():
                    state = JobState.QUEUED if event.stage == "queued" else JobState.RUNNING
                    self._change(job, state=state, stage=event.stage, fraction=event.fraction)
                case Artifact():
                    job.held_bytes += len(event.data)
                    self._change(job, state=JobState.RUNNING, artifacts=(*job.info.artifacts, event))
                    self._make_room()
                    if job.held_bytes > self.limits.max_bytes or self._total_bytes() > self.limits.max_bytes:
                        raise QuotaExceeded(
                            f"the files of jobs have more than {self.limits.max_bytes >> 20} MiB; no more are kept",
                            hint="ask for fewer or smaller assets in one job, or fetch them as they come by Generate",
                        )
                case Finished():
                    job.ended_s = time.monotonic()
                    self._change(job, state=JobState.SUCCEEDED, stage="", fraction=1.0, finished=event)

    def _change(self, job: _Job, **facts: object) -> None:
        job.info = replace(job.info, revision=job.info.revision + 1, **facts)  # type: ignore[arg-type]
        self._changed.notify_all()

    def _told(self, job: _Job) -> JobInfo:
        """What is known of it, and how long still."""
        if not job.info.state.ended or math.isinf(job.ended_s):
            return job.info
        return replace(job.info, expires_in_s=max(job.ended_s + self.limits.keep_s - time.monotonic(), 1.0))

    def _find(self, job_id: str, owner: str) -> _Job:
        job = self._jobs.get(job_id)
        if job is None or job.owner != owner:
            raise JobNotFound(
                "job_id: there is no such job, or no longer",
                field="job_id",
                hint="submit the same request again: it gives the same files",
            )
        return job

    def _make_room(self) -> None:
        """Forget ended jobs while there are too many jobs or bytes: the oldest of the caller who keeps most."""
        while len(self._jobs) > self.limits.max_jobs or self._total_bytes() > self.limits.max_bytes:
            ended = [job for job in self._jobs.values() if job.call is None]
            if not ended:
                return
            kept: dict[str, float] = {}
            for job in self._jobs.values():
                share = job.held_bytes / self.limits.max_bytes + 1 / self.limits.max_jobs
                kept[job.owner] = kept.get(job.owner, 0.0) + share
            oldest = max(ended, key=lambda job: (kept[job.owner], -job.ended_s))
            del self._jobs[oldest.info.id]

    def _total_bytes(self) -> int:
        return sum(job.held_bytes for job in self._jobs.values())

    def _expire(self, now_s: float) -> float:
        with self._changed:
            ends = {job_id: job.ended_s + self.limits.keep_s for job_id, job in self._jobs.items()}
            for job_id, end_s in ends.items():
                if end_s <= now_s:
                    del self._jobs[job_id]
        return min((end_s for end_s in ends.values() if end_s > now_s), default=math.inf)


def _facts(job: _Job, call: Call) -> dict[str, object]:
    spent_ms = {stage: round(spent_s * 1e3, 2) for stage, spent_s in call.spent_s.items()}
    plan = call.plan
    return {
        "job": job.info.id[:8],
        "model": call.package.manifest.id,
        "seed": plan.seed,
        "count": plan.count,
        "bytes": job.held_bytes,
        "ms": spent_ms,
    }


def _fingerprint(request: Request, terms: Terms) -> object:
    """Equal for equal requests; pictures count by their hash, so that they need not be kept."""
    values = {
        name: hashlib.sha256(value).digest() if isinstance(value, bytes) else value
        for name, value in request.parameters.items()
    }
    return replace(request, parameters={}), values, terms.priority


def _check(job_id: str, request: Request) -> None:
    if not ID.fullmatch(job_id):
        raise FieldInvalid(
            f"job_id: {job_id!r:.80} is no random UUID in lower case",
            field="job_id",
            hint="draw one, such as by uuid.uuid4()",
        )
    if request.seed is None:
        raise FieldInvalid(
            "seed: a job needs one, so that it can be submitted again",
            field="seed",
            hint="draw one from 0 to 4294967295",
        )
