"""A device whose models run in a child process that is watched and replaced; imports kinds, package and this package.

A call whose run the process does not survive gets WorkerLost; all others wait until there is a new process, which opens
what the last one had open. Who brings processes down again and again is refused for a while.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from assetgen.alarm import Alarm
from assetgen.errors import AssetgenError, Cancelled, InternalError, WorkerLost
from assetgen.kinds import example_inputs
from assetgen.package import VerifiedPackage
from assetgen.process import handle as child
from assetgen.process.breaker import CRASHES, WINDOW_S, Breaker
from assetgen.process.handle import Handle, Run
from assetgen.process.memory import layout_of
from assetgen.process.messages import LostError
from assetgen.types import FloatArray

log = logging.getLogger(__name__)

# The breaker's key of the device itself: the process ended while it ran nothing.
DEVICE = ""
RETRY_S = 0.5
# A model that opens may build an engine for its GPU first.
OPEN_S = 1800.0
# A run that was stopped ends after the node that it is in.
STOP_S = 10.0
AGAIN_S = 1.0
# A run may take so many times as long as the last one like it, and the patience beside.
SLOWER = 10.0
SIZES_KNOWN = 256
_STARTS_AGAIN = "try again; it starts anew"

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """When a process is replaced.

    Attributes:
        hang_s: how long a run may take beyond what is usual.
        growth_bytes: what the process may hold beyond what it held with its models open; 0: any. Linux only.
    """

    hang_s: float = 60.0
    growth_bytes: int = 4 << 30


class ProcessSession:
    """A model that is open in the process of its device; it stays when the process is replaced.

    Attributes:
        seen: bytes of the outputs and seconds of the last run, by the shapes of its inputs.
    """

    def __init__(self, process: DeviceProcess, number: int, package: VerifiedPackage) -> None:
        self._process = process
        self.number, self.package = number, package
        self.facts: dict[str, Any] = {}
        self.seen: dict[bytes, tuple[int, float]] = {}

    @property
    def backend(self) -> str:
        """What computes; equal strings promise equal bytes."""
        return str(self.facts["backend"])

    @property
    def device(self) -> str:
        """Where it computes, for people."""
        return str(self.facts["device"])

    @property
    def reason(self) -> str:
        """Why that device was chosen."""
        return str(self.facts["reason"])

    @property
    def splits(self) -> bool:
        """Whether a run by halves gives the same bytes; who is suspected of a crash runs alone."""
        return bool(self.facts["splits"]) and not self._process.breaker.suspects(self.package.digest)

    @property
    def finishes(self) -> bool:
        """See ``runtime.Finishes``."""
        return bool(self.facts["finishes"])

    def run(
        self, inputs: Mapping[str, FloatArray], *, half: bool = False, owner: object = None
    ) -> dict[str, FloatArray]:
        """Run the graph once; raises WorkerLost if the process does not survive it, Cancelled after ``terminate``."""
        return self._process.run(self, dict(inputs), half, owner)

    def join(self) -> None:
        """Split no more."""
        self.facts["splits"] = False

    def terminate(self, owner: object = None) -> None:
        """Stop the runs of ``owner``, waiting ones too, from another thread."""
        self._process.terminate(self, owner)

    def close(self) -> None:
        """Free the graph; a later ``run`` raises. Closing twice does nothing."""
        self._process.close_session(self)


class DeviceProcess:
    """The process of one device, started at once; usable from several threads.

    Args:
        device, threads: as ``open_session`` takes them.
        program: see ``Handle``.

    Attributes:
        breaker: refuses models by their digest, and the device as ``DEVICE``.
        ends: how often a process ended, by cause: crash, fault, hang, memory.
    """

    def __init__(
        self, device: str, threads: int | None, limits: Limits = Limits(), program: str = child.PROGRAM
    ) -> None:
        self._device, self._threads, self._limits, self._program = device, threads, limits, program
        self.breaker = Breaker()
        self.ends: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._opening = threading.Lock()
        self._handle: Handle | None = None
        self._sessions: dict[int, ProcessSession] = {}
        self._runs: set[Run] = set()
        self._numbers = count(1)
        self._closed = False
        self._alarm = Alarm(self.watch)
        # The system ends the child with the thread that started it: this one stays to the end.
        self._thread = threading.Thread(target=self._supervise, name="assetgen-device", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the process; ``None`` while there is none."""
        handle = self._handle
        return None if handle is None else handle.pid

    @property
    def resident_bytes(self) -> int:
        """What the process held after its last run."""
        handle = self._handle
        return 0 if handle is None else handle.resident_bytes or handle.open_bytes

    @property
    def problem(self) -> str:
        """Why nothing can be made now; empty if something can."""
        if pause_s := self.breaker.pause_s(DEVICE):
            return _resting("the process that runs models has ended", pause_s)
        paused = self.breaker.paused()
        sessions = list(self._sessions.values()) if paused else []
        resting = bool(sessions) and all(session.package.digest in paused for session in sessions)
        return "every model has brought down the process that runs it; all rest" if resting else ""

    def open(self, package: VerifiedPackage) -> ProcessSession:
        """Open a model, checked at its smallest size; raises what ``open_session`` and ``self_check`` raise."""
        session = ProcessSession(self, next(self._numbers), package)
        self._in_process(session, Run(package.digest), lambda _: None)
        with self._changed:
            self._sessions[session.number] = session
        return session

    def run(
        self, session: ProcessSession, inputs: dict[str, FloatArray], half: bool, owner: object
    ) -> dict[str, FloatArray]:
        """See ``ProcessSession``."""
        if session.number not in self._sessions:
            raise RuntimeError("run() of a session that was closed")
        layout = layout_of(inputs)
        usual_bytes, usual_s = session.seen.get(layout.text, (0, 0.0))
        run = Run(session.package.digest, owner)

        def work(handle: Handle) -> dict[str, FloatArray]:
            begun_s = self._begin(handle, run, self._limits.hang_s + SLOWER * usual_s)
            try:
                outputs = handle.run(session.number, run, inputs, layout, half=half, usual_bytes=usual_bytes)
            except InternalError:
                if not session.device.startswith("cpu"):
                    self._retire(handle, "fault", run)
                raise
            if len(session.seen) >= SIZES_KNOWN:
                session.seen.clear()
            session.seen[layout.text] = (
                sum(values.nbytes + 64 for values in outputs.values()),
                time.monotonic() - begun_s,
            )
            self._retire_if_grown(handle)
            return outputs

        outputs = self._in_process(session, run, work)
        if run.stopped:  # it came too late
            raise Cancelled("the run was stopped on request")
        return outputs

    def terminate(self, session: ProcessSession, owner: object) -> None:
        """See ``ProcessSession``."""
        with self._changed:
            for run in self._runs:
                if run.owner is owner and run.key == session.package.digest and not run.stopped:
                    run.stopped = True
                    if run.sent and not run.opening and self._handle is not None:
                        run.limit_s = min(run.limit_s, time.monotonic() + STOP_S)
                        self._handle.stop(run)
            self._changed.notify_all()
        self._alarm.set(time.monotonic() + AGAIN_S)

    def close_session(self, session: ProcessSession) -> None:
        """See ``ProcessSession``."""
        with self._changed:
            known = self._sessions.pop(session.number, None)
            handle = self._handle
        if known is not None and handle is not None:
            handle.close_model(session.number)

    def close(self) -> None:
        """End the process; who still waits for it gets WorkerLost."""
        with self._changed:
            self._closed = True
            if self._handle is not None:
                self._handle.end()
            self._changed.notify_all()
        self._thread.join()
        self._alarm.close()

    def watch(self, now_s: float) -> float:
        """End a process in which a run takes too long; returns when to look again."""
        again_s = math.inf
        with self._changed:
            handle = self._handle
            for run in [] if handle is None or handle.lost else [run for run in handle.running if run.sent]:
                assert handle is not None  # noqa: S101 -- for mypy
                if run.limit_s <= now_s:
                    handle.cause, handle.blamed = "hang", {run.key}
                    handle.kill()
                    return math.inf
                if run.stopped and not run.opening:  # the first may have come between two steps of the child
                    handle.stop(run)
                    again_s = min(again_s, now_s + AGAIN_S)
                again_s = min(again_s, run.limit_s)
        return again_s

    def _in_process(self, session: ProcessSession, run: Run, work: Callable[[Handle], T]) -> T:
        """Do ``work`` in a process that has the session open; again in the next one if it had not begun."""
        with self._changed:
            self._runs.add(run)
        try:
            while True:
                handle = self._enter(session, run)
                try:
                    if session.number not in handle.models:
                        self._open_in(handle, session, run)
                    return work(handle)
                except LostError as error:
                    handle.kill()  # if it is not gone, it says what it must not
                    self._lose(handle)
                    if run.sent:
                        raise _lost(session) from error
                finally:
                    self._leave(handle, run)
        finally:
            with self._changed:
                self._runs.discard(run)

    def _enter(self, session: ProcessSession, run: Run) -> Handle:
        """Wait for a process; raises WorkerLost if there is none to be had, Cancelled if the run was stopped."""
        with self._changed:
            while True:
                if run.stopped:
                    raise Cancelled("the run was stopped on request")
                if self._closed:
                    raise WorkerLost("the process that runs models has ended", retry_after_s=5.0)
                if pause_s := self.breaker.pause_s(DEVICE):
                    raise WorkerLost(self.problem, retry_after_s=pause_s)
                if pause_s := self.breaker.pause_s(session.package.digest):
                    raise _paused(session, pause_s)
                handle = self._handle
                if handle is not None and not handle.retiring and self._may_join(run, handle):
                    handle.running.add(run)
                    return handle
                self._changed.wait()

    def _may_join(self, run: Run, handle: Handle) -> bool:
        """Who is suspected of a crash is alone in the process, so that nobody else is blamed for the next."""
        alone = self.breaker.suspects(run.key) or any(self.breaker.suspects(other.key) for other in handle.running)
        return not (alone and handle.running)

    def _leave(self, handle: Handle, run: Run) -> None:
        with self._changed:
            handle.running.discard(run)
            self._changed.notify_all()
            if handle.retiring and not handle.running:
                handle.end()

    def _begin(self, handle: Handle, run: Run, patience_s: float) -> float:
        """Note that the child may be at it from now on; returns the time."""
        now_s = time.monotonic()
        with self._changed:
            if run.stopped:
                raise Cancelled("the run was stopped on request")
            if handle.lost:
                raise LostError
            run.sent, run.limit_s = True, now_s + patience_s
        self._alarm.set(run.limit_s)
        return now_s

    def _open_in(self, handle: Handle, session: ProcessSession, run: Run) -> None:
        with self._opening:
            if session.number in handle.models:
                return
            package = session.package
            inputs = example_inputs(package, package.manifest.size.min_px)
            order: dict[str, Any] = {"folder": str(package.folder), "digest": package.digest}
            order |= {"device": self._device, "threads": self._threads}
            self._begin(handle, run, OPEN_S)
            run.opening = True
            try:
                facts = handle.open(session.number, order, inputs)
            finally:
                run.opening = False
            if session.facts and facts["backend"] != session.facts["backend"]:
                log.warning("model %s: %s took the place of %s", package.manifest.id, facts["backend"], session.backend)
            session.facts = facts

    def _retire_if_grown(self, handle: Handle) -> None:
        """Let nobody into a process that holds too much; it ends with the last run in it."""
        grown_bytes = handle.resident_bytes - handle.open_bytes
        if self._limits.growth_bytes and grown_bytes > self._limits.growth_bytes and not handle.retiring:
            log.warning(
                "the process that runs models holds %d MiB, %d of them since its models are open; a new one follows",
                handle.resident_bytes >> 20,
                grown_bytes >> 20,
            )
            self._retire(handle, "memory")

    def _retire(self, handle: Handle, cause: str, run: Run | None = None) -> None:
        """Let nobody in any more. After a fault of a GPU its process can often run nothing: ``run`` is to blame."""
        with self._changed:
            handle.cause, handle.retiring = cause, True
            if run is not None:
                log.error("a run has failed on the device; a new process follows")
                self.breaker.crashed(run.key)

    def _supervise(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (pause_s := self.breaker.pause_s(DEVICE)):
                    self._changed.wait(pause_s)
                if self._closed:
                    return
            try:
                handle = Handle(self._program)
            except OSError as error:
                log.error("no process can be started: %s", error)
                with self._changed:
                    self.breaker.crashed(DEVICE)
                    self._changed.notify_all()
                continue
            with self._changed:
                self._handle = handle
                sessions = list(self._sessions.values())
                if self._closed:
                    handle.end()
                self._changed.notify_all()
            if sessions:
                threading.Thread(
                    target=self._open_again, args=(handle, sessions), name="assetgen-again", daemon=True
                ).start()
            handle.relay_log()
            self._lose(handle)
            self._tell_end(handle, handle.reap())

    def _open_again(self, handle: Handle, sessions: list[ProcessSession]) -> None:
        """Open in a new process what was open in the last one, before anybody asks for it."""
        begun_s = time.monotonic()
        for session in sessions:
            if handle.lost or session.number not in self._sessions:
                continue
            try:
                self._in_process(session, Run(session.package.digest), lambda _: None)
            except (AssetgenError, MemoryError) as error:
                log.warning("model %s is not open again: %s", session.package.manifest.id, str(error) or "no memory")
        if not handle.lost:
            log.info(
                "process %d has opened %d models in %.2f s", handle.pid, len(handle.models), time.monotonic() - begun_s
            )

    def _lose(self, handle: Handle) -> None:
        """Note, once, that a process is gone, and who is to blame."""
        with self._changed:
            if handle.lost:
                return
            handle.lost = True
            if self._handle is handle:
                self._handle = None
            if not self._closed:
                self.ends[handle.cause] += 1
                if not handle.retiring:
                    handle.blamed = handle.blamed or {run.key for run in handle.running if run.sent} or {DEVICE}
                    for key in handle.blamed:
                        self.breaker.crashed(key)
            self._changed.notify_all()

    def _tell_end(self, handle: Handle, status: int) -> None:
        if self._closed or handle.retiring:
            return
        models = sorted(s.package.manifest.id for s in self._sessions.values() if s.package.digest in handle.blamed)
        log.error(
            "process %d ended (%s), %s; a new one follows",
            handle.pid,
            "it hung"
            if handle.cause == "hang"
            else f"status {status}"
            if status >= 0
            else signal.Signals(-status).name,
            f"running {' and '.join(models)}" if models else "running nothing",
        )
        for session in self._sessions.values():
            if session.package.digest in handle.blamed and (pause_s := self.breaker.pause_s(session.package.digest)):
                log.error("%s", _paused(session, pause_s).message)
        if problem := self.problem:
            log.error("%s", problem)


def _lost(session: ProcessSession) -> WorkerLost:
    return WorkerLost(
        "the process that runs models was lost while it made this",
        hint=_STARTS_AGAIN,
        retry_after_s=RETRY_S,
        metadata={"model": session.package.manifest.id},
    )


def _paused(session: ProcessSession, pause_s: float) -> WorkerLost:
    model = session.package.manifest.id
    return WorkerLost(
        _resting(f"model {model!r} has brought down the process that runs it", pause_s),
        hint="try again then, or use another model; the log of the server says more",
        retry_after_s=pause_s,
        metadata={"model": model},
    )


def _resting(what: str, pause_s: float) -> str:
    return f"{what} {CRASHES} times within {WINDOW_S:.0f} s; it rests for {pause_s:.0f} s"
