"""The core behind every front end: admission, order, cancel, deadlines, progress, draining; no gRPC, no torch.

``Service.generate`` turns a request into events. A call has at most two assets under way at once, so long calls and
short ones take turns, memory is bounded, and asset i is encoded while asset i+1 runs.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace

from assetgen.describe import ModelInfo
from assetgen.errors import (
    AssetgenError,
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
from assetgen.worker import Done, Job, News, Stage, Worker

# Below this a single asset is done before anybody could read its progress.
PROGRESS_FROM_PX = 512 * 512
ENCODING_SHARE = 0.2
ASSETS_UNDER_WAY = 2
PREVIEW_NAME = "preview.png"


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


@dataclass(eq=False)
class _Call:
    """An accepted request."""

    package: VerifiedPackage
    plan: Plan
    deadline_s: float
    admitted_s: float
    tell_progress: bool
    jobs: deque[tuple[Job, asyncio.Queue[News]]] = field(default_factory=deque)
    submitted: int = 0
    error: AssetgenError | None = None

    @property
    def held_px(self) -> int:
        return min(self.plan.count, ASSETS_UNDER_WAY) * self.plan.width_px * self.plan.height_px


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
        self._calls: set[_Call] = set()
        self._draining = False
        self._idle: asyncio.Event | None = None

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

    async def preload(self) -> None:
        """Open every model's session, so that no call has to wait for it."""
        for package in self.packages.values():
            await asyncio.to_thread(self.worker.session, package)

    async def generate(self, request: Request, deadline_s: float | None = None) -> AsyncGenerator[Event, None]:
        """Make what ``request`` asks for; closing the iterator, or cancelling its task, stops the work.

        Args:
            request: checked here, whole, before anything is allocated.
            deadline_s: seconds left; ``None`` means the service's own cap.

        Raises:
            AssetgenError: see the table of errors in the contract.
        """
        call = self._admit(request, deadline_s)
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(call.deadline_s, self._expire, call)
        try:
            started = await self._started(call)
            self._fill(call, loop)  # before the caller sees anything: it may take its time
            yield started
            if call.tell_progress and len(self._calls) > 1:
                yield Progress("queued", 0.0)
            emitted, begun_s, count = 0.0, 0.0, call.plan.count
            for position in range(count):
                self._fill(call, loop)
                job, inbox = call.jobs[0]
                while not isinstance(news := await inbox.get(), Done):
                    if isinstance(news, Artifact):
                        yield news
                    elif call.tell_progress:
                        emitted = max(emitted, _fraction(news, position, count))
                        yield Progress(news.name, emitted)
                if news.error is not None:
                    raise news.error
                if news.last is not None:
                    yield news.last
                begun_s = begun_s or job.begun_s
                call.jobs.popleft()
            now_s = time.monotonic()
            yield Finished(queue_s=begun_s - call.admitted_s, work_s=now_s - begun_s)
        finally:
            alarm.cancel()
            self._release(call)

    def drain(self) -> None:
        """Accept no more calls; those under way go on."""
        self._draining = True

    async def idle(self) -> None:
        """Wait until no call is under way."""
        if self._calls:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def cancel_all(self) -> None:
        """Stop every call under way, as when time for draining is up."""
        for call in list(self._calls):
            self._stop(call, Draining("the server stopped before the call ended", retry_after_s=5.0))

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

    def _admit(self, request: Request, deadline_s: float | None) -> _Call:
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
        call = _Call(
            package,
            plan,
            deadline_s=cap_s if deadline_s is None else min(deadline_s, cap_s),
            admitted_s=time.monotonic(),
            tell_progress=plan.count > 1 or plan.width_px * plan.height_px >= PROGRESS_FROM_PX,
        )
        self._check_load(call)
        self._calls.add(call)
        return call

    def _check_load(self, call: _Call) -> None:
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

    async def _started(self, call: _Call) -> Started:
        """The first event; opens the model's session if this is its first call."""
        if not self.worker.is_open(call.package):
            await asyncio.to_thread(self.worker.session, call.package)
            if call.error is not None:
                raise call.error
        return Started(call.plan.seed, call.package.digest, self.worker.session(call.package).backend)

    def _fill(self, call: _Call, loop: asyncio.AbstractEventLoop) -> None:
        """Submit assets until as many as allowed are under way."""
        while len(call.jobs) < ASSETS_UNDER_WAY and call.submitted < call.plan.count:
            inbox: asyncio.Queue[News] = asyncio.Queue()
            notify = _poster(loop, inbox)
            index = call.plan.first_index + call.submitted
            job = Job(call.package, call.plan, index, notify, tell_stages=call.tell_progress)
            call.jobs.append((job, inbox))
            call.submitted += 1
            if call.error is None:
                self.worker.submit(job)
            else:
                inbox.put_nowait(Done(call.error))

    def _expire(self, call: _Call) -> None:
        self._stop(call, DeadlineTooShort(f"the call did not end within its deadline of {call.deadline_s:.3g} s"))

    def _stop(self, call: _Call, error: AssetgenError) -> None:
        """End a call with ``error``, whatever its jobs are doing."""
        call.error = call.error or error
        for job, inbox in call.jobs:
            self.worker.cancel(job, call.error)
            inbox.put_nowait(Done(call.error))

    def _release(self, call: _Call) -> None:
        for job, _ in call.jobs:
            self.worker.cancel(job)
        self._calls.discard(call)
        if self._idle is not None and not self._calls:
            self._idle.set()


def _poster(loop: asyncio.AbstractEventLoop, inbox: asyncio.Queue[News]) -> Callable[[News], object]:
    """What other threads call to put news into ``inbox``."""

    def post(news: News) -> None:
        try:
            loop.call_soon_threadsafe(inbox.put_nowait, news)
        except RuntimeError:
            if not loop.is_closed():  # else whoever asked is gone, and so is the inbox
                raise

    return post


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
