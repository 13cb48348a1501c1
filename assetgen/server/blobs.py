"""Files that wait to be fetched by their SHA-256, for a while and within a budget; standard library only."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

MAX_AGE_S = 3600.0
PATH = re.compile(r"/v1/blobs/([0-9a-f]{64})(?:\.[a-z0-9]{1,5})?")
_SUFFIXES = {
    "image/png": ".png",
    "application/json": ".json",
    "application/octet-stream": ".raw",
    "model/gltf-binary": ".glb",
    "model/obj": ".obj",
}


def blob_path(sha256: str, media_type: str) -> str:
    """Where a file of this hex SHA-256 can be fetched."""
    return f"/v1/blobs/{sha256}{_SUFFIXES.get(media_type, '')}"


@dataclass(frozen=True)
class Blob:
    """One file."""

    data: bytes | memoryview
    media_type: str
    until_s: float


class Blobs:
    """Files by hash; the oldest go first when there are too many bytes, and all of them after an hour.

    Whoever knows a hash has seen the file, or been told of it. The newest file is kept whatever its size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._blobs: OrderedDict[str, Blob] = OrderedDict()
        self._lock = threading.Lock()
        self.held_bytes = 0

    def keep(self, data: bytes | memoryview, media_type: str, sha256: str = "") -> str:
        """Keep a file, whose hex SHA-256 may be known; returns the path it can be fetched by."""
        sha256 = sha256 or hashlib.sha256(data).hexdigest()
        now_s = time.monotonic()
        with self._lock:
            self._drop(sha256)
            self._blobs[sha256] = Blob(data, media_type, now_s + MAX_AGE_S)
            self.held_bytes += len(data)
            while len(self._blobs) > 1:
                oldest, blob = next(iter(self._blobs.items()))
                if blob.until_s > now_s and self.held_bytes <= self._max_bytes:
                    break
                self._drop(oldest)
        return blob_path(sha256, media_type)

    def find(self, path: str) -> Blob | None:
        """The file that a path of ``keep`` names, if it is still there."""
        match = PATH.fullmatch(path)
        if match is None:
            return None
        with self._lock:
            blob = self._blobs.get(match.group(1))
            if blob is not None and blob.until_s <= time.monotonic():
                self._drop(match.group(1))
                blob = None
        return blob

    def _drop(self, sha256: str) -> None:
        blob = self._blobs.pop(sha256, None)
        if blob is not None:
            self.held_bytes -= len(blob.data)
