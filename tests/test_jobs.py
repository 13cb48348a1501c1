"""Jobs without a network: real packages, the real worker, every bound reached."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from assetgen.callers import PLAIN_TERMS, Caller, Priority, Terms
from assetgen.describe import JobState
from assetgen.errors import (
    Cancelled,
    FieldInvalid,
    InternalError,
    JobIdTaken,
    JobNotFound,
    ModelNotFound,
    QueueFull,
    QuotaExceeded,
)
from assetgen.jobs import JobLimits, Jobs
from assetgen.kinds import texture
from assetgen.service import Limits, Service
from assetgen.types import Request
from assetgen.worker import Worker
from tests.helpers.serving import files, write_model

ANNA, BEN = Terms(Caller("anna")), Terms(Caller("ben"))


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"tiny": write_model(folder), "slow": write_model(folder, "slow", channels=96)}


@pytest.fixture
def service(packages):
    service = Service(packages, Worker("cpu", 1), Limits(max_calls=4))
    yield service
    assert service.calls_under_way == 0
    service.close()


@pytest.fixture
def begin(service):
    """Makes tables of jobs that end with the test."""
    made = []

    def jobs(**limits):
        made.append(Jobs(service, JobLimits(**limits)))
        return made[-1]

    yield jobs
    for each in made:
        each.close()


def asked(**changes):
    return Request(**{"model_id": "tiny", "seed": 7, "width_px": 32, "height_px": 32} | changes)


def slow(**changes):
    return asked(model_id="slow", count=64, width_px=1024, height_px=1024, **changes)


def drawn():
    return str(uuid.uuid4())


def ended(jobs, job_id, owner=""):
    job = jobs.get(job_id, owner)
    while not job.state.ended:
        job = jobs.get(job_id, owner, job.revision, 30.0)
    return job


def forgotten(jobs, job_id, owner=""):
    try:
        jobs.get(job_id, owner)
    except JobNotFound:
        return True
    return False


def test_a_job_makes_the_files_of_the_call(service, begin):
    jobs, job_id = begin(), drawn()
    first = jobs.submit(job_id, asked(count=3), PLAIN_TERMS)
    assert (first.id, first.state, first.stage, first.revision) == (job_id, JobState.QUEUED, "queued", 1)
    job = ended(jobs, job_id)
    assert (job.state, job.fraction, job.error) == (JobState.SUCCEEDED, 1.0, None)
    expected = files(service.generate(asked(count=3)))
    assert {(each.index, each.role): each.sha256 for each in job.artifacts} == expected
    assert 0 < job.expires_in_s <= 3600
    assert job.started.seed == 7
    assert jobs.file(job.artifacts[4].sha256).data == job.artifacts[4].data
    assert jobs.file("0" * 64) is None
    assert jobs.held_bytes == sum(len(each.data) for each in job.artifacts)


def test_the_same_request_under_the_same_id_is_one_job(begin):
    jobs, job_id = begin(), drawn()
    jobs.submit(job_id, asked(), PLAIN_TERMS)
    job = ended(jobs, job_id)
    again = jobs.submit(job_id, asked(), PLAIN_TERMS)
    assert (again.revision, again.artifacts) == (job.revision, job.artifacts)
    for request, terms in ((asked(seed=8), PLAIN_TERMS), (asked(), ANNA), (asked(), Terms(priority=Priority.BATCH))):
        with pytest.raises(JobIdTaken):
            jobs.submit(job_id, request, terms)


def test_many_submissions_at_once_of_one_id_begin_one_job(service, begin):
    jobs, job_id = begin(), drawn()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: jobs.submit(job_id, slow(), PLAIN_TERMS).id, range(8)))
    assert found == [job_id] * 8
    assert service.calls_under_way == 1


@pytest.mark.parametrize(
    "job_id",
    ["", "7", "x" * 100_000, str(uuid.uuid1()), drawn().upper(), drawn() + "\n", "{" + drawn() + "}", "../" + drawn()],
    ids=["empty", "number", "long", "version 1", "upper case", "line", "braces", "path"],
)
def test_ids_are_random_uuids(begin, job_id):
    with pytest.raises(FieldInvalid, match="random UUID"):
        begin().submit(job_id, asked(), PLAIN_TERMS)


def test_a_job_needs_a_seed(begin):
    with pytest.raises(FieldInvalid, match="seed"):
        begin().submit(drawn(), asked(seed=None), PLAIN_TERMS)


def test_what_is_not_admitted_leaves_no_job(begin):
    jobs, job_id = begin(), drawn()
    for request, error in ((asked(model_id="absent"), ModelNotFound), (asked(width_px=33), FieldInvalid)):
        with pytest.raises(error):
            jobs.submit(job_id, request, PLAIN_TERMS)
        with pytest.raises(JobNotFound):
            jobs.get(job_id, "")
    jobs.submit(job_id, asked(), PLAIN_TERMS)


def test_jobs_are_calls_of_the_same_service(begin):
    jobs = begin()
    ids = [drawn() for _ in range(4)]
    for job_id in ids:
        jobs.submit(job_id, slow(), PLAIN_TERMS)
    with pytest.raises(QueueFull):
        jobs.submit(drawn(), asked(), PLAIN_TERMS)
    one = Terms(Caller("little", max_calls=1))
    for job_id in ids:
        jobs.cancel(job_id, "")
    jobs.submit(drawn(), slow(), one)
    with pytest.raises(QuotaExceeded):
        jobs.submit(drawn(), slow(), one)


def test_each_caller_sees_its_own_jobs_only(begin):
    jobs, job_id = begin(), drawn()
    jobs.submit(job_id, slow(), ANNA)
    for ask in (jobs.get, jobs.cancel):
        with pytest.raises(JobNotFound):
            ask(job_id, "ben")
        with pytest.raises(JobNotFound):
            ask(drawn(), "anna")
    assert not jobs.get(job_id, "anna").state.ended


def test_cancel_ends_a_job_once_and_its_place_is_free(service, begin):
    jobs, job_id = begin(), drawn()
    jobs.submit(job_id, slow(), PLAIN_TERMS)
    jobs.cancel(job_id, "")
    job = ended(jobs, job_id)
    assert job.state is JobState.CANCELLED
    assert isinstance(job.error, Cancelled)
    assert jobs.cancel(job_id, "").revision == job.revision
    assert service.calls_under_way == 0
    done = drawn()
    jobs.submit(done, asked(), PLAIN_TERMS)
    ended(jobs, done)
    assert jobs.cancel(done, "").state is JobState.SUCCEEDED


def test_a_fault_is_told_without_its_details(begin, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(texture, "finish", fail)
    jobs, job_id = begin(), drawn()
    jobs.submit(job_id, asked(), PLAIN_TERMS)
    job = ended(jobs, job_id)
    assert job.state is JobState.FAILED
    assert isinstance(job.error, InternalError)
    assert "secret" not in str(job.error)
    assert "secret" in caplog.text


def test_waiting_ends_at_a_change_at_the_end_or_in_time(begin):
    jobs, job_id = begin(), drawn()
    jobs.submit(job_id, slow(), PLAIN_TERMS)
    seen = [0]
    while len(seen) < 4:
        seen.append(jobs.get(job_id, "", seen[-1], 30.0).revision)
    assert seen == sorted(set(seen))
    begun_s = time.monotonic()
    jobs.get(job_id, "", 10**9, 0.2)
    assert 0.15 < time.monotonic() - begun_s < 25
    waiting = ThreadPoolExecutor(1).submit(jobs.get, job_id, "", 10**9, 30.0)
    jobs.cancel(job_id, "")
    assert waiting.result(60).state is JobState.CANCELLED


def test_who_finds_no_place_to_wait_is_answered_at_once(begin):
    jobs, job_id = begin(max_waits=2), drawn()
    jobs.submit(job_id, slow(), PLAIN_TERMS)
    jobs.wait_place()
    jobs.wait_place()
    with pytest.raises(QueueFull):
        jobs.wait_place()
    assert jobs.get(job_id, "", 10**9, 30.0).id == job_id
    jobs.give_place_back()
    jobs.wait_place()


def test_the_table_is_bounded_and_who_keeps_most_makes_room(begin):
    jobs = begin(max_jobs=5)
    hers = drawn()
    jobs.submit(hers, asked(), ANNA)
    ended(jobs, hers, "anna")
    his = []
    for _ in range(12):
        his.append(drawn())
        jobs.submit(his[-1], asked(), BEN)
        ended(jobs, his[-1], "ben")
    assert jobs.get(hers, "anna").state is JobState.SUCCEEDED
    assert [job_id for job_id in his if not forgotten(jobs, job_id, "ben")] == his[-4:]


def test_files_are_bounded(begin):
    jobs, first = begin(max_bytes=40_000), drawn()
    jobs.submit(first, asked(), PLAIN_TERMS)
    assert ended(jobs, first).state is JobState.SUCCEEDED
    large = drawn()
    jobs.submit(large, asked(width_px=256, height_px=256), PLAIN_TERMS)
    job = ended(jobs, large)
    assert (job.state, type(job.error)) == (JobState.FAILED, QuotaExceeded)
    with pytest.raises(JobNotFound):  # it made room before
        jobs.get(first, "")


def test_jobs_are_forgotten_after_their_time(begin):
    jobs, job_id = begin(keep_s=0.05), drawn()
    jobs.submit(job_id, asked(), PLAIN_TERMS)
    end_s = time.monotonic() + 20
    while not forgotten(jobs, job_id):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert jobs.held_bytes == 0


def test_a_clock_that_is_set_back_by_an_hour_keeps_no_job_longer(begin, monkeypatch):
    jobs, job_id = begin(keep_s=1.0), drawn()
    jobs.submit(job_id, asked(), PLAIN_TERMS)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    assert jobs.get(job_id, "", 10**9, 60.0).expires_in_s <= 1.0
    end_s = time.monotonic() + 20
    while not forgotten(jobs, job_id):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_closing_ends_what_is_under_way(service):
    jobs = Jobs(service)
    for _ in range(3):
        jobs.submit(drawn(), slow(), PLAIN_TERMS)
    jobs.close()
    assert service.calls_under_way == 0


def test_whatever_is_asked_in_any_order_revisions_never_fall(packages):
    service = Service(packages, Worker("cpu", 1), Limits(max_calls=3))
    ids = [drawn() for _ in range(6)]

    class Machine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.jobs = Jobs(service, JobLimits(max_jobs=4))
            self.seen = {}

        def note(self, job):
            before = self.seen.get(job.id)
            if before is not None:
                assert job.revision >= before.revision
                assert job.fraction >= before.fraction
                assert job.artifacts[: len(before.artifacts)] == before.artifacts
                assert not before.state.ended or job.state == before.state
            self.seen[job.id] = job

        @rule(number=st.integers(0, 5))
        def submit(self, number):
            try:
                job = self.jobs.submit(ids[number], asked(model_id=("tiny", "slow")[number % 2]), PLAIN_TERMS)
            except QueueFull:
                assert service.calls_under_way >= 1
                return
            if job.revision == 1:  # it is new, or was forgotten
                self.seen.pop(job.id, None)
            self.note(job)

        @rule(number=st.integers(0, 5), what=st.sampled_from(("get", "wait", "cancel")))
        def ask(self, number, what):
            job_id = ids[number]
            try:
                if what == "cancel":
                    self.note(self.jobs.cancel(job_id, ""))
                elif what == "wait":
                    before = self.seen.get(job_id)
                    self.note(self.jobs.get(job_id, "", before.revision if before else 0, 0.05))
                else:
                    self.note(self.jobs.get(job_id, ""))
            except JobNotFound:
                assert job_id not in self.seen or len(self.seen) > 4
                self.seen.pop(job_id, None)

        @invariant()
        def is_bounded(self):
            assert len(self.jobs._jobs) <= 4 + service.limits.max_calls

        def teardown(self):
            self.jobs.close()
            assert service.calls_under_way == 0

    checks = [HealthCheck.too_slow]
    limits = settings(max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(Machine, settings=limits)
    service.close()
