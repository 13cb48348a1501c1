"""The core without a network: real packages, the real worker, no stand-ins."""

import asyncio
import threading
from dataclasses import replace

import pytest

from assetgen.errors import (
    Cancelled,
    DeadlineTooShort,
    Draining,
    FieldInvalid,
    InternalError,
    ModelDigestMismatch,
    ModelNotFound,
    PackageInvalid,
    QueueFull,
)
from assetgen.local import LocalMaker
from assetgen.service import Limits, Service
from assetgen.types import Artifact, Encoding, Finished, MapKind, OutputSpec, Progress, Request, Started
from assetgen.worker import Done, Job, Worker
from tests.helpers.serving import files, write_model

HOSTILE_IDS = [
    "..", "../x", "a/../b", "/etc", "a/b", "a\\b", "C:\\x", "con ", ".hidden", "", "a" * 64, "\uff21", "a\0", "tiny\n",
    "%2e%2e", "a%00", "a.", "-a", "a-", "models/x", "a\u2013b", "~", "$(x)", "con", "nul", "TINY",
]  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def slow_package(tmp_path_factory):
    """About a second a call at 1024 px: time to cancel in."""
    return write_model(tmp_path_factory.mktemp("slow"), channels=96)


@pytest.fixture
def make(package, request):
    """Makes services whose workers end with the test."""
    workers = []

    def service(*packages, **limits):
        workers.append(Worker("cpu", 1))
        served = {found.manifest.id: found for found in packages or (package,)}
        return Service(served, workers[-1], Limits(**limits))

    yield service
    for worker in workers:
        worker.close()


def asked(**changes):
    return Request(**{"model_id": "tiny", "seed": 7, "width_px": 32, "height_px": 32} | changes)


async def collect(service, request, deadline_s=None):
    return [event async for event in service.generate(request, deadline_s)]


def test_events_come_in_the_order_of_the_contract(make):
    events = asyncio.run(collect(make(), asked(count=3)))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(event, Started | Finished) for event in events) == 2
    assert [event.index for event in events if isinstance(event, Artifact)] == [0] * 6 + [1] * 6 + [2] * 6
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert {event.stage for event in events if isinstance(event, Progress)} == {"generating", "encoding"}


def test_the_same_request_gives_the_same_bytes_however_it_is_split(make, package):
    service = make()
    whole = files(asyncio.run(collect(service, asked(count=4))))
    again = files(asyncio.run(collect(service, asked(count=4))))
    restarted = files(asyncio.run(collect(make(), asked(count=4))))
    split = files(asyncio.run(collect(service, asked(count=1))))
    split |= files(asyncio.run(collect(service, asked(count=3, first_index=1))))
    assert whole == again == restarted == split
    assert len(set(whole.values())) > 4 * 4


def test_different_seeds_sizes_and_parameters_give_different_bytes(make):
    service = make()
    changes = [
        {},
        {"seed": 8},
        {"width_px": 64},
        {"parameters": {"truncation": 0.1}},
        {"parameters": {"class": "steel"}},
    ]
    hashes = [files(asyncio.run(collect(service, asked(**change))))[0, "base_color"] for change in changes]
    assert len(set(hashes)) == len(changes)


def test_calls_at_once_give_what_each_gives_alone(make):
    service = make()

    async def together():
        return await asyncio.gather(*(collect(service, asked(seed=seed, count=2)) for seed in range(8)))

    alone = [files(asyncio.run(collect(service, asked(seed=seed, count=2)))) for seed in range(8)]
    assert [files(events) for events in asyncio.run(together())] == alone


def test_a_seed_is_drawn_and_reported(make):
    service = make()
    first, second = (asyncio.run(collect(service, asked(seed=None))) for _ in range(2))
    assert first[0].seed != second[0].seed
    assert files(asyncio.run(collect(service, asked(seed=first[0].seed)))) == files(first)


@pytest.mark.parametrize("model_id", HOSTILE_IDS)
def test_unknown_models_are_not_found(make, model_id):
    with pytest.raises(ModelNotFound) as caught:
        asyncio.run(collect(make(), asked(model_id=model_id)))
    assert caught.value.field == "model_id"
    assert "tiny" in caught.value.hint


def test_the_digest_pins_the_weights(make, package):
    service = make()
    assert files(asyncio.run(collect(service, asked(model_digest=package.digest.upper()))))
    with pytest.raises(ModelDigestMismatch, match=package.digest):
        asyncio.run(collect(service, asked(model_digest="00" * 32)))


def test_bad_requests_are_refused_before_anything_runs(make):
    service = make()
    with pytest.raises(FieldInvalid):
        asyncio.run(collect(service, asked(width_px=33)))
    assert service.calls_under_way == 0
    assert not service.worker.is_open(service.packages["tiny"])


def test_a_full_queue_refuses_with_a_time(make):
    async def scenario(service, second):
        first = service.generate(asked(count=8))
        await anext(first)
        with pytest.raises(QueueFull) as caught:
            await collect(service, second)
        await first.aclose()
        assert files(await collect(service, second))
        return caught.value

    assert asyncio.run(scenario(make(max_calls=1), asked())).retry_after_s > 0
    assert "Mpx" in asyncio.run(scenario(make(max_held_px=2 * 32 * 32 + 1), asked())).message


def test_a_call_too_large_for_the_queue_is_taken_when_it_is_alone(make):
    assert files(asyncio.run(collect(make(max_held_px=1), asked(count=3))))


