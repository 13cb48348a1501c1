"""How many files and connections a server may have open; standard library only."""

from __future__ import annotations

import contextlib
import sys

# Where the system names no limit, as macOS does, it still has one for a process.
MOST = 65_536


def allow_many_descriptors() -> None:
    """Take all that the system lets this process have: unless asked, often 1,024, which idle connections can fill."""
    if sys.platform == "win32":
        return
    import resource  # here, for Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # as many as before, then
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
