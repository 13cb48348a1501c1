"""The core without a network: real packages, the real worker, no stand-ins."""

import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from assetgen import service as core
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
    RuntimeMissing,
    WorkerLost,
)
from assetgen.kinds import texture
from assetgen.local import LocalMaker
from assetgen.service import Limits, Service
from assetgen.types import Artifact, Encoding, Finished, MapKind, OutputSpec, Progress, Request, Started
from assetgen.worker import Job, Worker
from tests.helpers.serving import assert_same_files, files, whole_files, write_model

HOSTILE_IDS = [
    "..", "../x", "a/../b", "/etc", "a/b", "a\\b", "C:\\x", "con ", ".hidden", "", "a" * 64, "\uff21", "a\0", "tiny\n",
    "%2e%2e", "a%00", "a.", "-a", "a-", "models/x", "a\u2013b", "~", "$(x)", "con", "nul", "TINY", "../etc", "model/..",
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


def test_events_come_in_the_order_of_the_contract(make):
    events = collect(make(), asked(count=3))
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
    whole = files(collect(service, asked(count=4)))
    again = files(collect(service, asked(count=4)))
    restarted = files(collect(make(), asked(count=4)))
    split = files(collect(service, asked(count=1)))
    split |= files(collect(service, asked(count=3, first_index=1)))
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
    hashes = [files(collect(service, asked(**change)))[0, "base_color"] for change in changes]
    assert len(set(hashes)) == len(changes)


def test_calls_at_once_give_what_each_gives_alone(make):
    service = make()

    alone = [whole_files(collect(service, asked(seed=seed, count=2))) for seed in range(8)]
    for count in (2, 1):
        requests = [asked(seed=seed, count=count) for seed in range(8)]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda request: whole_files(collect(service, request)), requests))
        for given, expected in zip(together, alone, strict=True):
            assert_same_files(given, {key: made for key, made in expected.items() if key[0] < count})


def test_a_seed_is_drawn_and_reported(make):
    service = make()
    first, second = (collect(service, asked(seed=None)) for _ in range(2))
    assert first[0].seed != second[0].seed
    assert files(collect(service, asked(seed=first[0].seed))) == files(first)


@pytest.mark.parametrize("model_id", HOSTILE_IDS)
def test_unknown_models_are_not_found(make, model_id):
    with pytest.raises(ModelNotFound) as caught:
        collect(make(), asked(model_id=model_id))
    assert caught.value.field == "model_id"
    assert "tiny" in caught.value.hint


_OPENED = []
sys.addaudithook(lambda event, arguments: [each.append(arguments) for each in _OPENED] if event == "open" else None)


@contextmanager
def opened():
    """Arguments of every opening of a file meanwhile."""
    seen = []
    _OPENED.append(seen)
    try:
        yield seen
    finally:
        _OPENED.remove(seen)


def test_hostile_ids_open_no_file(make):
    service = make()
    with opened() as seen:
        for model_id in HOSTILE_IDS:
            with pytest.raises(ModelNotFound):
                service.admit(asked(model_id=model_id))
            with pytest.raises(ModelNotFound):
                service.model(model_id)
    assert seen == []


@pytest.mark.parametrize("changes", [{"count": 2**32 - 1}, {"height_px": 2**32 - 1}, {"width_px": 3008, "count": 64}])
def test_what_is_too_large_is_refused_before_memory_is_taken_for_it(make, changes):
    service = make()
    tracemalloc.start()
    try:
        with pytest.raises(FieldInvalid):
            service.admit(asked(**changes))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < most_bytes < 2**20


@pytest.mark.parametrize("name", ["truncation", "blend", "relief", "roughness_shift"])
def test_minus_zero_is_zero(make, name):
    service = make()
    classes = {"class": "clay", "blend_class": "steel"}
    plain, minus = (collect(service, asked(parameters=classes | {name: value})) for value in (0.0, -0.0))
    assert files(minus) == files(plain)


def test_the_digest_pins_the_weights(make, package):
    service = make()
    assert files(collect(service, asked(model_digest=package.digest.upper())))
    with pytest.raises(ModelDigestMismatch, match=package.digest):
        collect(service, asked(model_digest="00" * 32))


def test_bad_requests_are_refused_before_anything_runs(make):
    service = make()
    with pytest.raises(FieldInvalid):
        collect(service, asked(width_px=33))
    assert service.calls_under_way == 0
    assert not service.worker.is_open(service.packages["tiny"])


@pytest.mark.parametrize(
    ("limits", "second"), [({"max_calls": 1}, asked()), ({"max_held_px": 2 * 32 * 32 + 1}, asked())]
)
def test_a_full_queue_refuses_with_a_time(make, limits, second):
    service = make(**limits)
    first = service.generate(asked(count=8))
    next(first)
    with pytest.raises(QueueFull, match="Mpx") as caught:
        collect(service, second)
    first.close()
    assert files(collect(service, second))
    assert caught.value.retry_after_s > 0


