"""All methods, by service and name: their messages, and what answers them; imports the modules that do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from assetgen.server import discovery, generation, job_calls
from assetgen.server.exchange import GENERATION_SERVICE, JOB_SERVICE, MODEL_SERVICE, Exchange, Front
from assetgen.v1 import generation_service_pb2, job_service_pb2, model_service_pb2


@dataclass(frozen=True)
class Unary:
    """A method that answers with one message."""

    request: type[Message]
    response: type[Message]
    answer: Callable[[Front, Any, Exchange], Message]


@dataclass(frozen=True)
class Stream:
    """A method that answers with many, serialised, so that chunks are copied once."""

    request: type[Message]
    response: type[Message]
    answer: Callable[[Front, Any, Exchange], Iterator[bytes]]


_models, _jobs = model_service_pb2, job_service_pb2

METHODS: dict[str, dict[str, Unary | Stream]] = {
    MODEL_SERVICE: {
        "ListModels": Unary(_models.ListModelsRequest, _models.ListModelsResponse, discovery.list_models),
        "GetModel": Unary(_models.GetModelRequest, _models.GetModelResponse, discovery.get_model),
        "GetServerInfo": Unary(_models.GetServerInfoRequest, _models.GetServerInfoResponse, discovery.get_server_info),
    },
    GENERATION_SERVICE: {
        "Generate": Stream(
            generation_service_pb2.GenerateRequest, generation_service_pb2.GenerateResponse, generation.generate
        ),
    },
    JOB_SERVICE: {
        "SubmitJob": Unary(_jobs.SubmitJobRequest, _jobs.SubmitJobResponse, job_calls.submit),
        "GetJob": Unary(_jobs.GetJobRequest, _jobs.GetJobResponse, job_calls.get),
        "CancelJob": Unary(_jobs.CancelJobRequest, _jobs.CancelJobResponse, job_calls.cancel),
        "WatchJob": Stream(_jobs.WatchJobRequest, _jobs.WatchJobResponse, job_calls.watch),
    },
}
