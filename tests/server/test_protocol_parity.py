"""One server, four ways to call it: what gRPC says, Connect and gRPC-Web say too, refusals and files alike."""

import base64
import hashlib
import json
import uuid

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2

from assetgen.launch import ServerProcess
from assetgen.v1 import asset_pb2, generation_service_pb2, job_service_pb2
from tests.helpers.serving import write_model
from tests.server.test_server import BAD_REQUESTS, MESSAGE, SMALL, VALUE
from tests.server.test_server import details as grpc_details
from tests.server.test_server import generate as grpc_generate
from tests.server.test_web import GENERATE, Server, envelope, envelopes

CONNECT, CONNECT_JSON, GRPC_WEB = "application/connect+proto", "application/connect+json", "application/grpc-web+proto"
KINDS = [CONNECT, CONNECT_JSON, GRPC_WEB]
JOBS = "/assetgen.v1.JobService"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    write_model(folder, "slow", channels=96)
    options = ["--models", str(folder), "--device", "cpu", "--threads", "1", "--http-port", "0", "--max-calls", "4"]
    with ServerProcess(options) as process:
        yield Server(process)


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def written(message, kind):
    if kind == CONNECT_JSON:
        return json_format.MessageToJson(message).encode()
    return message.SerializeToString()


def stream(server, path, message, answer, kind):
    """Messages of a stream, and the status at its end as gRPC has it: code's name and details by type."""
    status, _, data = server.post(path, envelope(written(message, kind)), kind)
    assert status == 200
    *parts, (flags, end) = envelopes(data)
    assert flags == (0x80 if kind == GRPC_WEB else 2)
    if kind == CONNECT_JSON:
        messages = [json_format.Parse(part, answer()) for _, part in parts]
    else:
        messages = [answer.FromString(part) for _, part in parts]
    return messages, *(of_trailers(end) if kind == GRPC_WEB else of_connect(json.loads(end).get("error")))


def of_trailers(trailers):
    lines = dict(line.split(": ", 1) for line in trailers.decode().splitlines())
    code = code_pb2.Code.Name(int(lines["grpc-status"]))
    if "grpc-status-details-bin" not in lines:
        return code, {}
    status = status_pb2.Status.FromString(unpadded(lines["grpc-status-details-bin"]))
    assert status.code == int(lines["grpc-status"])
    return code, {type(each): each for each in map(unpacked, status.details)}


def unpacked(detail):
    message = getattr(error_details_pb2, detail.TypeName().removeprefix("google.rpc."))()
    assert detail.Unpack(message)
    return message


def of_connect(error):
    if error is None:
        return "OK", {}
    found = {}
    for detail in error["details"]:
        kind = getattr(error_details_pb2, detail["type"].removeprefix("google.rpc."))
        found[kind] = kind.FromString(unpadded(detail["value"]))
        assert json_format.MessageToDict(found[kind]) == detail["debug"]
    return error["code"].upper(), found


def unpadded(text):
    return base64.b64decode(text + "=" * (-len(text) % 4))


def events(messages, kind=CONNECT):
    """Kinds of the events without progress, which depends on the moment, and (index, role) to hash of every file.

    Without chunks if they are to be compared with those of JSON, which has none.
    """
    kinds, hashes = [], {}
    for message in messages:
        kinds.append(message.WhichOneof("event"))
        if message.HasField("artifact"):
            hashes[message.artifact.index, message.artifact.role] = message.artifact.sha256
    left_out = ("chunk", "progress") if kind == CONNECT_JSON else ("progress",)
    return [each for each in kinds if each not in left_out], hashes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("message", "code", "reason", "field"), BAD_REQUESTS, ids=range(len(BAD_REQUESTS)))
def test_what_grpc_refuses_is_refused_alike(server, channel, message, code, reason, field, kind):
    with pytest.raises(grpc.RpcError) as caught:
        list(grpc_generate(channel, message))
    messages, found_code, details = stream(server, GENERATE, message, generation_service_pb2.GenerateResponse, kind)
    assert (messages, found_code) == ([], code.name)
    assert details == grpc_details(caught.value)
    info = details[error_details_pb2.ErrorInfo]
    assert (info.domain, info.reason) == ("assetgen", reason)
    assert field is None or info.metadata["field"] == field


def with_output(**output):
    return MESSAGE(**SMALL, output=output)


