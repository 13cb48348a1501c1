"""The RPCs over gRPC: contexts, metadata and statuses; imports exchange, status and grpc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health
from grpc_status import rpc_status

from assetgen.errors import AssetgenError, TokenInvalid
from assetgen.server.exchange import (
    DISCOVERY,
    GENERATION_SERVICE,
    MODEL_SERVICE,
    Answer,
    Exchange,
    Front,
    answered,
    generate,
    parsed,
    request_id_of,
)
from assetgen.server.tokens import TokenTable
from assetgen.status import status_from_error
from assetgen.v1 import generation_service_pb2

REQUEST_ID, AUTHORIZATION = "x-request-id", "authorization"


def handlers(front: Front) -> list[grpc.GenericRpcHandler]:
    """The handlers of both services, ready for ``add_generic_rpc_handlers``."""

    def make(data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        exchange = _exchange(context, "Generate")
        try:
            with answered(front, exchange):
                yield from generate(front, parsed(generation_service_pb2.GenerateRequest, data), exchange)
        except AssetgenError as error:
            _abort(context, error, exchange.request_id)

    discovery = {name: _unary(front, name, *known) for name, known in DISCOVERY.items()}
    # No serializer: messages leave wire.py as bytes, so that chunks are copied once.
    generation: dict[str, Any] = {"Generate": grpc.unary_stream_rpc_method_handler(make)}
    return [
        grpc.method_handlers_generic_handler(MODEL_SERVICE, discovery),
        grpc.method_handlers_generic_handler(GENERATION_SERVICE, generation),
    ]


def token_guard(tokens: TokenTable) -> grpc.ServerInterceptor:
    """Refuses without a token what is not ours, such as reflection; ours check themselves, and health is for all."""
    return _TokenGuard(tokens)


class _TokenGuard(grpc.ServerInterceptor):
    def __init__(self, tokens: TokenTable) -> None:
        self._tokens = tokens

    def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method)
        if method.startswith((f"/{GENERATION_SERVICE}/", f"/{MODEL_SERVICE}/", f"/{health.SERVICE_NAME}/")):
            return continuation(handler_call_details)
        metadata: Any = handler_call_details.invocation_metadata or ()
        given = next((value for key, value in metadata if key == AUTHORIZATION), None)
        try:
            self._tokens.caller(given if isinstance(given, str) else None)
        except TokenInvalid as error:
            refusal = error

            def refuse(_: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
                _abort(context, refusal, request_id_of(None))

            return grpc.stream_stream_rpc_method_handler(refuse)
        return continuation(handler_call_details)


def _unary(front: Front, method: str, request: type[Message], answer: Answer) -> grpc.RpcMethodHandler[Any, Any]:
    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        exchange = _exchange(context, method)
        try:
            with answered(front, exchange):
                # Parsed here and not in gRPC, which would answer UNKNOWN and the name of an exception.
                return answer(front, parsed(request, data)).SerializeToString()
        except AssetgenError as error:
            _abort(context, error, exchange.request_id)

    return grpc.unary_unary_rpc_method_handler(handle)


def _exchange(context: grpc.ServicerContext, method: str) -> Exchange:
    metadata = context.invocation_metadata() or ()
    given = {key: value for key, value in metadata if isinstance(value, str) and key in (REQUEST_ID, AUTHORIZATION)}
    request_id = request_id_of(given.get(REQUEST_ID))
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    return Exchange(
        method,
        context.peer(),
        request_id,
        given.get(AUTHORIZATION),
        context.time_remaining(),
        give_up=context.cancel,
        on_end=context.add_callback,
    )


def _abort(context: grpc.ServicerContext, error: AssetgenError, request_id: str) -> NoReturn:
    status = rpc_status.to_status(status_from_error(error))
    context.set_trailing_metadata((*status.trailing_metadata, (REQUEST_ID, request_id)))
    context.abort(status.code, status.details)
    raise AssertionError("abort raises")
