"""One device: prepare, run and finish one asset for each calling thread; imports kinds, sessions, turns and twins.

The thread that wants an asset makes it; at the device all take turns. An asset that is alone has the whole device,
which makes it soonest; of several, two run at a time on half of it each, which makes most a second. Turns keep memory
too. The graphs run in this process, or in one of their own that is watched and replaced (``process/``).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from assetgen.errors import AssetgenError, Cancelled, DeadlineTooShort, InternalError, QueueFull
from assetgen.kinds import KINDS, Plan, finishing_inputs
from assetgen.kinds.windows import count_windows, run_in_windows
from assetgen.package import VerifiedPackage
from assetgen.runtime import Finishes, Session
from assetgen.sessions import Sessions
from assetgen.turns import Ticket, Turns
from assetgen.twins import Twins
from assetgen.types import Artifact, FloatArray

if TYPE_CHECKING:
    from assetgen.process.supervisor import DeviceProcess  # cannot be imported on Windows

log = logging.getLogger(__name__)

# While two assets run, the inputs of the next are drawn and the files of the last encoded; more would only fill memory.
UNDER_WAY = 4
# One more place, so that a preview never waits for a place behind those whose results nobody looks at yet.
FOR_PREVIEWS = 1
# Files of larger assets are not kept for others that ask for the same.
SHARED_PX = 2**20
# What the newest run counts in the average.
NEWEST_SHARE = 0.2
# A run of fewer pixels takes about as long: counted by its own few, it would make all others look slow.
LEAST_PX = 128 * 128
# How far the average goes back to the best when it stops a job.
DOUBT = 0.05
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
        same: jobs of one package and index with an equal one give the same files; ``None``: unlike any other.
        expires_s: when it must be done, on the clock of ``time.monotonic``.
        begun_s: when the work on it began, on that clock.
        spent_s: seconds by stage: queue, prepare, graph, encode.
    """

    package: VerifiedPackage
    plan: Plan
    index: int
    notify: Callable[[News], object]
    tell_stages: bool = True
    same: object = None
    expires_s: float = math.inf
    begun_s: float = field(default=0.0, init=False)
    spent_s: dict[str, float] = field(default_factory=dict, init=False)


