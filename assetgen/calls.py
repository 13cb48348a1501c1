"""One accepted call: its events, its stop, its times; imports worker, kinds and types.

One small asset is made by the thread that asks for it; more, or large ones, by two threads in turn, so that asset i is
encoded while asset i+1 runs, long calls and short ones take turns, and memory is bounded.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from assetgen.callers import Terms
from assetgen.errors import AssetgenError, Cancelled
from assetgen.kinds import Plan
from assetgen.package import VerifiedPackage
from assetgen.types import Artifact, Event, Finished, Progress, Request, Started
from assetgen.worker import Job, News, Stage, Worker, work_px

PROGRESS_FROM_PX = 512 * 512
ENCODING_SHARE = 0.2
ASSETS_UNDER_WAY = 2
# One turn of that many pixels costs as much as the next.
COST_PX = 256 * 256

# What the thread that makes an asset tells the thread that asked: news, what went wrong, or None: done.
_Inbox: TypeAlias = "queue.SimpleQueue[News | AssetgenError | None]"


@dataclass(frozen=True)
class Order:
    """What a call makes, checked, and how it is to be treated.

    Attributes:
        request: as it was asked, with the seed in use.
        deadline_s: seconds it may take from now.
    """

    package: VerifiedPackage
    request: Request
    plan: Plan
    terms: Terms
    deadline_s: float


class Call:
    """An accepted request: iterate over ``events`` once, and ``release`` it in the end.

    Args:
        crowded: whether other calls are under way.
        run: runs a function on another thread.
        leave: called with the call when it is released.

    Attributes:
        small: a single asset, done before anybody could read its progress: its events come all at once.
        give_up: called if the call does not end although its time is up: whoever reads the events should be cut off.
        superseded: another took its place, and it counts no more.
        left_px: pixels that are still to be made, as they count in estimates of time.
        spent_s: seconds by stage (queue, prepare, graph, encode), added up over its assets.
    """

    def __init__(
        self,
        order: Order,
        worker: Worker,
        *,
        crowded: Callable[[], bool],
        run: Callable[[Callable[[], None]], object],
        leave: Callable[[Call], object],
    ) -> None:
        self.package, self.plan, self.request = order.package, order.plan, order.request
        self.terms, self.deadline_s = order.terms, order.deadline_s
        self.admitted_s = time.monotonic()
        self.give_up: Callable[[], object] = lambda: None
        self.small = order.plan.count == 1 and order.plan.width_px * order.plan.height_px < PROGRESS_FROM_PX
        self.superseded = False
        self.spent_s: Counter[str] = Counter()
        self._worker, self._crowded, self._run, self._leave = worker, crowded, run, leave
        self.left_px = order.plan.count * work_px(order.plan)
        self._first: Job | None = None
        self._jobs: deque[tuple[Job, _Inbox]] = deque()
        self._error: AssetgenError | None = None
        self._lock = threading.Lock()

    @property
    def expires_s(self) -> float:
        """When the call must have ended, on the clock of ``time.monotonic``."""
        return self.admitted_s + self.deadline_s

    @property
    def asset_px(self) -> int:
        """Pixels of one asset."""
        return self.plan.width_px * self.plan.height_px

    @property
    def picture_bytes(self) -> int:
        """What the pictures of the request take as they came."""
        return sum(len(value) for value in self.request.parameters.values() if isinstance(value, bytes))

    @property
    def held_px(self) -> int:
        """Pixels that the call keeps in memory."""
        return min(self.plan.count, ASSETS_UNDER_WAY) * self.asset_px

    def least_left_s(self, seconds_per_px: float, now_s: float) -> float:
        """How long the device still needs for it at least; of the asset that runs, what is left."""
        left_s, job = self.left_px * seconds_per_px, self._first
        if job is None or not job.begun_s:
            return left_s
        return left_s - min(now_s - job.begun_s, work_px(self.plan) * seconds_per_px)

    def events(self) -> Iterator[Event]:
        """What happens, from Started to Finished; raises the AssetgenError that ended the call."""
        yield Started(self.plan.seed, self.package.digest, self._worker.backend(self.package))
        begun_s = yield from self._small_asset() if self.small else self._assets()
        now_s = time.monotonic()
        yield Finished(queue_s=begun_s - self.admitted_s, work_s=now_s - begun_s)

    def stop(self, error: AssetgenError | None = None) -> None:
        """End the call, from any thread and whatever it is doing; the first ``error`` counts."""
        with self._lock:
            self._error = self._error or error or Cancelled("the call was cancelled")
            jobs = list(self._jobs)
        for job, inbox in jobs:
            self._worker.cancel(job, self._error)
            inbox.put(self._error)

    def release(self) -> None:
        """Stop what is left, and give the place back."""
        if self._jobs:
            self.stop()
        self._leave(self)

    def _small_asset(self) -> Generator[Event, None, float]:
        made: list[News] = []
        job = self._job(0, made.append)
        self._register(job, queue.SimpleQueue())
        self._worker.make(job)
        self._done(job)
        yield from (news for news in made if isinstance(news, Artifact))
        return job.begun_s

    def _assets(self) -> Generator[Event, None, float]:
        if self._crowded():
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
            self._done(job)
        return begun_s

    def _job(self, number: int, notify: Callable[[News], object]) -> Job:
        terms = self.terms
        return Job(
            self.package,
            self.plan,
            self.plan.first_index + number,
            notify,
            tell_stages=not self.small,
            same=replace(self.request, count=1, first_index=0),
            expires_s=self.expires_s,
            priority=int(terms.priority),
            flow=terms.flow or self,
            cost=self.asset_px / COST_PX,
        )

    def _register(self, job: Job, inbox: _Inbox) -> None:
        with self._lock:
            if self._error is not None:
                raise self._error
            self._jobs.append((job, inbox))
            self._first = self._jobs[0][0]

    def _done(self, job: Job) -> None:
        """Count what the first job has made."""
        with self._lock:
            self._jobs.popleft()
            self._first = self._jobs[0][0] if self._jobs else None
        self.left_px -= work_px(self.plan)
        self.spent_s.update(job.spent_s)

    def _submit(self, number: int) -> None:
        inbox: _Inbox = queue.SimpleQueue()
        job = self._job(number, inbox.put)
        self._register(job, inbox)
        context = contextvars.copy_context()  # its request id stands in what is logged there

        def work() -> None:
            try:
                context.run(self._worker.make, job)
            except AssetgenError as error:
                inbox.put(error)
            else:
                inbox.put(None)

        self._run(work)


def _fraction(stage: Stage, position: int, count: int) -> float:
    done = 1.0 - ENCODING_SHARE if stage.name == "encoding" else 0.0
    return (position + done) / count
