"""What every answer shares, whatever carries it: who may call, errors, log and counters; no gRPC and no HTTP.

Imports service, jobs, v1 and of this package tokens, metrics, tracing, blobs, shared and logs.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from assetgen.callers import Caller
from assetgen.errors import AssetgenError, FieldInvalid, InternalError, TokenInvalid
from assetgen.jobs import Jobs
from assetgen.server import logs
from assetgen.server.blobs import PATH, Blob, Blobs
from assetgen.server.metrics import Metrics
from assetgen.server.shared import SharedFiles
from assetgen.server.tokens import TokenTable
from assetgen.server.tracing import Tracing
from assetgen.service import Service
from assetgen.types import Artifact
from assetgen.v1 import generation_service_pb2, job_service_pb2, model_service_pb2

log = logging.getLogger(__name__)
calls = logging.getLogger("assetgen.calls")

MAX_REQUEST_BYTES = 32 * 2**20
GENERATION_SERVICE = generation_service_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name
MODEL_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
JOB_SERVICE = job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name

# Ids of calls are not secret, only unlike: drawing each from the system costs a call of it, in which others take over.
_PROCESS, _numbers = secrets.token_hex(8), count(1)

R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class Front:
    """What stands behind the ports.

    Attributes:
        tokens: who may call; ``None``: everybody.
        metrics: what counts the calls, if anything does.
        tracing: what makes a span of each, if anything does.
        blobs: files to be fetched over HTTP; ``None`` without such a port.
        shared: files handed over in shared memory; ``None`` where there is none.
        jobs: what is made while its client is away.
    """

    service: Service
    tokens: TokenTable | None = None
    metrics: Metrics | None = None
    tracing: Tracing | None = None
    blobs: Blobs | None = None
    shared: SharedFiles | None = None
    jobs: Jobs | None = None
    http_port: int = 0


@dataclass
class Exchange:
    """One call that is being answered.

    Attributes:
        peer: the connection it came by.
        local: whether that begins on this machine.
        trace_parent: the client's span, if it told of one.
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
    local: bool = False
    trace_parent: str | None = None
    deadline_s: float | None = None
    give_up: Callable[[], object] = lambda: None
    on_end: Callable[[Callable[[], None]], bool] = lambda _: True
    caller: Caller = field(default_factory=Caller)
    facts: dict[str, Any] = field(default_factory=dict)


def request_id_of(given: str | None) -> str:
    """The caller's own id if it is fit for a log, else a new one."""
    return given if given and given.isprintable() and len(given) <= 64 else f"{_PROCESS}{next(_numbers):016x}"


def may_call(tokens: TokenTable | None, authorization: str | None) -> bool:
    """Whether anything of a call is read; ``answered`` refuses the others, and says why."""
    try:
        if tokens is not None:
            tokens.caller(authorization)
    except TokenInvalid:
        return False
    return True


@contextmanager
def answered(front: Front, exchange: Exchange) -> Iterator[None]:
    """Refuse who may not call, count, and write one line; what is raised is an AssetgenError, or the client left.

    Raises:
        AssetgenError: fit to be sent; what is not meant for users stands in the log only.
    """
    begun_s, code, reason = time.monotonic(), "OK", ""
    logs.request_id.set(exchange.request_id)
    span = front.tracing.begin(exchange.method, exchange.request_id, exchange.trace_parent) if front.tracing else None
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
        if front.tracing is not None:
            front.tracing.end(span, code, reason, exchange.facts)
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


def find_file(front: Front, path: str) -> Blob | Artifact | None:
    """The file that a path on the HTTP port names: one that waits to be fetched, or one of a job."""
    found = front.blobs.find(path) if front.blobs is not None else None
    match = PATH.fullmatch(path)
    if found is None and match is not None and front.jobs is not None:
        return front.jobs.file(match.group(1))
    return found
