"""Clients that send what no client should, over real sockets: refused as the contract says, and others are served."""

import json
import math
import socket
import time
import urllib.parse
from collections import Counter

import grpc
import pytest
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assetgen import errors
from assetgen.launch import ServerProcess
from assetgen.server.methods import METHODS, Stream
from assetgen.server.servicer import MAX_AWAITED
from assetgen.v1 import job_service_pb2, model_service_pb2
from tests.helpers import style_package, tiny_sprites
from tests.helpers.picture_files import chunk, with_notes
from tests.helpers.serving import PARAMETERS, write_model
from tests.helpers.style_package import photo, saved, style_manifest, write_style_package
from tests.helpers.tiny_sprites import write_sprites
from tests.load.garbage import PREFACE, call_begin, frame, is_open
from tests.server.test_server import BAD_REQUESTS, INVALID, MESSAGE, SMALL, VALUE, bad, details, generate
from tests.server.test_web import Server, envelope, envelopes
from tests.test_manifest import HOSTILE_IDS

CODES = grpc.StatusCode
MIB = 2**20
SOON_S = 60.0
# What a sound server may say to a single client whose messages are wrong.
REFUSALS = {
    CODES.INVALID_ARGUMENT,
    CODES.NOT_FOUND,
    CODES.FAILED_PRECONDITION,
    CODES.RESOURCE_EXHAUSTED,
    CODES.ALREADY_EXISTS,
}
STATUS_OF = {known.reason: known.status for known in vars(errors).values() if hasattr(known, "reason")}
PICTURE = saved(photo(16))
GOOD = {
    "tiny": MESSAGE(**SMALL),
    "items": MESSAGE(model_id="items", seed=7),
    "style": MESSAGE(model_id="style", seed=7, parameters={"image": VALUE(bytes_value=PICTURE)}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, max_px=128)
    write_sprites(folder)
    write_style_package(folder, style_manifest(max_px=128))
    options = ["--device", "cpu", "--threads", "1", "--log", "warning", "--http-port", "0"]
    with ServerProcess(["--models", str(folder), *options]) as process:
        yield Server(process)


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def made(channel, message):
    """Hashes of what a good call gives, by role; fails if it does not end well."""
    events = list(generate(channel, message, timeout=SOON_S))
    assert events[-1].WhichOneof("event") == "finished"
    return {event.artifact.role: event.artifact.sha256 for event in events if event.WhichOneof("event") == "artifact"}


@pytest.fixture(scope="module")
def expected(server):
    """What good calls give before anybody sends anything else."""
    with grpc.insecure_channel(server.address) as channel:
        return {model: made(channel, message) for model, message in GOOD.items()}


@pytest.fixture(autouse=True)
def others_are_served(channel, expected):
    yield
    assert made(channel, GOOD["tiny"]) == expected["tiny"]


NUMBERS = st.sampled_from([0, 1, 2, 16, 32, 64, 65, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
ENUMS = st.sampled_from([0, 1, 2, 3, 4, -1]) | st.integers(-(2**31), 2**31 - 1)
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "plain", "unreal", "\0", "../x", "x" * 64, "x" * 129, "x" * 100_000]
)
DATA = st.binary(max_size=64) | st.just(b"\xff" * 100_000)
VALUES = st.one_of(
    st.builds(VALUE),
    st.builds(VALUE, double_value=st.floats() | st.sampled_from([0.0, -0.0, 5e-324, 1e308, math.inf, math.nan])),
    st.builds(VALUE, int_value=st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**32, 2**63 - 1])),
    st.builds(VALUE, string_value=TEXTS),
    st.builds(VALUE, bytes_value=DATA | st.just(PICTURE)),
)
WILD = {
    "model_id": TEXTS | st.sampled_from(["tiny", "items", "style"]),
    "model_digest": DATA | st.just(b"\0" * 32),
    "seed": NUMBERS,
    "count": NUMBERS,
    "first_index": NUMBERS,
    "width_px": NUMBERS,
    "height_px": NUMBERS,
    "output": st.fixed_dictionaries(
        {},
        optional={
            "maps": st.lists(ENUMS, max_size=20),
            "profile": TEXTS,
            "normal_convention": ENUMS,
            "encoding": ENUMS,
            "name": TEXTS,
        },
    ),
    "inline_bytes": NUMBERS,
    "priority": ENUMS,
    "supersede_key": TEXTS,
    "delivery": ENUMS,
}
SPECS = {"tiny": PARAMETERS, "items": tiny_sprites.PARAMETERS, "style": style_package.PARAMETERS}
assert {*WILD, "parameters"} == set(MESSAGE.DESCRIPTOR.fields_by_name), "a new field belongs here"


