"""The process that runs models: opens sessions and runs them as its parent asks; imports runtime, package and messages.

It never outlives its parent, and leaves Ctrl-C and SIGTERM to it. Each lane is a socket with a thread that answers one
question after the other; the control socket brings stops and takes the log.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import logging
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assetgen.allocator import keep_freed_memory
from assetgen.errors import AssetgenError, Cancelled, InternalError
from assetgen.manifest import MANIFEST_NAME
from assetgen.package import VerifiedPackage, read_manifest
from assetgen.process import memory, messages
from assetgen.process.messages import LostError, Message
from assetgen.runtime import Binds, Finishes, Session, open_session, self_check

log = logging.getLogger(__name__)

Open = Callable[[VerifiedPackage, str, int | None], Session]

_PR_SET_PDEATHSIG = 1
# The system ends this process before its parent when memory is short.
_OOM_SCORE = "500"
STOPS_KEPT, VIEWS_KEPT = 64, 64
# To look takes as long as to answer.
LOOK_S = 0.25


def main(
    parent: int, level: int, control: int, lanes: Sequence[int], open_model: Open = open_session
) -> None:  # pragma: no cover -- in a process of its own
    """Answer until the parent closes the control socket, or dies.

    Args:
        parent: its process id.
        level: of the log.
        control, lanes: file descriptors of sockets.
        open_model: opens a package on a device with a number of threads.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _die_with(parent)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    keep_freed_memory(arenas=1)  # where the memory of graphs lies in huge pages
    line = socket.socket(fileno=control)
    log_to(line, level)
    device = _Device(open_model)
    for lane in lanes:
        threading.Thread(target=device.serve, args=(socket.socket(fileno=lane),), daemon=True).start()
    while data := line.recv(messages.STOP.size, socket.MSG_WAITALL):
        device.stop(*messages.STOP.unpack(data))
    os._exit(0)  # whatever still runs: nobody waits for it


@dataclass(frozen=True)
class _Tie:
    """How to run a graph from one piece of memory to another, and the layout of what it writes."""

    run: Callable[..., None]
    layout: memory.Layout


