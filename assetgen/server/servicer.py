"""The RPCs over gRPC: contexts, metadata and statuses; imports exchange, health, places, status and grpc."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeAlias

import grpc
from grpc_status import rpc_status

from assetgen.errors import AssetgenError, FieldInvalid, TokenInvalid
from assetgen.server import health
from assetgen.server.exchange import Exchange, Front, answered, may_call, parsed, request_id_of
from assetgen.server.methods import METHODS, Stream, Unary
from assetgen.server.places import Places
from assetgen.server.tokens import TokenTable
from assetgen.server.tracing import TRACE_PARENT
from assetgen.status import status_from_error

REQUEST_ID, AUTHORIZATION = "x-request-id", "authorization"
_KNOWN = (REQUEST_ID, AUTHORIZATION, TRACE_PARENT)
_OPEN = f"/{health.SERVICE_NAME}/"
_CHECKED = (*(f"/{service}/" for service in METHODS), _OPEN)
_LOCAL_PEERS = ("unix:", "ipv4:127.", "ipv6:[::1]:", "ipv6:%5B::1%5D:")
# Calls whose message is still to come. It comes with the headers or right behind them, a large one somewhat later.
MAX_AWAITED = 96
# The same of what needs no token, and has messages of a few bytes.
MAX_OPEN_AWAITED = 8
Awaited: TypeAlias = Places[grpc.ServicerContext]


def handlers(front: Front) -> list[grpc.GenericRpcHandler]:
    """The handlers of our services, ready for ``add_generic_rpc_handlers``."""
    return [
        grpc.method_handlers_generic_handler(
            service, {name: _handler(front, name, method) for name, method in methods.items()}
        )
        for service, methods in METHODS.items()
    ]


def token_guard(tokens: TokenTable) -> grpc.ServerInterceptor:
    """Refuses without a token what is not ours, such as reflection; ours check themselves, and health is for all."""
    return _TokenGuard(tokens)


class _TokenGuard(grpc.ServerInterceptor):
    def __init__(self, tokens: TokenTable) -> None:
        self._tokens = tokens

    def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method)
        if method.startswith(_CHECKED):
            return continuation(handler_call_details)
        try:
            self._tokens.caller(_authorization(handler_call_details.invocation_metadata))
        except TokenInvalid as error:
            refusal = error

            def refuse(_: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
                _abort(context, refusal, request_id_of(None))

            return grpc.stream_stream_rpc_method_handler(refuse)
        return continuation(handler_call_details)


def message_guard(tokens: TokenTable | None) -> grpc.ServerInterceptor:
    """Cuts off calls that begin and do not go on, and reads no message of whom is not known.

    gRPC gives a thread to every call that has begun, and holds what came of its message, up to 32 MiB. One client that
    never sends the end would soon have all threads or all memory, and no other would be answered: so few may wait, and
    one more takes the place of the oldest.
    """
    return _MessageGuard(tokens)


class _MessageGuard(grpc.ServerInterceptor):
    def __init__(self, tokens: TokenTable | None) -> None:
        self._tokens = tokens
        self._known: Awaited = Places(MAX_AWAITED)
        self._open: Awaited = Places(MAX_OPEN_AWAITED)

    def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        if handler.request_streaming and handler.response_streaming:  # reflection
            return grpc.stream_stream_rpc_method_handler(
                lambda messages, context: handler.stream_stream(_each(messages, context, self._known), context),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.response_streaming:
            answer, as_handler = handler.unary_stream, grpc.stream_stream_rpc_method_handler
        else:
            answer, as_handler = handler.unary_unary, grpc.stream_unary_rpc_method_handler
        is_open = str(handler_call_details.method).startswith(_OPEN)
        patient = self._patient(answer, self._open if is_open else self._known, needs_token=not is_open)
        return as_handler(patient, handler.request_deserializer, handler.response_serializer)

    def _patient(
        self, answer: Callable[[Any, grpc.ServicerContext], Any], awaited: Awaited, *, needs_token: bool
    ) -> Callable[..., Any]:
        def handle(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
            if needs_token and not may_call(self._tokens, _authorization(context.invocation_metadata())):
                return answer(b"", context)  # which says so before it looks at the message
            message = _next(messages, context, awaited)
            if message is None:
                _abort(context, FieldInvalid("the call has no message", hint="check the client"), request_id_of(None))
            return answer(message, context)

        return handle


def _next(messages: Iterator[Any], context: grpc.ServicerContext, awaited: Awaited) -> Any:
    """The next message, ``None`` after the last."""
    if (oldest := awaited.enter(context)) is not None:
        oldest.cancel()
    try:
        return next(messages, None)
    finally:
        awaited.leave(context)


def _each(messages: Iterator[Any], context: grpc.ServicerContext, awaited: Awaited) -> Iterator[Any]:
    while (message := _next(messages, context, awaited)) is not None:
        yield message


def _authorization(metadata: Any) -> str | None:
    given = next((value for key, value in metadata or () if key == AUTHORIZATION), None)
    return given if isinstance(given, str) else None


def _handler(front: Front, name: str, method: Unary | Stream) -> grpc.RpcMethodHandler[Any, Any]:
    # No serializer: messages are parsed here and not in gRPC, which would answer UNKNOWN and the name of an exception.
    return _streaming(front, name, method) if isinstance(method, Stream) else _unary(front, name, method)


def _streaming(front: Front, name: str, method: Stream) -> grpc.RpcMethodHandler[Any, Any]:
    def handle(data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        exchange = _exchange(context, name)
        try:
            with answered(front, exchange):
                answer = method.answer(front, parsed(method.request, data), exchange)
                del data  # of a large picture there shall be one copy, not one for each who has seen it
                yield from answer
        except AssetgenError as error:
            _abort(context, error, exchange.request_id)

    return grpc.unary_stream_rpc_method_handler(handle)


def _unary(front: Front, name: str, method: Unary) -> grpc.RpcMethodHandler[Any, Any]:
    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        exchange = _exchange(context, name)
        try:
            with answered(front, exchange):
                return method.answer(front, parsed(method.request, data), exchange).SerializeToString()
        except AssetgenError as error:
            _abort(context, error, exchange.request_id)

    return grpc.unary_unary_rpc_method_handler(handle)


def _exchange(context: grpc.ServicerContext, method: str) -> Exchange:
    metadata = context.invocation_metadata() or ()
    given = {key: value for key, value in metadata if isinstance(value, str) and key in _KNOWN}
    request_id = request_id_of(given.get(REQUEST_ID))
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    peer = context.peer()  # once: each time it lets go of the interpreter, for which others wait
    return Exchange(
        method,
        peer,
        request_id,
        given.get(AUTHORIZATION),
        peer.startswith(_LOCAL_PEERS),
        given.get(TRACE_PARENT),
        context.time_remaining(),
        give_up=context.cancel,
        on_end=context.add_callback,
    )


def _abort(context: grpc.ServicerContext, error: AssetgenError, request_id: str) -> NoReturn:
    status = rpc_status.to_status(status_from_error(error))
    context.set_trailing_metadata((*status.trailing_metadata, (REQUEST_ID, request_id)))
    context.abort(status.code, status.details)
    raise AssertionError("abort raises")