def allowed(spec):
    """Values of a parameter that its model takes."""
    if spec.type == "choice":
        return st.builds(VALUE, string_value=st.sampled_from(spec.values))
    if spec.type == "image":
        return st.just(VALUE(bytes_value=PICTURE))
    if spec.type == "int":
        return st.builds(VALUE, int_value=st.integers(int(spec.minimum), int(spec.maximum)))
    return st.builds(VALUE, double_value=st.floats(spec.minimum, spec.maximum))


@st.composite
def requests(draw):
    """Mostly sound, so that what is wild is not always hidden behind something wrong that is looked at before."""
    model = draw(st.sampled_from(list(SPECS)))
    specs = {spec.name: allowed(spec) for spec in SPECS[model]}
    needed = {name: specs.pop(name) for name in ("image",) if name in specs}
    parameters = draw(st.fixed_dictionaries(needed, optional=specs))
    names = st.sampled_from(sorted({*specs, *needed})) | st.text(max_size=20)
    parameters |= draw(st.dictionaries(names, VALUES, max_size=1))
    chosen = draw(st.lists(st.sampled_from(sorted(WILD)), min_size=1, max_size=4, unique=True))
    fields = {"model_id": model, "parameters": parameters} | {name: draw(WILD[name]) for name in chosen}
    return MESSAGE(**fields)


def refused_as(error):
    """The code of a refusal, which must be one of ours, with a reason that belongs to it."""
    info = details(error)[error_details_pb2.ErrorInfo]
    assert (info.domain, STATUS_OF[info.reason]) == ("assetgen", error.code().name)
    return error.code()


def answer(channel, message):
    """How a call ends: that of one asset is read to its end, a longer one is left at its first event."""
    call = generate(channel, message, timeout=SOON_S)
    try:
        first = next(call)
        assert first.WhichOneof("event") in ("started", "whole")
        if message.count <= 1:
            events = [first, *call]
            assert events[-1].WhichOneof("event") in ("finished", "whole")
        call.cancel()
        return CODES.OK
    except grpc.RpcError as error:
        return refused_as(error)


def test_any_request_is_carried_out_or_refused_with_a_documented_code(channel, expected):
    seen = Counter()

    @settings(max_examples=100)
    @given(requests())
    @example(GOOD["tiny"])
    @example(GOOD["items"])
    @example(GOOD["style"])
    @example(bad(count=64, width_px=128))
    @example(bad(parameters={"glow": VALUE()}))
    def ask(message):
        code = answer(channel, message)
        assert code in {CODES.OK, *REFUSALS}
        seen[code] += 1

    ask()
    assert seen[CODES.OK] >= 4
    assert seen[INVALID] >= 1
    assert {model: made(channel, message) for model, message in GOOD.items()} == expected


QUICK_S = 0.05


def test_bad_requests_are_answered_quickly(channel):
    """The quickest of several: what else runs on the machine hardly ever hits all of them."""
    for message, *_ in BAD_REQUESTS:
        spent_s = math.inf
        for _ in range(20):
            begun_s = time.perf_counter()
            with pytest.raises(grpc.RpcError):
                list(generate(channel, message))
            spent_s = min(spent_s, time.perf_counter() - begun_s)
            if spent_s < QUICK_S:
                break
        assert spent_s < QUICK_S, str(message)[:200]


