"""Where the files of an answer go: into the stream, to the HTTP port, or into shared memory; imports wire and types."""

from __future__ import annotations

from collections.abc import Iterator

from assetgen import wire
from assetgen.errors import FieldInvalid
from assetgen.server.blobs import Blobs
from assetgen.server.shared import SharedFiles
from assetgen.types import Artifact, Event
from assetgen.v1 import asset_pb2
from assetgen.wire import Delivery


class Deliverer:
    """Places files as a client asked for.

    Args:
        number: of the contract's ``Delivery``.
        blobs, shared: what the server has.
        local: whether the client is on this machine.

    Raises:
        FieldInvalid: this version does not know the number, or this server, or this client, has no such way.
    """

    def __init__(self, number: int, blobs: Blobs | None, shared: SharedFiles | None, *, local: bool) -> None:
        self._way = wire.delivery_from_message(number)
        self._blobs, self._shared = blobs, shared
        self._offered: list[str] = []
        if self._way is Delivery.BLOBS and blobs is None:
            raise FieldInvalid(
                "delivery: this server has no HTTP port to fetch files from",
                field="delivery",
                hint="ask for DELIVERY_CHUNKS, or start the server with --http-port",
            )
        if self._way is Delivery.SHARED and (shared is None or not local):
            missing = "this server has no shared memory" if shared is None else "this client is on another machine"
            raise FieldInvalid(
                f"delivery: {missing}, so files cannot be handed over in it",
                field="delivery",
                hint="ask for DELIVERY_CHUNKS; shared memory needs Linux, one machine and one account",
            )

    def messages(self, event: Event) -> Iterator[bytes]:
        """The serialised messages of an event of Generate."""
        if not isinstance(event, Artifact):
            yield from wire.event_to_messages(event)
            return
        placed, follows = self.place(event)
        yield wire.placed_message(placed)
        if follows:
            yield from map(wire.chunk_message, wire.chunks(event.data))

    def place(self, artifact: Artifact) -> tuple[asset_pb2.Artifact, bool]:
        """What to say of a file, and whether its bytes must follow in the stream."""
        message = wire.artifact_to_message(artifact)
        if self._way is Delivery.BLOBS and self._blobs is not None:
            message.blob = self._blobs.keep(artifact.data, artifact.media_type, artifact.sha256)
        elif self._way is Delivery.SHARED and self._shared is not None:
            message.shared = self._shared.offer(artifact.data, artifact.sha256)
            if message.shared:
                self._offered.append(message.shared)
        return message, not (message.blob or message.shared)

    def withdraw(self) -> None:
        """The client left: nobody takes what is still there."""
        if self._shared is not None:
            for name in self._offered:
                self._shared.withdraw(name)
