"""Between requests and events and their messages, both ways; imports v1 and types, protobuf but no gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from assetgen.callers import Priority
from assetgen.errors import FieldInvalid, TransferDamaged
from assetgen.types import (
    Artifact,
    Encoding,
    Event,
    Finished,
    MapKind,
    NormalConvention,
    OutputSpec,
    ParameterValue,
    PixelFormat,
    Progress,
    Request,
    Started,
)
from assetgen.v1 import asset_pb2, generation_service_pb2
from assetgen.wire_enums import CONVENTION_OF, CONVENTIONS, MAP_OF, MAPS, SPACE_OF, SPACES

CHUNK_BYTES = 512 * 1024
# The most that a server puts into one message, and what our own client asks for; clients accept messages of 4 MiB.
INLINE_BYTES = 2**20
MAX_KEY_LENGTH = 128
T = TypeVar("T")


class Delivery(Enum):
    """How files come to the client: in the stream, by their path on the HTTP port, in shared memory."""

    CHUNKS = 1
    BLOBS = 2
    SHARED = 3


_CHUNK_FIELD = generation_service_pb2.GenerateResponse.CHUNK_FIELD_NUMBER
_WHOLE_FIELD = generation_service_pb2.GenerateResponse.WHOLE_FIELD_NUMBER
_CONTENTS_FIELD = generation_service_pb2.GenerateWhole.CONTENTS_FIELD_NUMBER

_ENCODINGS = {kind: asset_pb2.Encoding.Value(f"ENCODING_{kind.name}") for kind in Encoding}
_FORMATS = {kind: asset_pb2.PixelFormat.Value(f"PIXEL_FORMAT_{kind.name}") for kind in PixelFormat}
_NO_FORMAT, _NO_SPACE = asset_pb2.PIXEL_FORMAT_UNSPECIFIED, asset_pb2.COLOR_SPACE_UNSPECIFIED
_PRIORITIES = {kind: generation_service_pb2.Priority.Value(f"PRIORITY_{kind.name}") for kind in Priority}
_PRIORITY_OF: dict[int, Priority] = {0: Priority.GENERATE, **{number: kind for kind, number in _PRIORITIES.items()}}
_DELIVERIES = {kind: generation_service_pb2.Delivery.Value(f"DELIVERY_{kind.name}") for kind in Delivery}
_DELIVERY_OF: dict[int, Delivery] = {0: Delivery.CHUNKS, **{number: kind for kind, number in _DELIVERIES.items()}}
_NO_CONVENTION = asset_pb2.NORMAL_CONVENTION_UNSPECIFIED
_CONVENTION_OR_NONE: dict[int, NormalConvention | None] = {0: None, **CONVENTION_OF}
_ENCODING_OF: dict[int, Encoding] = {0: Encoding.PNG, **{number: kind for kind, number in _ENCODINGS.items()}}
_FORMAT_OF: dict[int, PixelFormat] = {number: kind for kind, number in _FORMATS.items()}


def request_to_message(request: Request) -> generation_service_pb2.GenerateRequest:
    """Raises FieldInvalid where a value does not fit the wire."""
    for name in ("seed", "count", "first_index", "width_px", "height_px"):
        _check_uint32(name, getattr(request, name))
    output = request.output
    convention = CONVENTIONS[output.normal_convention] if output.normal_convention else _NO_CONVENTION
    try:
        return generation_service_pb2.GenerateRequest(
            model_id=request.model_id,
            model_digest=bytes.fromhex(request.model_digest),
            seed=request.seed,
            count=request.count,
            first_index=request.first_index,
            width_px=request.width_px,
            height_px=request.height_px,
            parameters={name: _value_to_message(name, value) for name, value in request.parameters.items()},
            output=generation_service_pb2.OutputSpec(
                maps=[MAPS[MapKind(kind)] for kind in output.maps],
                profile=output.profile,
                normal_convention=convention,
                encoding=_ENCODINGS[output.encoding],
                name=output.name,
            ),
        )
    except (ValueError, TypeError) as error:
        raise FieldInvalid(f"the request cannot be sent: {error}", hint="check its types") from error


def request_from_message(message: generation_service_pb2.GenerateRequest) -> Request:
    """Raises FieldInvalid for enum numbers and parameter cases that this version does not know."""
    output = message.output
    return Request(
        model_id=message.model_id,
        model_digest=message.model_digest.hex(),
        seed=message.seed if message.HasField("seed") else None,
        count=message.count,
        first_index=message.first_index,
        width_px=message.width_px,
        height_px=message.height_px,
        parameters={name: _value_from_message(name, value) for name, value in message.parameters.items()},
        output=OutputSpec(
            maps=tuple(_known(MAP_OF, number, "output.maps") for number in output.maps),
            profile=output.profile or "plain",
            normal_convention=_known(_CONVENTION_OR_NONE, output.normal_convention, "output.normal_convention"),
            encoding=_known(_ENCODING_OF, output.encoding, "output.encoding"),
            name=output.name,
        ),
    )


def priority_to_message(priority: Priority) -> generation_service_pb2.Priority.ValueType:
    """How soon a request matters, on the wire."""
    return _PRIORITIES[priority]


def priority_from_message(message: generation_service_pb2.GenerateRequest) -> Priority:
    """How soon the request matters; raises FieldInvalid for a number that this version does not know."""
    return _known(_PRIORITY_OF, message.priority, "priority")


def delivery_to_message(delivery: Delivery) -> generation_service_pb2.Delivery.ValueType:
    """How files shall come, on the wire."""
    return _DELIVERIES[delivery]


def delivery_from_message(number: int) -> Delivery:
    """How files shall come; raises FieldInvalid for a way that this version does not know."""
    return _known(_DELIVERY_OF, number, "delivery")


def supersede_key_from_message(message: generation_service_pb2.GenerateRequest) -> str:
    """The view that shows the result; raises FieldInvalid for a name that is too long."""
    key = message.supersede_key
    if len(key) > MAX_KEY_LENGTH:
        raise FieldInvalid(
            f"supersede_key: has {len(key)} characters; use at most {MAX_KEY_LENGTH}, such as a UUID",
            field="supersede_key",
            metadata={"max": str(MAX_KEY_LENGTH)},
        )
    return key


def event_to_messages(event: Event) -> Iterator[bytes]:
    """The serialised messages of an event; an artifact is followed by its chunks."""
    message = generation_service_pb2.GenerateResponse()
    if isinstance(event, Started):
        fill_started(message.started, event)
    elif isinstance(event, Progress):
        message.progress.stage = event.stage
        message.progress.fraction = event.fraction
    elif isinstance(event, Finished):
        fill_finished(message.finished, event)
    else:
        message.artifact.CopyFrom(artifact_to_message(event))
    yield message.SerializeToString()
    if isinstance(event, Artifact):
        for part in chunks(event.data):
            yield chunk_message(part)


def chunks(data: bytes | memoryview) -> Iterator[memoryview]:
    """A file in parts of a message each."""
    view = memoryview(data).cast("B")
    for start in range(0, len(view), CHUNK_BYTES):
        yield view[start : start + CHUNK_BYTES]


def chunk_message(data: memoryview) -> bytes:
    """Serialise ``GenerateResponse(chunk=data)`` with one copy instead of protobuf's three."""
    return b"".join((_field_head(_CHUNK_FIELD, len(data)), data))


