"""The core behind every front end: admission, order, cancel, deadlines, progress, draining; no gRPC, no torch.

``Service.generate`` turns a request into events. One small asset is made by the thread that asks for it; more, or large
ones, by two threads in turn, so that asset i is encoded while asset i+1 runs, long calls and short ones take turns, and
memory is bounded.
"""

from __future__ import annotations

import math
import queue
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

from assetgen.describe import ModelInfo
from assetgen.errors import (
    AssetgenError,
    Cancelled,
    DeadlineTooShort,
    Draining,
    ModelDigestMismatch,
    ModelNotFound,
    PackageInvalid,
    QueueFull,
)
from assetgen.kinds import KINDS, Plan
from assetgen.kinds.plan import MAX_COUNT, shown
from assetgen.package import VerifiedPackage
from assetgen.types import Artifact, Event, Finished, Progress, Request, Started
from assetgen.worker import Job, News, Stage, Worker

PROGRESS_FROM_PX = 512 * 512
ENCODING_SHARE = 0.2
ASSETS_UNDER_WAY = 2
# A call that was stopped and does not end within this time waits for a reader who does not read.
OVERDUE_S = 2.0
PREVIEW_NAME = "preview.png"

# What the thread that makes an asset tells the thread that asked: news, what went wrong, or None: done.
_Inbox: TypeAlias = "queue.SimpleQueue[News | AssetgenError | None]"


@dataclass(frozen=True)
class Limits:
    """What a service accepts; nothing is unlimited.

    Attributes:
        max_calls: calls accepted at once, waiting ones included.
        max_held_px: pixels of all assets under way at once; a call alone is always accepted.
        call_cap_s: deadline of calls that set none, and the longest that counts.
        drain_s: how long calls under way may still take when the server stops.
    """

    max_calls: int = 64
    max_held_px: int = 64 * 2**20
    max_count: int = MAX_COUNT
    call_cap_s: float = 600.0
    drain_s: float = 30.0


class Call:
    """An accepted request: iterate over ``events`` once, and ``release`` it in the end.

    Attributes:
        give_up: called if the call does not end although its time is up: whoever reads the events should be cut off.
    """

    def __init__(self, service: Service, package: VerifiedPackage, plan: Plan, deadline_s: float) -> None:
        self.package = package
        self.plan = plan
        self.deadline_s = deadline_s
        self.admitted_s = time.monotonic()
        self.give_up: Callable[[], object] = lambda: None
        self._service = service
        # Below PROGRESS_FROM_PX a single asset is done before anybody could read its progress.
        self._small = plan.count == 1 and plan.width_px * plan.height_px < PROGRESS_FROM_PX
        self._jobs: deque[tuple[Job, _Inbox]] = deque()
        self._error: AssetgenError | None = None
        self._lock = threading.Lock()

    @property
    def expires_s(self) -> float:
        """When the call must have ended, on the clock of ``time.monotonic``."""
        return self.admitted_s + self.deadline_s

    @property
    def held_px(self) -> int:
        """Pixels that the call keeps in memory."""
        return min(self.plan.count, ASSETS_UNDER_WAY) * self.plan.width_px * self.plan.height_px

    def events(self) -> Iterator[Event]:
        """What happens, from Started to Finished; raises the AssetgenError that ended the call."""
        worker = self._service.worker
        session = worker.session(self.package)  # opened now if this is the model's first call
        yield Started(self.plan.seed, self.package.digest, session.backend)
        begun_s = yield from self._small_asset() if self._small else self._assets()
        now_s = time.monotonic()
        yield Finished(queue_s=begun_s - self.admitted_s, work_s=now_s - begun_s)

    def stop(self, error: AssetgenError | None = None) -> None:
        """End the call, from any thread and whatever it is doing; the first ``error`` counts."""
        with self._lock:
            self._error = self._error or error or Cancelled("the call was cancelled")
            jobs = list(self._jobs)
        for job, inbox in jobs:
            self._service.worker.cancel(job, self._error)
            inbox.put(self._error)

    def release(self) -> None:
        """Stop what is left, and give the place back."""
        if self._jobs:
            self.stop()
        self._service._release(self)

    def _small_asset(self) -> Generator[Event, None, float]:
        made: list[News] = []
        job = self._job(0, made.append)
        self._register(job, queue.SimpleQueue())
        self._service.worker.make(job)
        self._jobs.clear()
        yield from (news for news in made if isinstance(news, Artifact))
        return job.begun_s

    def _assets(self) -> Generator[Event, None, float]:
        if self._service.calls_under_way > 1:
            yield Progress("queued", 0.0)
        emitted, begun_s, count, submitted = 0.0, 0.0, self.plan.count, 0
        for position in range(count):
            while submitted < min(position + ASSETS_UNDER_WAY, count):
                self._submit(submitted)
                submitted += 1
            job, inbox = self._jobs[0]
            while (news := inbox.get()) is not None:
                if isinstance(news, AssetgenError):
                    raise news
                if isinstance(news, Artifact):
                    yield news
                else:
                    emitted = max(emitted, _fraction(news, position, count))
                    yield Progress(news.name, emitted)
            begun_s = begun_s or job.begun_s
            self._jobs.popleft()
        return begun_s

    def _job(self, number: int, notify: Callable[[News], object]) -> Job:
        return Job(self.package, self.plan, self.plan.first_index + number, notify, tell_stages=not self._small)

    def _register(self, job: Job, inbox: _Inbox) -> None:
        with self._lock:
            if self._error is not None:
                raise self._error
            self._jobs.append((job, inbox))

    def _submit(self, number: int) -> None:
        inbox: _Inbox = queue.SimpleQueue()
        job = self._job(number, inbox.put)
        self._register(job, inbox)

        def work() -> None:
            try:
                self._service.worker.make(job)
            except AssetgenError as error:
                inbox.put(error)
            else:
                inbox.put(None)

        self._service.run(work)


