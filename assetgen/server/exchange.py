"""What the server answers, whatever carries it: the methods, who may call, errors, log and counters.

Imports service, wire, v1 and of this package tokens, metrics, blobs and logs; no gRPC and no HTTP.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from assetgen import __version__, wire, wire_models
from assetgen.callers import Caller, Terms
from assetgen.calls import Call
from assetgen.describe import ModelInfo, ProfileInfo, ServerInfo, TextureInfo
from assetgen.errors import AssetgenError, FieldInvalid, InternalError
from assetgen.kinds.plan import shown
from assetgen.manifest import is_model_id
from assetgen.postprocess.profiles import PROFILES
from assetgen.server import logs
from assetgen.server.blobs import Blobs
from assetgen.server.metrics import Metrics
from assetgen.server.tokens import TokenTable
from assetgen.service import Service
from assetgen.types import Artifact, Event, Finished, Started
from assetgen.v1 import generation_service_pb2, model_service_pb2

log = logging.getLogger(__name__)
calls = logging.getLogger("assetgen.calls")

MIN_CLIENT_VERSION = "0.1.0"
MAX_REQUEST_BYTES = 32 * 2**20
PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
GENERATION_SERVICE = generation_service_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name
MODEL_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name

R = TypeVar("R", bound=Message)
Answer = Callable[["Front", Any], Message]


@dataclass(frozen=True)
class Front:
    """What stands behind the ports.

    Attributes:
        tokens: who may call; ``None``: everybody.
        metrics: what counts the calls, if anything does.
        blobs: files to be fetched over HTTP; ``None`` without such a port.
    """

    service: Service
    tokens: TokenTable | None = None
    metrics: Metrics | None = None
    blobs: Blobs | None = None
    http_port: int = 0


@dataclass
class Exchange:
    """One call that is being answered.

    Attributes:
        peer: the connection it came by.
        deadline_s: what the client leaves for it.
        give_up: cuts off a client that does not read.
        on_end: has a function called when the client leaves; returns whether it is still there.
        caller: who calls, once it is known.
        facts: what the log says of it beside.
    """

    method: str
    peer: str
    request_id: str
    authorization: str | None = None
    deadline_s: float | None = None
    give_up: Callable[[], object] = lambda: None
    on_end: Callable[[Callable[[], None]], bool] = lambda _: True
    caller: Caller = field(default_factory=Caller)
    facts: dict[str, Any] = field(default_factory=dict)


def request_id_of(given: str | None) -> str:
    """The caller's own id if it is fit for a log, else a new one."""
    return given if given and given.isprintable() and len(given) <= 64 else uuid.uuid4().hex


@contextmanager
def answered(front: Front, exchange: Exchange) -> Iterator[None]:
    """Refuse who may not call, count, and write one line; what is raised is an AssetgenError, or the client left.

    Raises:
        AssetgenError: fit to be sent; what is not meant for users stands in the log only.
    """
    begun_s, code, reason = time.monotonic(), "OK", ""
    logs.request_id.set(exchange.request_id)
    try:
        if front.tokens is not None:
            exchange.caller = front.tokens.caller(exchange.authorization)
        yield
    except AssetgenError as error:
        code, reason = error.status, error.reason
        raise
    except GeneratorExit:  # the client left
        code = "CANCELLED"
        raise
    except Exception as error:
        code, reason = "INTERNAL", "INTERNAL"
        log.exception("call %s of %s failed", exchange.request_id, exchange.method)
        raise InternalError("the server failed; this is a fault of ours", hint="see the log of the server") from error
    finally:
        spent_s = time.monotonic() - begun_s
        if front.metrics is not None:
            front.metrics.call(exchange.method, code, reason, spent_s)
        if calls.isEnabledFor(logging.INFO):
            line = {"request_id": exchange.request_id, "method": exchange.method, **exchange.facts, "code": code}
            line |= {"reason": reason, "total_ms": round(spent_s * 1e3, 2)}
            if exchange.caller.name:
                line["caller"] = exchange.caller.name
            calls.info("%s", json.dumps(line), extra={"facts": line})


