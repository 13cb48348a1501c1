"""Spans of calls and jobs: what stands in them, whose child they are, and that they reach a collector."""

import gzip
import http.server
import sys
import threading
import uuid
from contextlib import suppress

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from assetgen import job_client
from assetgen.client import Client
from assetgen.describe import JobState
from assetgen.errors import AssetgenError, ConfigInvalid, FieldInvalid, RuntimeMissing
from assetgen.jobs import Jobs
from assetgen.launch import ServerProcess
from assetgen.server import job_calls
from assetgen.server.exchange import Exchange, Front, answered
from assetgen.server.tracing import Tracing
from assetgen.service import Limits, Service
from assetgen.types import Request
from assetgen.v1 import generation_service_pb2, job_service_pb2
from assetgen.worker import Worker
from tests.helpers.serving import files, write_model

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


def spans_of(facts=(), parent=None, error=None):
    """Those of one call, which ends with ``error`` if there is one."""
    exporter = InMemorySpanExporter()
    tracing = Tracing("", exporter)
    exchange = Exchange("Generate", "test", "request-7", "Bearer secret", trace_parent=parent)
    with suppress(AssetgenError), answered(Front(None, tracing=tracing), exchange):
        exchange.facts |= dict(facts)
        if error is not None:
            raise error
    tracing.close()
    return exporter.get_finished_spans()


def test_a_span_says_what_the_log_says():
    facts = {"model": "tiny", "seed": 7, "count": 2, "bytes": 300, "ms": {"graph": 20.5, "encode": 1.5}}
    (span,) = spans_of(facts=facts)
    assert (span.name, span.kind.name, span.status.status_code.name) == ("assetgen.v1/Generate", "SERVER", "UNSET")
    expected = {"rpc.system": "grpc", "rpc.method": "Generate", "rpc.grpc.status": "OK"}
    expected |= {"assetgen.request_id": "request-7", "assetgen.graph_ms": 20.5, "assetgen.encode_ms": 1.5}
    expected |= {"assetgen.model": "tiny", "assetgen.seed": 7, "assetgen.count": 2, "assetgen.bytes": 300}
    assert dict(span.attributes) == expected
    assert span.resource.attributes["service.name"] == "assetgen"
    assert span.end_time >= span.start_time


@pytest.mark.parametrize(
    ("error", "code"), [(FieldInvalid("wrong"), "INVALID_ARGUMENT"), (ZeroDivisionError("secret"), "INTERNAL")]
)
def test_errors_are_told_by_their_reason_only(error, code):
    (span,) = spans_of(error=error)
    assert (span.status.status_code.name, span.attributes["rpc.grpc.status"]) == ("ERROR", code)
    assert "secret" not in str(span.to_json())


def test_the_clients_span_is_the_parent():
    (span,) = spans_of(parent=PARENT)
    assert f"{span.context.trace_id:032x}" == "ab" * 16
    assert f"{span.parent.span_id:016x}" == "cd" * 8


@pytest.mark.parametrize("parent", ["", "00-0-0-01", "x" * 10_000, f"00-{'0' * 32}-{'0' * 16}-01", "\u20ac"])
def test_a_parent_that_is_none_is_passed_over(parent):
    (span,) = spans_of(parent=parent)
    assert span.parent is None


def test_what_is_missing_or_wrong_is_said(monkeypatch):
    with pytest.raises(ConfigInvalid, match="no HTTP address"):
        Tracing("localhost:4317")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(RuntimeMissing, match="OpenTelemetry"):
        Tracing("http://127.0.0.1:4318/v1/traces")


@pytest.fixture
def service(tmp_path):
    packages = {"tiny": write_model(tmp_path), "slow": write_model(tmp_path, "slow", channels=96)}
    service = Service(packages, Worker("cpu", 1), Limits(max_calls=4))
    yield service
    service.close()


