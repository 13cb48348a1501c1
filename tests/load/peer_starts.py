"""How each peer is started and called: by HTTP, or by the protocol of KServe on gRPC."""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

FOLDER = Path(__file__).resolve().parent / "peer_servers"
ROOT = FOLDER.parents[2]
MODEL = "peer"
START_S = 240.0
CALL_S = 60.0
# What a call raises when there is no answer, or one that says so.
FAILURES = (OSError, http.client.HTTPException, AssertionError, grpc.RpcError)
# One call, which may take so many seconds.
Call = Callable[[float], bytes]
Connect = Callable[[], AbstractContextManager[Call]]

TRITON_CONFIG = f"""
name: "{MODEL}"
backend: "python"
max_batch_size: 0
input [{{ name: "seed" data_type: TYPE_INT32 dims: [1] }}]
output [{{ name: "pixels" data_type: TYPE_UINT8 dims: [-1] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""


@dataclass(frozen=True)
class Peer:
    """A peer.

    Attributes:
        package: what it is installed from.
        command: from the Python of its environment, a folder for its files and a port; also further variables.
        kserve: called by ModelInfer over gRPC; else by POST to ``/predict``.
    """

    package: str
    command: Callable[[str, Path, int], tuple[list[str], dict[str, str]]]
    kserve: bool = False


def _litserve(python: str, _: Path, port: int) -> tuple[list[str], dict[str, str]]:
    return [python, "litserve_server.py", str(port)], {}


def _bentoml(python: str, _: Path, port: int) -> tuple[list[str], dict[str, str]]:
    command = [python, "-m", "bentoml", "serve", "bentoml_service:Service", "--port", str(port)]
    return command, {"BENTOML_DO_NOT_TRACK": "1"}


def _ray(python: str, _: Path, port: int) -> tuple[list[str], dict[str, str]]:
    return [python, "ray_server.py", str(port)], {"RAY_USAGE_STATS_ENABLED": "0"}


def _mlserver(python: str, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    ports = {"http_port": _free_port(), "grpc_port": port, "metrics_port": _free_port()}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps({"name": MODEL, "implementation": "mlserver_model.Model"}))
    return [str(Path(python).parent / "mlserver"), "start", str(folder)], {}


def _triton(python: str, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The server in the wheel nvidia-pytriton by itself: its Python backend wants the stub of its Python beside it."""
    (site,) = (Path(python).parent.parent / "lib").glob("python3.*/site-packages")
    triton, backend, model = (
        site / "pytriton" / "tritonserver",
        folder / "backends" / "python",
        folder / "models" / MODEL,
    )
    shutil.copytree(triton / "backends" / "python", backend)
    stub = triton / "python_backend_stubs" / site.parent.name.removeprefix("python")
    shutil.copytree(stub, backend, dirs_exist_ok=True)
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(TRITON_CONFIG)
    shutil.copy(FOLDER / "triton_model.py", model / "1" / "model.py")
    folders = [f"--model-repository={folder / 'models'}", f"--backend-directory={backend.parent}"]
    ports = ["--grpc-address=127.0.0.1", f"--grpc-port={port}", "--allow-http=false", "--allow-metrics=false"]
    return [str(triton / "bin" / "tritonserver"), *folders, *ports], {
        "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"),
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(site.parents[2]),
    }


PEERS = {
    "litserve": Peer("litserve", _litserve),
    "bentoml": Peer("bentoml", _bentoml),
    "ray": Peer("ray", _ray),
    "mlserver": Peer("mlserver", _mlserver, kserve=True),
    "triton": Peer("nvidia-pytriton", _triton, kserve=True),
}


def version(name: str, python: str) -> str:
    """Of a peer, in the environment that ``python`` belongs to."""
    code = f"import importlib.metadata as m; print(m.version({PEERS[name].package!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def started(name: str, python: str, facts: dict[str, object], size_bytes: int) -> Iterator[Connect]:
    """Start a peer; what is yielded opens a connection, which calls it as often as one likes.

    Args:
        python: of the environment that the peer is installed in.
        facts: what ``graph.Graph`` wants to know.
        size_bytes: what an answer must have.
    """
    peer, port = PEERS[name], _free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command, variables = peer.command(python, folder, port)
        own = {"ASSETGEN_PEER": json.dumps(facts), "PYTHONPATH": f"{FOLDER}:{ROOT}"} | variables
        log = stack.enter_context((folder / "log").open("w+"))
        process = subprocess.Popen(
            command,
            cwd=FOLDER,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"} | own,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(_end, process)
        connect = functools.partial(_by_kserve if peer.kserve else _by_http, port)
        end_s = time.monotonic() + START_S
        while True:
            try:
                with connect() as call:
                    data = call(CALL_S)
                break
            except FAILURES as error:
                if process.poll() is not None or time.monotonic() > end_s:
                    said = (folder / "log").read_text()[-9000:]
                    raise RuntimeError(f"{name} does not answer: {error}: {said}") from error
                time.sleep(0.5)
        assert len(data) == size_bytes, data[:300]
        yield connect


@contextmanager
def _by_http(port: int) -> Iterator[Call]:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def post() -> bytes:
        try:
            connection.request("POST", "/predict", b"{}", {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        assert response.status == 200, data[:300]
        return data

    def call(limit_s: float) -> bytes:
        connection.timeout = limit_s
        if connection.sock is None:
            return post()
        connection.sock.settimeout(limit_s)
        try:
            return post()
        except ConnectionError:  # it was idle for so long that the peer closed it
            return post()

    try:
        yield call
    finally:
        connection.close()


@contextmanager
def _by_kserve(port: int) -> Iterator[Call]:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="seed", datatype="INT32", shape=[1])
    request.raw_input_contents.append(bytes(4))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

        def call(limit_s: float) -> bytes:
            answer = infer(request, timeout=limit_s)
            if answer.raw_output_contents:
                return bytes(answer.raw_output_contents[0])
            return bytes(answer.outputs[0].contents.uint_contents)

        yield call


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(psutil.NoSuchProcess):  # it ended by itself
        for one in psutil.Process(process.pid).children(recursive=True):  # the peers' workers do not end with them
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.kill()
    process.wait()
