"""How glibc keeps freed memory: for the next call, in few places, and not for long; standard library only."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# glibc refuses more than half of a heap, 32 MiB, for the second.
_TRIM_BYTES = 512 * 2**20
_MMAP_BYTES = 32 * 2**20
# Each thread would take an arena of its own, up to eight a core.
ARENAS = 2


def keep_freed_memory(arenas: int = ARENAS) -> bool:
    """Keep freed memory for the next call, in few arenas; returns whether that was possible. Before threads start.

    Page faults dominate large messages: building and serialising 36 MB took 24 ms instead of 98. But what is kept is
    kept by arena: with one for each thread, each grows until it has held at once whatever came together there, and a
    server under mixed load grew by 144 MiB in ten minutes, all of it free. In two the free memory is found again. One
    alone grows in one piece, which is what huge pages need, but threads that allocate much wait for each other there.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    wanted = ((_M_TRIM_THRESHOLD, _TRIM_BYTES), (_M_MMAP_THRESHOLD, _MMAP_BYTES), (_M_ARENA_MAX, arenas))
    return all(libc.mallopt(number, value) == 1 for number, value in wanted)


def give_freed_memory_back() -> None:
    """Return to the system what is free, wherever it lies; what is needed again is fetched again, page by page.

    Once a minute it costs little, and memory falls back to what is in use. Mapping all large blocks anew would do as
    much, but made large assets 2 to 10 % slower.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
