"""Calls beside each other: who goes first, who gives way, what is shared, and models that change under them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from assetgen import turns
from assetgen.callers import PLAIN_TERMS, Caller, Priority, Terms
from assetgen.errors import (
    Cancelled,
    DeadlineTooShort,
    FieldInvalid,
    ModelDigestMismatch,
    PackageInvalid,
    QuotaExceeded,
    Superseded,
)
from assetgen.kinds import texture
from assetgen.local import LocalMaker
from assetgen.service import Limits, Service
from assetgen.types import Artifact, Request
from assetgen.worker import LEAST_PX, UNDER_WAY, Worker
from tests.helpers.altered_graphs import NOT_A_NUMBER, with_operations
from tests.helpers.serving import assert_same_files, files, whole_files, write_model


@pytest.fixture(autouse=True)
def nobody_ages(monkeypatch):
    """However long this machine stands still; `test_turns` is about ageing."""
    monkeypatch.setattr(turns, "AGEING_S", 1e9)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def slow_package(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("slow"), channels=96)


@pytest.fixture
def make(package):
    """Makes services that end with the test."""
    services = []

    def service(*packages, **limits):
        served = {found.manifest.id: found for found in packages or (package,)}
        services.append(Service(served, Worker("cpu", 1), Limits(**limits)))
        return services[-1]

    yield service
    for made in services:
        made.close()


def asked(**changes):
    return Request(**{"model_id": "tiny", "seed": 7, "width_px": 32, "height_px": 32} | changes)


def collect(service, request, deadline_s=None):
    return list(service.generate(request, deadline_s))


class Gate:
    """Lets the runs of a session through one after the other, and says whose they are."""

    def __init__(self, session):
        self.run, self.go, self.waits, self.log = session.run, threading.Semaphore(0), threading.Semaphore(0), []
        session.run = self

    def __call__(self, inputs, half=False, owner=None):
        self.log.append(owner.plan.seed)
        self.waits.release()
        assert self.go.acquire(timeout=60)
        return self.run(inputs, half=half, owner=owner)

    def wait(self):
        assert self.waits.acquire(timeout=60)

    def open(self):
        self.go.release(1000)


def wait_for(condition):
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as pool:
        yield pool


PREVIEW, BATCH = Terms(priority=Priority.PREVIEW), Terms(priority=Priority.BATCH)


def ask(service, request, terms=PLAIN_TERMS):
    return list(service.generate(request, None, terms))


def test_a_preview_goes_before_what_waits_and_a_batch_after_it(make, package, pool):
    """One runs; a batch, a request and a preview come in that order."""
    service = make()
    gate = Gate(service.worker.session(package))
    answers = [pool.submit(ask, service, asked(seed=0))]
    gate.wait()
    for seed, terms in ((1, BATCH), (2, PLAIN_TERMS), (3, PREVIEW)):
        answers.append(pool.submit(ask, service, asked(seed=seed), terms))
        wait_for(lambda seed=seed: service.worker._device_turns.waiting == seed)
    gate.open()
    for answer in answers:
        assert files(answer.result(60))
    assert gate.log == [0, 3, 2, 1]


def test_a_preview_never_waits_for_a_place_behind_those_that_fill_them(make, package, pool):
    service = make()
    gate = Gate(service.worker.session(package))
    answers = [pool.submit(ask, service, asked(seed=seed), BATCH) for seed in range(10)]
    gate.wait()
    wait_for(lambda: service.worker.waiting == 10 - UNDER_WAY)
    answers.append(pool.submit(ask, service, asked(seed=99), PREVIEW))
    wait_for(lambda: service.worker._device_turns.waiting == UNDER_WAY)
    gate.open()
    for answer in answers:
        assert files(answer.result(60))
    assert gate.log[1] == 99


def test_a_large_call_of_many_assets_does_not_starve_a_small_one(make, package, pool):
    """Of a call of 12 assets, three or four are begun before the small call that came later ends."""
    service = make()
    gate = Gate(service.worker.session(package))
    large = pool.submit(ask, service, asked(seed=1, count=12, width_px=256, height_px=256))
    gate.wait()
    wait_for(lambda: service.worker._device_turns.waiting == 1)
    small = pool.submit(ask, service, asked(seed=2))
    wait_for(lambda: service.worker._device_turns.waiting == 2)
    gate.open()
    assert files(small.result(60))
    assert files(large.result(60))
    assert gate.log.index(2) <= 2


def test_between_two_windows_of_a_large_asset_small_ones_have_the_device(package, pool):
    size = replace(package.manifest.size, window_px=256, halo_px=64)
    windowed = replace(package, manifest=replace(package.manifest, size=size))
    with LocalMaker(Service({"tiny": windowed}, Worker("cpu", 1))) as maker:
        service = maker._service
        expected = files(maker.generate(asked(seed=1, width_px=512, height_px=512)))
        gate = Gate(service.worker.session(windowed))
        large = pool.submit(ask, service, asked(seed=1, width_px=512, height_px=512))
        gate.wait()
        small = pool.submit(ask, service, asked(seed=2))
        wait_for(lambda: service.worker._device_turns.waiting == 1)
        gate.open()
        assert files(small.result(60))
        assert files(large.result(60)) == expected
    assert gate.log == [1, 2, *[1] * 15]


def test_a_newer_call_of_a_view_takes_the_place_of_the_older(make, package, pool):
    """The only place, even: a slider that moves never meets its own queue."""
    service = make(max_calls=1)
    gate = Gate(service.worker.session(package))
    view = Terms(priority=Priority.PREVIEW, supersede_key="view-1")
    answers = []
    for seed in range(3):
        answers.append(pool.submit(ask, service, asked(seed=seed), view))
        wait_for(lambda seed=seed: service._views and next(iter(service._views.values())).plan.seed == seed)
    gate.open()
    for answer in answers[:2]:
        with pytest.raises(Superseded):
            answer.result(60)
    assert files(answers[2].result(60))
    assert service.wait_until_idle(60)
    assert service._views == {}


def test_other_views_and_other_callers_are_left_alone(make, package, pool):
    service = make()
    gate = Gate(service.worker.session(package))
    views = [Terms(supersede_key="a"), Terms(supersede_key="b"), Terms(Caller("anna"), supersede_key="a"), PLAIN_TERMS]
    answers = [pool.submit(ask, service, asked(seed=seed), terms) for seed, terms in enumerate(views)]
    wait_for(lambda: service.calls_under_way == 4)
    gate.open()
    assert all(files(answer.result(60)) for answer in answers)


def test_a_call_that_is_refused_leaves_the_older_one_alone(make, package, pool):
    service, view = make(), Terms(supersede_key="view")
    gate = Gate(service.worker.session(package))
    first = pool.submit(ask, service, asked(seed=1), view)
    gate.wait()
    with pytest.raises(FieldInvalid):
        ask(service, asked(width_px=33), view)
    with pytest.raises(DeadlineTooShort):
        list(service.generate(asked(seed=2), 0.0, view))
    gate.open()
    assert files(first.result(60))


@pytest.mark.parametrize("count", [1, 2])
def test_equal_requests_at_once_run_once(make, package, pool, count):
    service = make()
    gate = Gate(service.worker.session(package))
    answers = [pool.submit(ask, service, asked(count=count)) for _ in range(5)]
    gate.wait()
    wait_for(lambda: service.worker._twins.following == 4 * count)
    gate.open()
    given = [files(answer.result(60)) for answer in answers]
    assert given == [given[0]] * 5
    assert len(gate.log) == count
    assert files(collect(service, asked(count=count))) == given[0]
    assert len(gate.log) == 2 * count


def test_one_of_equal_requests_is_stopped_and_the_other_is_served(make, package, pool):
    service = make()
    gate = Gate(service.worker.session(package))
    first = service.admit(asked())
    answer = pool.submit(list, first.events())
    gate.wait()
    second = pool.submit(ask, service, asked())
    wait_for(lambda: service.worker._twins.following == 1)
    first.stop()
    gate.open()
    with pytest.raises(Cancelled):
        answer.result(60)
    first.release()
    assert files(second.result(60)) == files(collect(service, asked()))


def test_a_deadline_counts_what_others_have_ahead(make, slow_package, pool):
    """Alone it could be met; beside a preview's work, or as much of another request, it cannot."""
    service = make(slow_package)
    session = service.worker.session(slow_package)
    collect(service, asked(width_px=512, height_px=512))
    own_s = service.worker.seconds_per_px[slow_package.digest] * 512 * 512
    gate = Gate(session)
    other = pool.submit(ask, service, asked(seed=1, count=3, width_px=512, height_px=512))
    gate.wait()
    with pytest.raises(DeadlineTooShort, match="beside others"):
        list(service.generate(asked(seed=2, width_px=512, height_px=512), 1.5 * own_s))
    preview = service.admit(asked(seed=2, width_px=512, height_px=512), 1.5 * own_s, PREVIEW)
    preview.release()
    gate.open()
    assert files(other.result(60))


