"""The server as a process of its own, met over real sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from assetgen.client import Client
from assetgen.errors import AddressUnusable, Draining, WorkerLost
from assetgen.launch import ServerProcess
from assetgen.types import Artifact, Finished, MapKind, OutputSpec, Request, Started
from assetgen.v1 import asset_pb2, generation_service_pb2, model_service_pb2
from tests.helpers.serving import files, write_model

SMALL = {"model_id": "tiny", "seed": 7, "width_px": 32, "height_px": 32}
MESSAGE = generation_service_pb2.GenerateRequest
VALUE = asset_pb2.ParameterValue


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    write_model(folder, "another")
    write_model(folder, "slow", channels=96)
    return folder


def start(models, *arguments):
    return ServerProcess(["--models", str(models), "--device", "cpu", "--threads", "1", *arguments])


@pytest.fixture(scope="module")
def server(models):
    with start(models, "--reflection") as running:
        yield running


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def generate(channel, message, **options):
    call = channel.unary_stream(
        "/assetgen.v1.GenerationService/Generate",
        request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
        response_deserializer=generation_service_pb2.GenerateResponse.FromString,
    )
    return call(message, **options)


def details(error):
    """ErrorInfo, BadRequest and RetryInfo of a status, by type."""
    found = {}
    for detail in rpc_status.from_call(error).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind] = message
    return found


def bad(**changes):
    return MESSAGE(**SMALL | changes)


INVALID = grpc.StatusCode.INVALID_ARGUMENT
BAD_REQUESTS = [
    (bad(model_id=""), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model_id"),
    (bad(model_id="../tiny"), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model_id"),
    (bad(model_id="x" * 100_000), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model_id"),
    (bad(model_digest=b"\0" * 32), grpc.StatusCode.FAILED_PRECONDITION, "MODEL_DIGEST_MISMATCH", "model_digest"),
    (bad(count=65), INVALID, "FIELD_INVALID", "count"),
    (bad(count=2**32 - 1), INVALID, "FIELD_INVALID", "count"),
    (bad(first_index=2**32 - 1, count=2), INVALID, "FIELD_INVALID", "first_index"),
    (bad(width_px=1), INVALID, "FIELD_INVALID", "width_px"),
    (bad(height_px=33), INVALID, "FIELD_INVALID", "height_px"),
    (bad(height_px=2**32 - 1), INVALID, "FIELD_INVALID", "height_px"),
    (bad(parameters={"glow": VALUE(double_value=1)}), INVALID, "FIELD_INVALID", "parameters[glow]"),
    (bad(parameters={"g" * 20_000: VALUE(double_value=1)}), INVALID, "FIELD_INVALID", None),
    (bad(parameters={"class": VALUE(string_value="\u00e9" * 20_000)}), INVALID, "FIELD_INVALID", "parameters[class]"),
    (bad(parameters={"class": VALUE(int_value=1)}), INVALID, "FIELD_INVALID", "parameters[class]"),
    (bad(parameters={"truncation": VALUE()}), INVALID, "FIELD_INVALID", "parameters[truncation]"),
    (bad(parameters={"truncation": VALUE(string_value="1")}), INVALID, "FIELD_INVALID", "parameters[truncation]"),
    (bad(parameters={"truncation": VALUE(double_value=2)}), INVALID, "FIELD_INVALID", "parameters[truncation]"),
    (
        bad(parameters={"truncation": VALUE(double_value=float("nan"))}),
        INVALID,
        "FIELD_INVALID",
        "parameters[truncation]",
    ),
    (bad(output={"maps": [99]}), INVALID, "FIELD_INVALID", "output.maps"),
    (bad(output={"maps": [0]}), INVALID, "FIELD_INVALID", "output.maps"),
    (bad(output={"encoding": 99}), INVALID, "FIELD_INVALID", "output.encoding"),
    (bad(output={"normal_convention": 99}), INVALID, "FIELD_INVALID", "output.normal_convention"),
    (bad(output={"profile": "quake"}), INVALID, "FIELD_INVALID", "output.profile"),
    (bad(output={"profile": "q" * 100_000}), INVALID, "FIELD_INVALID", "output.profile"),
    (bad(priority=99), INVALID, "FIELD_INVALID", "priority"),
    (bad(supersede_key="k" * 129), INVALID, "FIELD_INVALID", "supersede_key"),
    (bad(output={"name": "../evil"}), INVALID, "FIELD_INVALID", "output.name"),
]


@pytest.mark.parametrize(("message", "code", "reason", "field"), BAD_REQUESTS, ids=range(len(BAD_REQUESTS)))
def test_bad_requests_get_rich_errors_and_the_server_goes_on(channel, message, code, reason, field):
    with pytest.raises(grpc.RpcError) as caught:
        list(generate(channel, message))
    error = caught.value
    assert error.code() == code
    info = details(error)[error_details_pb2.ErrorInfo]
    assert (info.domain, info.reason) == ("assetgen", reason)
    assert "Traceback" not in error.details()
    if field is not None:
        assert info.metadata["field"] == field
        assert error.details().startswith(field)
    if code == INVALID:
        violation = details(error)[error_details_pb2.BadRequest].field_violations[0]
        assert violation.field == info.metadata["field"]
        assert violation.description
    assert [message.WhichOneof("event") for message in generate(channel, MESSAGE(**SMALL))][-1] == "finished"


def test_bytes_that_are_no_message_are_refused(channel):
    with pytest.raises(grpc.RpcError) as caught:
        list(generate(channel, b"\x0a\xff\xff\xff\xff\x0fno"))
    assert caught.value.code() == INVALID
    assert list(generate(channel, MESSAGE(**SMALL)))


def test_the_largest_request_and_one_byte_more(channel):
    empty = len(MESSAGE(**SMALL, parameters={"class": VALUE(bytes_value=b"")}).SerializeToString())

    def sized(total):
        value, message = b"\0" * (total - empty - 9), None
        while message is None or message.ByteSize() != total:
            message = MESSAGE(**SMALL, parameters={"class": VALUE(bytes_value=value)})
            value += b"\0" * (total - message.ByteSize())
        return message

    with pytest.raises(grpc.RpcError) as caught:
        list(generate(channel, sized(32 * 2**20)))
    assert caught.value.code() == INVALID  # it was read: a picture where a class belongs
    with pytest.raises(grpc.RpcError) as caught:
        list(generate(channel, sized(32 * 2**20 + 1)))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_chunks_obey_the_contract(channel):
    opened, received = None, 0
    kinds = []
    for message in generate(channel, MESSAGE(**SMALL | {"width_px": 1024, "height_px": 1024}, output={"encoding": 2})):
        kinds.append(message.WhichOneof("event"))
        if message.HasField("artifact"):
            assert opened is None or received == opened.size_bytes
            opened, received = message.artifact, 0
            assert len(opened.sha256) == 32
        elif message.WhichOneof("event") == "chunk":
            assert 0 < len(message.chunk) <= 2**20
            received += len(message.chunk)
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert kinds.count("artifact") == 6
    assert received == opened.size_bytes == 1024 * 1024 * 2


def test_a_small_answer_comes_in_one_message_to_clients_that_ask_for_it(channel):
    output = {"maps": [asset_pb2.MAP_KIND_BASE_COLOR], "encoding": asset_pb2.ENCODING_RAW}
    (message,) = generate(channel, bad(output=output, inline_bytes=32 * 32 * 3))
    opened, *chunks, _ = list(generate(channel, bad(output=output)))[1:]
    assert not message.whole.artifacts[0].sha256  # of bytes that are all here
    message.whole.artifacts[0].sha256 = opened.artifact.sha256
    assert message.whole.artifacts[0] == opened.artifact
    assert message.whole.contents[0] == b"".join(chunk.chunk for chunk in chunks)
    assert message.whole.started.seed == 7
    assert message.whole.finished.work_time.ToMicroseconds() > 0


@pytest.mark.parametrize(
    "changes", [{"inline_bytes": 32 * 32 * 3 - 1}, {"inline_bytes": 2**32 - 1, "count": 2}, {"inline_bytes": 0}]
)
def test_other_answers_come_as_events(channel, changes):
    output = {"maps": [asset_pb2.MAP_KIND_BASE_COLOR], "encoding": asset_pb2.ENCODING_RAW}
    kinds = [message.WhichOneof("event") for message in generate(channel, bad(output=output, **changes))]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert "whole" not in kinds


def test_no_message_grows_beyond_what_clients_accept(channel):
    """Six maps of 496 px are far more than 1 MiB, even for a client without limits."""
    message = bad(width_px=496, height_px=496, output={"encoding": asset_pb2.ENCODING_RAW}, inline_bytes=2**32 - 1)
    assert max(answer.ByteSize() for answer in generate(channel, message)) < 2**20


def test_discovery(server):
    with Client(server.address) as client:
        info = client.server_info()
        assert (info.device, info.max_count, info.max_edge_px) == ("cpu", 64, 1024)
        assert info.max_request_bytes == 32 * 2**20
        assert "unreal" in [profile.id for profile in info.profiles]
        models = client.models()
        assert [model.id for model in models] == ["another", "slow", "tiny"]
        tiny = client.model("tiny")
        assert tiny == models[-1]
        assert tiny.maps == tuple(MapKind)
        assert tiny.class_labels == ("Clay", "Steel")
        assert tiny.preview_png.startswith(b"\x89PNG")
        assert [spec.name for spec in tiny.parameters][:3] == ["class", "blend_class", "blend"]


def test_pages_of_models(channel):
    call = channel.unary_unary(
        "/assetgen.v1.ModelService/ListModels",
        request_serializer=model_service_pb2.ListModelsRequest.SerializeToString,
        response_deserializer=model_service_pb2.ListModelsResponse.FromString,
    )
    first = call(model_service_pb2.ListModelsRequest(page_size=2))
    assert [model.id for model in first.models] == ["another", "slow"]
    second = call(model_service_pb2.ListModelsRequest(page_size=2, page_token=first.next_page_token))
    assert [model.id for model in second.models] == ["tiny"]
    assert second.next_page_token == ""
    assert len(call(model_service_pb2.ListModelsRequest(page_size=2**32 - 1)).models) == 3
    with pytest.raises(grpc.RpcError) as caught:
        call(model_service_pb2.ListModelsRequest(page_token="../x"))
    assert details(caught.value)[error_details_pb2.ErrorInfo].metadata["field"] == "page_token"


def test_health_and_reflection(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "assetgen.v1.GenerationService", "assetgen.v1.ModelService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert "assetgen.v1.GenerationService" in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_the_callers_request_id_comes_back_and_stands_in_the_log(server, channel):
    call = generate(channel, MESSAGE(**SMALL), metadata=(("x-request-id", "build-42"),))
    list(call)
    assert ("x-request-id", "build-42") in [(key, value) for key, value in call.trailing_metadata()]
    lines = [line for line in server.errors().splitlines() if "build-42" in line]
    entry = json.loads(lines[0][lines[0].index("{") :])
    assert (entry["method"], entry["model"], entry["code"]) == ("Generate", "tiny", "OK")


def test_the_same_bytes_after_a_restart_and_beside_other_calls(models, server):
    request = Request(**SMALL, count=3)
    with Client(server.address) as client:
        alone = files(client.generate(request))
        with ThreadPoolExecutor(8) as pool:
            beside = list(pool.map(lambda _: files(client.generate(request)), range(8)))
    assert beside == [alone] * 8
    with start(models) as restarted, Client(restarted.address) as client:
        assert files(client.generate(request)) == alone
        split = files(client.generate(Request(**SMALL, count=1)))
        split |= files(client.generate(Request(**SMALL, count=2, first_index=1)))
    assert split == alone


# Half a minute of work: by no estimate of a busy machine more than the ten minutes that a call may take.
SLOW = {"model_id": "slow", "seed": 1, "count": 16, "width_px": 1024, "height_px": 1024}


def test_cancelled_calls_free_their_place(channel):
    """More calls than the queue holds, each abandoned at its first event."""
    for _ in range(70):
        call = generate(channel, MESSAGE(**SLOW))
        assert next(call).HasField("started")
        call.cancel()
    assert list(generate(channel, MESSAGE(**SMALL)))


def test_a_killed_client_frees_its_place(server):
    code = (
        "import sys\nfrom assetgen.client import Client\nfrom assetgen.types import Request\n"
        f"for _ in Client({server.address!r}).generate(Request(**{SLOW!r})): print('event', flush=True)"
    )
    client = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert client.stdout.readline() == "event\n"
    client.kill()
    client.wait()
    client.stdout.close()
    with Client(server.address) as other:
        assert files(other.generate(Request(**SMALL), deadline_s=60))


LARGE = {"model_id": "slow", "seed": 1, "count": 2, "width_px": 1024, "height_px": 1024, "output": {"encoding": 2}}


def test_a_client_that_does_not_read_stops_nobody_else(server):
    """Some 18 MB wait for it, far more than a connection buffers, while others are served."""
    with grpc.insecure_channel(server.address) as lazy:
        call = generate(lazy, MESSAGE(**LARGE))
        assert next(call).HasField("started")
        with Client(server.address) as other:
            for seed in range(3):
                assert files(other.generate(Request(**SMALL | {"seed": seed}), deadline_s=60))
        rest = [message.WhichOneof("event") for message in call]
    assert rest[-1] == "finished"
    assert rest.count("artifact") == 12


def test_a_client_that_never_reads_is_cut_off(models):
    """The call has a cap; its reader sleeps on; the place is free all the same."""
    code = f"""