def placed_message(placed: asset_pb2.Artifact) -> bytes:
    """Serialise an artifact whose bytes do not follow: its ``blob`` or ``shared`` says where they lie."""
    return generation_service_pb2.GenerateResponse(artifact=placed).SerializeToString()


def whole_message(started: Started, artifacts: Sequence[Artifact], finished: Finished) -> bytes:
    """Serialise ``GenerateResponse(whole=...)``, the bytes of the files with one copy."""
    whole = generation_service_pb2.GenerateWhole(artifacts=[_described(artifact) for artifact in artifacts])
    fill_started(whole.started, started)
    fill_finished(whole.finished, finished)
    parts: list[bytes | memoryview] = [whole.SerializeToString()]
    for artifact in artifacts:
        parts += (_field_head(_CONTENTS_FIELD, len(artifact.data)), artifact.data)
    return b"".join((_field_head(_WHOLE_FIELD, sum(map(len, parts))), *parts))


def events_from_whole(whole: generation_service_pb2.GenerateWhole) -> Iterator[Event]:
    """The events that a whole answer stands for; raises TransferDamaged.

    Hashes are not compared: message and transport count and check the bytes, and nothing was put together here.
    """
    sizes = [(message.size_bytes, len(data)) for message, data in zip(whole.artifacts, whole.contents, strict=False)]
    if len(whole.contents) != len(whole.artifacts) or any(size != length for size, length in sizes):
        raise TransferDamaged("the files of the answer are not those it announces", hint="try again")
    yield started_from_message(whole.started)
    for message, data in zip(whole.artifacts, whole.contents, strict=True):
        yield artifact_from_message(message, data)
    yield finished_from_message(whole.finished)


def event_from_message(message: generation_service_pb2.GenerateResponse) -> Started | Progress | Finished | None:
    """The event of a message that is no part of a file; ``None`` for events this version does not know."""
    match message.WhichOneof("event"):
        case "started":
            return started_from_message(message.started)
        case "progress":
            return Progress(message.progress.stage, message.progress.fraction)
        case "finished":
            return finished_from_message(message.finished)
        case _:
            return None


