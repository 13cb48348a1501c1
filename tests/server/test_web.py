"""Connect, gRPC-Web and files on HTTP/1.1, spoken by hand over real sockets to a real server."""

import base64
import gzip
import hashlib
import http.client
import json
import re
import socket
import struct
import threading
import time

import pytest
from google.rpc import error_details_pb2, status_pb2

from assetgen.client import Client
from assetgen.launch import ServerProcess
from assetgen.types import Request
from assetgen.v1 import asset_pb2, generation_service_pb2, model_service_pb2
from tests.helpers.serving import files, write_model

SMALL = {"model_id": "tiny", "seed": 7, "width_px": 32, "height_px": 32}
SLOW = {"model_id": "slow", "seed": 1, "count": 64, "width_px": 1024, "height_px": 1024}
GENERATE, LIST = "/assetgen.v1.GenerationService/Generate", "/assetgen.v1.ModelService/ListModels"
INFO = "/assetgen.v1.ModelService/GetServerInfo"
TOOLS = "https://tools.example.org"


class Server:
    """A server and its two ports."""

    def __init__(self, process):
        self.process, self.address = process, process.address
        with Client(self.address) as client:
            self.http_port = client.server_info().http_port

    def ask(self, method, path, body=b"", **headers):
        """Status, headers and body of one request; names of headers with '_' for '-'."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        found = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        connection.close()
        return found

    def post(self, path, body, kind, **headers):
        return self.ask("POST", path, body, content_type=kind, **headers)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    write_model(folder, "slow", channels=96)
    options = ["--http-port", "0", "--http-origins", TOOLS, "--http-hosts", "render.example.org", "--max-calls", "4"]
    with ServerProcess(["--models", str(folder), "--device", "cpu", "--threads", "1", *options]) as process:
        yield Server(process)


def envelope(data):
    return struct.pack(">BI", 0, len(data)) + data


def envelopes(data):
    found = []
    while data:
        flags, size = struct.unpack(">BI", data[:5])
        found.append((flags, data[5 : 5 + size]))
        assert len(found[-1][1]) == size
        data = data[5 + size :]
    return found


def expected(server, **changes):
    with Client(server.address) as client:
        return files(client.generate(Request(**SMALL | changes)))


def unary_json(server, path, body, **headers):
    status, answer_headers, data = server.post(path, json.dumps(body).encode(), "application/json", **headers)
    return status, answer_headers, json.loads(data)


def test_connect_with_json_discovers_without_pixels(server):
    status, headers, answer = unary_json(server, LIST, {"pageSize": 1})
    assert (status, headers["content-type"]) == (200, "application/json")
    assert [model["id"] for model in answer["models"]] == ["slow"]
    assert "previewPng" not in answer["models"][0]
    status, headers, preview = server.ask("GET", answer["models"][0]["previewBlob"])
    assert (status, headers["content-type"]) == (200, "image/png")
    assert preview.startswith(b"\x89PNG")


def test_connect_with_protobuf_and_grpc_web_say_the_same_as_grpc(server):
    request = model_service_pb2.GetServerInfoRequest().SerializeToString()
    with Client(server.address) as client:
        version = client.server_info().version
    _, _, data = server.post(INFO, request, "application/proto")
    assert model_service_pb2.GetServerInfoResponse.FromString(data).version == version
    for kind in ("application/grpc-web", "application/grpc-web+proto"):
        status, _, data = server.post(INFO, envelope(request), kind)
        (_, message), (flags, trailers) = envelopes(data)
        assert model_service_pb2.GetServerInfoResponse.FromString(message).version == version
        assert (status, flags, trailers) == (200, 0x80, b"grpc-status: 0\r\n")


def test_a_json_stream_names_files_that_are_fetched_by_hash(server):
    body = json.dumps({"modelId": "tiny", "seed": 7, "widthPx": 32, "heightPx": 32}).encode()
    status, _, data = server.post(GENERATE, envelope(body), "application/connect+json")
    *events, (flags, end) = envelopes(data)
    assert (status, flags, json.loads(end)) == (200, 2, {})
    messages = [json.loads(event) for _, event in events]
    assert "started" in messages[0]
    assert "finished" in messages[-1]
    found = {}
    for artifact in (message["artifact"] for message in messages if "artifact" in message):
        status, headers, pixels = server.ask("GET", artifact["blob"])
        assert (status, headers["content-type"]) == (200, "image/png")
        assert base64.b64decode(artifact["sha256"]) == hashlib.sha256(pixels).digest()
        assert artifact["blob"].endswith(".png")
        found[artifact.get("index", 0), artifact["role"]] = hashlib.sha256(pixels).hexdigest()
    assert found == expected(server)
    assert max(len(event) for _, event in events) < 2000


@pytest.mark.parametrize(
    ("kind", "last"),
    [("application/connect+proto", 2), ("application/grpc-web", 0x80), ("application/grpc-web+proto", 0x80)],
)
def test_binary_streams_hold_the_events_of_grpc(server, kind, last):
    request = generation_service_pb2.GenerateRequest(**SMALL, output={"maps": [asset_pb2.MAP_KIND_HEIGHT]})
    status, _, data = server.post(GENERATE, envelope(request.SerializeToString()), kind)
    *events, (flags, _) = envelopes(data)
    assert (status, flags) == (200, last)
    messages = [generation_service_pb2.GenerateResponse.FromString(event) for _, event in events]
    assert [message.WhichOneof("event") for message in messages] == ["started", "artifact", "chunk", "finished"]
    assert hashlib.sha256(messages[2].chunk).hexdigest() == expected(server)[0, "height"]


def test_files_may_stay_on_the_server_for_grpc_clients_too(server):
    request = generation_service_pb2.GenerateRequest(**SMALL, delivery=generation_service_pb2.DELIVERY_BLOBS)
    _, _, data = server.post(GENERATE, envelope(request.SerializeToString()), "application/grpc-web")
    messages = [generation_service_pb2.GenerateResponse.FromString(event) for _, event in envelopes(data)[:-1]]
    assert {message.WhichOneof("event") for message in messages} == {"started", "artifact", "finished"}
    paths = [message.artifact.blob for message in messages if message.HasField("artifact")]
    assert all(server.ask("GET", path)[0] == 200 for path in paths)


def test_errors_of_unary_calls_have_a_status_and_a_reason(server):
    status, headers, answer = unary_json(server, "/assetgen.v1.ModelService/GetModel", {"id": "absent"})
    assert (status, answer["code"]) == (404, "not_found")
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(answer["details"][0]["value"] + "=="))
    assert info.reason == "MODEL_NOT_FOUND"
    assert answer["details"][0]["debug"]["reason"] == "MODEL_NOT_FOUND"
    assert headers["content-type"] == "application/json"


def test_errors_of_streams_come_at_their_end(server):
    bad = generation_service_pb2.GenerateRequest(**SMALL | {"width_px": 33}).SerializeToString()
    status, _, data = server.post(GENERATE, envelope(bad), "application/connect+proto")
    ((flags, end),) = envelopes(data)
    error = json.loads(end)["error"]
    assert (status, flags, error["code"]) == (200, 2, "invalid_argument")
    assert error["details"][0]["debug"]["reason"] == "FIELD_INVALID"

    status, _, data = server.post(GENERATE, envelope(bad), "application/grpc-web")
    ((flags, trailers),) = envelopes(data)
    lines = dict(line.split(": ", 1) for line in trailers.decode().splitlines())
    assert (status, flags, lines["grpc-status"]) == (200, 0x80, "3")
    details = status_pb2.Status.FromString(base64.b64decode(lines["grpc-status-details-bin"] + "=="))
    assert details.message.startswith("width_px")


HOSTILE_BODIES = {
    "a key twice": b'{"seed":1,"seed":2}',
    "no JSON": b"{",
    "deep": b"[" * 100_000,
    "deep objects": b'{"output":' * 50_000,
    "an unknown field": b'{"modelId":"tiny","colour":1}',
    "another type": b'{"count":"many"}',
    "too large a number": b'{"count":1e999}',
    "a name that is none": b'{"output":{"encoding":"ENCODING_GIF"}}',
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "nothing": b"",
}


@pytest.mark.parametrize("body", HOSTILE_BODIES.values(), ids=HOSTILE_BODIES)
def test_hostile_json_is_an_invalid_argument(server, body):
    _, _, data = server.post(GENERATE, envelope(body), "application/connect+json")
    ((flags, end),) = envelopes(data)
    assert (flags, json.loads(end)["error"]["code"]) == (2, "invalid_argument")
    assert expected(server)


@pytest.mark.parametrize(
    "body", [b"", b"\0\0", envelope(b"x")[:-1], envelope(b"") * 2, b"\1" + envelope(b"")[1:], b"\0\xff\xff\xff\xff"]
)
def test_bodies_that_are_not_one_envelope_are_refused(server, body):
    _, _, data = server.post(GENERATE, body, "application/connect+proto")
    ((_, end),) = envelopes(data)
    assert json.loads(end)["error"]["code"] == "invalid_argument"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "image/png"]
)
def test_what_a_form_can_send_is_refused(server, kind):
    status, headers, _ = server.post(LIST, b"{}", kind)
    assert status == 415
    assert "application/json" in headers["accept-post"]


def test_requests_may_be_compressed_but_bombs_and_other_codes_are_refused(server):
    body, zipped = b"{}", {"content_encoding": "gzip"}
    assert server.post(LIST, gzip.compress(body), "application/json", **zipped)[0] == 200
    request = gzip.compress(generation_service_pb2.GenerateRequest(**SMALL).SerializeToString())
    packed = b"\1" + envelope(request)[1:]
    for kind, header in (
        ("application/connect+proto", "connect_content_encoding"),
        ("application/grpc-web", "grpc_encoding"),
    ):
        *events, _ = envelopes(server.post(GENERATE, packed, kind, **{header: "gzip"})[2])
        assert len(events) > 2
    bomb = gzip.compress(bytes(33 * 2**20))
    for data, encoding in ((bomb, "gzip"), (b"no gzip", "gzip"), (gzip.compress(body)[:-4], "gzip"), (body, "br")):
        assert server.post(LIST, data, "application/json", content_encoding=encoding)[0] == 400


def test_kinds_of_body_fit_the_kind_of_method(server):
    assert server.post(GENERATE, b"{}", "application/json")[0] == 415
    assert server.post(LIST, envelope(b"{}"), "application/connect+json")[0] == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", LIST, 405),
        ("PUT", LIST, 405),
        ("OPTIONS", LIST, 405),
        ("POST", "/", 404),
        ("POST", "/assetgen.v1.ModelService/Nothing", 404),
        ("POST", "/assetgen.v1.GenerationService/ListModels", 404),
        ("POST", "/../../etc/passwd", 404),
        ("GET", "/v1/blobs/" + "0" * 64, 404),
        ("GET", "/v1/blobs/../../etc/passwd", 404),
    ],
)
def test_other_methods_and_paths_lead_nowhere(server, method, path, status):
    assert server.ask(method, path, content_type="application/json")[0] == status


def test_pages_of_strangers_are_refused_and_those_named_are_let_in(server):
    for origin in ("https://evil.example", "null", "http://localhost:3000"):
        assert server.post(LIST, b"{}", "application/json", origin=origin)[0] == 403
        assert server.ask("OPTIONS", LIST, origin=origin)[0] == 405
    status, headers, _ = server.post(LIST, b"{}", "application/json", origin=TOOLS)
    assert (status, headers["access-control-allow-origin"]) == (200, TOOLS)
    status, headers, _ = server.ask("OPTIONS", LIST, origin=TOOLS, access_control_request_method="POST")
    assert status == 204
    assert "content-type" in headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in server.post(LIST, b"{}", "application/json")[1]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.", "[::2]"]
)
def test_foreign_hosts_are_refused(server, host):
    assert server.post(LIST, b"{}", "application/json", host=host)[0] == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "[::1]:8080", "render.example.org", "render.example.org:443"]
)
def test_own_names_are_let_in(server, host):
    assert server.post(LIST, b"{}", "application/json", host=host)[0] == 200


def test_too_large_a_request_is_refused_before_it_is_read(server):
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=60) as connection:
        head = f"POST {LIST} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\n"
        connection.sendall(f"{head}Content-Length: {2**40}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_large_requests_at_once_are_bounded_and_slots_come_back(server):
    """Nine of 32 MiB, each without its last byte: more than may be held; then they leave, and one is served."""
    head = (
        f"POST {LIST} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\nContent-Length: {2**25}\r\n\r\n"
    )
    connections, refused = [], False
    for _ in range(9):
        connections.append(socket.create_connection(("127.0.0.1", server.http_port), timeout=60))
        try:
            connections[-1].sendall(head.encode() + bytes(2**25 - 1))
        except OSError:  # closed while it was sent
            refused = True
    connections[-1].settimeout(60)
    refused = refused or connections[-1].recv(100).startswith(b"HTTP/1.1 503")
    for connection in connections:
        connection.close()
    assert refused
    end_s = time.monotonic() + 60
    while server.post(LIST, bytes(2**25 - 1), "application/proto")[0] == 503:
        assert time.monotonic() < end_s
    assert expected(server)


def test_a_client_that_leaves_within_its_request_is_no_call(server):
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=60) as connection:
        head = f"POST {INFO} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\nX-Request-Id: half\r\n"
        connection.sendall(f"{head}Content-Length: 10\r\n\r\n".encode())
    assert unary_json(server, LIST, {}, x_request_id="after-half")[0] == 200
    assert '"half"' not in server.process.errors()


def test_the_request_id_comes_back_and_stands_in_the_log(server):
    assert unary_json(server, LIST, {}, x_request_id="page-7")[1]["x-request-id"] == "page-7"
    assert "page-7" in server.process.errors()


@pytest.mark.parametrize("header", [{"connect_timeout_ms": "200"}, {"grpc_timeout": "200m"}])
def test_deadlines_are_kept(server, header):
    body = envelope(generation_service_pb2.GenerateRequest(**SLOW).SerializeToString())
    _, _, data = server.post(GENERATE, body, "application/connect+proto", **header)
    assert json.loads(envelopes(data)[-1][1])["error"]["code"] == "deadline_exceeded"
    _, _, data = server.post(GENERATE, body, "application/connect+proto", connect_timeout_ms="soon")
    assert json.loads(envelopes(data)[-1][1])["error"]["code"] == "invalid_argument"


def begun(server):
    """A connection on which a long call has sent its first bytes."""
    body = envelope(generation_service_pb2.GenerateRequest(**SLOW, output={"encoding": 2}).SerializeToString())
    connection = socket.create_connection(("127.0.0.1", server.http_port), timeout=60)
    head = f"POST {GENERATE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+proto\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert re.match(rb"HTTP/1.1 200", connection.recv(4096))
    return connection


def test_clients_that_leave_free_their_place(server):
    """More than the four that may be under way, each abandoned; some while they do not read."""
    for number in range(12):
        connection = begun(server)
        if number % 3 == 0:
            time.sleep(0.05)
        connection.close()
        end_s = time.monotonic() + 60
        while "finished" not in str(attempt := stream(server, SMALL)):
            assert "QUEUE_FULL" in str(attempt)
            assert time.monotonic() < end_s
            time.sleep(0.05)


def stream(server, request):
    body = generation_service_pb2.GenerateRequest(**request).SerializeToString()
    data = server.post(GENERATE, envelope(body), "application/connect+proto")[2]
    *events, (_, end) = envelopes(data)
    kinds = [generation_service_pb2.GenerateResponse.FromString(event).WhichOneof("event") for _, event in events]
    return kinds, end


def test_calls_at_once_over_both_ports_get_what_each_gets_alone(server):
    alone, answers = expected(server), []

    def work(number):
        answers.append(expected(server) if number % 2 else stream(server, SMALL)[0][-1])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, answers)) == sorted(map(str, [alone, alone, "finished", "finished"]))


def test_garbage_does_no_harm(server):
    for data in (
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nX: " + b"y" * 70_000,
        b"PRI * HTTP/2.0\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=60) as connection:
            connection.sendall(data)
    assert stream(server, SMALL)[0][-1] == "finished"
    assert "Traceback" not in server.process.errors()
