"""Serve what lies in the folders of models: a thread that looks for changes; imports service and below."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from assetgen.errors import AssetgenError
from assetgen.service import Service
from assetgen.signature import Signers
from assetgen.store import open_store, package_folders

log = logging.getLogger(__name__)

State = tuple[tuple[str, int, int], ...]


class Watch:
    """Looks every ``period_s`` at the folders, and lets ``service`` serve what is there if it has changed and is sound.

    Args:
        preload: open a new package before it is served.
        signers: see ``open_store``.
    """

    def __init__(
        self,
        service: Service,
        folders: Sequence[Path],
        period_s: float,
        *,
        preload: bool,
        signers: Signers | None = None,
    ) -> None:
        self._service, self._folders, self._preload = service, tuple(folders), preload
        self._period_s, self._signers = period_s, signers
        self._state = state_of(self._folders)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="assetgen-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(self._period_s):
            try:
                self._look()
            except Exception:
                log.exception("the folders of models cannot be watched")

    def _look(self) -> None:
        state = state_of(self._folders)
        if state == self._state:
            return
        self._state = state
        try:
            store = open_store(self._folders, self._signers)
            self._service.replace(store, preload=self._preload)
        except AssetgenError as error:
            log.error("%s; the models served before stay", error.message)
        else:
            log.info("the folders of models have changed; serving %s", ", ".join(store) or "no models")


def state_of(folders: Sequence[Path]) -> State:
    """Names, sizes and times of all files of all packages; of what cannot be read, nothing."""
    found = []
    for folder in folders:
        try:
            for package in package_folders(folder):
                for path in package.iterdir():
                    known = path.lstat()
                    found.append((str(path), known.st_mtime_ns, known.st_size))
        except (AssetgenError, OSError):
            continue
    return tuple(sorted(found))