def test_a_call_too_large_for_the_queue_is_taken_when_it_is_alone(make):
    assert files(collect(make(max_held_px=1), asked(count=3)))


@pytest.mark.parametrize("count", [1, 64])
def test_stopping_a_call_stops_the_run_and_frees_the_place(make, slow_package, count):
    service = make(slow_package, max_calls=1)
    running, stopped = threading.Event(), []
    session = service.worker.session(slow_package)
    run = session.run

    def watched(inputs, **how):
        running.set()
        try:
            return run(inputs, **how)
        except Cancelled:
            stopped.append(True)
            raise

    session.run = watched
    call = service.admit(asked(count=count, width_px=1024, height_px=496 if count == 1 else 1024))
    threading.Thread(target=lambda: (running.wait(60), call.stop())).start()
    with pytest.raises(Cancelled):
        list(call.events())
    call.release()
    assert service.calls_under_way == 0
    assert files(collect(service, asked()))  # only one call at a time: the place is free
    assert stopped == [True]


@pytest.mark.parametrize("count", [1, 2])
def test_closing_the_stream_at_every_event_leaves_nothing_behind(make, count):
    service = make()
    total = len(collect(service, asked(count=count)))
    for position in range(1, total + 1):
        events = service.generate(asked(count=count))
        for _ in range(position):
            next(events)
        events.close()
        assert service.calls_under_way == 0
    assert service.wait_until_idle(0)
    assert files(collect(service, asked()))


def test_a_call_that_waits_can_be_stopped(make, slow_package):
    """It stands in the queue behind a long one; the others keep their order."""
    service = make(slow_package)
    first = service.generate(asked(count=64, width_px=1024, height_px=1024))
    assert [type(next(first)) for _ in range(2)] == [Started, Progress]
    waiting = service.admit(asked())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(list, waiting.events())
        time.sleep(0.05)
        waiting.stop()
        with pytest.raises(Cancelled):
            answer.result(60)
    waiting.release()
    first.close()


def test_a_call_whose_reader_does_not_read_is_given_up(make, monkeypatch):
    monkeypatch.setattr(core, "OVERDUE_S", 0.1)
    service, gone = make(call_cap_s=0.1), threading.Event()
    call = service.admit(asked(count=8))
    call.give_up = gone.set
    events = call.events()
    next(events)
    assert gone.wait(60)
    with pytest.raises(DeadlineTooShort):
        list(events)
    call.release()


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, 1e-9])
def test_a_deadline_that_has_passed_starts_nothing(make, deadline_s):
    with pytest.raises(DeadlineTooShort):
        collect(make(), asked(), deadline_s)


def test_a_deadline_that_cannot_be_met_is_refused_at_once(make, slow_package):
    service = make(slow_package)
    collect(service, asked(width_px=512, height_px=512))
    with pytest.raises(DeadlineTooShort, match="or more here"):
        collect(service, asked(width_px=1024, height_px=1024, count=64), 0.5)


def test_a_deadline_that_passes_stops_the_run(make, slow_package):
    service = make(slow_package)
    service.worker.session(slow_package)
    with pytest.raises(DeadlineTooShort, match="did not end within"):
        collect(service, asked(width_px=1024, height_px=1024, count=64), 0.2)
    assert service.calls_under_way == 0


def test_calls_without_a_deadline_have_the_cap(make, slow_package):
    service = make(slow_package, call_cap_s=0.2)
    service.worker.session(slow_package)
    with pytest.raises(DeadlineTooShort):
        collect(service, asked(width_px=1024, height_px=1024, count=64))


def test_draining_ends_what_runs_and_takes_nothing_new(make):
    service = make()
    events = service.generate(asked(count=3))
    next(events)
    service.drain()
    with pytest.raises(Draining) as caught:
        collect(service, asked())
    assert caught.value.retry_after_s is not None
    assert not service.wait_until_idle(0)
    assert isinstance(list(events)[-1], Finished)
    assert service.wait_until_idle(0)


def test_cancel_all_ends_calls_with_the_reason(make):
    service = make()
    events = service.generate(asked(count=64))
    next(events)
    service.cancel_all()
    with pytest.raises(Draining):
        list(events)


def test_a_fault_inside_stays_inside(make, package, caplog):
    """A graph that answers nonsense: fixed text to the caller, details in the log, and the next call works."""
    service = make()
    session = service.worker.session(package)
    run = session.run
    session.run = lambda inputs, **_: {name: values * float("nan") for name, values in run(inputs).items()}
    with pytest.raises(InternalError, match=r"^the asset could not be made$"):
        collect(service, asked())
    assert "values reach from nan to nan" in caplog.text
    session.run = run
    assert files(collect(service, asked()))