def artifact_from_message(message: asset_pb2.Artifact, data: bytes | memoryview) -> Artifact:
    """A finished file.

    Raises:
        TransferDamaged: a picture whose pixels this version could not read, or pixels said of a file without a size.
    """
    is_picture = bool(message.width_px or message.height_px)
    pixel_format = color_space = None
    if is_picture or message.pixel_format != _NO_FORMAT or message.color_space != _NO_SPACE:
        pixel_format = _readable(_FORMAT_OF, message.pixel_format, "pixel_format")
        color_space = _readable(SPACE_OF, message.color_space, "color_space")
        _check_sized(message)
    return Artifact(
        index=message.index,
        role=message.role,
        name=message.name,
        media_type=message.media_type,
        pixel_format=pixel_format,
        color_space=color_space,
        width_px=message.width_px,
        height_px=message.height_px,
        data=data,
        known_sha256=message.sha256.hex(),
    )


def fill_started(message: generation_service_pb2.GenerateStarted, event: Started) -> None:
    """What will be computed with, into a message."""
    message.seed = event.seed
    message.model_digest = bytes.fromhex(event.model_digest)
    message.backend = event.backend


def started_from_message(message: generation_service_pb2.GenerateStarted) -> Started:
    """What will be computed with."""
    return Started(message.seed, message.model_digest.hex(), message.backend)


def fill_finished(message: generation_service_pb2.GenerateFinished, event: Finished) -> None:
    """The times of a call, into a message."""
    message.queue_time.CopyFrom(_duration(event.queue_s))
    message.work_time.CopyFrom(_duration(event.work_s))


def finished_from_message(message: generation_service_pb2.GenerateFinished) -> Finished:
    """The times of a call."""
    return Finished(_seconds(message.queue_time), _seconds(message.work_time))


def _field_head(number: int, size: int) -> bytes:
    """Tag and length of a length-delimited field of protobuf."""
    head = bytearray((number << 3 | 2,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def artifact_to_message(artifact: Artifact) -> asset_pb2.Artifact:
    """What is said of a file before its bytes."""
    message = _described(artifact)
    message.sha256 = bytes.fromhex(artifact.sha256)
    return message


def _described(artifact: Artifact) -> asset_pb2.Artifact:
    """All but the hash, which takes as long to compute as a small file to send."""
    is_map = artifact.role in MapKind.__members__.values()
    return asset_pb2.Artifact(
        index=artifact.index,
        map_kind=MAPS[MapKind(artifact.role)] if is_map else asset_pb2.MAP_KIND_UNSPECIFIED,
        role=artifact.role,
        name=artifact.name,
        media_type=artifact.media_type,
        pixel_format=_FORMATS[artifact.pixel_format] if artifact.pixel_format else _NO_FORMAT,
        color_space=SPACES[artifact.color_space] if artifact.color_space else _NO_SPACE,
        width_px=artifact.width_px,
        height_px=artifact.height_px,
        size_bytes=len(artifact.data),
    )


def _value_to_message(name: str, value: ParameterValue) -> asset_pb2.ParameterValue:
    if isinstance(value, bool):
        raise TypeError(f"parameters[{name}]: {value!r} is no number; use 0 or 1")
    if isinstance(value, Path):
        raise TypeError(f"parameters[{name}]: the file {value} was not read; see attach.with_files")
    if isinstance(value, str):
        return asset_pb2.ParameterValue(string_value=value)
    if isinstance(value, bytes):
        return asset_pb2.ParameterValue(bytes_value=value)
    if isinstance(value, int):
        return asset_pb2.ParameterValue(int_value=value)
    return asset_pb2.ParameterValue(double_value=value)


def _value_from_message(name: str, message: asset_pb2.ParameterValue) -> ParameterValue:
    case = message.WhichOneof("value")
    if case is None:
        field = f"parameters[{name[:80]}]"
        raise FieldInvalid(f"{field}: holds no value that this server understands", field=field)
    value: ParameterValue = getattr(message, case)
    return value


def _check_uint32(name: str, value: object) -> None:
    if value is None and name == "seed":
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise FieldInvalid(
            f"{name}: {value!r:.80} is not allowed; use a whole number from 0 to 4294967295",
            field=name,
            metadata={"value": f"{value!r:.80}"},
        )


def _known(table: Mapping[int, T], number: int, field: str) -> T:
    if number not in table:
        raise FieldInvalid(f"{field}: {number} is unknown to this server", field=field, metadata={"value": str(number)})
    return table[number]


def _readable(table: Mapping[int, T], number: int, what: str) -> T:
    if number not in table:
        raise TransferDamaged(
            f"a file has the {what} {number}, unknown to this client", hint="update the client to the server's version"
        )
    return table[number]


def _check_sized(message: asset_pb2.Artifact) -> None:
    if not (message.width_px and message.height_px):
        raise TransferDamaged(
            f"{message.name!r:.80} has pixels but is {message.width_px} x {message.height_px} px", hint="try again"
        )


def _duration(seconds: float) -> Duration:
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
