"""Files as they arrive in a stream, put together and checked; imports wire, handover and types, no gRPC."""

from __future__ import annotations

import hashlib

from assetgen import wire
from assetgen.errors import TransferDamaged
from assetgen.handover import take
from assetgen.types import Artifact
from assetgen.v1 import asset_pb2


class Files:
    """The files of one stream: an artifact opens one, chunks follow, unless it was handed over in shared memory."""

    def __init__(self) -> None:
        self._opened: asset_pb2.Artifact | None = None
        self._parts: list[bytes] = []
        self._missing_bytes = 0
        self._hash = hashlib.sha256()

    def open(self, message: asset_pb2.Artifact) -> Artifact | None:
        """Begin a file; returns it if no chunks follow. Raises TransferDamaged."""
        self.check_complete()
        if message.shared:
            data = take(message.shared, message.size_bytes, message.sha256.hex())
            return wire.artifact_from_message(message, data)
        self._opened, self._parts, self._missing_bytes = message, [], message.size_bytes
        self._hash = hashlib.sha256()
        return self._complete() if not self._missing_bytes else None

    def add(self, chunk: bytes) -> Artifact | None:
        """Add to the open file; returns it if it is complete now. Raises TransferDamaged."""
        self._parts.append(chunk)
        self._hash.update(chunk)  # while it is still in the processor's cache
        self._missing_bytes -= len(chunk)
        return self._complete() if self._missing_bytes <= 0 else None

    def check_complete(self) -> None:
        """Raises TransferDamaged if a file is still open."""
        if self._opened is not None:
            raise TransferDamaged(
                f"{self._opened.name}: the file ended before its {self._opened.size_bytes} bytes", hint="try again"
            )

    def _complete(self) -> Artifact:
        opened, parts = self._opened, self._parts
        if opened is None:
            raise TransferDamaged(
                "bytes arrived that belong to no file", hint="update the client to the server's version"
            )
        self._opened, self._parts = None, []
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(data) != opened.size_bytes or self._hash.digest() != opened.sha256:
            raise TransferDamaged(
                f"{opened.name}: {len(data)} bytes arrived that are not the {opened.size_bytes} bytes announced",
                hint="try again; if it happens often, check the network",
            )
        return wire.artifact_from_message(opened, data)
