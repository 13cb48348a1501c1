"""What parent and child say to each other over a socket: a head of fixed size, and a text; standard library and errors.

Nothing is unpickled: numbers come from ``struct``, texts are JSON, and memory comes as file descriptors, which only the
parent sends.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from assetgen import errors
from assetgen.errors import AssetgenError, InternalError

# Asked by the parent.
OPEN, RUN, WRITE, CLOSE = 1, 2, 3, 4
# Answered by the child; TOO_SMALL asks for memory, which WRITE brings.
DONE, TOO_SMALL, FAILED, OUT_OF_MEMORY = 11, 12, 13, 14
# Over the other socket: stop a run.
STOP = struct.Struct("<Q")

_HEAD = struct.Struct("<BBBxIQQQQI")
_MAX_TEXT_BYTES = 1 << 20
_READ_BYTES = 1 << 16
_MAX_DESCRIPTORS = 2
_SPACE = socket.CMSG_SPACE(_MAX_DESCRIPTORS * struct.calcsize("i")) if hasattr(socket, "CMSG_SPACE") else 0


class LostError(Exception):
    """The other process is gone, or says what it must not."""


@dataclass
class Message:
    """One question or answer.

    Attributes:
        half: run on half of the device.
        model, run: their numbers.
        inputs, outputs: numbers of the pieces of memory; 0: none.
        other: of a question, the piece of memory to let go of; of an answer, the bytes that the process holds.
        descriptors: of pieces that are new to the child, inputs first; ``new`` has a bit for each.
    """

    kind: int
    half: bool = False
    model: int = 0
    run: int = 0
    inputs: int = 0
    outputs: int = 0
    other: int = 0
    text: bytes = b""
    new: int = 0
    descriptors: Sequence[int] = field(default_factory=list)


def send(channel: socket.socket, message: Message) -> None:
    """Send a message; raises LostError."""
    head = _HEAD.pack(
        message.kind,
        message.half,
        message.new,
        message.model,
        message.run,
        message.inputs,
        message.outputs,
        message.other,
        len(message.text),
    )
    try:
        data = head + message.text
        sent = socket.send_fds(channel, [data], message.descriptors) if message.descriptors else channel.send(data)
        if sent < len(data):
            channel.sendall(data[sent:])
    except OSError as error:
        raise LostError from error


def receive(channel: socket.socket, *, descriptors: bool = False) -> Message:
    """Wait for a message; raises LostError.

    Args:
        descriptors: whether any may come with it.
    """
    taken: list[int] = []
    try:
        if descriptors:
            data, taken, _, _ = socket.recv_fds(channel, _READ_BYTES, _MAX_DESCRIPTORS)
        else:
            data = channel.recv(_READ_BYTES)
        while len(data) < _HEAD.size:
            data += _more(channel, data)
        kind, half, new, model, run, inputs, outputs, other, length = _HEAD.unpack_from(data)
        if length > _MAX_TEXT_BYTES:
            raise LostError
        while len(data) < _HEAD.size + length:
            data += _more(channel, data)
    except OSError as error:
        raise LostError from error
    except LostError:
        for descriptor in taken:
            os.close(descriptor)
        raise
    return Message(kind, bool(half), model, run, inputs, outputs, other, data[_HEAD.size :], new, taken)


def _more(channel: socket.socket, data: bytes) -> bytes:
    more = channel.recv(_READ_BYTES) if data else b""
    if not more:
        raise LostError
    return more


def text_of_error(error: AssetgenError) -> bytes:
    """An error as JSON."""
    facts = {"reason": error.reason, "message": error.message, "hint": error.hint, "field": error.field}
    return json.dumps(facts | {"metadata": error.metadata}).encode()


def error_from_text(text: bytes) -> AssetgenError:
    """The error that was sent; raises LostError."""
    try:
        facts = json.loads(text)
        known = _CLASS_OF.get(facts["reason"], InternalError)
        return known(facts["message"], hint=facts["hint"], field=facts["field"], metadata=facts["metadata"])
    except (ValueError, KeyError, TypeError) as error:
        raise LostError from error


_CLASS_OF = {
    known.reason: known
    for known in vars(errors).values()
    if isinstance(known, type) and issubclass(known, AssetgenError) and known is not AssetgenError
}
