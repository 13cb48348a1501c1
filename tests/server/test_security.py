"""TLS, client certificates, tokens and quotas of a real server over real sockets; metrics and logs beside them."""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
import uuid
from datetime import UTC, datetime

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from assetgen import job_client
from assetgen.client import Access, Client
from assetgen.errors import AddressUnusable, ConfigInvalid, QuotaExceeded, TokenInvalid, WorkerLost
from assetgen.launch import ServerProcess
from assetgen.local import open_service
from assetgen.server.app import ServerConfig, serve
from assetgen.server.tls import TlsFiles
from assetgen.types import Request
from tests.helpers.serving import files, write_model

TOKEN, LITTLE, SINGLE = (f"{name}-0123456789abcdefgh" for name in ("big", "little", "single"))
SMALL = Request("tiny", seed=7, width_px=32, height_px=32)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    return folder


class Papers:
    """Certificates and tokens in a folder of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.ca, self.client_ca, self.stranger = trustme.CA(), trustme.CA(), trustme.CA()
        for name, authority in (("ca", self.ca), ("client_ca", self.client_ca), ("stranger", self.stranger)):
            authority.cert_pem.write_to_path(folder / f"{name}.pem")
        self.renew(self.ca)
        expired = {"not_before": datetime(2001, 1, 1, tzinfo=UTC), "not_after": datetime(2002, 1, 1, tzinfo=UTC)}
        for name, authority, dates in (
            ("client", self.client_ca, {}),
            ("foreign", self.stranger, {}),
            ("expired", self.client_ca, expired),
        ):
            paper = authority.issue_cert("client.test", **dates)
            paper.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
            paper.private_key_pem.write_to_path(folder / f"{name}.key")
        self.tokens = folder / "tokens.toml"
        little = f'[tokens.little]\ntoken = "{LITTLE}"\nmpx_per_minute = 0.002\n'
        single = f'[tokens.single]\ntoken = "{SINGLE}"\nmax_calls = 1\n'
        self.tokens.write_text(f'[tokens.big]\ntoken = "{TOKEN}"\n{little}{single}')
        self.tokens.chmod(0o600)

    def renew(self, authority):
        paper = authority.issue_cert("127.0.0.1", "localhost")
        paper.private_key_pem.write_to_path(self.folder / "server.key")
        paper.cert_chain_pems[0].write_to_path(self.folder / "server.pem")

    def __getitem__(self, name):
        return self.folder / name


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    return Papers(tmp_path_factory.mktemp("papers"))


def start(models, papers, *arguments):
    files = ["--tls-cert", str(papers["server.pem"]), "--tls-key", str(papers["server.key"])]
    own = ["--models", str(models), "--device", "cpu", "--threads", "1", "--tokens", str(papers.tokens)]
    return ServerProcess([*own, *files, *arguments])


@pytest.fixture(scope="module")
def server(models, papers):
    """Open to other machines, which needs TLS and tokens."""
    beside = ["--http-port", "0", "--reflection", "--metrics-port", "0", "--log-format", "json"]
    with start(models, papers, "--host", "0.0.0.0", *beside) as running:
        yield running


def target(server):
    return f"127.0.0.1:{server.address.rpartition(':')[2]}"


def reach(server, papers, token=TOKEN, **access):
    return Client(target(server), access=Access(token, **{"ca": papers["ca.pem"]} | access))


def test_who_has_the_token_and_trusts_the_certificate_is_served(server, papers):
    with reach(server, papers) as client:
        assert [model.id for model in client.models()] == ["tiny"]
        assert files(client.generate(SMALL))


@pytest.mark.parametrize("token", ["", "x" * 30, TOKEN[:-1], TOKEN + "x"])
def test_no_call_is_answered_without_a_token_that_is_known(server, papers, token):
    with reach(server, papers, token) as client:
        for call in (
            client.models,
            client.server_info,
            lambda: list(client.generate(SMALL)),
            lambda: job_client.submit(client, SMALL),
            lambda: job_client.get(client, str(uuid.uuid4())),
            lambda: job_client.cancel(client, str(uuid.uuid4())),
            lambda: list(job_client.events(client, str(uuid.uuid4()))),
        ):
            with pytest.raises(TokenInvalid):
                call()


def channel(server, papers):
    return grpc.secure_channel(target(server), grpc.ssl_channel_credentials(papers["ca.pem"].read_bytes()))


def test_reflection_wants_a_token_and_health_does_not(server, papers):
    with channel(server, papers) as open_channel:
        answer = health_pb2_grpc.HealthStub(open_channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(open_channel).get_services()
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        (info,) = rpc_status.from_call(caught.value).details
        reason = error_details_pb2.ErrorInfo()
        assert info.Unpack(reason)
        assert reason.reason == "TOKEN_INVALID"


def test_plain_text_and_strange_authorities_meet_closed_doors(server, papers):
    with Client(target(server)) as client, pytest.raises(WorkerLost):
        client.models()
    with reach(server, papers, ca=papers["stranger.pem"]) as client, pytest.raises(WorkerLost):
        client.models()


def test_a_quota_is_kept_and_says_when_to_try_again(server, papers):
    """0.002 Mpx a minute: two assets of 32 x 32 px."""
    with reach(server, papers, LITTLE) as client:
        for seed in range(2):
            assert files(client.generate(Request("tiny", seed=seed, width_px=32, height_px=32)))
        with pytest.raises(QuotaExceeded) as caught:
            list(client.generate(SMALL))
        assert 0 < caught.value.retry_after_s <= 60
    with reach(server, papers) as other:
        assert files(other.generate(SMALL))


def test_only_so_many_calls_of_a_token_at_once(server, papers):
    with reach(server, papers, SINGLE) as client:
        first = client.generate(Request("tiny", seed=1, count=64, width_px=1024, height_px=1024))
        next(first)
        with pytest.raises(QuotaExceeded, match="1 calls under way"):
            list(client.generate(SMALL))
        with reach(server, papers) as other:
            assert files(other.generate(SMALL))
        first.close()


def test_metrics_count_and_no_label_comes_from_a_client(server, papers):
    with reach(server, papers) as client:
        files(client.generate(SMALL))
        with pytest.raises(Exception, match="hostile"):
            list(client.generate(Request("hostile")))
    lines = [json.loads(line) for line in server.errors().splitlines()]
    address = next(
        found.group() for line in lines if (found := re.search(r"http://\S+/metrics", line.get("message", "")))
    )
    with urllib.request.urlopen(address) as answer:
        text = answer.read().decode()
    values = {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)}
    assert values['assetgen_calls_total{code="OK",method="Generate",reason=""}'] >= 1
    assert values['assetgen_calls_total{code="NOT_FOUND",method="Generate",reason="MODEL_NOT_FOUND"}'] >= 1
    assert values['assetgen_stage_seconds_count{model="tiny",stage="graph"}'] >= 1
    assert values["assetgen_models_open"] == 1
    assert values["assetgen_resident_bytes"] > 2**20
    assert "hostile" not in text


def test_the_log_is_json_and_never_holds_a_token(server, papers):
    with reach(server, papers) as client:
        files(client.generate(SMALL))
    text = server.errors()
    lines = [json.loads(line) for line in text.splitlines()]
    calls = [line for line in lines if line.get("method") == "Generate" and line["code"] == "OK"]
    assert calls[-1]["caller"] == "big"
    assert set(calls[-1]["ms"]) == {"queue", "prepare", "graph", "encode"}
    assert calls[-1]["request_id"]
    assert TOKEN not in text
    assert LITTLE not in text


def test_the_http_port_speaks_tls_and_wants_a_token(server, papers):
    with reach(server, papers) as client:
        port = client.server_info().http_port
    path, body = "/assetgen.v1.ModelService/ListModels", b"{}"

    def ask(method, path, body=None, token=""):
        trust = ssl.create_default_context(cafile=papers["ca.pem"])
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trust)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        found = response.status, response.read()
        connection.close()
        return found

    jobs = [f"/assetgen.v1.JobService/{method}" for method in ("SubmitJob", "GetJob", "CancelJob")]
    for called in (path, *jobs):
        assert ask("POST", called, body)[0] == 401
        assert ask("POST", called, body, "x" * 30)[0] == 401
    assert b"JOB_NOT_FOUND" in ask("POST", jobs[1], body, TOKEN)[1]
    status, answer = ask("POST", path, body, TOKEN)
    assert status == 200
    preview = json.loads(answer)["models"][0]["previewBlob"]
    assert ask("GET", preview)[0] == 401
    assert ask("GET", preview, token=TOKEN)[0] == 200
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/1.1 200")


def test_the_command_line_is_let_in_too(server, papers, tmp_path):
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    command = [sys.executable, "-m", "assetgen", "generate", "--server", target(server), "--size", "32", "--seed", "1"]
    command += ["--tls-ca", str(papers["ca.pem"]), "--token-file", str(secret), "-o", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "ASSETGEN_TOKEN": "wrong"})
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_client_certificates_and_renewal(models, papers, tmp_path):
    """One server with mutual TLS; then its certificate comes from another authority, without a restart."""
    with start(models, papers, "--tls-client-ca", str(papers["client_ca.pem"])) as server:
        for name in (None, "foreign", "expired"):
            own = {} if name is None else {"cert": papers[f"{name}.pem"], "key": papers[f"{name}.key"]}
            with reach(server, papers, **own) as client, pytest.raises(WorkerLost):
                client.models()
        own = {"cert": papers["client.pem"], "key": papers["client.key"]}
        with reach(server, papers, **own) as client:
            assert [model.id for model in client.models()] == ["tiny"]
        try:
            papers.renew(papers.stranger)
            with reach(server, papers, ca=papers["stranger.pem"], **own) as client:
                assert [model.id for model in client.models()] == ["tiny"]
            papers["server.pem"].write_text("no certificate")
            with reach(server, papers, ca=papers["stranger.pem"], **own) as client:
                assert [model.id for model in client.models()] == ["tiny"]
        finally:
            papers.renew(papers.ca)


def test_the_http_port_follows_its_certificates_too(models, papers):
    """Both the server's own and the authority of its clients, without a restart."""
    authority = papers.folder / "authority.pem"
    shutil.copy(papers["client_ca.pem"], authority)

    def ask(port, ca, name):
        trust = ssl.create_default_context(cafile=papers[ca])
        if name:
            trust.load_cert_chain(papers[f"{name}.pem"], papers[f"{name}.key"])
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trust)
        try:
            connection.request(
                "POST", "/assetgen.v1.ModelService/ListModels", b"{}", {"Content-Type": "application/json"}
            )
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    with start(models, papers, "--tls-client-ca", str(authority), "--http-port", "0") as server:
        own = {"cert": papers["client.pem"], "key": papers["client.key"]}
        with reach(server, papers, **own) as client:
            port = client.server_info().http_port
        assert ask(port, "ca.pem", "client") == 401
        assert [ask(port, "ca.pem", name) for name in (None, "foreign", "expired")] == [None] * 3
        try:
            papers.renew(papers.stranger)
            assert (ask(port, "ca.pem", "client"), ask(port, "stranger.pem", "client")) == (None, 401)
            shutil.copy(papers["stranger.pem"], authority)
            assert (ask(port, "stranger.pem", "client"), ask(port, "stranger.pem", "foreign")) == (None, 401)
            papers["server.pem"].write_text("no certificate")
            assert ask(port, "stranger.pem", "foreign") == 401
            assert "stays in use" in server.errors()
        finally:
            papers.renew(papers.ca)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
