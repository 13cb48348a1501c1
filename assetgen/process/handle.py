"""One child process as its parent sees it: started, asked, stopped and reaped; imports memory and messages."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from assetgen.errors import AssetgenError
from assetgen.process import memory, messages
from assetgen.process.messages import LostError, Message
from assetgen.types import FloatArray

# Two runs by halves, and one that opens a model.
LANES = 3
END_S = 5.0
HUGE_PAGES = "glibc.malloc.hugetlb"
MAX_LOG_CHARACTERS = 8192
PROGRAM = "from assetgen.process.child import main; main({arguments})"

_numbers = count(1)


@dataclass(eq=False)
class Run:
    """Something that the child does for one caller.

    Attributes:
        key: who is to blame if the child does not survive it.
        owner: whose it is.
        sent: whether the child may have begun.
        stopped: whether its owner wants it no more.
        opening: whether its model is still to be opened, which others wait for too.
        limit_s: when it must have ended, on the clock of ``time.monotonic``.
    """

    key: str
    owner: object = None
    sent: bool = False
    stopped: bool = False
    opening: bool = False
    limit_s: float = 0.0
    number: int = field(default_factory=lambda: next(_numbers))


class Handle:
    """A child process, started at once.

    Args:
        program: Python code to run; ``{arguments}`` stands for what ``child.main`` takes.

    Attributes:
        models: numbers of those that are open in it.
        running: runs that were let in, for the supervisor.
        retiring: it lets nobody in any more.
        lost: it is known to be gone.
        cause: of its end, as far as it is known: crash, fault, hang or memory.
        blamed: keys of those whose runs it did not survive.
        open_bytes, resident_bytes: what it held when its last model was open, and after the last run.
    """

    def __init__(self, program: str = PROGRAM) -> None:
        self.models: set[int] = set()
        self.running: set[Run] = set()
        self.retiring = self.lost = False
        self.cause = "crash"
        self.blamed: set[str] = set()
        self.open_bytes = self.resident_bytes = 0
        self._slabs = memory.Slabs()
        self._lanes: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        pairs = [socket.socketpair() for _ in range(1 + LANES)]
        theirs = [pair[1] for pair in pairs]
        try:
            self._process = subprocess.Popen(
                _command(program, [end.fileno() for end in theirs]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[end.fileno() for end in theirs],
                env=_environment(),
                process_group=0,  # Ctrl-C is for the parent
            )
        except OSError:
            for pair in pairs:
                pair[0].close()
            raise
        finally:
            for end in theirs:
                end.close()
        self._line = pairs[0][0]
        for ours, _ in pairs[1:]:
            self._lanes.put(ours)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def open(self, model: int, order: dict[str, Any], inputs: dict[str, FloatArray]) -> dict[str, Any]:
        """Open a model, checked on ``inputs``; returns what its session says of itself.

        Raises:
            LostError: the process is gone.
            AssetgenError: what the process says.
        """
        layout = memory.layout_of(inputs)
        with self._lane() as lane, self._filled(layout, inputs) as given:
            question = Message(messages.OPEN, model=model, text=layout.text + b"\n" + json.dumps(order).encode())
            answer = self._answer(lane, question, given)
        try:
            facts: dict[str, Any] = json.loads(answer.text)
        except ValueError as error:
            raise LostError from error
        self.models.add(model)
        self.open_bytes = answer.other
        return facts

    def run(
        self,
        model: int,
        run: Run,
        inputs: dict[str, FloatArray],
        layout: memory.Layout,
        *,
        half: bool,
        usual_bytes: int,
    ) -> dict[str, NDArray[Any]]:
        """The outputs of a model, in memory that is used again when nobody holds them; raises as ``open``.

        Args:
            layout: of the inputs.
            usual_bytes: what the outputs took the last time.
        """
        with self._lane() as lane, self._filled(layout, inputs) as given:
            place = self._slabs.take(usual_bytes or memory.STEP_BYTES)
            question = Message(messages.RUN, half, model, run.number, text=layout.text)
            try:
                answer = self._answer(lane, question, given, place)
                if answer.kind == messages.TOO_SMALL:
                    larger = self._slabs.take(_told(answer).size_bytes)  # if there is none, `place` is still ours
                    self._slabs.give_back(place)
                    place = larger
                    answer = self._answer(lane, Message(messages.WRITE), None, place)
            except (AssetgenError, MemoryError):
                self._slabs.give_back(place)
                raise
        self.resident_bytes = answer.other
        try:
            return self._slabs.lend(place, _told(answer))
        except ValueError as error:
            raise LostError from error

    def close_model(self, model: int) -> None:
        """Free a model; nobody may be running it."""
        if model in self.models:
            self.models.discard(model)
            with contextlib.suppress(LostError), self._lane() as lane:
                self._answer(lane, Message(messages.CLOSE, model=model))

    def stop(self, run: Run) -> None:
        """Ask for the end of a run."""
        with contextlib.suppress(OSError):
            self._line.sendall(messages.STOP.pack(run.number))

    def relay_log(self) -> None:
        """Put what the process logs into the log of this one, until the process ends."""
        with contextlib.suppress(OSError), self._line.makefile("rb") as lines:
            while line := lines.readline(1 << 20):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    facts = json.loads(line)
                    text = str(facts["text"])[:MAX_LOG_CHARACTERS]
                    logging.getLogger(str(facts["name"])).log(int(facts["level"]), "%s", text)

    def end(self) -> None:
        """Have the process end by itself, whatever it does."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        """End the process at once, even one that hangs."""
        self._process.kill()

    def reap(self) -> int:
        """Wait for the end, which is enforced after ``END_S``; returns the exit status, negative for a signal."""
        try:
            status = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        self._line.close()
        with contextlib.suppress(queue.Empty):
            for _ in range(LANES):
                self._lanes.get(timeout=END_S).close()
        return status

    @contextmanager
    def _lane(self) -> Iterator[socket.socket]:
        lane = self._lanes.get()
        try:
            yield lane
        finally:
            self._lanes.put(lane)  # a dead one too, which tells the next that it is dead

    @contextmanager
    def _filled(self, layout: memory.Layout, inputs: dict[str, FloatArray]) -> Iterator[memory.Slab]:
        slab = self._slabs.take(layout.size_bytes)
        try:
            slab.fill(layout, inputs)
            yield slab
        finally:
            self._slabs.give_back(slab)

    def _answer(
        self,
        lane: socket.socket,
        question: Message,
        inputs: memory.Slab | None = None,
        outputs: memory.Slab | None = None,
    ) -> Message:
        """Ask, and bring along the memory that the child does not know; raises what is answered."""
        question.other = self._slabs.dropped()
        for bit, slab in ((1, inputs), (2, outputs)):
            if slab is not None and slab.descriptor >= 0:
                question.new |= bit
                question.descriptors = [*question.descriptors, slab.descriptor]
        question.inputs = inputs.number if inputs else 0
        question.outputs = outputs.number if outputs else 0
        messages.send(lane, question)
        for slab in (inputs, outputs):
            if slab is not None:
                slab.was_sent()
        answer = messages.receive(lane)
        if answer.kind == messages.OUT_OF_MEMORY:
            raise MemoryError
        if answer.kind == messages.FAILED:
            raise messages.error_from_text(answer.text)
        return answer


def _told(answer: Message) -> memory.Layout:
    """The layout in an answer; raises LostError."""
    try:
        return memory.layout_from(answer.text)
    except (ValueError, KeyError, TypeError) as error:
        raise LostError from error


def _environment() -> dict[str, str]:
    """This process's, and memory in huge pages where the system gives them to those who ask.

    glibc 2.35 and later ask for them if told before the program starts; measured, the graph takes 1 to 2 % less.
    """
    told = os.environ.get("GLIBC_TUNABLES", "")
    return {**os.environ, "GLIBC_TUNABLES": told if HUGE_PAGES in told else f"{HUGE_PAGES}=1:{told}".rstrip(":")}


def _command(program: str, descriptors: list[int]) -> list[str]:
    arguments = f"{os.getpid()}, {logging.getLogger().getEffectiveLevel()}, {descriptors[0]}, {descriptors[1:]}"
    # The same code as here, wherever it was started; -P leaves out the folder it is started in.
    root = str(Path(__file__).resolve().parents[2])
    path = f"import sys; sys.path.append({root!r}); "
    return [sys.executable, "-P", "-c", path + program.format(arguments=arguments)]
