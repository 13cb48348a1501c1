"""A long row of jobs in the table as it comes, and jobs cancelled in every state; real packages, the real worker."""

import threading
import time
import uuid

import pytest

from assetgen import jobs as jobs_module
from assetgen.callers import PLAIN_TERMS
from assetgen.describe import JobState
from assetgen.errors import Cancelled, JobNotFound, QuotaExceeded
from assetgen.jobs import JobLimits, Jobs
from assetgen.service import Limits, Service
from assetgen.types import Encoding, MapKind, OutputSpec, Request
from assetgen.worker import Worker
from tests.helpers.serving import write_model

MAX_CALLS = 4
RAW_COLOR = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)
JOB_BYTES = 32 * 32 * 3


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"tiny": write_model(folder), "slow": write_model(folder, "slow", channels=96)}


@pytest.fixture
def begin(packages):
    """Makes a table of jobs that ends with the test."""
    made = []

    def jobs(**limits):
        service = Service(packages, Worker("cpu", 1), Limits(max_calls=MAX_CALLS))
        made.append((service, Jobs(service, JobLimits(**limits))))
        return made[-1][1]

    yield jobs
    for service, table in made:
        table.close()
        assert service.calls_under_way == 0
        service.close()


def asked(**changes):
    facts = {"model_id": "tiny", "seed": 7, "width_px": 32, "height_px": 32, "output": RAW_COLOR}
    return Request(**facts | changes)


def slow(**changes):
    return asked(**{"model_id": "slow", "count": 64, "width_px": 1024, "height_px": 1024} | changes)


def submitted(jobs, request):
    job_id = str(uuid.uuid4())
    jobs.submit(job_id, request, PLAIN_TERMS)
    return job_id


def ended(jobs, job_id):
    job = jobs.get(job_id, "")
    while not job.state.ended:
        job = jobs.get(job_id, "", job.revision, 30.0)
    return job


def known(jobs, job_id):
    try:
        return jobs.get(job_id, "").id == job_id
    except JobNotFound:
        return False


@pytest.mark.parametrize(
    "count", [1_000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_however_many_jobs_follow_each_other_table_bytes_and_threads_stay_bounded(begin, count):
    jobs, most = begin(), JobLimits().max_jobs
    ids, threads = [], set()
    for number in range(count):
        ids.append(submitted(jobs, asked(seed=number)))
        assert ended(jobs, ids[-1]).state is JobState.SUCCEEDED
        assert jobs.held_bytes <= (most + 1) * JOB_BYTES
        threads.add(threading.active_count())
    kept = [number for number, job_id in enumerate(ids) if known(jobs, job_id)]
    assert kept == list(range(count - most, count))  # the last, whole
    assert jobs.held_bytes == most * JOB_BYTES
    assert len(jobs._jobs) == most
    assert max(threads) - min(threads) <= 4 * MAX_CALLS


def test_bytes_are_bounded_too_where_they_are_what_there_is_least_of(begin):
    jobs = begin(max_bytes=10 * JOB_BYTES)
    ids = []
    for number in range(60):
        ids.append(submitted(jobs, asked(seed=number)))
        assert ended(jobs, ids[-1]).state is JobState.SUCCEEDED
        assert jobs.held_bytes <= 10 * JOB_BYTES
    assert [job_id for job_id in ids if known(jobs, job_id)] == ids[-10:]


def test_a_wait_longer_than_the_cap_ends_at_the_cap(begin, monkeypatch):
    jobs = begin()
    job_id = submitted(jobs, slow())
    monkeypatch.setattr(jobs_module, "MAX_WAIT_S", 0.3)
    begun_s = time.monotonic()
    job = jobs.get(job_id, "", 10**9, 3600.0)
    assert 0.25 < time.monotonic() - begun_s < 60
    assert not job.state.ended
    jobs.cancel(job_id, "")


def test_a_failed_job_stays_as_it_is_when_it_is_cancelled(begin):
    jobs = begin(max_bytes=JOB_BYTES)
    job_id = submitted(jobs, asked(width_px=64))
    before = ended(jobs, job_id)
    assert (before.state, type(before.error)) == (JobState.FAILED, QuotaExceeded)
    for _ in range(2):
        after = jobs.cancel(job_id, "")
        assert (after.state, after.revision, after.error) == (JobState.FAILED, before.revision, before.error)


def test_a_job_that_waits_for_its_turn_is_cancelled_without_having_run(begin):
    jobs = begin()
    ahead = submitted(jobs, slow())
    while jobs.get(ahead, "").state is not JobState.RUNNING:
        time.sleep(0.01)
    job_id = submitted(jobs, slow(seed=8))
    assert jobs.get(job_id, "").state is JobState.QUEUED
    jobs.cancel(job_id, "")
    job = ended(jobs, job_id)
    assert (job.state, type(job.error), job.artifacts) == (JobState.CANCELLED, Cancelled, ())
    assert jobs.cancel(job_id, "").revision == job.revision
    assert not jobs.get(ahead, "").state.ended  # and that stopped nobody else
    jobs.cancel(ahead, "")
    assert ended(jobs, ahead).state is JobState.CANCELLED