def test_closing_the_stream_stops_the_work_and_frees_the_place(make, slow_package):
    async def scenario():
        service = make(slow_package, max_calls=1)
        running = threading.Event()
        session = service.worker.session(slow_package)
        stopped = []
        run = session.run

        def watched(inputs):
            running.set()
            try:
                return run(inputs)
            except Cancelled:
                stopped.append(True)
                raise

        session.run = watched
        events = service.generate(asked(count=64, width_px=1024, height_px=1024))
        await anext(events)
        assert await asyncio.to_thread(running.wait, 60)
        await events.aclose()
        assert service.calls_under_way == 0
        assert files(await collect(service, asked()))  # only one call at a time: the place is free
        assert stopped == [True]

    asyncio.run(scenario())


def test_cancelling_the_task_at_every_event_leaves_nothing_behind(make):
    async def scenario():
        service = make()
        total = len(await collect(service, asked(count=2)))
        for position in range(total + 1):
            seen = 0

            async def read(position=position):
                nonlocal seen
                async for _ in service.generate(asked(count=2)):
                    seen += 1
                    if seen == position:
                        asyncio.current_task().cancel()

            task = asyncio.create_task(read())
            await asyncio.wait([task])
            assert task.cancelled() == (0 < position < total or (position == total and task.cancelled()))
            await asyncio.sleep(0)
        await service.idle()
        return await collect(service, asked())

    assert files(asyncio.run(scenario()))


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, 1e-9])
def test_a_deadline_that_has_passed_starts_nothing(make, deadline_s):
    with pytest.raises(DeadlineTooShort):
        asyncio.run(collect(make(), asked(), deadline_s))


def test_a_deadline_that_cannot_be_met_is_refused_at_once(make, slow_package):
    service = make(slow_package)
    asyncio.run(collect(service, asked(width_px=512, height_px=512)))
    with pytest.raises(DeadlineTooShort, match="or more here"):
        asyncio.run(collect(service, asked(width_px=1024, height_px=1024, count=64), 0.5))


def test_a_deadline_that_passes_stops_the_run(make, slow_package):
    service = make(slow_package)
    service.worker.session(slow_package)
    with pytest.raises(DeadlineTooShort, match="did not end within"):
        asyncio.run(collect(service, asked(width_px=1024, height_px=1024, count=64), 0.2))
    assert service.calls_under_way == 0


def test_calls_without_a_deadline_have_the_cap(make, slow_package):
    service = make(slow_package, call_cap_s=0.2)
    service.worker.session(slow_package)
    with pytest.raises(DeadlineTooShort):
        asyncio.run(collect(service, asked(width_px=1024, height_px=1024, count=64)))


def test_draining_ends_what_runs_and_takes_nothing_new(make):
    async def scenario():
        service = make()
        events = service.generate(asked(count=3))
        await anext(events)
        service.drain()
        with pytest.raises(Draining) as caught:
            await collect(service, asked())
        assert caught.value.retry_after_s is not None
        rest = [event async for event in events]
        await service.idle()
        return rest

    assert isinstance(asyncio.run(scenario())[-1], Finished)


def test_cancel_all_ends_calls_with_the_reason(make):
    async def scenario():
        service = make()
        events = service.generate(asked(count=64))
        await anext(events)
        service.cancel_all()
        async for _ in events:
            pass

    with pytest.raises(Draining):
        asyncio.run(scenario())


def test_a_fault_inside_stays_inside(make, package, caplog):
    """A graph that answers nonsense: fixed text to the caller, details in the log, and the next call works."""
    service = make()
    session = service.worker.session(package)
    run = session.run
    session.run = lambda inputs: {name: values * float("nan") for name, values in run(inputs).items()}
    with pytest.raises(InternalError, match=r"^the asset could not be made$"):
        asyncio.run(collect(service, asked()))
    assert "values reach from nan to nan" in caplog.text
    session.run = run
    assert files(asyncio.run(collect(service, asked())))


def test_no_memory_is_said_as_such(make, package):
    service = make()
    session = service.worker.session(package)

    def run(inputs):
        raise MemoryError

    session.run = run
    with pytest.raises(QueueFull, match="not enough memory for 32 x 32 px"):
        asyncio.run(collect(service, asked()))


def test_a_model_of_unknown_kind_is_refused_at_the_start(package):
    strange = replace(package, manifest=replace(package.manifest, kind="smell"))
    worker = Worker("cpu", 1)
    with pytest.raises(PackageInvalid, match="smell"):
        Service({"tiny": strange}, worker)
    worker.close()


def test_small_single_assets_send_no_progress(make):
    events = asyncio.run(collect(make(), asked(output=OutputSpec(maps=(MapKind.NORMAL,), encoding=Encoding.RAW))))
    assert [type(event) for event in events] == [Started, Artifact, Finished]


def test_a_cancelled_job_is_skipped(package):
    worker, news, done = Worker("cpu", 1), [], threading.Event()

    def notify(item):
        news.append(item)
        done.set()

    from assetgen.kinds import texture

    job = Job(package, texture.resolve(package.manifest, asked()), 0, notify)
    worker.cancel(job)
    worker.submit(job)
    assert done.wait(60)
    worker.close()
    assert len(news) == 1
    assert isinstance(news[0], Done)
    assert isinstance(news[0].error, Cancelled)


def test_the_local_maker_is_the_same_for_callers_without_asyncio(make):
    service = make()
    expected = files(asyncio.run(collect(service, asked(count=2))))
    with LocalMaker(service) as maker:
        assert [model.id for model in maker.models()] == ["tiny"]
        assert maker.model("tiny").maps == tuple(MapKind)
        with pytest.raises(ModelNotFound):
            maker.model("other")
        assert files(maker.generate(asked(count=2))) == expected
        events = maker.generate(asked(count=64))
        next(events)
        events.close()
        assert service.calls_under_way == 0
        with pytest.raises(FieldInvalid):
            next(maker.generate(asked(count=65)))
