"""Connect, gRPC-Web and files by their SHA-256 on HTTP/1.1, as an ASGI application; imports protocols and exchange.

Web pages of strangers are hostile: a foreign Host (DNS rebinding) and every Origin that is not allowed by name are
refused, and so is every body that a form can send.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from assetgen.errors import AssetgenError, FieldInvalid
from assetgen.server.bodies import Bodies, Body, BodyRefusedError, ClientLeftError, Leaving
from assetgen.server.exchange import Exchange, Front, answered, find_file, may_call, request_id_of
from assetgen.server.methods import METHODS, Stream, Unary
from assetgen.server.protocols import (
    PROTOCOLS,
    Protocol,
    body_of,
    end_of_stream,
    error_json,
    error_status,
    request_message,
)
from assetgen.server.tls import is_loopback
from assetgen.server.tracing import TRACE_PARENT
from assetgen.threads import Pool
from assetgen.v1 import generation_service_pb2

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = dict[str, str]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
SPARE_THREADS = 16
MESSAGES_AHEAD = 2
_ALLOWED_HEADERS = (
    "authorization, connect-protocol-version, connect-timeout-ms, content-type, grpc-timeout, traceparent, "
    "x-grpc-web, x-request-id, x-user-agent"
)
_SHOWN_HEADERS = "grpc-message, grpc-status, grpc-status-details-bin, x-request-id"
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Web:
    """An application of ASGI over a ``Front``.

    Args:
        hosts: names by which clients may reach the server, beside those of the loopback address.
        origins: origins of web pages that may call, such as ``https://tools.example.org``.
    """

    def __init__(
        self, front: Front, hosts: frozenset[str] = frozenset(), origins: frozenset[str] = frozenset()
    ) -> None:
        self._front = front
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in hosts}
        self._origins = origins
        self._bodies = Bodies()
        threads = front.service.limits.max_calls + SPARE_THREADS + (front.jobs.limits.max_waits if front.jobs else 0)
        self._pool = Pool(threads, "assetgen-web")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        origin, method, path = headers.get("origin"), scope["method"], scope["path"]
        shared = _common_headers(origin if origin in self._origins else None)
        if _host(headers.get("host", "")) not in self._hosts:
            await _say(send, 403, shared, "this server is not reached by that Host")
        elif origin is not None and origin not in self._origins:
            await _say(send, 405 if method == "OPTIONS" else 403, shared, "no page of that Origin may call")
        elif method == "OPTIONS" and origin is not None:
            await _say(send, 204, shared, "")
        elif method == "GET" and path.startswith("/v1/blobs/"):
            await self._blob(path, headers, shared, send)
        elif method != "POST":
            await _say(send, 405, {**shared, "allow": "POST"}, "calls are POST")
        else:
            await self._call(path, headers, shared, receive, send, scope.get("client"))

    def close(self) -> None:
        """End the threads once their calls have ended."""
        self._pool.shutdown()

    async def _blob(self, path: str, headers: Headers, shared: Headers, send: Send) -> None:
        try:
            if self._front.tokens is not None:
                self._front.tokens.caller(headers.get("authorization"))
        except AssetgenError as error:
            await _say(send, error_status(error), shared, error.message)
            return
        blob = find_file(self._front, path)
        if blob is None:
            await _say(send, 404, shared, "no such file, or no longer; ask for it again by the same request")
            return
        kind = {"content-type": blob.media_type, "content-length": str(len(blob.data))}
        await _begin(send, 200, shared | kind | {"cache-control": "private, max-age=3600, immutable"})
        await send({"type": "http.response.body", "body": bytes(blob.data)})

    async def _call(
        self, path: str, headers: Headers, shared: Headers, receive: Receive, send: Send, peer: tuple[str, int] | None
    ) -> None:
        protocol = PROTOCOLS.get(headers.get("content-type", "").partition(";")[0].strip().lower())
        service, _, name = path.removeprefix("/").rpartition("/")
        method = METHODS.get(service, {}).get(name)
        if method is None:
            await _say(send, 404, shared, "no such method")
            return
        streams = isinstance(method, Stream)
        if protocol is None or (protocol.streams != streams and not protocol.grpc_web):
            await _say(send, 415, {**shared, "accept-post": ", ".join(PROTOCOLS)}, "another Content-Type is needed")
            return
        request_id = request_id_of(headers.get("x-request-id"))
        local = peer is not None and is_loopback(peer[0])
        exchange = Exchange(name, str(peer), request_id, headers.get("authorization"), local, headers.get(TRACE_PARENT))
        body = Body(self._bodies)
        try:
            if may_call(
                self._front.tokens, exchange.authorization
            ):  # of others nothing is read; they are refused below as in all methods
                await body.read(headers, receive)
        except ClientLeftError:
            body.let_go()
            return
        except BodyRefusedError as refused:
            body.let_go()
            await _say(send, refused.status, {**shared, "connection": "close"}, str(refused))
            return
        shared |= {"x-request-id": request_id, "content-type": protocol.content_type}
        try:
            if isinstance(method, Stream):
                await self._stream(method, protocol, bytes(body.data), headers, exchange, shared, receive, send)
            else:
                await self._unary(method, protocol, bytes(body.data), headers, exchange, shared, send)
        finally:
            body.let_go()

    async def _unary(
        self,
        method: Unary,
        protocol: Protocol,
        body: bytes,
        headers: Headers,
        exchange: Exchange,
        shared: Headers,
        send: Send,
    ) -> None:
        def work() -> bytes:
            with answered(self._front, exchange):
                request = request_message(protocol, body, method.request, _encoding(protocol, headers))
                exchange.deadline_s = _deadline_s(headers)
                message = method.answer(self._front, request, exchange)
                return body_of(protocol, message.SerializeToString(), method.response)

        status, error = 200, None
        try:
            data = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except AssetgenError as caught:
            data, error = b"", caught
        if protocol.grpc_web:
            data += end_of_stream(protocol, error)
        elif error is not None:
            status, data = error_status(error), _json_bytes(error)
            shared |= {"content-type": "application/json"}
        await _begin(send, status, shared | {"content-length": str(len(data))})
        await send({"type": "http.response.body", "body": data})

    async def _stream(
        self,
        method: Stream,
        protocol: Protocol,
        body: bytes,
        headers: Headers,
        exchange: Exchange,
        shared: Headers,
        receive: Receive,
        send: Send,
    ) -> None:
        """Run the call on a thread, at most ``MESSAGES_AHEAD`` of the client; stop it when the client leaves."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(MESSAGES_AHEAD)
        left = Leaving()
        exchange.on_end = left.call
        exchange.give_up = lambda: loop.call_soon_threadsafe(task.cancel) if task else None

        def put(data: bytes | None) -> None:
            if not left.gone:
                asyncio.run_coroutine_threadsafe(queue.put(data), loop).result()

        def work() -> None:
            try:
                for data in self._envelopes(method, protocol, body, headers, exchange):
                    put(data)
            finally:
                put(None)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.leave()
            queue.put_nowait(None) if queue.empty() else None

        await _begin(send, 200, shared)
        working, watching = loop.run_in_executor(self._pool, work), asyncio.create_task(watch())
        try:
            while not left.gone and (data := await queue.get()) is not None:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            if not left.gone:
                await send({"type": "http.response.body", "body": b""})
        finally:
            left.leave()  # whatever ended it: nobody reads any more
            watching.cancel()
            while not working.done():
                with suppress(asyncio.QueueEmpty):
                    queue.get_nowait()  # lets go of a message that waits for its turn
                await asyncio.sleep(0.005)

    def _envelopes(
        self, method: Stream, protocol: Protocol, body: bytes, headers: Headers, exchange: Exchange
    ) -> Iterator[bytes]:
        error: AssetgenError | None = None
        try:
            with answered(self._front, exchange):
                message: Any = request_message(protocol, body, method.request, _encoding(protocol, headers))
                if protocol.json:
                    message.delivery = generation_service_pb2.DELIVERY_BLOBS
                exchange.deadline_s = _deadline_s(headers)
                for data in method.answer(self._front, message, exchange):
                    yield body_of(protocol, data, method.response)
        except AssetgenError as caught:
            error = caught
        yield end_of_stream(protocol, error)


