"""The method of GenerationService, whatever carries it; imports wire and of this package exchange and delivery."""

from __future__ import annotations

from collections.abc import Iterator

from assetgen import wire
from assetgen.callers import Terms
from assetgen.calls import Call
from assetgen.server.delivery import Deliverer
from assetgen.server.exchange import Exchange, Front
from assetgen.types import Artifact, Event, Finished, Started
from assetgen.v1 import generation_service_pb2


def generate(front: Front, message: generation_service_pb2.GenerateRequest, exchange: Exchange) -> Iterator[bytes]:
    """The serialised messages that answer a request."""
    exchange.facts |= {"model": message.model_id[:80], "seed": message.seed, "count": message.count}
    deliverer = Deliverer(message.delivery, front.blobs, front.shared, local=exchange.local)
    terms = Terms(
        exchange.caller,
        exchange.caller.name or exchange.peer,
        wire.priority_from_message(message),
        wire.supersede_key_from_message(message),
    )
    call = front.service.admit(wire.request_from_message(message), exchange.deadline_s, terms)
    inline_bytes = message.inline_bytes
    del message  # its pictures are in the call
    sent_bytes = 0
    try:
        call.give_up = exchange.give_up
        if exchange.on_end(call.stop):  # not if the client is gone already
            for answer in _messages(call, deliverer, inline_bytes):
                sent_bytes += len(answer)
                yield answer
    except GeneratorExit:
        deliverer.withdraw()
        raise
    finally:
        call.release()
        spent_s = dict(call.spent_s)
        exchange.facts |= {"bytes": sent_bytes, "ms": {stage: round(each * 1e3, 2) for stage, each in spent_s.items()}}
        if front.metrics is not None:
            front.metrics.made(call.package.manifest.id, spent_s, sent_bytes)


def _messages(call: Call, deliverer: Deliverer, inline_bytes: int) -> Iterator[bytes]:
    if call.small and inline_bytes:
        yield from _at_once(call.events(), deliverer, min(inline_bytes, wire.INLINE_BYTES))
    else:
        for event in call.events():
            yield from deliverer.messages(event)


def _at_once(events: Iterator[Event], deliverer: Deliverer, most_bytes: int) -> Iterator[bytes]:
    """One message of all events if their files have ``most_bytes`` together, else the messages of each."""
    started, *artifacts, finished = events
    files = [artifact for artifact in artifacts if isinstance(artifact, Artifact)]
    if (
        isinstance(started, Started)
        and isinstance(finished, Finished)
        and sum(len(artifact.data) for artifact in files) <= most_bytes
    ):
        yield wire.whole_message(started, files, finished)
    else:
        for event in (started, *artifacts, finished):
            yield from deliverer.messages(event)
