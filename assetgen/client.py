"""The client: models and assets from a server, as plain dataclasses; imports v1, wire, status, types and grpc.

with Client("127.0.0.1:50051") as client:
    request = Request("starter", seed=7, parameters={"class": "stone"})
    write_assets(client.generate(request), Path("out"))
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from assetgen import wire, wire_models
from assetgen.attach import with_files
from assetgen.callers import Priority
from assetgen.describe import ModelInfo, ServerInfo
from assetgen.errors import AssetgenError, ConfigInvalid, RuntimeMissing, TransferDamaged
from assetgen.handover import is_ours, is_supported
from assetgen.patience import patiently
from assetgen.receive import Files
from assetgen.save import write_artifact, write_assets
from assetgen.status import error_from_code, error_from_status
from assetgen.types import Event, Finished, Request
from assetgen.v1 import generation_service_pb2, model_service_pb2
from assetgen.wire import Delivery

__all__ = ["Access", "Client", "Priority", "write_artifact", "write_assets"]

SECURE_HINT = "use TLS: --tls, or --tls-ca with the authority of the server's certificate"
DEFAULT_TARGET = "127.0.0.1:50051"
CALL_TIMEOUT_S = 10.0
# To find out whether files may come another way is not worth more.
PROBE_S = 1.0
# A folder was looked at so lately that to look again would cost a call more than it tells.
TRUST_S = 1.0
_STATUS_KEY = "grpc-status-details-bin"
_PAGE_SIZE = 100
_SINGLE_THREADED = "SingleThreadedUnaryStream"  # grpc.experimental.ChannelOptions

R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class Access:
    """How to be let in.

    Attributes:
        token: what the server's operator gave out; empty where it asks for none.
        tls: whether the connection is encrypted; so it is with any of the files below.
        ca: PEM file of the authority that the server's certificate must come from; ``None``: those gRPC knows.
        cert, key: PEM files of this client's own certificate, where the server asks for one.
    """

    token: str = field(default="", repr=False)
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


NO_ACCESS = Access()


class Client:
    """A connection to one server; a context manager, usable from several threads.

    Args:
        target: host and port.
        timeout_s: for the calls that discover; ``generate`` takes its own deadline.
        access: how to be let in; by default without TLS and token, as a server on this machine allows.
        shared: whether large files are taken from the server's shared memory in place of being sent. ``None``: if it
            runs on this machine under this account; True: it must; False: never. What is taken is a read-only view,
            which holds the memory until it is gone.

    Raises:
        ConfigInvalid: a file cannot be read, or a token would travel in plain text to another machine.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        timeout_s: float = CALL_TIMEOUT_S,
        access: Access = NO_ACCESS,
        *,
        shared: bool | None = None,
    ) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self._must_share = bool(shared)
        self._may_share = shared is not False and (self._must_share or (is_supported() and _is_local(target)))
        self._folder: str | None = None
        self._trusted_s = -math.inf
        self._metadata = (("authorization", f"Bearer {access.token}"),) if access.token else ()
        self._channel = _channel(target, access)
        self._generate = self._channel.unary_stream(
            "/assetgen.v1.GenerationService/Generate",
            request_serializer=generation_service_pb2.GenerateRequest.SerializeToString,
            response_deserializer=generation_service_pb2.GenerateResponse.FromString,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way end with Cancelled."""
        self._channel.close()

    def server_info(self) -> ServerInfo:
        """Version, limits, device and engine profiles."""
        return self._server_info(self.timeout_s)

    def models(self) -> list[ModelInfo]:
        """All models, ordered by id."""
        models: list[ModelInfo] = []
        request = model_service_pb2.ListModelsRequest(page_size=_PAGE_SIZE)
        while True:
            page = self._discover("ListModels", request, model_service_pb2.ListModelsResponse)
            models += [wire_models.model_from_message(model) for model in page.models]
            if not page.next_page_token:
                return models
            request.page_token = page.next_page_token

    def model(self, model_id: str) -> ModelInfo:
        """One model; raises ModelNotFound."""
        request = model_service_pb2.GetModelRequest(id=model_id)
        return wire_models.model_from_message(
            self._discover("GetModel", request, model_service_pb2.GetModelResponse).model
        )

    def generate(
        self,
        request: Request,
        deadline_s: float | None = None,
        *,
        priority: Priority = Priority.GENERATE,
        supersede_key: str = "",
        patience_s: float = 0.0,
    ) -> Iterator[Event]:
        """Make what ``request`` asks for; closing the iterator, or leaving it by an exception, stops the work.

        Artifacts come whole and verified.

        Args:
            request: checked by the server.
            deadline_s: seconds after which to give up; ``None`` leaves it to the server.
            priority: how soon it matters; what comes does not depend on it.
            supersede_key: names a view that shows one result at a time: a newer call with the same key ends this one,
                with Superseded. A random UUID will do.
            patience_s: how long to ask again, as often as the server says, while it is full, away or shutting down, or
                was lost before anything came; each time has the whole deadline.

        Raises:
            AssetgenError: what the server raised, with its reason, message, field and hint.
            RuntimeMissing: shared memory must be used, and cannot.
            TransferDamaged: size or hash differ, or the stream ended too early.
            WorkerLost: the server is not there, or went away.
        """
        message = wire.request_to_message(with_files(request))
        message.inline_bytes = wire.INLINE_BYTES
        message.priority, message.supersede_key = wire.priority_to_message(priority), supersede_key

        def begin() -> tuple[Event, Generator[Event]]:
            events = self._ask(message, deadline_s)
            return next(events), events

        first, rest = patiently(begin, patience_s)
        try:
            yield first
            yield from rest
        finally:
            rest.close()

    def _ask(self, message: generation_service_pb2.GenerateRequest, deadline_s: float | None) -> Generator[Event]:
        message.delivery = wire.delivery_to_message(self.way(deadline_s))
        call: Any = self._generate(message, timeout=deadline_s, metadata=self._metadata)
        try:
            yield from _events(call)
        except grpc.RpcError as error:
            raise _error_of(error, self.target) from None
        finally:
            call.cancel()  # does nothing to a call that has ended

    def way(self, deadline_s: float | None) -> Delivery:
        """How files shall come. Raises RuntimeMissing if shared memory must be used, and cannot.

        A folder that cannot be guessed proves, where its name leads to it, that the server is here and is ours. Asking
        for it takes a call, so it is asked for once, and again only when it is gone.
        """
        if not self._may_share:
            return Delivery.CHUNKS
        now_s = time.monotonic()
        if now_s < self._trusted_s:
            return Delivery.SHARED
        ours = self._folder is not None and is_ours(self._folder)
        if not ours and self._folder != "":  # which says that the server has none
            try:
                timeout_s = self.timeout_s if self._must_share else min(deadline_s or PROBE_S, PROBE_S)
                self._folder = self._server_info(timeout_s).shared_folder
            except AssetgenError:
                if self._must_share:
                    raise
                return Delivery.CHUNKS
            ours = is_ours(self._folder)
        if self._must_share and not ours:
            raise RuntimeMissing(
                f"{self.target} has no shared memory that this client can take files from",
                hint="it needs Linux, one machine and one account; or leave shared=True out",
            )
        if ours:
            self._trusted_s = now_s + TRUST_S
        return Delivery.SHARED if ours else Delivery.CHUNKS

    def _server_info(self, timeout_s: float) -> ServerInfo:
        request, response = model_service_pb2.GetServerInfoRequest(), model_service_pb2.GetServerInfoResponse
        return wire_models.server_from_message(self._discover("GetServerInfo", request, response, timeout_s))

    def _discover(self, method: str, request: Message, response: type[R], timeout_s: float | None = None) -> R:
        return self.unary(f"/assetgen.v1.ModelService/{method}", request, response, timeout_s or self.timeout_s)

    def unary(self, path: str, request: Message, response: type[R], timeout_s: float) -> R:
        """Call a method that answers with one message; raises AssetgenError."""
        call: Callable[..., R] = self._channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
        )
        try:
            return call(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _error_of(error, self.target) from None

    def stream(self, path: str, request: Message, response: type[R], timeout_s: float | None) -> Iterator[R]:
        """Call a method that answers with many; closing the iterator ends the call. Raises AssetgenError."""
        method: Any = self._channel.unary_stream(
            path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
        )
        call = method(request, timeout=timeout_s, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise _error_of(error, self.target) from None
        finally:
            call.cancel()  # does nothing to a call that has ended


def _channel(target: str, access: Access) -> grpc.Channel:
    # The caller's own thread reads the stream: one hand-over less for each message.
    options = ((_SINGLE_THREADED, 1),)
    files = (access.ca, access.cert, access.key)
    if not access.tls and not any(files):
        if access.token and not _is_local(target):
            raise ConfigInvalid(f"a token would travel to {target} in plain text", hint=SECURE_HINT)
        return grpc.insecure_channel(target, options=options)
    if (access.cert is None) != (access.key is None):
        raise ConfigInvalid("a client's certificate and its key belong together", hint="give both, or neither")
    try:
        ca, cert, key = (path.read_bytes() if path else None for path in files)
    except OSError as error:
        raise ConfigInvalid(f"{error.filename}: cannot be read: {error.strerror}", hint=SECURE_HINT) from error
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, cert), options=options)


def _is_local(target: str) -> bool:
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or target.startswith("unix:")


def _events(messages: Iterator[generation_service_pb2.GenerateResponse]) -> Iterator[Event]:
    """Put chunks together, and check everything that arrives."""
    files, finished = Files(), False
    for message in messages:
        case = message.WhichOneof("event")
        if case in ("chunk", "artifact"):
            file = files.add(message.chunk) if case == "chunk" else files.open(message.artifact)
            if file is not None:
                yield file
        elif case == "whole":
            files.check_complete()
            yield from wire.events_from_whole(message.whole)
            finished = True
        elif (event := wire.event_from_message(message)) is not None:
            finished = isinstance(event, Finished)
            files.check_complete()
            yield event
    if not finished:
        raise TransferDamaged("the stream ended before it was finished", hint="try again; what arrived is complete")


def _error_of(error: Any, target: str) -> AssetgenError:
    """The error the server raised, or one for what gRPC itself says."""
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_KEY:
            known = error_from_status(status_pb2.Status.FromString(value))
            if known is not None:
                return known
    return error_from_code(error.code().name, error.details() or "", target)