def test_no_memory_is_said_as_such(make, package):
    service = make()
    session = service.worker.session(package)

    def run(inputs, **_):
        raise MemoryError

    session.run = run
    with pytest.raises(QueueFull, match="not enough memory for 32 x 32 px"):
        collect(service, asked())


@pytest.mark.parametrize(
    ("error", "told", "hint"),
    [
        (MemoryError(), QueueFull, "not enough memory to open it"),
        (WorkerLost("the process was lost"), WorkerLost, "the process was lost"),
    ],
)
def test_what_cannot_be_opened_at_the_start_is_named_with_its_folder(make, package, monkeypatch, error, told, hint):
    service = make()

    def session(_):
        raise error

    monkeypatch.setattr(service.worker, "session", session)
    with pytest.raises(told, match=f"^model 'tiny' cannot be served: {hint}$") as caught:
        service.preload()
    assert str(package.folder) in caught.value.hint


def test_a_model_of_unknown_kind_is_refused_at_the_start(package):
    strange = replace(package, manifest=replace(package.manifest, kind="smell"))
    with pytest.raises(PackageInvalid, match="smell"):
        Service({"tiny": strange}, Worker("cpu", 1))


def test_small_single_assets_send_no_progress(make):
    events = collect(make(), asked(output=OutputSpec(maps=(MapKind.NORMAL,), encoding=Encoding.RAW)))
    assert [type(event) for event in events] == [Started, Artifact, Finished]


def test_calls_at_once_run_by_halves_a_call_alone_does_not_and_bytes_are_the_same(package):
    """What a call asks for never depends on who else asks."""
    worker, halves = Worker("cpu", 2), []
    with LocalMaker(Service({"tiny": package}, worker)) as maker:
        session = worker.session(package)
        run = session.run

        def watched(inputs, half=False, owner=None):
            halves.append(half)
            return run(inputs, half=half, owner=owner)

        session.run = watched
        alone = [files(maker.generate(asked(seed=seed))) for seed in range(12)]
        assert not any(halves)
        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(lambda seed: files(maker.generate(asked(seed=seed))), range(12)))
        assert together == alone
        assert any(halves[12:])
        halves.clear()
        files(maker.generate(asked(count=6)))
        assert any(halves)


def test_what_takes_several_windows_has_the_device_for_itself(package):
    size = replace(package.manifest.size, window_px=256, halo_px=64)
    windowed = replace(package, manifest=replace(package.manifest, size=size))
    worker = Worker("cpu", 2)
    with LocalMaker(Service({"tiny": windowed}, worker)) as maker:
        session, halves, inside, most = worker.session(windowed), [], 0, 0
        run = session.run

        def watched(inputs, half=False, owner=None):
            nonlocal inside, most
            halves.append(half)
            inside += 1
            most = max(most, inside)
            try:
                return run(inputs, half=half, owner=owner)
            finally:
                inside -= 1

        session.run = watched
        files(maker.generate(asked(width_px=512, height_px=512, count=3)))
    assert len(halves) == 3 * 16
    assert not any(halves)
    assert most == 1


def test_a_cancelled_job_is_skipped(package):
    worker, news = Worker("cpu", 1), []
    job = Job(package, texture.resolve(package.manifest, asked()), 0, news.append)
    worker.cancel(job)
    with pytest.raises(Cancelled):
        worker.make(job)
    worker.close()
    assert news == []


def test_the_local_maker_is_the_service_in_this_process(make, package):
    service = make()
    expected = files(collect(service, asked(count=2)))
    with LocalMaker(Service({"tiny": package}, Worker("cpu", 1))) as maker:
        assert [model.id for model in maker.models()] == ["tiny"]
        assert maker.model("tiny").maps == tuple(MapKind)
        with pytest.raises(ModelNotFound):
            maker.model("other")
        assert files(maker.generate(asked(count=2))) == expected
        events = maker.generate(asked(count=64))
        next(events)
        events.close()
        with pytest.raises(FieldInvalid):
            next(maker.generate(asked(count=65)))


def test_a_model_of_ours_without_its_extra_is_left_out_any_other_is_refused(make, package, monkeypatch, caplog):
    def lacks_an_extra(_package):
        raise RuntimeMissing("meshes need skimage, which is not installed", hint="pip install 'assetgen[mesh]'")

    service = make()
    monkeypatch.setattr(texture, "check", lacks_an_extra)
    with pytest.raises(RuntimeMissing, match="skimage"):
        service.replace({package.manifest.id: package})
    assert service.models(), "nothing has changed"
    monkeypatch.setattr("assetgen.store.bundled_models_folder", lambda: package.folder.resolve().parent)
    service.replace({package.manifest.id: package})
    assert service.models() == []
    assert f"model {package.manifest.id} is left out: meshes need skimage" in caplog.text
