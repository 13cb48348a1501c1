"""The RPCs: from messages to the service core and back; imports service, wire, status, v1 and grpc."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from assetgen import __version__, wire
from assetgen.describe import ProfileInfo, ServerInfo, TextureInfo
from assetgen.errors import AssetgenError, FieldInvalid, InternalError
from assetgen.kinds.plan import shown
from assetgen.manifest import is_model_id
from assetgen.postprocess.profiles import PROFILES
from assetgen.service import Service
from assetgen.status import status_from_error
from assetgen.v1 import generation_service_pb2, model_service_pb2

log = logging.getLogger(__name__)
calls = logging.getLogger("assetgen.calls")

MIN_CLIENT_VERSION = "0.1.0"
MAX_REQUEST_BYTES = 32 * 2**20
PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
GENERATION_SERVICE = generation_service_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name
MODEL_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
REQUEST_ID = "x-request-id"

R = TypeVar("R", bound=Message)


def handlers(service: Service) -> list[grpc.GenericRpcHandler]:
    """The handlers of both services, ready for ``add_generic_rpc_handlers``."""

    def list_models(request: model_service_pb2.ListModelsRequest) -> Message:
        return _page_of_models(service, request)

    def get_model(request: model_service_pb2.GetModelRequest) -> Message:
        return model_service_pb2.GetModelResponse(model=wire.model_to_message(service.model(request.id)))

    def get_server_info(_: model_service_pb2.GetServerInfoRequest) -> Message:
        return wire.server_to_message(server_info(service))

    def generate(data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        facts: dict[str, str | int] = {}
        with _answered(context, "Generate", facts):
            yield from _generate(service, data, context, facts)

    return [
        grpc.method_handlers_generic_handler(
            MODEL_SERVICE,
            {
                "ListModels": _unary("ListModels", list_models, model_service_pb2.ListModelsRequest),
                "GetModel": _unary("GetModel", get_model, model_service_pb2.GetModelRequest),
                "GetServerInfo": _unary("GetServerInfo", get_server_info, model_service_pb2.GetServerInfoRequest),
            },
        ),
        grpc.method_handlers_generic_handler(
            GENERATION_SERVICE,
            {
                # No serializer: messages leave wire.event_to_messages as bytes, so that chunks are copied once.
                "Generate": grpc.unary_stream_rpc_method_handler(generate),
            },
        ),
    ]


def server_info(service: Service) -> ServerInfo:
    """What GetServerInfo answers."""
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
    )


def _generate(
    service: Service, data: bytes, context: grpc.ServicerContext, facts: dict[str, str | int]
) -> Iterator[bytes]:
    """The messages that answer one call; ``facts`` receives what the log should say of it."""
    message = _parsed(generation_service_pb2.GenerateRequest, data)
    facts |= {"model": message.model_id[:80], "seed": message.seed, "count": message.count}
    call = service.admit(wire.request_from_message(message), context.time_remaining())
    try:
        call.give_up = context.cancel
        if context.add_callback(call.stop):  # not if the client is gone already
            for event in call.events():
                yield from wire.event_to_messages(event)
    finally:
        call.release()


def _page_of_models(
    service: Service, request: model_service_pb2.ListModelsRequest
) -> model_service_pb2.ListModelsResponse:
    """A page of models; the token is the last id of the page before."""
    if request.page_token and not is_model_id(request.page_token):
        raise FieldInvalid(
            f"page_token: {shown(request.page_token)} did not come from this server",
            field="page_token",
            hint="pass next_page_token of the page before, or nothing",
        )
    later = [model for model in service.models() if model.id > request.page_token]
    page = later[: min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE)]
    return model_service_pb2.ListModelsResponse(
        models=[wire.model_to_message(model) for model in page],
        next_page_token=page[-1].id if len(page) < len(later) else "",
    )


def _unary(method: str, answer: Callable[[Any], Message], request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        with _answered(context, method, {}):
            return answer(_parsed(request, data)).SerializeToString()

    return grpc.unary_unary_rpc_method_handler(handle)


def _parsed(request: type[R], data: bytes) -> R:
    """Parse here and not in gRPC, which would answer UNKNOWN and the name of an exception."""
    try:
        return request.FromString(data)
    except DecodeError as error:
        raise FieldInvalid(f"the request is no {request.DESCRIPTOR.full_name}", hint="check the client") from error


@contextmanager
def _answered(context: grpc.ServicerContext, method: str, facts: Mapping[str, str | int]) -> Iterator[None]:
    """Errors within become rich statuses, and each call one line in the log."""
    request_id, begun_s, code, reason = _request_id(context), time.monotonic(), "OK", ""
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    try:
        yield
    except AssetgenError as error:
        code, reason = error.status, error.reason
        _abort(context, error, request_id)
    except GeneratorExit:  # the client left
        code = "CANCELLED"
        raise
    except Exception:
        code, reason = "INTERNAL", "INTERNAL"
        log.exception("call %s of %s failed", request_id, method)
        hidden = InternalError("the server failed; this is a fault of ours", hint="see the log of the server")
        _abort(context, hidden, request_id)
    finally:
        if calls.isEnabledFor(logging.INFO):
            line = {"request_id": request_id, "method": method, **facts, "code": code, "reason": reason}
            calls.info("%s", json.dumps(line | {"total_ms": round((time.monotonic() - begun_s) * 1e3, 2)}))


def _abort(context: grpc.ServicerContext, error: AssetgenError, request_id: str) -> NoReturn:
    status = rpc_status.to_status(status_from_error(error))
    context.set_trailing_metadata((*status.trailing_metadata, (REQUEST_ID, request_id)))
    context.abort(status.code, status.details)
    raise AssertionError("abort raises")


def _request_id(context: grpc.ServicerContext) -> str:
    """The caller's own id if it is fit for a log, else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and value.isprintable() and len(value) <= 64:
            return value
    return uuid.uuid4().hex
