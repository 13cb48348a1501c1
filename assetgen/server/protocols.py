"""Connect and gRPC-Web: what their bodies look like; imports exchange, status and protobuf, nothing that listens.

Connect: https://connectrpc.com/docs/protocol. gRPC-Web: PROTOCOL-WEB.md of grpc. Requests may be compressed; answers
never are: maps and PNGs hardly shrink, and gzip costs ten times the call.
"""

from __future__ import annotations

import base64
import json
import struct
import urllib.parse
import zlib
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2

from assetgen import strictjson
from assetgen.errors import AssetgenError, FieldInvalid
from assetgen.server.exchange import MAX_REQUEST_BYTES, parsed
from assetgen.status import status_from_error
from assetgen.v1 import model_service_pb2

R = TypeVar("R", bound=Message)

# https://connectrpc.com/docs/protocol#error-codes
_HTTP_STATUS = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAUTHENTICATED": 401,
    "UNAVAILABLE": 503,
}
_COMPRESSED, _END_OF_CONNECT, _TRAILERS_OF_GRPC_WEB = 0b01, 0b10, 0x80
_HEAD = struct.Struct(">BI")


@dataclass(frozen=True)
class Protocol:
    """How one content type carries calls.

    Attributes:
        streams: bodies are envelopes, for methods that stream; else one message each way.
        json: messages are proto-JSON, without pixels.
        grpc_web: the end is a frame of trailers; both kinds of method use envelopes.
    """

    content_type: str
    streams: bool
    json: bool = False
    grpc_web: bool = False


_ALL = (
    Protocol("application/json", streams=False, json=True),
    Protocol("application/proto", streams=False),
    Protocol("application/connect+json", streams=True, json=True),
    Protocol("application/connect+proto", streams=True),
    Protocol("application/grpc-web", streams=True, grpc_web=True),
    Protocol("application/grpc-web+proto", streams=True, grpc_web=True),
)
PROTOCOLS = {protocol.content_type: protocol for protocol in _ALL}


def request_message(protocol: Protocol, body: bytes, request: type[R], encoding: str = "identity") -> R:
    """The one message of a request's body.

    Args:
        encoding: how the body, or the message in its envelope if that says so, is compressed.

    Raises:
        FieldInvalid: the body is not one envelope where there must be one, or holds no such message.
    """
    compressed = encoding != "identity"
    if protocol.streams:
        flags, size = _HEAD.unpack_from(body) if len(body) >= _HEAD.size else (0, -1)
        if flags > _COMPRESSED or size != len(body) - _HEAD.size:
            raise FieldInvalid("the request is not one envelope", hint="check the client")
        body, compressed = body[_HEAD.size :], bool(flags)
    if compressed:
        body = _decompressed(body, encoding)
    if not protocol.json:
        return parsed(request, body)
    try:
        document = strictjson.loads(body)
        if not isinstance(document, dict):
            raise strictjson.StrictJsonError("no object")
        return json_format.ParseDict(document, request())
    except (json_format.ParseError, strictjson.StrictJsonError) as error:
        said = f"the request is no {request.DESCRIPTOR.full_name}: {str(error)[:300]}"
        raise FieldInvalid(said, hint="check the client") from error


def body_of(protocol: Protocol, message: bytes, kind: type[Message]) -> bytes:
    """A message, serialised as protobuf, as this protocol writes it, in an envelope if it streams."""
    if protocol.json:
        message = _json(kind.FromString(message))
    return _HEAD.pack(0, len(message)) + message if protocol.streams else message


def end_of_stream(protocol: Protocol, error: AssetgenError | None) -> bytes:
    """The last envelope of a stream."""
    if protocol.grpc_web:
        return _envelope(_TRAILERS_OF_GRPC_WEB, _trailers(error))
    return _envelope(_END_OF_CONNECT, json.dumps({"error": error_json(error)} if error else {}).encode())


def error_status(error: AssetgenError) -> int:
    """The HTTP status of an error in Connect's unary calls."""
    return _HTTP_STATUS.get(error.status, 500)


def error_json(error: AssetgenError) -> dict[str, object]:
    """An error as Connect writes it: the code in lower case, details as base64 and also readable."""
    status = status_from_error(error)
    details = []
    for packed in status.details:
        known = packed.TypeName().removeprefix("google.rpc.")
        detail: dict[str, object] = {"type": packed.TypeName(), "value": _base64(packed.value)}
        if (kind := getattr(error_details_pb2, known, None)) is not None:
            detail["debug"] = json_format.MessageToDict(kind.FromString(packed.value))
        details.append(detail)
    return {"code": error.status.lower(), "message": status.message, "details": details}


def _trailers(error: AssetgenError | None) -> bytes:
    if error is None:
        return b"grpc-status: 0\r\n"
    status = status_from_error(error)
    message = urllib.parse.quote(status.message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    code = code_pb2.Code.Value(error.status)
    details = _base64(status.SerializeToString())
    return f"grpc-status: {code}\r\ngrpc-message: {message}\r\ngrpc-status-details-bin: {details}\r\n".encode()


def _decompressed(data: bytes, encoding: str) -> bytes:
    """At most ``MAX_REQUEST_BYTES``: a few kilobytes of gzip can hold gigabytes."""
    if encoding != "gzip":
        raise FieldInvalid(f"the encoding {encoding!r:.40} is not known; use gzip or identity", hint="check the client")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, MAX_REQUEST_BYTES + 1)
    except zlib.error as error:
        raise FieldInvalid(f"the request is no gzip: {error}", hint="check the client") from error
    if len(unpacked) > MAX_REQUEST_BYTES or not unpacker.eof:
        raise FieldInvalid(f"the request is cut, or has more than {MAX_REQUEST_BYTES} bytes", hint="check the client")
    return unpacked


def _json(message: Message) -> bytes:
    """Proto-JSON; pixels are left out, which JSON clients fetch by their address."""
    if isinstance(message, model_service_pb2.GetModelResponse):
        message.model.ClearField("preview_png")
    elif isinstance(message, model_service_pb2.ListModelsResponse):
        for model in message.models:
            model.ClearField("preview_png")
    return json_format.MessageToJson(message, indent=None).encode()


def _envelope(flags: int, data: bytes) -> bytes:
    return _HEAD.pack(flags, len(data)) + data


def _base64(data: bytes) -> str:
    """Without padding, as both protocols want it."""
    return base64.b64encode(data).decode().rstrip("=")