class Worker:
    """Makes assets on one device until closed.

    Args:
        device, threads: as ``open_session`` takes them.
        budget_bytes: see ``Sessions``.
        process: where graphs run, closed with the worker; ``None``: in this process.
    """

    def __init__(
        self,
        device: str = "auto",
        threads: int | None = None,
        budget_bytes: int = 0,
        process: DeviceProcess | None = None,
    ) -> None:
        self.seconds_per_px: dict[str, float] = {}
        """Fastest run seen, by model digest."""
        self.usual_seconds_per_px: dict[str, float] = {}
        """Average of the runs of late, by model digest."""
        self.process = process
        self.sessions = Sessions(device, threads, budget_bytes, None if process is None else process.open)
        self._lock = threading.Lock()
        self._running: dict[Job, Session] = {}
        self._twins: Twins[News] = Twins()
        self._places = Turns(UNDER_WAY + FOR_PREVIEWS, reserved=FOR_PREVIEWS)
        self._large_turns = Turns(1)
        self._device_turns = Turns(WHOLE_DEVICE)

    @property
    def device(self) -> str:
        """Where models run, such as ``cpu``; what was asked for while none is open."""
        return self.sessions.device

    @property
    def problem(self) -> str:
        """Why nothing can be made now; empty if something can."""
        return "" if self.process is None else self.process.problem

    @property
    def waiting(self) -> int:
        """Assets that wait for a place."""
        return self._places.waiting

    def session(self, package: VerifiedPackage) -> Session:
        """The session of ``package``, opened and checked at its smallest size if that has not happened yet."""
        return self.sessions.session(package)

    def backend(self, package: VerifiedPackage) -> str:
        """What computes ``package``."""
        return self.sessions.backend(package)

    def is_open(self, package: VerifiedPackage) -> bool:
        """Whether ``session`` would answer at once."""
        return package.digest in self.sessions.digests

    def make(self, job: Job) -> None:
        """Make one asset, or wait for one that is the same; its files and stages go to ``job.notify``.

        Raises:
            AssetgenError: the job was cancelled (its own error), there is not enough memory, or the graph failed; what
                is not meant for users goes to the log.
        """
        entered_s = time.monotonic()
        try:
            # Who is followed keeps its files until it is done, which large ones are too large for.
            if job.same is None or job.plan.width_px * job.plan.height_px > SHARED_PX:
                self._make(job, entered_s, job.notify)
            else:
                key = (job.package.digest, job.index, job.same)
                self._twins.make(key, job, lambda tell: self._make(job, entered_s, tell), job.notify)
        except Exception as error:
            raise _presentable(job, error) from error
        job.begun_s = job.begun_s or time.monotonic()  # it followed another

    def cancel(self, job: Job, error: AssetgenError | None = None) -> None:
        """Stop ``job`` wherever it is: in a queue, before the next step, or inside the run of the graph."""
        with self._lock:
            job.error = job.error or error or Cancelled("the call was cancelled")
            if job in self._running:
                self._running[job].terminate(job)
        self._twins.call_off(job)
        for turns in (self._places, self._large_turns, self._device_turns):
            turns.call_off(job)

    def close(self) -> None:
        """Free the models; no job may be under way."""
        self.sessions.close()
        if self.process is not None:
            self.process.close()

    def _make(self, job: Job, entered_s: float, tell: Callable[[News], object]) -> None:
        kind, manifest = KINDS[job.package.manifest.kind], job.package.manifest
        with self._places.taken(job), self.sessions.used(job.package) as session:
            job.begun_s = time.monotonic()
            inputs = kind.prepare(manifest, job.plan, job.index)
            prepared_s = time.monotonic()
            outputs, run_s = self._run_in_turn(job, session, inputs, tell)
            outputs_s = time.monotonic()
            if job.tell_stages:
                tell(Stage("encoding"))
            for artifact in kind.finish(manifest, job.plan, job.index, outputs):
                _stop_if_cancelled(job)
                tell(artifact)
        job.spent_s = {
            "queue": job.begun_s - entered_s + outputs_s - prepared_s - run_s,
            "prepare": prepared_s - job.begun_s,
            "graph": run_s,
            "encode": time.monotonic() - outputs_s,
        }

    def _run_in_turn(
        self, job: Job, session: Session, inputs: dict[str, FloatArray], tell: Callable[[News], object]
    ) -> tuple[dict[str, FloatArray], float]:
        """The graph's outputs and the seconds it ran; between two windows others may have the device."""
        plan, manifest = job.plan, job.package.manifest
        windows = count_windows(manifest, plan.height_px, plan.width_px)
        half = session.splits and self._places.used > 1 and windows == 1
        run_s = 0.0

        def run(given: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
            nonlocal run_s
            with self._device_turns.taken(job, HALF_DEVICE if half else WHOLE_DEVICE), self._as_running(job, session):
                if not run_s:
                    self._stop_if_too_late(job)
                if job.tell_stages and not run_s:
                    tell(Stage("generating"))
                begin_s = time.monotonic()
                outputs = session.run(given, half=half, owner=job)
                run_s += time.monotonic() - begin_s
                return outputs

        if windows == 1:
            if isinstance(session, Finishes) and session.finishes:
                inputs = inputs | finishing_inputs(job.package, plan)
            outputs = run_in_windows(run, manifest, inputs)
        else:  # what takes several keeps the outputs of the whole meanwhile: one such at a time
            job.cost /= windows
            with self._large_turns.taken(job):
                outputs = run_in_windows(run, manifest, inputs)
        self._note_speed(job, run_s)
        return outputs, run_s

    @contextmanager
    def _as_running(self, job: Job, session: Session) -> Iterator[None]:
        """Let ``cancel`` find the run, or raise if it came before."""
        with self._lock:
            _stop_if_cancelled(job)
            self._running[job] = session
        try:
            yield
        finally:
            with self._lock:
                del self._running[job]

    def _note_speed(self, job: Job, run_s: float) -> None:
        speed, digest = run_s / work_px(job.plan), job.package.digest
        self.seconds_per_px[digest] = min(self.seconds_per_px.get(digest, speed), speed)
        usual = self.usual_seconds_per_px.get(digest, speed)
        self.usual_seconds_per_px[digest] = usual + NEWEST_SHARE * (speed - usual)

    def _stop_if_too_late(self, job: Job) -> None:
        """Not to begin what would not be done in time leaves the device to others, whose time is not up yet."""
        digest, px = job.package.digest, work_px(job.plan)
        usual = self.usual_seconds_per_px.get(digest, 0.0)
        if job.expires_s - time.monotonic() < usual * px:
            # After a spell of slow runs there must be new ones to learn from.
            self.usual_seconds_per_px[digest] = usual + DOUBT * (self.seconds_per_px.get(digest, 0.0) - usual)
            raise DeadlineTooShort("the call waited until what is left of its deadline is less than its work takes")


def work_px(plan: Plan) -> int:
    """Pixels that one asset counts as, where time is estimated by pixels."""
    return max(plan.width_px * plan.height_px, LEAST_PX)


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
