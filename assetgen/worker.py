"""One device: prepare, run and finish one asset for each calling thread; imports kinds, runtime, package and turns.

The thread that wants an asset makes it; at the device all take turns. An asset that is alone has the whole device,
which makes it soonest; of several, two run at a time on half of it each, which makes most a second. Turns keep memory
too. A worker process per device can take this class's place without the service noticing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from assetgen.errors import AssetgenError, Cancelled, InternalError, QueueFull
from assetgen.kinds import KINDS, Plan, example_inputs
from assetgen.kinds.windows import Run, count_windows, run_in_windows
from assetgen.package import VerifiedPackage
from assetgen.runtime import Session, open_session, self_check
from assetgen.turns import Ticket, Turns
from assetgen.types import Artifact, FloatArray

log = logging.getLogger(__name__)

# While two assets run, the inputs of the next are drawn and the files of the last encoded; more would only fill memory.
UNDER_WAY = 4
WHOLE_DEVICE, HALF_DEVICE = 2, 1


@dataclass(frozen=True)
class Stage:
    """A job has come to ``name``: generating or encoding."""

    name: str


News: TypeAlias = Stage | Artifact


@dataclass(eq=False)
class Job(Ticket):
    """One asset to make.

    Attributes:
        notify: called with the job's news as they come, from the thread that makes it.
        tell_stages: whether stages are news; a small single asset saves the time.
        begun_s: ``time.monotonic()`` when the work on it began.
    """

    package: VerifiedPackage
    plan: Plan
    index: int
    notify: Callable[[News], object]
    tell_stages: bool = True
    begun_s: float = field(default=0.0, init=False)


class Worker:
    """Makes assets on one device until closed.

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
        self._running: dict[Job, Session] = {}
        self._places = Turns(UNDER_WAY)
        self._device_turns = Turns(WHOLE_DEVICE)

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
                # First runs also allocate and choose kernels.
                self_check(session, example_inputs(package, package.manifest.size.min_px))
                self._sessions[package.digest] = session
        return self._sessions[package.digest]

    def is_open(self, package: VerifiedPackage) -> bool:
        """Whether ``session`` would answer at once."""
        return package.digest in self._sessions

    def make(self, job: Job) -> None:
        """Make one asset; its files and stages go to ``job.notify``.

        Raises:
            AssetgenError: the job was cancelled (its own error), there is not enough memory, or the graph failed; what
                is not meant for users goes to the log.
        """
        try:
            self._make(job)
        except Exception as error:
            raise _presentable(job, error) from error

    def cancel(self, job: Job, error: AssetgenError | None = None) -> None:
        """Stop ``job`` wherever it is: in a queue, before the next step, or inside the run of the graph."""
        with self._lock:
            job.error = job.error or error or Cancelled("the call was cancelled")
            if job in self._running:
                self._running[job].terminate(job)
        self._places.call_off(job)
        self._device_turns.call_off(job)

    def close(self) -> None:
        """Free the models; no job may be under way."""
        for session in self._sessions.values():
            session.close()

    def _make(self, job: Job) -> None:
        kind, manifest = KINDS[job.package.manifest.kind], job.package.manifest
        with self._places.taken(job):
            job.begun_s = time.monotonic()
            inputs = kind.prepare(manifest, job.plan, job.index)
            outputs = self._run_in_turn(job, inputs)
            if job.tell_stages:
                job.notify(Stage("encoding"))
            for artifact in kind.finish(manifest, job.plan, job.index, outputs):
                _stop_if_cancelled(job)
                job.notify(artifact)

    def _run_in_turn(self, job: Job, inputs: dict[str, FloatArray]) -> dict[str, FloatArray]:
        session, plan, manifest = self.session(job.package), job.plan, job.package.manifest
        # What takes several windows needs all the memory there is.
        half = session.splits and self._places.used > 1 and count_windows(manifest, plan.height_px, plan.width_px) == 1
        with self._device_turns.taken(job, HALF_DEVICE if half else WHOLE_DEVICE):
            with self._lock:
                _stop_if_cancelled(job)
                self._running[job] = session
            try:
                if job.tell_stages:
                    job.notify(Stage("generating"))
                begin_s = time.monotonic()
                outputs = run_in_windows(_watched(session, job, half), manifest, inputs)
                self._note_speed(job, time.monotonic() - begin_s)
                return outputs
            finally:
                with self._lock:
                    del self._running[job]

    def _note_speed(self, job: Job, run_s: float) -> None:
        speed = run_s / (job.plan.width_px * job.plan.height_px)
        best = self.seconds_per_px.get(job.package.digest)
        self.seconds_per_px[job.package.digest] = speed if best is None else min(best, speed)


def _watched(session: Session, job: Job, half: bool) -> Run:
    """The session's run, but not once the job was cancelled: ``terminate`` between two windows stops nothing."""

    def run(inputs: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
        _stop_if_cancelled(job)
        return session.run(inputs, half=half, owner=job)

    return run


def _stop_if_cancelled(job: Job) -> None:
    if job.error is not None:
        raise job.error


def _presentable(job: Job, error: Exception) -> Exception:
    """What the job's owner is told; what is not meant for users goes to the log."""
    if job.error is not None:  # a terminated run raises something of its own
        return job.error
    if isinstance(error, AssetgenError):
        return error
    if isinstance(error, MemoryError):
        size = f"{job.plan.width_px} x {job.plan.height_px} px"
        return QueueFull(f"not enough memory for {size} now", hint="ask for a smaller size, or later")
    log.error("asset %d of model %s failed", job.index, job.package.manifest.id, exc_info=error)
    return InternalError("the asset could not be made", hint="see the log of the server")