def test_tiny_runs_do_not_make_large_ones_look_slow(make, package):
    """What 32 px take is mostly the same for 128 px: by its own pixels a large request would be refused as too slow."""
    service = make()
    begun_s = time.monotonic()
    collect(service, asked())
    spent_s = time.monotonic() - begun_s
    assert 0 < service.worker.usual_seconds_per_px[package.digest] * LEAST_PX < spent_s


def test_what_would_come_too_late_is_not_begun_and_doubt_wears_off(make, package):
    """After a spell in which a run took a minute, calls that leave it twenty seconds are stopped before they run."""
    service = make()
    session = service.worker.session(package)
    collect(service, asked())
    run, runs = session.run, []
    session.run = lambda inputs, **how: runs.append(1) or run(inputs, **how)
    service.worker.usual_seconds_per_px[package.digest] = 60 / LEAST_PX
    with pytest.raises(DeadlineTooShort, match="waited"):
        collect(service, asked(), 20.0)
    assert not runs
    for _ in range(100):
        try:
            assert files(collect(service, asked(), 20.0))
            break
        except DeadlineTooShort:
            assert not runs
    assert runs


def test_quotas_of_a_caller_bind_no_other(make, package, pool):
    service = make()
    gate = Gate(service.worker.session(package))
    anna = Terms(Caller("anna", max_calls=1))
    first = pool.submit(ask, service, asked(seed=1), anna)
    gate.wait()
    with pytest.raises(QuotaExceeded, match="1 calls under way"):
        ask(service, asked(seed=2), anna)
    other = pool.submit(ask, service, asked(seed=2), Terms(Caller("ben", max_calls=1)))
    gate.open()
    assert files(first.result(60))
    assert files(other.result(60))
    assert files(ask(service, asked(seed=2), anna))