class Service:
    """Makes assets from verified packages on one worker.

    Args:
        packages: model id to package; ids from outside are only ever keys of it.
        worker: the device's pipeline.
        limits: what to accept.

    Raises:
        PackageInvalid: a package is of a kind, or declares a parameter, that this version does not know.
    """

    def __init__(self, packages: Mapping[str, VerifiedPackage], worker: Worker, limits: Limits = Limits()) -> None:
        for package in packages.values():
            if package.manifest.kind not in KINDS:
                raise PackageInvalid(
                    f"model {package.manifest.id!r} is of kind {package.manifest.kind!r}; "
                    f"this version knows {', '.join(KINDS)}",
                    hint="install a newer assetgen, or remove the package",
                )
            KINDS[package.manifest.kind].check(package)
        self.packages = dict(sorted(packages.items()))
        self._infos = {model_id: _describe(package) for model_id, package in self.packages.items()}
        self.worker = worker
        self.limits = limits
        self._lock = threading.Lock()
        self._calls: set[Call] = set()
        self._idle = threading.Condition(self._lock)
        self._draining = False
        self._pool = ThreadPoolExecutor(ASSETS_UNDER_WAY * limits.max_calls, thread_name_prefix="assetgen-asset")
        self._alarm = _Alarm(self)

    @property
    def calls_under_way(self) -> int:
        """Accepted calls that have not ended."""
        return len(self._calls)

    @property
    def device(self) -> str:
        """Where models run, such as ``cpu``."""
        return self.worker.device

    def models(self) -> list[ModelInfo]:
        """All models, ordered by id."""
        return list(self._infos.values())

    def model(self, model_id: str) -> ModelInfo:
        """One model; raises ModelNotFound."""
        return self._infos[self._package(model_id).manifest.id]

    def preload(self) -> None:
        """Open every model's session, so that no call has to wait for it."""
        for package in self.packages.values():
            self.worker.session(package)

    def generate(self, request: Request, deadline_s: float | None = None) -> Iterator[Event]:
        """Make what ``request`` asks for; closing the iterator stops the work.

        Args:
            request: checked here, whole, before anything is allocated.
            deadline_s: seconds left; ``None`` means the service's own cap.

        Raises:
            AssetgenError: see the table of errors in the contract.
        """
        call = self.admit(request, deadline_s)
        try:
            yield from call.events()
        finally:
            call.release()

    def admit(self, request: Request, deadline_s: float | None = None) -> Call:
        """Accept ``request`` or say why not, as ``generate`` does; the caller must release the call."""
        if self._draining:
            raise Draining("the server is shutting down", hint="try again when it is back", retry_after_s=5.0)
        package = self._package(request.model_id)
        if request.model_digest and request.model_digest.lower() != package.digest:
            raise ModelDigestMismatch(
                f"model_digest: the request pins {shown(request.model_digest)}, "
                f"but model {package.manifest.id!r} is {package.digest}",
                field="model_digest",
                hint="drop the digest, or serve the package it names",
                metadata={"requested": shown(request.model_digest), "served": package.digest},
            )
        if request.seed is None:
            request = replace(request, seed=secrets.randbits(32))
        plan: Plan = KINDS[package.manifest.kind].resolve(package.manifest, request)
        cap_s = self.limits.call_cap_s
        call = Call(self, package, plan, cap_s if deadline_s is None else min(deadline_s, cap_s))
        with self._lock:
            self._check_load(call)
            self._calls.add(call)
        self._alarm.set(call.expires_s)
        return call

    def run(self, work: Callable[[], None]) -> None:
        """Run ``work`` on a thread of the service."""
        self._pool.submit(work)

    def drain(self) -> None:
        """Accept no more calls; those under way go on."""
        self._draining = True

    def wait_until_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until no call is under way; returns whether that came true in time."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._calls, timeout_s)

    def cancel_all(self) -> None:
        """Stop every call under way, as when time for draining is up."""
        for call in self._under_way():
            call.stop(Draining("the server stopped before the call ended", retry_after_s=5.0))

    def close(self) -> None:
        """Stop the threads and the worker; what is under way ends first."""
        self._pool.shutdown()
        self._alarm.close()
        self.worker.close()

    def expire(self, now_s: float) -> float:
        """Stop the calls whose time is up, and give up those that do not end then; returns when to look again."""
        again_s = math.inf
        for call in self._under_way():
            if call.expires_s > now_s:
                again_s = min(again_s, call.expires_s)
            elif call.expires_s + OVERDUE_S > now_s:
                call.stop(DeadlineTooShort(f"the call did not end within its deadline of {call.deadline_s:.3g} s"))
                again_s = min(again_s, call.expires_s + OVERDUE_S)
            else:
                call.give_up()
        return again_s

    def _under_way(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def _release(self, call: Call) -> None:
        with self._idle:
            self._calls.discard(call)
            if not self._calls:
                self._idle.notify_all()

    def _package(self, model_id: str) -> VerifiedPackage:
        package = self.packages.get(model_id)
        if package is None:
            raise ModelNotFound(
                f"model_id: no model {shown(model_id)} is served",
                field="model_id",
                hint=f"models served: {', '.join(self.packages) or 'none'}",
                metadata={"model_id": shown(model_id)},
            )
        return package

    def _check_load(self, call: Call) -> None:
        """Refuse what cannot be done in time, or is too much now."""
        speed = self.worker.seconds_per_px.get(call.package.digest, 0.0)
        least_s = speed * call.plan.count * call.plan.width_px * call.plan.height_px
        if call.deadline_s <= least_s or call.deadline_s <= 0:
            raise DeadlineTooShort(
                f"the deadline of {call.deadline_s:.3g} s is too short; this takes {least_s:.3g} s or more here",
                hint="allow more time, or ask for fewer or smaller assets",
                metadata={"deadline_s": f"{call.deadline_s:.3g}", "estimate_s": f"{least_s:.3g}"},
            )
        held_px = sum(other.held_px for other in self._calls)
        too_many = len(self._calls) >= self.limits.max_calls
        if too_many or (held_px and held_px + call.held_px > self.limits.max_held_px):
            retry_after_s = min(max(held_px * speed, 0.5), 30.0)
            raise QueueFull(
                f"the queue is full: {len(self._calls)} calls with {held_px / 2**20:.1f} Mpx under way; "
                f"the limits are {self.limits.max_calls} calls and {self.limits.max_held_px / 2**20:.1f} Mpx",
                hint=f"try again in {retry_after_s:.1f} s",
                retry_after_s=retry_after_s,
                metadata={"calls": str(len(self._calls)), "held_px": str(held_px)},
            )


class _Alarm:
    """A thread that ends calls whose time is up; it is woken only for a deadline before all it knows of."""

    def __init__(self, service: Service) -> None:
        self._service = weakref.ref(service)
        self._changed = threading.Condition()
        self._next_s = math.inf
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="assetgen-alarm", daemon=True)
        self._thread.start()

    def set(self, when_s: float) -> None:
        """Wake at ``when_s`` at the latest."""
        if when_s < self._next_s:
            with self._changed:
                self._next_s = min(self._next_s, when_s)
                self._changed.notify()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                left_s = self._next_s - time.monotonic()
                if left_s > 0:
                    self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
                    continue
                self._next_s = math.inf
            service = self._service()
            if service is None:
                return
            self.set(service.expire(time.monotonic()))
            del service


def _fraction(stage: Stage, position: int, count: int) -> float:
    done = 1.0 - ENCODING_SHARE if stage.name == "encoding" else 0.0
    return (position + done) / count


def _describe(package: VerifiedPackage) -> ModelInfo:
    manifest = package.manifest
    has_preview = any(entry.path == PREVIEW_NAME for entry in manifest.files)
    return ModelInfo(
        id=manifest.id,
        display_name=manifest.display_name,
        description=manifest.description,
        kind=manifest.kind,
        version=manifest.version,
        digest=package.digest,
        license=manifest.license,
        class_labels=tuple(known.label for known in manifest.classes),
        maps=KINDS[manifest.kind].made_maps(manifest),
        parameters=manifest.parameters,
        size=manifest.size,
        preview_png=package.read(PREVIEW_NAME) if has_preview else b"",
    )