JOB_ID = "0d4e1f5a-6a1c-4b1e-9d3b-2f0c8f7f4a11"
SOUND = {
    "ListModels": model_service_pb2.ListModelsRequest(page_size=2, page_token="items"),
    "GetModel": model_service_pb2.GetModelRequest(id="tiny"),
    "GetServerInfo": model_service_pb2.GetServerInfoRequest(),
    "Generate": bad(
        model_digest=b"\0" * 32,
        count=1,
        first_index=1,
        parameters={"class": VALUE(string_value="clay"), "truncation": VALUE(double_value=0.5)},
        output={"maps": [1, 6], "profile": "plain", "encoding": 2, "name": "stone"},
        inline_bytes=2**20,
        priority=1,
        supersede_key="view",
        delivery=1,
    ),
    "SubmitJob": job_service_pb2.SubmitJobRequest(job_id=JOB_ID, request=bad(output={"encoding": 2})),
    "GetJob": job_service_pb2.GetJobRequest(job_id=JOB_ID, wait_ms=1),
    "CancelJob": job_service_pb2.CancelJobRequest(job_id=JOB_ID),
    "WatchJob": job_service_pb2.WatchJobRequest(job_id=JOB_ID, first_artifact=1, delivery=1),
}
EVERY = [(service, name) for service, methods in METHODS.items() for name in methods]
every_method = pytest.mark.parametrize(("service", "name"), EVERY, ids=[name for _, name in EVERY])


def check_body(channel, service, name, body):
    """Bytes that are no message are an invalid argument; those that are one get what such a message gets."""
    method = METHODS[service][name]
    try:
        method.request.FromString(body)
        expected = {CODES.OK, *REFUSALS}
    except DecodeError:
        expected = {INVALID}
    path = f"/{service}/{name}"
    try:
        if isinstance(method, Stream):
            call = channel.unary_stream(path)(body, timeout=SOON_S)
            next(call)
            call.cancel()
        else:
            channel.unary_unary(path)(body, timeout=SOON_S)
        code = CODES.OK
    except grpc.RpcError as error:
        code = refused_as(error)
    assert code in expected, (name, body)
    return code


def test_every_method_has_a_sound_message_here():
    assert {name: type(message) for name, message in SOUND.items()} == {
        name: METHODS[service][name].request for service, name in EVERY
    }


@every_method
def test_a_message_cut_off_anywhere_is_refused_or_understood(channel, service, name):
    body = SOUND[name].SerializeToString()
    codes = [check_body(channel, service, name, body[:size]) for size in range(len(body) + 1)]
    assert (INVALID in codes) == (len(body) > 0)


@every_method
def test_bytes_of_any_kind_are_refused_or_understood(channel, service, name):
    sound = SOUND[name].SerializeToString()
    cuts = st.integers(0, len(sound)).map(lambda size: sound[:size])

    @settings(max_examples=30)
    @given(st.binary(max_size=200) | st.builds(bytes.__add__, cuts, st.binary(max_size=20)))
    @example(b"\xff")
    def send(body):
        check_body(channel, service, name, body)

    send()
    assert check_body(channel, service, name, b"\xff") == INVALID


def connected(server, data):
    host, _, port = server.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=SOON_S)
    connection.sendall(data)
    return connection


HEALTH = "/grpc.health.v1.Health/Check"
UNFINISHED = {
    "no message": b"",
    "the length of a message": frame(0, 0, 1, b"\0\0\x10\0\0"),
    "a part of a message": frame(0, 0, 1, b"\0\0\x10\0\0" + bytes(1000)),
}


@pytest.mark.parametrize("path", ["/assetgen.v1.GenerationService/Generate", HEALTH])
@pytest.mark.parametrize("sent", UNFINISHED)
def test_calls_that_begin_and_do_not_go_on_hold_up_nobody(server, channel, expected, path, sent):
    """Three times as many as may wait for their message, each on its own connection; more than there are threads."""
    begun = PREFACE + frame(4, 0, 0) + call_begin(1, path) + UNFINISHED[sent]
    held = [connected(server, begun) for _ in range(3 * MAX_AWAITED)]
    try:
        assert made(channel, GOOD["tiny"]) == expected["tiny"]
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SOON_S)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert all(map(is_open, held)), "they were served only when the silent ones had been given up"
    finally:
        for connection in held:
            connection.close()


def test_a_message_that_comes_late_is_taken(server, channel):
    """In three pieces, each a little later, as over a slow network."""
    data = GOOD["tiny"].SerializeToString()
    body = b"\0" + len(data).to_bytes(4, "big") + data
    connection = connected(server, PREFACE + frame(4, 0, 0) + call_begin(1))
    for piece, flags in ((body[:3], 0), (body[3:9], 0), (body[9:], 1)):
        time.sleep(0.2)
        connection.sendall(frame(0, flags, 1, piece))
    found = b""
    while b"image/png" not in found:
        data = connection.recv(2**16)
        assert data, "the server hung up"
        found += data
    connection.close()