class _Device:
    """The open sessions, and the runs under way."""

    def __init__(self, open_model: Open) -> None:
        self._open_model = open_model
        self._sessions: dict[int, Session] = {}
        self._slabs: dict[int, NDArray[np.uint8]] = {}
        self._unmapped: dict[int, int] = {}
        self._views: dict[tuple[int, bytes], dict[str, NDArray[Any]]] = {}
        self._layouts: dict[tuple[int, bytes], memory.Layout] = {}
        self._ties: dict[tuple[int, int, bytes, int], _Tie] = {}
        self._lock = threading.Lock()
        self._running: dict[int, tuple[Session, Message]] = {}
        self._stopped: set[int] = set()
        self._statm = _open_or_none("/proc/self/statm")
        self._resident, self._look_s = 0, 0.0

    def serve(self, lane: socket.socket) -> None:
        """Answer what comes over one lane."""
        outputs: dict[str, NDArray[Any]] = {}
        while True:
            try:
                question = messages.receive(lane, descriptors=True)
            except LostError:
                return
            try:
                self._learn(question)  # whatever comes of it: the parent takes this memory for known from now on
                if question.kind == messages.RUN:
                    answer, outputs = self._run(question)
                elif question.kind == messages.WRITE:
                    answer = self._write(question, outputs)
                elif question.kind == messages.OPEN:
                    answer = self._open(question)
                else:
                    self._close(question.model)
                    answer = Message(messages.DONE)
            except AssetgenError as error:
                answer = Message(messages.FAILED, text=messages.text_of_error(error))
            except MemoryError:
                answer = Message(messages.OUT_OF_MEMORY)
            except Exception:
                log.exception("what was asked of the process of the device failed")
                text = messages.text_of_error(InternalError("the graph failed", hint="see the log of the server"))
                answer = Message(messages.FAILED, text=text)
            if answer.kind != messages.TOO_SMALL:
                outputs = {}
            answer.other = self._resident_bytes()
            with contextlib.suppress(LostError):
                messages.send(lane, answer)

    def stop(self, run: int) -> None:
        """End a run: now, or when it comes."""
        with self._lock:
            self._stopped.add(run)
            if len(self._stopped) > STOPS_KEPT:
                self._stopped.remove(min(self._stopped))  # the oldest; it came after the end of its run
            session, question = self._running.get(run, (None, None))
        if session is not None:
            session.terminate(question)

    def _open(self, question: Message) -> Message:
        layout_bytes, _, order = question.text.partition(b"\n")
        wanted = json.loads(order)
        folder = Path(wanted["folder"])
        manifest, digest = read_manifest(folder / MANIFEST_NAME, wanted["digest"])
        session = self._open_model(VerifiedPackage(folder, manifest, digest), wanted["device"], wanted["threads"])
        self_check(session, self._inputs(question, layout_bytes))
        self._sessions[question.model] = session
        facts = {
            "backend": session.backend,
            "device": session.device,
            "reason": session.reason,
            "splits": session.splits,
            "finishes": isinstance(session, Finishes) and session.finishes,
        }
        return Message(messages.DONE, text=json.dumps(facts).encode())

    def _close(self, model: int) -> None:
        self._sessions.pop(model).close()
        self._ties.clear()  # they hold on to its memory

    def _run(self, question: Message) -> tuple[Message, dict[str, NDArray[Any]]]:
        """Run, at once from and to the parent's memory where the session can, and what comes out is known to fit."""
        session, run = self._sessions[question.model], question.run
        inputs = self._inputs(question, question.text)
        tie = self._tied(question, session, inputs)
        try:
            with self._lock:
                if run in self._stopped:
                    raise Cancelled("the run was stopped on request")
                self._running[run] = session, question
            if tie is not None:
                tie.run(half=question.half, owner=question)
                return Message(messages.DONE, text=tie.layout.text), {}
            outputs = session.run(inputs, half=question.half, owner=question)
        finally:
            with self._lock:
                self._running.pop(run, None)
                self._stopped.discard(run)
        if len(self._layouts) >= VIEWS_KEPT:
            self._layouts.clear()
        self._layouts[question.model, question.text] = memory.layout_of(outputs)
        return self._write(question, outputs), outputs

    def _tied(self, question: Message, session: Session, inputs: dict[str, NDArray[Any]]) -> _Tie | None:
        key = question.model, question.inputs, question.text, question.outputs
        found = self._ties.get(key)
        if found is None:
            layout = self._layouts.get((question.model, question.text))
            slab = self._slab(question.outputs)
            if layout is None or slab is None or slab.nbytes < layout.size_bytes or not isinstance(session, Binds):
                return None
            if len(self._ties) >= VIEWS_KEPT:
                self._ties.clear()
            bound = session.bind(inputs, self._places(question.outputs, layout))
            found = self._ties[key] = _Tie(functools.partial(session.run_bound, bound), layout)
        return found

    def _write(self, question: Message, outputs: dict[str, NDArray[Any]]) -> Message:
        """Put the outputs where the parent reads them, or ask for room."""
        layout = memory.layout_of(outputs)
        slab = self._slab(question.outputs)
        if slab is None or slab.nbytes < layout.size_bytes:
            return Message(messages.TOO_SMALL, text=layout.text)
        memory.write(self._places(question.outputs, layout), outputs)
        return Message(messages.DONE, text=layout.text)

    def _inputs(self, question: Message, text: bytes) -> dict[str, NDArray[Any]]:
        return self._places(question.inputs, memory.layout_from(text))

    def _places(self, slab: int, layout: memory.Layout) -> dict[str, NDArray[Any]]:
        """The arrays in a piece of memory; making them takes longer than reading what lies there."""
        key = slab, layout.text
        found = self._views.get(key)
        if found is None:
            if len(self._views) >= VIEWS_KEPT:
                self._views.clear()
            whole = self._slab(slab)
            if whole is None:
                raise LookupError(f"piece {slab} of the parent's memory was never given")
            found = self._views[key] = memory.views(whole, layout)
        return found

    def _learn(self, question: Message) -> None:
        """Take the memory that comes with a question, and let go of what the parent has dropped."""
        descriptors = iter(question.descriptors)
        for bit, number in ((1, question.inputs), (2, question.outputs)):
            if question.new & bit:
                self._unmapped[number] = next(descriptors)
        question.descriptors, question.new = [], 0
        if (dropped := self._unmapped.pop(question.other, -1)) >= 0:
            os.close(dropped)
        if self._slabs.pop(question.other, None) is not None:
            self._views.clear()
            self._ties.clear()

    def _slab(self, number: int) -> NDArray[np.uint8] | None:
        """A piece of the parent's memory, mapped at its first use; raises MemoryError until there is room for it."""
        descriptor = self._unmapped.get(number, -1)
        if descriptor >= 0:
            try:
                self._slabs[number] = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)
            except OSError as error:  # the parent gives it once only: what is lost here is lost for good
                raise MemoryError from error
            os.close(self._unmapped.pop(number))
        return self._slabs.get(number)

    def _resident_bytes(self) -> int:
        """What the process held at most ``LOOK_S`` ago; 0 where the system does not tell."""
        now_s = time.monotonic()
        if self._statm is not None and now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            self._resident = int(os.pread(self._statm, 128, 0).split()[1]) * mmap.PAGESIZE
        return self._resident


def log_to(line: socket.socket, level: int) -> None:
    """Send what is logged from now on to the parent, which has a format of its own."""
    logging.basicConfig(level=level, format="%(message)s", handlers=[_ToParent(line)], force=True)


class _ToParent(logging.Handler):
    """Sends what is logged to the parent, a line of JSON each."""

    def __init__(self, line: socket.socket) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        facts = {"name": record.name, "level": record.levelno, "text": self.format(record)}
        with contextlib.suppress(OSError):
            self._line.sendall(json.dumps(facts).encode() + b"\n")


def _die_with(parent: int) -> None:
    """Have the system end this process with its parent, even if it hangs; elsewhere than on Linux, sockets tell."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before that
        os._exit(0)


def _open_or_none(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