import time
from pathlib import Path
import grpc
from assetgen.service import Limits, Service
from assetgen.server.app import ServerConfig, serve
from assetgen.store import open_store
from assetgen.worker import Worker
from assetgen.v1 import asset_pb2, generation_service_pb2 as messages
import signal, threading

service = Service(open_store([Path({str(models)!r})]), Worker("cpu", 1), Limits(call_cap_s=0.5))

def ask(address):
    def work():
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_stream(
                "/assetgen.v1.GenerationService/Generate",
                request_serializer=messages.GenerateRequest.SerializeToString,
                response_deserializer=messages.GenerateResponse.FromString,
            )(messages.GenerateRequest(**{LARGE | {"model_id": "tiny"}!r}))
            print(next(call).WhichOneof("event"), service.calls_under_way, flush=True)
            print(service.wait_until_idle(60))
        signal.raise_signal(signal.SIGINT)
    threading.Thread(target=work).start()

serve(service, ServerConfig(port=0, preload=False), ask)
service.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["started 1", "True"]


def test_a_deadline_is_kept(channel):
    with pytest.raises(grpc.RpcError) as caught:
        list(generate(channel, MESSAGE(**SLOW), timeout=0.3))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert list(generate(channel, MESSAGE(**SMALL)))


def test_too_many_calls_are_refused_with_a_time(server):
    """4 of 2 x 1 Mpx do not fill 64 Mpx; 64 calls fill the queue."""
    with grpc.insecure_channel(server.address) as channel:
        calls = [generate(channel, MESSAGE(**SLOW | {"count": 64, "width_px": 32, "height_px": 32})) for _ in range(64)]
        for call in calls:
            next(call)
        with pytest.raises(grpc.RpcError) as caught:
            list(generate(channel, MESSAGE(**SLOW)))
        for call in calls:
            call.cancel()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    found = details(caught.value)
    assert found[error_details_pb2.ErrorInfo].reason == "QUEUE_FULL"
    assert found[error_details_pb2.RetryInfo].retry_delay.ToMilliseconds() > 0


