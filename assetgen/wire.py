"""Between our types and the messages of ``assetgen.v1``, both ways; imports v1 and types, protobuf but no gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from assetgen.describe import ModelInfo, ProfileInfo, ServerInfo, TextureInfo
from assetgen.errors import FieldInvalid, TransferDamaged
from assetgen.manifest import ParameterSpec, SizeSpec
from assetgen.types import (
    Artifact,
    ColorSpace,
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
from assetgen.v1 import asset_pb2, generation_service_pb2, model_service_pb2

CHUNK_BYTES = 512 * 1024
T = TypeVar("T")

_CHUNK_FIELD = generation_service_pb2.GenerateResponse.CHUNK_FIELD_NUMBER << 3 | 2

_MAPS = {kind: asset_pb2.MapKind.Value(f"MAP_KIND_{kind.name}") for kind in MapKind}
_CONVENTIONS = {kind: asset_pb2.NormalConvention.Value(f"NORMAL_CONVENTION_{kind.name}") for kind in NormalConvention}
_ENCODINGS = {kind: asset_pb2.Encoding.Value(f"ENCODING_{kind.name}") for kind in Encoding}
_FORMATS = {kind: asset_pb2.PixelFormat.Value(f"PIXEL_FORMAT_{kind.name}") for kind in PixelFormat}
_SPACES = {kind: asset_pb2.ColorSpace.Value(f"COLOR_SPACE_{kind.name}") for kind in ColorSpace}
_MAP_OF: dict[int, MapKind] = {number: kind for kind, number in _MAPS.items()}
_CONVENTION_OF: dict[int, NormalConvention] = {number: kind for kind, number in _CONVENTIONS.items()}
_NO_CONVENTION = asset_pb2.NORMAL_CONVENTION_UNSPECIFIED
_CONVENTION_OR_NONE: dict[int, NormalConvention | None] = {0: None, **_CONVENTION_OF}
_ENCODING_OF: dict[int, Encoding] = {0: Encoding.PNG, **{number: kind for kind, number in _ENCODINGS.items()}}
_FORMAT_OF: dict[int, PixelFormat] = {number: kind for kind, number in _FORMATS.items()}
_SPACE_OF: dict[int, ColorSpace] = {number: kind for kind, number in _SPACES.items()}


def request_to_message(request: Request) -> generation_service_pb2.GenerateRequest:
    """Raises FieldInvalid where a value does not fit the wire."""
    for name in ("seed", "count", "first_index", "width_px", "height_px"):
        _check_uint32(name, getattr(request, name))
    output = request.output
    convention = _CONVENTIONS[output.normal_convention] if output.normal_convention else _NO_CONVENTION
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
                maps=[_MAPS[MapKind(kind)] for kind in output.maps],
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
            maps=tuple(_known(_MAP_OF, number, "output.maps") for number in output.maps),
            profile=output.profile or "plain",
            normal_convention=_known(_CONVENTION_OR_NONE, output.normal_convention, "output.normal_convention"),
            encoding=_known(_ENCODING_OF, output.encoding, "output.encoding"),
            name=output.name,
        ),
    )


def event_to_messages(event: Event) -> Iterator[bytes]:
    """The serialised messages of an event; an artifact is followed by its chunks."""
    message = generation_service_pb2.GenerateResponse()
    if isinstance(event, Started):
        message.started.seed = event.seed
        message.started.model_digest = bytes.fromhex(event.model_digest)
        message.started.backend = event.backend
    elif isinstance(event, Progress):
        message.progress.stage = event.stage
        message.progress.fraction = event.fraction
    elif isinstance(event, Finished):
        message.finished.queue_time.CopyFrom(_duration(event.queue_s))
        message.finished.work_time.CopyFrom(_duration(event.work_s))
    else:
        message.artifact.CopyFrom(_artifact_to_message(event))
    yield message.SerializeToString()
    if isinstance(event, Artifact):
        view = memoryview(event.data).cast("B")
        for start in range(0, len(view), CHUNK_BYTES):
            yield chunk_message(view[start : start + CHUNK_BYTES])


def chunk_message(data: memoryview) -> bytes:
    """Serialise ``GenerateResponse(chunk=data)`` with one copy instead of protobuf's three."""
    size, length = len(data), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return b"".join((bytes((_CHUNK_FIELD,)), length, data))


def event_from_message(message: generation_service_pb2.GenerateResponse) -> Started | Progress | Finished | None:
    """The event of a message that is no part of a file; ``None`` for events this version does not know."""
    match message.WhichOneof("event"):
        case "started":
            started = message.started
            return Started(started.seed, started.model_digest.hex(), started.backend)
        case "progress":
            return Progress(message.progress.stage, message.progress.fraction)
        case "finished":
            times = message.finished
            return Finished(_seconds(times.queue_time), _seconds(times.work_time))
        case _:
            return None


def artifact_from_message(message: asset_pb2.Artifact, data: bytes | memoryview) -> Artifact:
    """A finished file; formats this version does not know are an error, since its pixels could not be read."""
    return Artifact(
        index=message.index,
        role=message.role,
        name=message.name,
        media_type=message.media_type,
        pixel_format=_readable(_FORMAT_OF, message.pixel_format, "pixel_format"),
        color_space=_readable(_SPACE_OF, message.color_space, "color_space"),
        width_px=message.width_px,
        height_px=message.height_px,
        sha256=message.sha256.hex(),
        data=data,
    )