def test_a_call_without_a_message_is_refused(channel):
    call = channel.stream_stream("/assetgen.v1.GenerationService/Generate")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter(()), timeout=SOON_S))
    assert caught.value.code() == INVALID
    assert details(caught.value)[error_details_pb2.ErrorInfo].reason == "FIELD_INVALID"


def test_metadata_of_20_kb_is_refused(channel):
    metadata = (("x-note", "n" * 20 * 1024),)
    with pytest.raises(grpc.RpcError) as caught:
        list(generate(channel, GOOD["tiny"], metadata=metadata, timeout=SOON_S))
    assert caught.value.code() == CODES.RESOURCE_EXHAUSTED


def test_a_request_of_just_32_mib_is_carried_out(channel, expected):
    """Its picture has a note that fills it up."""

    def message(note_bytes):
        picture = with_notes(PICTURE, chunk(b"noTe", bytes(note_bytes)))
        return MESSAGE(model_id="style", seed=7, parameters={"image": VALUE(bytes_value=picture)})

    note_bytes = 32 * MIB - 1000
    note_bytes += 32 * MIB - message(note_bytes).ByteSize()
    largest = message(note_bytes)
    assert largest.ByteSize() == 32 * MIB
    assert made(channel, largest) == expected["style"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, math.nextafter(1, 2), -5e-324])
def test_numbers_that_no_slider_has_are_refused_with_its_range(server, channel, value):
    with pytest.raises(grpc.RpcError) as caught:
        list(generate(channel, bad(parameters={"truncation": VALUE(double_value=value)})))
    assert caught.value.code() == INVALID
    assert caught.value.details().startswith("parameters[truncation]: ")
    assert "use a number from 0 to 1" in caught.value.details()
    named = {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN" if math.isnan(value) else value)
    body = {"modelId": "tiny", "parameters": {"truncation": {"doubleValue": named}}}
    *_, error = events_over_http(server, body)
    assert (error["code"], error["message"]) == ("invalid_argument", caught.value.details())


def events_over_http(server, body):
    """What Connect's stream of JSON answers, the last of it the error or nothing."""
    path, kind = "/assetgen.v1.GenerationService/Generate", "application/connect+json"
    status, _, data = server.post(path, envelope(json.dumps(body).encode()), kind)
    assert status == 200
    *events, (_, end) = envelopes(data)
    return [*events, json.loads(end).get("error")]


def test_a_picture_that_a_model_needs_and_does_not_get_is_asked_for(channel):
    for parameters in ({}, {"image": VALUE()}, {"image": VALUE(string_value="photo.png")}):
        with pytest.raises(grpc.RpcError) as caught:
            list(generate(channel, MESSAGE(model_id="style", parameters=parameters)))
        assert caught.value.code() == INVALID
        assert caught.value.details().startswith("parameters[image]")


IDS = [*HOSTILE_IDS, "../etc", "model/..", "con.", "a" * 100_000]


def generate_code(server, channel, model_id):
    return generate(channel, bad(model_id=model_id)).code().name


def get_model_code(server, channel, model_id):
    get = channel.unary_unary("/assetgen.v1.ModelService/GetModel")
    return get.future(model_service_pb2.GetModelRequest(id=model_id).SerializeToString()).code().name


def http_generate_code(server, channel, model_id):
    *_, error = events_over_http(server, {"modelId": model_id})
    return error["code"].upper()


def http_get_model_code(server, channel, model_id):
    _, _, data = server.post(
        "/assetgen.v1.ModelService/GetModel", json.dumps({"id": model_id}).encode(), "application/json"
    )
    return json.loads(data)["code"].upper()


def http_path_code(server, channel, model_id):
    status, _, _ = server.ask("GET", f"/v1/blobs/{urllib.parse.quote(model_id, safe='/.')[:2000]}")
    return {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}.get(status, status)


@pytest.mark.parametrize(
    "code_of", [generate_code, get_model_code, http_generate_code, http_get_model_code, http_path_code]
)
def test_hostile_ids_are_found_through_no_door(server, channel, code_of):
    codes = {model_id[:80]: code_of(server, channel, model_id) for model_id in IDS}
    assert set(codes.values()) <= {"NOT_FOUND", "INVALID_ARGUMENT"}, codes
