"""One device's pipeline: prepare, run and finish of one asset at a time; imports kinds, runtime and package.

Three stages, first in, first out, with bounded hand-over, so that asset i is encoded while asset i+1 runs and asset i+2
is being prepared: one thread draws inputs, one runs the device, a few encode. All in this process; a worker process per
device can take this class's place without the service noticing.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from assetgen.errors import AssetgenError, Cancelled, InternalError, QueueFull
from assetgen.kinds import KINDS, Plan
from assetgen.kinds.windows import Run, run_in_windows
from assetgen.package import VerifiedPackage
from assetgen.runtime import Session, open_session, self_check
from assetgen.types import Artifact, FloatArray, Request

log = logging.getLogger(__name__)

# Encoders release the interpreter lock, so a second one helps; more would only hold more outputs in memory.
FINISHERS = 2
# Small enough to be encoded in the time that is saved if the next job happens to come just then.
FINISH_HERE_PX = 256 * 256


@dataclass(frozen=True)
class Stage:
    """A job has come to ``name``: generating or encoding."""

    name: str


@dataclass(frozen=True)
class Done:
    """A job's last news: its last file, or ``error``, why it failed."""

    error: AssetgenError | None = None
    last: Artifact | None = None


News: TypeAlias = Stage | Artifact | Done


@dataclass(eq=False)
class Job:
    """One asset on its way through a worker.

    Attributes:
        notify: called from the worker's threads with the job's news, ``Done`` last.
        tell_stages: whether stages are news; a small single asset saves the time.
        error: why the job must stop; set by ``Worker.cancel``.
        begun_s: ``time.monotonic()`` when the work on it began.
    """

    package: VerifiedPackage
    plan: Plan
    index: int
    notify: Callable[[News], object]
    tell_stages: bool = True
    error: AssetgenError | None = field(default=None, init=False)
    begun_s: float = field(default=0.0, init=False)


