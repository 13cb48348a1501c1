"""The connection to a server: what it can make, and finished, verified files; grpc and protobuf, no Blender."""

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from .job import AddonError, Cancelled, Job
from .v1 import (
    asset_pb2,
    generation_service_pb2,
    generation_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)

VERSION = "0.1.0"
KIND = "texture"
PROFILE = "blender"
CALL_TIMEOUT_S = 10.0
MAX_FILE_BYTES = 256 * 2**20
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,120}\.png")
TARGET = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}")


@dataclass(frozen=True)
class File:
    """One map: its role, such as ``normal``, its name, whether it holds colour, and its bytes."""

    role: str
    name: str
    is_color: bool
    data: bytes


@dataclass(frozen=True)
class Server:
    """What a server said of itself; ``models`` are messages of the contract, by id, of the kind ``KIND``."""

    target: str
    version: str
    device: str
    models: dict[str, Any]


def is_loopback(target: str) -> bool:
    """Whether ``target`` names this machine, which Blender's offline mode allows."""
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_channel(target: str) -> grpc.Channel:
    """A connection to ``target``; raises AddonError unless it is host:port."""
    if not TARGET.fullmatch(target) or int(target.rpartition(":")[2]) > 65535:
        raise AddonError(f"the server {target!r:.80} is no host:port", "set it in the add-on's preferences")
    options = [
        ("grpc.max_receive_message_length", 32 * 2**20),  # a page of models with their previews
        ("grpc.keepalive_time_ms", 30_000),  # notices that the machine slept, or the network went
        ("grpc.enable_http_proxy", int(not is_loopback(target))),
    ]
    return grpc.insecure_channel(target, options=options)


def describe(target: str, job: Job) -> Server:
    """Ask a server who it is and what it can make."""
    with open_channel(target) as channel:
        job.stop_with(channel.close)
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        models: dict[str, Any] = {}
        request = model_service_pb2.ListModelsRequest(page_size=50)
        try:
            info = stub.GetServerInfo(model_service_pb2.GetServerInfoRequest(), timeout=CALL_TIMEOUT_S)
            while True:
                page = stub.ListModels(request, timeout=CALL_TIMEOUT_S)
                # Other kinds make no maps that a material could be built of.
                models |= {model.id: model for model in page.models if model.kind == KIND}
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
        except grpc.RpcError as error:
            raise _error_of(error, target) from None
    if _number(info.min_client_version) > _number(VERSION):
        raise AddonError(
            f"the server needs an add-on of version {info.min_client_version}; this is {VERSION}", "update the add-on"
        )
    if PROFILE not in {profile.id for profile in info.profiles}:
        raise AddonError(f"the server at {target} does not make files for Blender", "update the server")
    return Server(target, info.version, info.device, models)


def request_of(recipe: dict[str, Any], name: str) -> generation_service_pb2.GenerateRequest:
    """Raises AddonError when the recipe was damaged."""
    fields = {str: "string_value", int: "int_value", float: "double_value"}
    try:
        return generation_service_pb2.GenerateRequest(
            model_id=recipe["model_id"],
            model_digest=bytes.fromhex(recipe["model_digest"]),
            seed=recipe["seed"],
            count=1,
            width_px=recipe["width_px"],
            height_px=recipe["height_px"],
            parameters={
                key: asset_pb2.ParameterValue(**{fields[type(value)]: value})
                for key, value in recipe["parameters"].items()
            },
            output=generation_service_pb2.OutputSpec(profile=PROFILE, name=name),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise AddonError(f"the recipe cannot be used: {error!r:.200}", "generate the material anew") from None


def generate(target: str, recipe: dict[str, Any], name: str, job: Job) -> list[File]:
    """Make what a recipe asks for; nothing is returned before every file is there and verified."""
    with open_channel(target) as channel:
        call = generation_service_pb2_grpc.GenerationServiceStub(channel).Generate(request_of(recipe, name))
        job.stop_with(call.cancel)
        try:
            files = list(_files(call, job))
        except grpc.RpcError as error:
            raise _error_of(error, target) from None
        finally:
            call.cancel()  # does nothing to a call that has ended
    if not files:
        raise AddonError("the server sent no file", "update the server")
    return files


def write(files: Iterable[File], folder: Path) -> list[Path]:
    """Write every file, then give all their names: none is ever seen half written, and a full disk leaves none."""
    pairs = [(folder / f".{file.name}.{secrets.token_hex(4)}.part", file) for file in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for partial, file in pairs:
                partial.write_bytes(file.data)
            return [partial.replace(folder / file.name) for partial, file in pairs]
        finally:
            for partial, _ in pairs:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise AddonError(f"{folder} cannot be written: {error.strerror}", "choose another in the preferences") from None


def _files(messages: Iterable[Any], job: Job) -> Iterator[File]:
    """Put chunks together, and check everything that arrives."""
    opened: Any = None
    data = bytearray()
    finished = False
    for message in messages:
        case = message.WhichOneof("event")
        if case == "progress":
            job.tell(message.progress.stage, message.progress.fraction)
        elif case == "artifact":
            if opened is not None or message.artifact.size_bytes > MAX_FILE_BYTES:
                raise _damaged(message.artifact.name, "begins too early or is too large")
            opened, data = message.artifact, bytearray()
        elif case == "chunk":
            data += message.chunk
        finished = case == "finished"
        if opened is not None and len(data) >= opened.size_bytes:
            yield _complete(opened, bytes(data))
            opened, data = None, bytearray()
        elif opened is None and data:
            raise _damaged("a file", "came without a name")
    if opened is not None or not finished:
        raise _damaged(opened.name if opened else "the answer", "ended too early")


def _complete(opened: Any, data: bytes) -> File:
    if not FILE_NAME.fullmatch(opened.name) or opened.media_type != "image/png":
        raise _damaged(opened.name, "is no PNG, or its name is no plain file name")
    if len(data) != opened.size_bytes or hashlib.sha256(data).digest() != opened.sha256:
        raise _damaged(opened.name, "is not what the server announced: size or SHA-256 differ")
    return File(opened.role, opened.name, opened.color_space == asset_pb2.COLOR_SPACE_SRGB, data)


def _damaged(name: str, how: str) -> AddonError:
    return AddonError(f"{name!r:.80} {how}; nothing was written", "try again; if it happens often, check the network")


def _error_of(error: Any, target: str) -> AddonError:
    """What the server said, with its hint; else what gRPC itself says."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status, info = status_pb2.Status.FromString(value), error_details_pb2.ErrorInfo()
            for detail in status.details:
                detail.Unpack(info)
            return AddonError(status.message, info.metadata.get("hint", ""))
    code, said = error.code(), f"{error.details() or '':.200}"
    if code is grpc.StatusCode.CANCELLED:
        return Cancelled("cancelled")
    if code is grpc.StatusCode.UNAVAILABLE:
        return AddonError(f"no assetgen server answers at {target}: {said}", "start one with: assetgen serve")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return AddonError(f"the server at {target} did not answer in time", "check the address and the server's load")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return AddonError(f"the server at {target} does not speak assetgen.v1", "check the address, update the server")
    return AddonError(f"the server at {target} failed with {code.name}: {said}", "see the log of the server")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