@pytest.mark.parametrize("given", ["nothing", "tls", "tokens"])
def test_other_addresses_need_both_tls_and_tokens(models, papers, host, given):
    tls = TlsFiles(papers["server.pem"], papers["server.key"]) if given == "tls" else None
    tokens = papers.tokens if given == "tokens" else None
    service = open_service([models], "cpu", 1)
    missing = {"nothing": "TLS and a token", "tls": "a token", "tokens": "TLS"}[given]
    with pytest.raises(AddressUnusable, match=f"without {missing} anybody"):
        serve(service, ServerConfig(host, 0, tls=tls, tokens=tokens), print)
    service.close()


@pytest.mark.parametrize(
    ("cert", "key"), [("absent.pem", "server.key"), ("server.pem", "client.key"), ("tokens.toml",) * 2]
)
def test_wrong_certificates_are_said_before_anything_listens(models, papers, cert, key):
    service = open_service([models], "cpu", 1)
    with pytest.raises(ConfigInvalid, match=cert):
        serve(service, ServerConfig(port=0, tls=TlsFiles(papers[cert], papers[key])), print)
    service.close()


def test_a_token_never_travels_in_plain_text_to_another_machine():
    with pytest.raises(ConfigInvalid, match="plain text"):
        Client("192.0.2.1:50051", access=Access(TOKEN))
    with pytest.raises(ConfigInvalid, match="belong together"):
        Client("192.0.2.1:50051", access=Access(TOKEN, tls=True, cert="x"))
    assert TOKEN not in repr(Access(TOKEN))