def test_replaced_packages_serve_new_calls_and_running_ones_end_on_the_old(make, package, tmp_path, pool):
    service = make()
    newer = write_model(tmp_path, channels=12)
    old = whole_files(collect(service, asked(count=3)))
    gate = Gate(service.worker.session(package))
    running = pool.submit(ask, service, asked(seed=7, count=3))
    gate.wait()
    service.replace({"tiny": newer, "more": replace(newer, manifest=replace(newer.manifest, id="more"))}, preload=True)
    assert [model.id for model in service.models()] == ["more", "tiny"]
    assert service.worker.is_open(package)
    gate.open()
    ended = whole_files(running.result(60))
    assert {index for index, _ in ended} == {0, 1, 2}
    assert_same_files(ended, old)
    newly = whole_files(collect(service, asked(count=3)))
    assert all(newly[index, "base_color"] != old[index, "base_color"] for index in range(3))
    wait_for(lambda: not service.worker.is_open(package))
    assert gate.log == [7, 7, 7]
    with pytest.raises(ModelDigestMismatch):
        collect(service, asked(model_digest=package.digest))


def test_what_cannot_be_opened_replaces_nothing_and_nothing_new_stays_open(make, package, tmp_path):
    service = make()
    newer = write_model(tmp_path, channels=12)
    spoilt = with_operations(write_model(tmp_path, "spoilt"), *NOT_A_NUMBER)
    before = files(collect(service, asked()))
    with pytest.raises(PackageInvalid, match=r"model 'spoilt' cannot be served: .*not finite") as caught:
        service.replace({"tiny": newer, "spoilt": spoilt}, preload=True)
    assert str(spoilt.folder) in caught.value.hint
    assert [model.digest for model in service.models()] == [package.digest]
    assert service.worker.sessions.digests == [package.digest]
    assert files(collect(service, asked())) == before


