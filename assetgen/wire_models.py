"""Between what a server tells of itself and the messages of that, both ways; imports v1, describe and manifest."""

from __future__ import annotations

from typing import Any

from assetgen.describe import ModelInfo, ProfileInfo, ServerInfo, TextureInfo
from assetgen.manifest import ParameterSpec, SizeSpec
from assetgen.types import ColorSpace, NormalConvention
from assetgen.v1 import asset_pb2, model_service_pb2
from assetgen.wire_enums import CONVENTION_OF, CONVENTIONS, MAP_OF, MAPS, SPACE_OF, SPACES


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
        maps=[MAPS[kind] for kind in info.maps],
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
        maps=tuple(MAP_OF[number] for number in message.maps if number in MAP_OF),
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
        http_port=info.http_port,
        shared_folder=info.shared_folder,
        profiles=[
            model_service_pb2.EngineProfile(
                id=profile.id,
                display_name=profile.display_name,
                normal_convention=CONVENTIONS[profile.normal_convention],
                textures=[
                    model_service_pb2.EngineTexture(
                        role=texture.role,
                        file_name=texture.file_name,
                        color_space=SPACES[texture.color_space],
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
        http_port=message.http_port,
        shared_folder=message.shared_folder,
        profiles=tuple(
            ProfileInfo(
                profile.id,
                profile.display_name,
                CONVENTION_OF.get(profile.normal_convention, NormalConvention.Y_UP),
                tuple(
                    TextureInfo(
                        texture.role,
                        texture.file_name,
                        SPACE_OF.get(texture.color_space, ColorSpace.LINEAR),
                        tuple(texture.channels),
                    )
                    for texture in profile.textures
                ),
            )
            for profile in message.profiles
        ),
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
