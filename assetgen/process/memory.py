"""Arrays handed from process to process in memory that both see, known by file descriptors only; numpy only.

The parent makes every piece and gives it to its child over a socket: there is no name that anybody could ask for, and
nothing to clean up, for it is gone with the last of the two.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import mmap
import os
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Arrays begin where vector instructions like them to.
ALIGNMENT = 64
# Pieces are multiples of this, so that sizes a little larger find room in them.
STEP_BYTES = 1 << 18
# Of pieces that nobody uses, so much is kept for the next run.
KEPT_BYTES = 64 << 20
LAYOUTS_KEPT = 16
LARGEST_BYTES = 1 << 32
TYPES = ("<f4", "|u1", "<u2", "<i4", "<i8", "<f2")

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


class Slab:
    """A piece of memory.

    Attributes:
        number: how both sides call it.
        descriptor: what the other process opens it by; -1 once it has done so.

    Raises:
        MemoryError: there is no room for it.
    """

    def __init__(self, number: int, size_bytes: int, descriptor: int) -> None:
        self.number, self.size_bytes, self.descriptor = number, size_bytes, descriptor
        self._map = _mapped(descriptor, size_bytes)
        self._views: dict[bytes, dict[str, NDArray[Any]]] = {}

    def __del__(self) -> None:
        self.was_sent()

    def was_sent(self) -> None:
        """The other process has it: the descriptor is needed no more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def bytes(self) -> NDArray[np.uint8]:
        """All of it; the piece itself may go while this is held."""
        return np.frombuffer(self._map, np.uint8)

    def fill(self, layout: Layout, arrays: Arrays) -> None:
        """Write arrays to their places."""
        places = self._views.get(layout.text)
        if places is None:  # making them takes longer than writing to them
            if len(self._views) >= LAYOUTS_KEPT:
                self._views.clear()
            places = self._views[layout.text] = views(self.bytes(), layout)
        write(places, arrays)


def _mapped(descriptor: int, size_bytes: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, size_bytes)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise MemoryError(f"no room for {size_bytes >> 20} MiB that two processes see") from error


class Slabs:
    """The pieces that a parent shares with one child; usable from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._back: deque[Slab] = deque()
        self._free: list[Slab] = []
        self._dropped: list[int] = []
        self._lent: dict[int, weakref.ref[NDArray[np.uint8]]] = {}
        self._made = 0

    def take(self, size_bytes: int) -> Slab:
        """A piece of at least so many bytes, which the caller has to give back; raises MemoryError."""
        with self._lock:
            self._sort_in()
            for slab in reversed(self._free):  # what was used last is nearest to the processor
                if slab.size_bytes >= size_bytes:
                    self._free.remove(slab)
                    return slab
            self._made += 1
            number = self._made
        size_bytes = max(-(-size_bytes // STEP_BYTES), 1) * STEP_BYTES
        return Slab(number, size_bytes, _shared_file(size_bytes))

    def give_back(self, slab: Slab) -> None:
        """Keep a piece for later, or let it go if too much is kept; then the smallest goes first."""
        self._back.append(slab)
        # The end of an array may come in the middle of anything, so also while this thread has the lock.
        if self._lock.acquire(blocking=False):
            try:
                self._sort_in()
            finally:
                self._lock.release()

    def dropped(self) -> int:
        """Number of a piece that the other process should let go of; 0: none."""
        if not self._dropped:
            return 0
        with self._lock:
            return self._dropped.pop() if self._dropped else 0

    def lend(self, slab: Slab, layout: Layout) -> dict[str, NDArray[Any]]:
        """The arrays in ``slab``, which comes back when none of them is held any more."""
        whole = slab.bytes()  # an object of its own, which all of the arrays hold, and nothing else does
        self._lent[slab.number] = weakref.ref(whole, lambda _: self._ended(slab))
        return views(whole, layout)

    def _ended(self, slab: Slab) -> None:
        del self._lent[slab.number]
        self.give_back(slab)

    def _sort_in(self) -> None:
        while self._back:
            self._free.append(self._back.popleft())
        while sum(kept.size_bytes for kept in self._free) > KEPT_BYTES:
            smallest = min(self._free, key=lambda kept: kept.size_bytes)
            self._free.remove(smallest)
            if smallest.descriptor < 0:
                self._dropped.append(smallest.number)


@dataclass(frozen=True)
class Field:
    """An array in a piece of memory."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Layout:
    """Where the arrays of one run lie; ``text`` tells the other process."""

    fields: tuple[Field, ...]
    size_bytes: int
    text: bytes


def layout_of(arrays: Arrays) -> Layout:
    """The layout of these arrays, in their order."""
    return _layout(tuple((name, values.dtype.str, values.shape) for name, values in arrays.items()))


@functools.lru_cache(maxsize=256)
def layout_from(text: bytes) -> Layout:
    """The layout that the other process tells; raises ValueError, KeyError or TypeError if it is none."""
    return _layout(tuple((str(name), str(dtype), tuple(map(int, shape))) for name, dtype, shape in json.loads(text)))


def write(places: Arrays, arrays: Arrays) -> None:
    """Copy arrays to their places."""
    for name, place in places.items():
        np.copyto(place, arrays[name], casting="no")


def views(whole: NDArray[np.uint8], layout: Layout) -> dict[str, NDArray[Any]]:
    """The arrays in a piece of memory, without a copy; raises ValueError if they do not fit."""
    if layout.size_bytes > whole.nbytes:
        raise ValueError(f"{layout.size_bytes} bytes do not fit {whole.nbytes}")
    return {
        field.name: np.ndarray(field.shape, field.dtype, buffer=whole, offset=field.start) for field in layout.fields
    }


@functools.lru_cache(maxsize=256)
def _layout(named: tuple[tuple[str, str, tuple[int, ...]], ...]) -> Layout:
    fields, end = [], 0
    for name, dtype, shape in named:
        if dtype not in TYPES or any(edge < 0 for edge in shape):
            raise ValueError(f"array {name!r:.80} of {dtype!r:.40} and shape {shape} cannot be handed over")
        start = -(-end // ALIGNMENT) * ALIGNMENT
        end = start + np.dtype(dtype).itemsize * functools.reduce(lambda product, edge: product * edge, shape, 1)
        fields.append(Field(name, np.dtype(dtype), shape, start))
    if end > LARGEST_BYTES:
        raise ValueError(f"{end} bytes are too many to be handed over")
    text = json.dumps([[name, dtype, list(shape)] for name, dtype, shape in named]).encode()
    return Layout(tuple(fields), end, text)


def _shared_file(size_bytes: int) -> int:
    """Descriptor of memory that has no name and that, on Linux, nobody can shrink under the other's hands."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("assetgen", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), size_bytes)
        return os.dup(file.fileno())