def spans_of_job(service, cancel=False, submissions=1, **asked):
    """That of a job and those of the calls that submitted it, and the job."""
    exporter = InMemorySpanExporter()
    tracing = Tracing("", exporter)
    jobs = Jobs(service, begin=tracing.begin_job)
    front = Front(service, tracing=tracing, jobs=jobs)
    request = job_service_pb2.SubmitJobRequest(
        job_id=str(uuid.uuid4()), request=generation_service_pb2.GenerateRequest(**asked)
    )
    for number in range(submissions):
        exchange = Exchange("SubmitJob", "test", f"request-{number}", trace_parent=PARENT)
        with answered(front, exchange):
            job_calls.submit(front, request, exchange)
    if cancel:
        jobs.cancel(request.job_id, "")
    info = jobs.get(request.job_id, "")
    while not info.state.ended:
        info = jobs.get(request.job_id, "", info.revision, 30.0)
    jobs.close()
    tracing.close()
    by_name = {name: [] for name in ("assetgen.v1/SubmitJob", "assetgen.v1/Job")}
    for span in exporter.get_finished_spans():
        by_name[span.name].append(span)
    (made,) = by_name["assetgen.v1/Job"]
    return made, by_name["assetgen.v1/SubmitJob"], info


def test_a_job_has_a_span_of_its_own_linked_to_the_call_that_began_it(service):
    span, (call,), job = spans_of_job(service, model_id="tiny", seed=7, count=3, width_px=32, height_px=32)
    assert [link.context for link in span.links] == [call.context]
    assert span.parent is None
    assert span.context.trace_id != call.context.trace_id
    assert (span.kind.name, span.status.status_code.name) == ("INTERNAL", "UNSET")
    values = dict(span.attributes)
    stages = {name for name in values if name.endswith("_ms")}
    assert {"assetgen.graph_ms", "assetgen.encode_ms"} <= stages
    assert {name: value for name, value in values.items() if name not in stages} == {
        "assetgen.request_id": "request-0",
        "assetgen.job": job.id[:8],
        "assetgen.model": "tiny",
        "assetgen.seed": 7,
        "assetgen.count": 3,
        "assetgen.bytes": sum(len(each.data) for each in job.artifacts),
        "rpc.grpc.status": "OK",
    }


def test_a_job_that_was_stopped_says_why(service):
    asked = {"model_id": "slow", "seed": 7, "count": 64, "width_px": 1024, "height_px": 1024}
    span, _, job = spans_of_job(service, cancel=True, **asked)
    assert job.state is JobState.CANCELLED
    assert (span.status.status_code.name, span.attributes["rpc.grpc.status"]) == ("ERROR", "CANCELLED")
    assert span.attributes["assetgen.reason"] == job.error.reason


def test_a_job_that_is_submitted_again_has_one_span_of_the_first_call(service):
    asked = {"model_id": "tiny", "seed": 7, "width_px": 32, "height_px": 32}
    span, calls, _ = spans_of_job(service, submissions=2, **asked)
    assert len(calls) == 2
    assert [link.context for link in span.links] == [calls[0].context]


class Collector(http.server.BaseHTTPRequestHandler):
    """Keeps the spans that are sent to it."""

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        data = gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_spans_reach_a_collector_when_the_server_stops(tmp_path):
    write_model(tmp_path)
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    collector.spans = []
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    options = ["--models", str(tmp_path), "--device", "cpu", "--threads", "1", "--otlp-endpoint", endpoint]
    with ServerProcess(options) as server:
        with Client(server.address) as client:
            files(client.generate(Request("tiny", seed=7, width_px=32, height_px=32)))
            job_client.wait(client, job_client.submit(client, Request("tiny", seed=8, width_px=32, height_px=32)).id)
        message = generation_service_pb2.GenerateRequest(model_id="absent").SerializeToString()
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            list(
                channel.unary_stream("/assetgen.v1.GenerationService/Generate")(
                    message, metadata=[("traceparent", PARENT)]
                )
            )
    collector.shutdown()
    collector.server_close()
    thread.join()
    made = [span for span in collector.spans if span.name == "assetgen.v1/Generate"]
    assert len(made) == 2
    values = [{each.key: each.value for each in span.attributes} for span in made]
    assert values[0]["assetgen.model"].string_value == "tiny"
    assert values[0]["assetgen.graph_ms"].double_value > 0
    assert values[1]["assetgen.reason"].string_value == "MODEL_NOT_FOUND"
    assert made[1].trace_id.hex() == "ab" * 16
    (job,) = [span for span in collector.spans if span.name == "assetgen.v1/Job"]
    (submitted,) = [span for span in collector.spans if span.name == "assetgen.v1/SubmitJob"]
    assert [link.span_id for link in job.links] == [submitted.span_id]