def parsed(request: type[R], data: bytes) -> R:
    """The message in ``data``; raises FieldInvalid."""
    try:
        return request.FromString(data)
    except DecodeError as error:
        raise FieldInvalid(f"the request is no {request.DESCRIPTOR.full_name}", hint="check the client") from error


def generate(front: Front, message: generation_service_pb2.GenerateRequest, exchange: Exchange) -> Iterator[bytes]:
    """The serialised messages that answer a request."""
    exchange.facts |= {"model": message.model_id[:80], "seed": message.seed, "count": message.count}
    blobs = _blobs(front, message)
    terms = Terms(
        exchange.caller,
        exchange.caller.name or exchange.peer,
        wire.priority_from_message(message),
        wire.supersede_key_from_message(message),
    )
    call = front.service.admit(wire.request_from_message(message), exchange.deadline_s, terms)
    sent_bytes = 0
    try:
        call.give_up = exchange.give_up
        if exchange.on_end(call.stop):  # not if the client is gone already
            for answer in _messages(call, blobs, message.inline_bytes):
                sent_bytes += len(answer)
                yield answer
    finally:
        call.release()
        spent_s = dict(call.spent_s)
        exchange.facts |= {"bytes": sent_bytes, "ms": {stage: round(each * 1e3, 2) for stage, each in spent_s.items()}}
        if front.metrics is not None:
            front.metrics.made(call.package.manifest.id, spent_s, sent_bytes)


def _blobs(front: Front, message: generation_service_pb2.GenerateRequest) -> Blobs | None:
    """Where the files go that shall not come in the stream."""
    if not wire.wants_blobs(message):
        return None
    if front.blobs is None:
        raise FieldInvalid(
            "delivery: this server has no HTTP port to fetch files from",
            field="delivery",
            hint="ask for DELIVERY_CHUNKS, or start the server with --http-port",
        )
    return front.blobs


def _messages(call: Call, blobs: Blobs | None, inline_bytes: int) -> Iterator[bytes]:
    if blobs is not None:
        for event in call.events():
            if isinstance(event, Artifact):
                yield wire.blob_message(event, blobs.keep(event.data, event.media_type, event.sha256))
            else:
                yield from wire.event_to_messages(event)
    elif call.small and inline_bytes:
        yield from _at_once(call.events(), min(inline_bytes, wire.INLINE_BYTES))
    else:
        for event in call.events():
            yield from wire.event_to_messages(event)


def _at_once(events: Iterator[Event], most_bytes: int) -> Iterator[bytes]:
    """One message of all events if their files have ``most_bytes`` together, else the messages of each."""
    started, *artifacts, finished = events
    files = [artifact for artifact in artifacts if isinstance(artifact, Artifact)]
    if (
        isinstance(started, Started)
        and isinstance(finished, Finished)
        and sum(len(artifact.data) for artifact in files) <= most_bytes
    ):
        yield wire.whole_message(started, files, finished)
    else:
        for event in (started, *artifacts, finished):
            yield from wire.event_to_messages(event)


def server_info(front: Front) -> ServerInfo:
    """What GetServerInfo answers."""
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
    )


def _list_models(front: Front, request: model_service_pb2.ListModelsRequest) -> Message:
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


def _get_model(front: Front, request: model_service_pb2.GetModelRequest) -> Message:
    return model_service_pb2.GetModelResponse(model=_model(front, front.service.model(request.id)))


def _get_server_info(front: Front, _: model_service_pb2.GetServerInfoRequest) -> Message:
    return wire_models.server_to_message(server_info(front))


def _model(front: Front, info: ModelInfo) -> model_service_pb2.Model:
    message = wire_models.model_to_message(info)
    if front.blobs is not None and info.preview_png:
        message.preview_blob = front.blobs.keep(info.preview_png, "image/png")
    return message


DISCOVERY: dict[str, tuple[type[Message], Answer]] = {
    "ListModels": (model_service_pb2.ListModelsRequest, _list_models),
    "GetModel": (model_service_pb2.GetModelRequest, _get_model),
    "GetServerInfo": (model_service_pb2.GetServerInfoRequest, _get_server_info),
}