def test_what_cannot_be_served_replaces_nothing(make, package):
    service = make()
    strange = replace(package, manifest=replace(package.manifest, kind="smell"))
    with pytest.raises(PackageInvalid):
        service.replace({"tiny": strange})
    assert files(collect(service, asked()))


@pytest.fixture
def count_runs(make, package):
    """A service, and a list that grows by one for each run of a graph."""
    service = make()
    session = service.worker.session(package)
    run, runs = session.run, []
    session.run = lambda inputs, **how: runs.append(1) or run(inputs, **how)
    return service, runs


def test_a_call_that_nobody_reads_on_is_two_assets_ahead_at_most(count_runs):
    """However many it makes: what is made and not read stays in memory."""
    service, runs = count_runs
    request = asked(count=8)
    events = service.generate(request)
    seen = [next(events)]
    while not isinstance(seen[-1], Artifact):
        seen.append(next(events))
    wait_for(lambda: len(runs) == 2)
    time.sleep(0.5)  # forty times as long as the rest takes
    assert len(runs) == 2
    assert service.held_px == 2 * 32 * 32
    made = files([*seen, *events])
    assert len(runs) == 8
    assert made == files(collect(service, request))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("known", [False, True])
def test_a_deadline_of_a_millisecond_begins_no_run(count_runs, monkeypatch, known, count):
    """Also where nothing is known of how long one takes: the time is up before the inputs are drawn."""
    service, runs = count_runs
    expected = files(collect(service, asked(count=count))) if known else None
    runs.clear()
    prepare = texture.prepare
    with monkeypatch.context() as patched:
        patched.setattr(texture, "prepare", lambda *given: time.sleep(0.1) or prepare(*given))
        with pytest.raises(DeadlineTooShort):
            collect(service, asked(count=count, width_px=256, height_px=256), 0.001)
        assert service.wait_until_idle(60)
        time.sleep(0.2)  # a thread may still draw
    assert not runs
    assert files(collect(service, asked(count=count))) == (expected or files(collect(service, asked(count=count))))


def test_half_of_the_time_it_takes_is_refused_before_any_work(count_runs, monkeypatch, package):
    service, runs = count_runs
    request = asked(count=2, width_px=256, height_px=256)
    collect(service, request)
    runs.clear()
    monkeypatch.setattr(texture, "prepare", lambda *_: pytest.fail("work was begun"))
    takes_s = service.worker.seconds_per_px[package.digest] * 2 * 256 * 256
    with pytest.raises(DeadlineTooShort, match=r"is too short; this takes .* or more here") as caught:
        collect(service, request, takes_s / 2)
    assert float(caught.value.metadata["estimate_s"]) == pytest.approx(takes_s, rel=0.01)
    assert not runs
    assert service.calls_under_way == 0


@pytest.mark.parametrize("deadline_s", [None, 1e9])
def test_no_deadline_and_one_above_the_cap_are_the_cap(make, package, pool, deadline_s):
    service = make(call_cap_s=0.5)
    gate = Gate(service.worker.session(package))
    begun_s = time.monotonic()
    answer = pool.submit(collect, service, asked(count=2), deadline_s)
    gate.wait()
    with pytest.raises(DeadlineTooShort, match=r"its deadline of 0\.5 s"):
        answer.result(60)
    assert time.monotonic() - begun_s >= 0.5
    gate.open()


def test_a_clock_that_is_set_back_by_an_hour_changes_no_deadline(make, package, pool, monkeypatch):
    service = make()
    gate = Gate(service.worker.session(package))
    answer = pool.submit(collect, service, asked(count=2), 1.0)
    gate.wait()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    with pytest.raises(DeadlineTooShort, match="its deadline of 1 s"):
        answer.result(60)
    gate.open()
    assert service.wait_until_idle(60)
    assert files(collect(service, asked(), 60.0))