def model_to_message(info: ModelInfo) -> model_service_pb2.Model:
    """Describe a model."""
    return model_service_pb2.Model(
        id=info.id,
        display_name=info.display_name,
        description=info.description,
        kind=info.kind,
        version=info.version,
        digest=bytes.fromhex(info.digest),
        license=info.license,
        class_labels=info.class_labels,
        maps=[_MAPS[kind] for kind in info.maps],
        parameters=[_spec_to_message(spec) for spec in info.parameters],
        size=asset_pb2.SizeSpec(
            stride_px=info.size.stride_px,
            min_px=info.size.min_px,
            max_px=info.size.max_px,
            default_px=info.size.default_px,
        ),
        preview_png=info.preview_png,
    )


def model_from_message(message: model_service_pb2.Model) -> ModelInfo:
    """Maps and parameter types that this version does not know are left out: it could not ask for them."""
    size = message.size
    return ModelInfo(
        id=message.id,
        display_name=message.display_name,
        description=message.description,
        kind=message.kind,
        version=message.version,
        digest=message.digest.hex(),
        license=message.license,
        class_labels=tuple(message.class_labels),
        maps=tuple(_MAP_OF[number] for number in message.maps if number in _MAP_OF),
        parameters=tuple(_spec_from_message(spec) for spec in message.parameters if spec.WhichOneof("type")),
        size=SizeSpec(size.stride_px, size.min_px, size.max_px, size.default_px),
        preview_png=message.preview_png,
    )


def server_to_message(info: ServerInfo) -> model_service_pb2.GetServerInfoResponse:
    """Describe a server."""
    return model_service_pb2.GetServerInfoResponse(
        version=info.version,
        min_client_version=info.min_client_version,
        device=info.device,
        max_count=info.max_count,
        max_edge_px=info.max_edge_px,
        max_request_bytes=info.max_request_bytes,
        profiles=[
            model_service_pb2.EngineProfile(
                id=profile.id,
                display_name=profile.display_name,
                normal_convention=_CONVENTIONS[profile.normal_convention],
                textures=[
                    model_service_pb2.EngineTexture(
                        role=texture.role,
                        file_name=texture.file_name,
                        color_space=_SPACES[texture.color_space],
                        channels=texture.channels,
                    )
                    for texture in profile.textures
                ],
            )
            for profile in info.profiles
        ],
    )


def server_from_message(message: model_service_pb2.GetServerInfoResponse) -> ServerInfo:
    """What a server said of itself; unknown colour spaces count as linear, unknown conventions as Y up."""
    return ServerInfo(
        version=message.version,
        min_client_version=message.min_client_version,
        device=message.device,
        max_count=message.max_count,
        max_edge_px=message.max_edge_px,
        max_request_bytes=message.max_request_bytes,
        profiles=tuple(
            ProfileInfo(
                profile.id,
                profile.display_name,
                _CONVENTION_OF.get(profile.normal_convention, NormalConvention.Y_UP),
                tuple(
                    TextureInfo(
                        texture.role,
                        texture.file_name,
                        _SPACE_OF.get(texture.color_space, ColorSpace.LINEAR),
                        tuple(texture.channels),
                    )
                    for texture in profile.textures
                ),
            )
            for profile in message.profiles
        ),
    )


def _artifact_to_message(artifact: Artifact) -> asset_pb2.Artifact:
    is_map = artifact.role in MapKind.__members__.values()
    return asset_pb2.Artifact(
        index=artifact.index,
        map_kind=_MAPS[MapKind(artifact.role)] if is_map else asset_pb2.MAP_KIND_UNSPECIFIED,
        role=artifact.role,
        name=artifact.name,
        media_type=artifact.media_type,
        pixel_format=_FORMATS[artifact.pixel_format],
        color_space=_SPACES[artifact.color_space],
        width_px=artifact.width_px,
        height_px=artifact.height_px,
        size_bytes=len(artifact.data),
        sha256=bytes.fromhex(artifact.sha256),
    )


def _spec_to_message(spec: ParameterSpec) -> asset_pb2.ParameterSpec:
    message = asset_pb2.ParameterSpec(
        name=spec.name, label=spec.label, description=spec.description, group=spec.group, required=spec.required
    )
    default: Any = spec.default
    if spec.type == "float":
        message.float_spec.min, message.float_spec.max = spec.minimum, spec.maximum
        message.float_spec.default_value = default or 0.0
    elif spec.type == "int":
        message.int_spec.min, message.int_spec.max = int(spec.minimum), int(spec.maximum)
        message.int_spec.default_value = default or 0
    elif spec.type == "choice":
        message.choice_spec.values.extend(spec.values)
        message.choice_spec.default_value = default or ""
    else:
        message.image_spec.media_types.extend(spec.media_types)
    return message


def _spec_from_message(message: asset_pb2.ParameterSpec) -> ParameterSpec:
    shared: dict[str, Any] = {
        "name": message.name,
        "label": message.label,
        "description": message.description,
        "group": message.group,
        "required": message.required,
    }
    match message.WhichOneof("type"):
        case "float_spec":
            number = message.float_spec
            return ParameterSpec(
                type="float", minimum=number.min, maximum=number.max, default=number.default_value, **shared
            )
        case "int_spec":
            whole = message.int_spec
            return ParameterSpec(
                type="int", minimum=whole.min, maximum=whole.max, default=whole.default_value, **shared
            )
        case "choice_spec":
            choice = message.choice_spec
            return ParameterSpec(type="choice", values=tuple(choice.values), default=choice.default_value, **shared)
        case _:
            return ParameterSpec(type="image", media_types=tuple(message.image_spec.media_types), **shared)


def _value_to_message(name: str, value: ParameterValue) -> asset_pb2.ParameterValue:
    if isinstance(value, bool):
        raise TypeError(f"parameters[{name}]: {value!r} is no number; use 0 or 1")
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


def _duration(seconds: float) -> Duration:
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