def test_a_second_server_on_the_port_is_refused(models, server):
    port = server.address.rpartition(":")[2]
    command = [sys.executable, "-m", "assetgen", "serve", "--models", str(models), "--port", port]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    lines = second.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]
    assert port in second.stderr


def test_only_loopback_without_tls(models):
    command = [sys.executable, "-m", "assetgen", "serve", "--models", str(models), "--host", "0.0.0.0", "--port", "0"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "not a loopback address" in refused.stderr
    assert "hint:" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_launching_what_cannot_serve_says_why(tmp_path):
    with pytest.raises(AddressUnusable, match="not a readable folder"):
        ServerProcess(["--models", str(tmp_path / "absent")])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_sigterm_under_load_lets_calls_end_and_takes_no_new_ones(models):
    server = start(models)
    with Client(server.address) as client, grpc.insecure_channel(server.address) as channel:
        running = client.generate(Request("slow", seed=1, count=3, width_px=512, height_px=512))
        assert isinstance(next(running), Started)
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises((Draining, WorkerLost)):
            list(client.generate(Request(**SMALL)))
        events = list(running)
        assert isinstance(events[-1], Finished)
        assert sum(isinstance(event, Artifact) for event in events) == 18
    assert server.process.wait() == 0
    server.stop()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_a_second_signal_ends_at_once(models):
    server = start(models)
    with Client(server.address) as client, grpc.insecure_channel(server.address) as channel:
        running = client.generate(Request(**SLOW))
        next(running)
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(health)
        server.process.send_signal(signal.SIGTERM)
        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait() == 1
        with pytest.raises(WorkerLost):
            list(running)
    server.stop()


def test_garbage_on_the_port_does_no_harm(server):
    host, _, port = server.address.rpartition(":")

    def throw(data):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(data)

    threads = [threading.Thread(target=throw, args=(os.urandom(200),)) for _ in range(20)]
    threads += [threading.Thread(target=throw, args=(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(64),))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Client(server.address) as client:
        assert files(client.generate(Request(**SMALL, output=OutputSpec(maps=(MapKind.HEIGHT,)))))


def test_a_serving_process_never_imports_torch(models):
    """Nor the training side: a fresh process that has answered a request."""
    code = f"""
import sys
from pathlib import Path
from assetgen.local import open_service
from assetgen.client import Client
from assetgen.server.app import ServerConfig, serve
from assetgen.types import Request
import os, signal, threading

def ask(address):
    def work():
        with Client(address) as client:
            print(len(list(client.generate(Request(**{SMALL!r})))))
        signal.raise_signal(signal.SIGINT)
    threading.Thread(target=work).start()

serve(open_service([Path({str(models)!r})], "cpu", 1), ServerConfig(port=0), ask)
print(sorted(name for name in ("torch", "safetensors", "assetgen.training", "export") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["8", "[]"]
