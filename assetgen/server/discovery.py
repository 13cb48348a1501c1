"""The methods of ModelService, whatever carries them; imports service, wire_models, and of this package exchange."""

from __future__ import annotations

from google.protobuf.message import Message

from assetgen import __version__, wire_models
from assetgen.describe import ModelInfo, ProfileInfo, ServerInfo, TextureInfo
from assetgen.errors import FieldInvalid
from assetgen.kinds.plan import shown
from assetgen.manifest import is_model_id
from assetgen.postprocess.profiles import PROFILES
from assetgen.server.exchange import MAX_REQUEST_BYTES, Exchange, Front
from assetgen.v1 import model_service_pb2

MIN_CLIENT_VERSION = "0.1.0"
PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000


def list_models(front: Front, request: model_service_pb2.ListModelsRequest, _: Exchange) -> Message:
    """A page of models; the token is the last id of the page before."""
    if request.page_token and not is_model_id(request.page_token):
        raise FieldInvalid(
            f"page_token: {shown(request.page_token)} did not come from this server",
            field="page_token",
            hint="pass next_page_token of the page before, or nothing",
        )
    later = [model for model in front.service.models() if model.id > request.page_token]
    page = later[: min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE)]
    return model_service_pb2.ListModelsResponse(
        models=[_model(front, model) for model in page],
        next_page_token=page[-1].id if len(page) < len(later) else "",
    )


def get_model(front: Front, request: model_service_pb2.GetModelRequest, _: Exchange) -> Message:
    """What GetModel answers."""
    return model_service_pb2.GetModelResponse(model=_model(front, front.service.model(request.id)))


def get_server_info(front: Front, _request: model_service_pb2.GetServerInfoRequest, _: Exchange) -> Message:
    """What GetServerInfo answers."""
    return wire_models.server_to_message(_server_info(front))


def _server_info(front: Front) -> ServerInfo:
    service = front.service
    profiles = tuple(
        ProfileInfo(
            profile.id,
            profile.display_name,
            profile.normal_convention,
            tuple(
                TextureInfo(texture.role, texture.file_name, texture.color_space, texture.channels)
                for texture in profile.textures
            ),
        )
        for profile in PROFILES.values()
    )
    return ServerInfo(
        version=__version__,
        min_client_version=MIN_CLIENT_VERSION,
        device=service.device,
        max_count=service.limits.max_count,
        max_edge_px=max((model.size.max_px for model in service.models()), default=0),
        max_request_bytes=MAX_REQUEST_BYTES,
        profiles=profiles,
        http_port=front.http_port,
        shared_folder=front.shared.folder if front.shared else "",
    )


def _model(front: Front, info: ModelInfo) -> model_service_pb2.Model:
    message = wire_models.model_to_message(info)
    if front.blobs is not None and info.preview_png:
        message.preview_blob = front.blobs.keep(info.preview_png, "image/png")
    return message