class Worker:
    """Runs jobs on one device until closed.

    Args:
        device, threads: as ``open_session`` takes them.
    """

    def __init__(self, device: str = "auto", threads: int | None = None) -> None:
        self._device = device
        self.seconds_per_px: dict[str, float] = {}
        """Fastest run seen, by model digest."""
        self._threads_of_session = threads
        self._sessions: dict[str, Session] = {}
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._running: tuple[Job, Session] | None = None
        self._before_finish = 0
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[tuple[Job, dict[str, FloatArray] | None] | None] = queue.SimpleQueue()
        self._prepared = threading.Semaphore(1)  # one set of inputs ahead of the device, no more
        self._finishers = ThreadPoolExecutor(FINISHERS, thread_name_prefix="assetgen-finish")
        self._unfinished = threading.Semaphore(FINISHERS + 1)
        self._stages = [
            threading.Thread(target=self._prepare_all, name="assetgen-prepare", daemon=True),
            threading.Thread(target=self._run_all, name="assetgen-run", daemon=True),
        ]
        for thread in self._stages:
            thread.start()

    @property
    def device(self) -> str:
        """Where models run, such as ``cpu``; what was asked for while none is open."""
        return next((session.device for session in self._sessions.values()), self._device)

    def session(self, package: VerifiedPackage) -> Session:
        """The session of ``package``, opened and checked at its smallest size if that has not happened yet."""
        session = self._sessions.get(package.digest)
        if session is not None:
            return session
        with self._opening:
            if package.digest not in self._sessions:
                session = open_session(package, self._device, self._threads_of_session)
                _warm_up(package, session)
                self._sessions[package.digest] = session
        return self._sessions[package.digest]

    def is_open(self, package: VerifiedPackage) -> bool:
        """Whether ``session`` would answer at once."""
        return package.digest in self._sessions

    def submit(self, job: Job) -> None:
        """Queue ``job``; its news come through ``job.notify``."""
        with self._lock:
            self._before_finish += 1
            alone = self._before_finish == 1
        if alone:  # nothing to overlap with: the thread that runs also prepares, one hand-over less
            self._ready.put((job, None))
        else:
            self._waiting.put(job)

    def cancel(self, job: Job, error: AssetgenError | None = None) -> None:
        """Stop ``job`` wherever it is: before the next step, or inside the run of the graph."""
        with self._lock:
            job.error = job.error or error or Cancelled("the call was cancelled")
            if self._running is not None and self._running[0] is job:
                self._running[1].terminate()

    def close(self) -> None:
        """Finish what is queued, then stop the threads."""
        self._waiting.put(None)
        for thread in self._stages:
            thread.join()
        self._finishers.shutdown()
        for session in self._sessions.values():
            session.close()

    def _prepare_all(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                inputs = self._prepare(job)
            except Exception as error:  # noqa: BLE001 -- the thread must outlive any job
                self._leave()
                _fail(job, error)
            else:
                self._prepared.acquire()
                self._ready.put((job, inputs))
        self._ready.put(None)

    def _prepare(self, job: Job) -> dict[str, FloatArray]:
        _stop_if_cancelled(job)
        job.begun_s = time.monotonic()
        return KINDS[job.package.manifest.kind].prepare(job.package.manifest, job.plan, job.index)

    def _run_all(self) -> None:
        while (item := self._ready.get()) is not None:
            job, inputs = item
            if inputs is not None:
                self._prepared.release()
            self._unfinished.acquire()
            try:
                outputs = self._run(job, self._prepare(job) if inputs is None else inputs)
            except Exception as error:  # noqa: BLE001
                self._unfinished.release()
                self._leave()
                _fail(job, error)
            else:
                others_wait = self._leave()
                if others_wait or job.plan.width_px * job.plan.height_px > FINISH_HERE_PX:
                    self._finishers.submit(self._finish, job, outputs)
                else:  # the device has nothing else to do: one hand-over less
                    self._finish(job, outputs)

    def _leave(self) -> bool:
        """Count a job out; returns whether others are on their way."""
        with self._lock:
            self._before_finish -= 1
            return self._before_finish > 0

    def _run(self, job: Job, inputs: dict[str, FloatArray]) -> dict[str, FloatArray]:
        session = self.session(job.package)
        with self._lock:
            _stop_if_cancelled(job)
            self._running = (job, session)
        try:
            if job.tell_stages:
                job.notify(Stage("generating"))
            begin_s = time.monotonic()
            outputs = run_in_windows(_watched(session, job), job.package.manifest, inputs)
            self._note_speed(job, time.monotonic() - begin_s)
            return outputs
        finally:
            with self._lock:
                self._running = None

    def _note_speed(self, job: Job, run_s: float) -> None:
        speed = run_s / (job.plan.width_px * job.plan.height_px)
        best = self.seconds_per_px.get(job.package.digest)
        self.seconds_per_px[job.package.digest] = speed if best is None else min(best, speed)

    def _finish(self, job: Job, outputs: dict[str, FloatArray]) -> None:
        try:
            _stop_if_cancelled(job)
            if job.tell_stages:
                job.notify(Stage("encoding"))
            kind = KINDS[job.package.manifest.kind]
            artifacts = kind.finish(job.package.manifest, job.plan, job.index, outputs)
            last = next(artifacts)
            for artifact in artifacts:
                _stop_if_cancelled(job)
                job.notify(last)
                last = artifact
            job.notify(Done(last=last))
        except Exception as error:  # noqa: BLE001
            _fail(job, error)
        finally:
            self._unfinished.release()


def _warm_up(package: VerifiedPackage, session: Session) -> None:
    """Run the smallest asset and check that it repeats; first runs also allocate and choose kernels."""
    kind, edge_px = KINDS[package.manifest.kind], package.manifest.size.min_px
    request = Request(package.manifest.id, seed=0, width_px=edge_px, height_px=edge_px)
    self_check(session, kind.prepare(package.manifest, kind.resolve(package.manifest, request), 0))


def _watched(session: Session, job: Job) -> Run:
    """The session's run, but not once the job was cancelled: ``terminate`` between two windows stops nothing."""

    def run(inputs: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
        _stop_if_cancelled(job)
        return session.run(inputs)

    return run


def _stop_if_cancelled(job: Job) -> None:
    if job.error is not None:
        raise job.error


def _fail(job: Job, error: Exception) -> None:
    """Tell the job's owner; what is not meant for users goes to the log."""
    if job.error is not None:  # a terminated run raises something of its own
        job.notify(Done(job.error))
    elif isinstance(error, AssetgenError):
        job.notify(Done(error))
    elif isinstance(error, MemoryError):
        size = f"{job.plan.width_px} x {job.plan.height_px} px"
        job.notify(Done(QueueFull(f"not enough memory for {size} now", hint="ask for a smaller size, or later")))
    else:
        log.error("asset %d of model %s failed", job.index, job.package.manifest.id, exc_info=error)
        job.notify(Done(InternalError("the asset could not be made", hint="see the log of the server")))
