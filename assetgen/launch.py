"""A server of our own as a child process: started, waited for and stopped; imports errors only."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from assetgen.errors import AddressUnusable

READY = re.compile(r"serving on (\S+)")
STOP_TIMEOUT_S = 40.0


class ServerProcess:
    """``assetgen serve`` on a free loopback port; a context manager.

    Attributes:
        address: host and port to connect to.
        ready_s: seconds from the start of the process to its word that it is ready.
        process: the process itself.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        # By name: a file that both have open has one place for both, where one reads and the other writes.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._errors = Path(self._folder.name) / "errors.txt"
        begun_s = time.monotonic()
        with self._errors.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "assetgen", "serve", "--port", "0", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )
        self.address = self._wait_until_ready()
        self.ready_s = time.monotonic() - begun_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Ask the server to end, wait for it, and return its exit status."""
        self.process.terminate()
        try:
            status = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._close()
        return status

    def errors(self) -> str:
        """What the server has written to its standard error so far."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def _wait_until_ready(self) -> str:
        for line in self.process.stdout or ():
            if match := READY.search(line):
                return match.group(1)
        status, said = self.process.wait(), self.errors().strip()
        self._close()
        raise AddressUnusable(
            f"the server ended with status {status} before it was ready: {said or 'it said nothing'}",
            hint="run `assetgen doctor`",
        )

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._folder.cleanup()