GOOD_REQUESTS = {
    "plain": MESSAGE(**SMALL),
    "three from the second on": MESSAGE(**SMALL, count=3, first_index=1),
    "pixels for unreal": with_output(profile="unreal", encoding=asset_pb2.ENCODING_RAW, name="wall"),
    "two maps": with_output(maps=[asset_pb2.MAP_KIND_HEIGHT, asset_pb2.MAP_KIND_NORMAL], normal_convention=2),
    "parameters": MESSAGE(
        model_id="tiny",
        seed=2**32 - 1,
        width_px=256,
        height_px=64,
        parameters={
            "class": VALUE(string_value="steel"),
            "truncation": VALUE(double_value=0.25),
            "variation_seed": VALUE(int_value=9),
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("message", GOOD_REQUESTS.values(), ids=GOOD_REQUESTS)
def test_what_grpc_makes_is_made_alike(server, channel, message, kind):
    expected_kinds, expected_hashes = events(grpc_generate(channel, message), kind)
    messages, code, details = stream(server, GENERATE, message, generation_service_pb2.GenerateResponse, kind)
    assert (code, details) == ("OK", {})
    assert events(messages) == (expected_kinds, expected_hashes)
    assert {bool(each.artifact.blob) for each in messages if each.HasField("artifact")} == {kind == CONNECT_JSON}
    assert (expected_kinds[0], expected_kinds[-1], bool(expected_hashes)) == ("started", "finished", True)
    assert pixels(server, messages) == expected_hashes


def pixels(server, messages):
    """Hashes of the bytes that came, in chunks or by their address, for each file."""
    found, data = {}, b""
    for message in reversed(messages):
        if message.WhichOneof("event") == "chunk":
            data = message.chunk + data
        elif message.HasField("artifact"):
            artifact = message.artifact
            whole = server.ask("GET", artifact.blob)[2] if artifact.blob else data
            found[artifact.index, artifact.role] = hashlib.sha256(whole).digest()
            data = b""
    return found


def unary(server, name, request, answer, kind):
    """The answer to one call of JobService by gRPC-Web or Connect's unary protocol, and the code at its end."""
    if kind != GRPC_WEB:
        status, headers, data = server.post(f"{JOBS}/{name}", request.SerializeToString(), "application/proto")
        if status != 200:
            return None, of_connect(json.loads(data))[0]
        assert headers["content-type"] == "application/proto"
        return answer.FromString(data), "OK"
    status, _, data = server.post(f"{JOBS}/{name}", envelope(request.SerializeToString()), kind)
    *parts, (_, trailers) = envelopes(data)
    assert status == 200
    return answer.FromString(parts[0][1]) if parts else None, of_trailers(trailers)[0]


@pytest.mark.parametrize("kind", [CONNECT, GRPC_WEB])
def test_jobs_are_submitted_asked_for_watched_and_cancelled(server, channel, kind):
    job_id = str(uuid.uuid4())
    wanted = job_service_pb2.SubmitJobRequest(job_id=job_id, request=MESSAGE(**SMALL, count=2))
    answer, code = unary(server, "SubmitJob", wanted, job_service_pb2.SubmitJobResponse, kind)
    assert (code, answer.job.id, answer.job.revision) == ("OK", job_id, 1)

    watch = job_service_pb2.WatchJobRequest(job_id=job_id)
    messages, code, _ = stream(server, f"{JOBS}/WatchJob", watch, job_service_pb2.WatchJobResponse, kind)
    _, expected = events(grpc_generate(channel, wanted.request))
    assert code == "OK"
    assert events(messages)[1] == pixels(server, messages) == expected
    states = [message.job.state for message in messages if message.HasField("job")]
    assert states[-1] == job_service_pb2.JOB_STATE_SUCCEEDED
    revisions = [message.job.revision for message in messages if message.HasField("job")]
    assert revisions == sorted(revisions)

    ask = job_service_pb2.GetJobRequest(job_id=job_id, after_revision=1, wait_ms=30_000)
    answer, code = unary(server, "GetJob", ask, job_service_pb2.GetJobResponse, kind)
    assert (code, answer.job.state) == ("OK", job_service_pb2.JOB_STATE_SUCCEEDED)
    assert {(file.index, file.role): file.sha256 for file in answer.job.artifacts} == expected

    slow = job_service_pb2.SubmitJobRequest(job_id=str(uuid.uuid4()), request=MESSAGE(**SMALL))
    slow.request.model_id, slow.request.count, slow.request.width_px, slow.request.height_px = "slow", 64, 1024, 1024
    assert unary(server, "SubmitJob", slow, job_service_pb2.SubmitJobResponse, kind)[1] == "OK"
    cancel = job_service_pb2.CancelJobRequest(job_id=slow.job_id)
    assert unary(server, "CancelJob", cancel, job_service_pb2.CancelJobResponse, kind)[1] == "OK"
    watch = job_service_pb2.WatchJobRequest(job_id=slow.job_id)
    messages, code, _ = stream(server, f"{JOBS}/WatchJob", watch, job_service_pb2.WatchJobResponse, kind)
    assert (code, messages[-1].job.state) == ("OK", job_service_pb2.JOB_STATE_CANCELLED)
    answer, _ = unary(server, "CancelJob", cancel, job_service_pb2.CancelJobResponse, kind)
    assert answer.job.revision == messages[-1].job.revision

    absent = job_service_pb2.GetJobRequest(job_id=str(uuid.uuid4()))
    assert unary(server, "GetJob", absent, job_service_pb2.GetJobResponse, kind) == (None, "NOT_FOUND")