def _host(value: str) -> str:
    """The name in a Host header, without the port."""
    return re.sub(r":[0-9]{1,5}$", "", value.strip().lower())


def _common_headers(origin: str | None) -> Headers:
    headers = {"x-content-type-options": "nosniff", "cross-origin-resource-policy": "same-origin"}
    if origin is not None:
        headers |= {
            "access-control-allow-origin": origin,
            "access-control-allow-methods": "POST, GET",
            "access-control-allow-headers": _ALLOWED_HEADERS,
            "access-control-expose-headers": _SHOWN_HEADERS,
            "access-control-max-age": "7200",
            "cross-origin-resource-policy": "cross-origin",
            "vary": "Origin",
        }
    return headers


def _encoding(protocol: Protocol, headers: Headers) -> str:
    """How the request is compressed; the header's name differs."""
    name = (
        "grpc-encoding" if protocol.grpc_web else "connect-content-encoding" if protocol.streams else "content-encoding"
    )
    return headers.get(name, "identity").lower()


def _deadline_s(headers: Headers) -> float | None:
    """What Connect-Timeout-Ms or Grpc-Timeout leaves; raises FieldInvalid."""
    connect, grpc_web = headers.get("connect-timeout-ms"), headers.get("grpc-timeout")
    if connect is not None and re.fullmatch(r"[0-9]{1,10}", connect):
        return int(connect) / 1000
    if grpc_web is not None and (found := re.fullmatch(r"([0-9]{1,8})([HMSmun])", grpc_web)):
        return int(found.group(1)) * _GRPC_UNITS[found.group(2)]
    if connect is not None or grpc_web is not None:
        raise FieldInvalid(f"the timeout {connect or grpc_web!r:.40} is not allowed", hint="check the client")
    return None


async def _begin(send: Send, status: int, headers: Headers) -> None:
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def _say(send: Send, status: int, headers: Headers, text: str) -> None:
    data = text.encode()
    length = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(data))} if status != 204 else {}
    await _begin(send, status, headers | length)
    await send({"type": "http.response.body", "body": data})


def _json_bytes(error: AssetgenError) -> bytes:
    return json.dumps(error_json(error)).encode()
