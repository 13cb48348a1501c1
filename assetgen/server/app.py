"""Building, running and stopping the server; imports the rest of this package, service, errors and grpc."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from assetgen.allocator import give_freed_memory_back, keep_freed_memory
from assetgen.errors import AddressUnusable, ConfigInvalid, RuntimeMissing
from assetgen.jobs import JobLimits, Jobs
from assetgen.server.blobs import Blobs
from assetgen.server.descriptors import allow_many_descriptors
from assetgen.server.exchange import GENERATION_SERVICE, JOB_SERVICE, MAX_REQUEST_BYTES, Front
from assetgen.server.health import MAX_WATCHERS, OVERALL, Health
from assetgen.server.health import SERVICE_NAME as HEALTH_SERVICE
from assetgen.server.methods import METHODS
from assetgen.server.metrics import Metrics
from assetgen.server.servicer import MAX_AWAITED, handlers, message_guard, token_guard
from assetgen.server.shared import SharedFiles
from assetgen.server.tls import TlsFiles, is_loopback, server_credentials
from assetgen.server.tokens import TokenTable
from assetgen.server.tracing import Tracing
from assetgen.server.watch import Watch
from assetgen.server.web import Web
from assetgen.server.web_server import WebServer, import_uvicorn, listen
from assetgen.service import Limits, Service
from assetgen.signature import Signers
from assetgen.store import bundled_models_folder, open_store
from assetgen.threads import Pool
from assetgen.worker import Worker

if TYPE_CHECKING:
    from assetgen.process.supervisor import DeviceProcess

log = logging.getLogger(__name__)

OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client whose machine or cable is gone says no word: it is asked when it was silent for half a minute.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # this one counts: gRPC 1.85 starts the other's timer never
    ("grpc.server_handshake_timeout_ms", 10_000),  # who connects and says nothing is hung up; 120 s otherwise
    ("grpc.http2.max_pings_without_data", 0),  # however long a graph runs before there is something to send
)

SPARE_THREADS = 16
SHARED_BYTES = 256 * 2**20
WAKE_S, TIDY_S = 0.5, 60.0


@dataclass(frozen=True)
class ServerConfig:
    """How to listen.

    Attributes:
        host: a loopback address; any other needs ``tls`` and ``tokens``.
        port: 0 lets the system choose.
        reflection: whether clients may list services and messages.
        preload: open all models before the server says that it is ready.
        tls: certificates; without them the port speaks plain text.
        tokens: file of those who may call; without it, whoever reaches the port may.
        otlp_endpoint: where spans of calls go, see ``Tracing``; empty for nowhere.
        metrics_port: where Prometheus finds metrics, on the loopback address; 0 lets the system choose.
        http_port: of Connect, gRPC-Web and files on HTTP/1.1, at the same host; 0 lets the system choose.
        http_hosts, http_origins: see ``Web``.
        blob_bytes: see ``Blobs``.
        shared_bytes: see ``SharedFiles``; 0: none; ``None``: 256 MiB where the system has such memory.
        jobs: see ``JobLimits``.
        folders, watch_s: folders of models to look at for changes, and how often; 0 never looks.
        signers: whose packages may come with a change, see ``open_store``.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    reflection: bool = False
    preload: bool = True
    tls: TlsFiles | None = None
    tokens: Path | None = None
    otlp_endpoint: str = ""
    metrics_port: int | None = None
    http_port: int | None = None
    http_hosts: frozenset[str] = frozenset()
    http_origins: frozenset[str] = frozenset()
    blob_bytes: int = 256 * 2**20
    shared_bytes: int | None = None
    jobs: JobLimits = field(default_factory=JobLimits)
    folders: tuple[Path, ...] = ()
    watch_s: float = 0.0
    signers: Signers | None = None


def open_configured(settings: Mapping[str, Any]) -> tuple[Service, ServerConfig]:
    """A service and how to serve it, from the settings of ``server/config.py``.

    Raises:
        ConfigInvalid: settings that belong together are not.
    """
    keep_freed_memory()
    allow_many_descriptors()
    limits = Limits(
        max_calls=settings["max_calls"],
        max_held_px=int(settings["max_mpx"] * 2**20),
        max_picture_bytes=settings["picture_mb"] * 2**20,
        call_cap_s=settings["call_cap_s"],
        drain_s=settings["drain_s"],
    )
    tls = None
    if settings["tls_cert"] or settings["tls_key"] or settings["tls_client_ca"]:
        if not (settings["tls_cert"] and settings["tls_key"]):
            raise ConfigInvalid("TLS needs both a certificate and its key", hint="give --tls-cert and --tls-key")
        client_ca = Path(settings["tls_client_ca"]) if settings["tls_client_ca"] else None
        tls = TlsFiles(Path(settings["tls_cert"]), Path(settings["tls_key"]), client_ca)
    folders = tuple(Path(folder) for folder in settings["models"]) or (bundled_models_folder(),)
    signers = Signers([Path(key) for key in settings["require_signature"]]) if settings["require_signature"] else None
    config = ServerConfig(
        settings["host"],
        settings["port"],
        settings["reflection"],
        preload=not settings["lazy"],
        tls=tls,
        tokens=Path(settings["tokens"]) if settings["tokens"] else None,
        otlp_endpoint=settings["otlp_endpoint"],
        metrics_port=settings["metrics_port"],
        http_port=settings["http_port"],
        http_hosts=frozenset(settings["http_hosts"]),
        http_origins=frozenset(settings["http_origins"]),
        blob_bytes=settings["blob_mb"] * 2**20,
        shared_bytes=None if settings["shared_mb"] is None else settings["shared_mb"] * 2**20,
        jobs=JobLimits(max_bytes=settings["jobs_mb"] * 2**20, keep_s=settings["jobs_keep_s"]),
        folders=folders,
        watch_s=settings["watch_s"],
        signers=signers,
    )
    # First, so that its process starts while the packages are verified.
    worker = Worker(settings["device"], settings["threads"], settings["memory_mb"] * 2**20, _device_process(settings))
    try:
        return Service(open_store(folders, signers), worker, limits), config
    except BaseException:
        worker.close()
        raise


def _device_process(settings: Mapping[str, Any]) -> DeviceProcess | None:
    if settings["worker"] == "thread":
        return None
    if sys.platform == "win32":
        raise ConfigInvalid("models in a process of their own: not on Windows", hint="leave --worker process out")
    from assetgen.process.supervisor import DeviceProcess  # here, for Windows has no fcntl
    from assetgen.process.supervisor import Limits as ProcessLimits

    limits = ProcessLimits(settings["worker_hang_s"], settings["worker_growth_mb"] << 20)
    return DeviceProcess(settings["device"], settings["threads"], limits)


def serve(service: Service, config: ServerConfig, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then let calls under way end; a second signal exits at once.

    Args:
        service: the core; it stays open.
        config: where to listen.
        ready: called with the address, such as ``127.0.0.1:50051``, once calls are answered.

    Raises:
        AddressUnusable: the address is taken, absent, or open to others without TLS and tokens.
        ConfigInvalid: a certificate or the file of tokens is wrong.
        RuntimeMissing: reflection, metrics or traces are wanted but not installed.
    """
    _check_open(config)
    tokens = TokenTable(config.tokens) if config.tokens else None
    metrics = Metrics(service) if config.metrics_port is not None else None
    tracing = Tracing(config.otlp_endpoint) if config.otlp_endpoint else None
    jobs = Jobs(service, config.jobs, metrics.made if metrics else None, tracing.begin_job if tracing else None)
    if metrics is not None:
        metrics.watch("jobs_held_bytes", "Files of jobs.", lambda: jobs.held_bytes)
    front = Front(service, tokens, metrics, tracing, jobs=jobs)
    with ExitStack() as beside:
        if tracing is not None:
            beside.callback(tracing.close)  # after the jobs, whose spans end with them
        beside.callback(jobs.close)
        if (shared := _shared_files(config.shared_bytes)) is not None:
            front = replace(front, shared=shared)
            beside.callback(shared.close)
            if metrics is not None:
                metrics.watch("shared_bytes", "Shared memory for clients.", lambda: shared.held_bytes)
        if config.http_port is not None:
            import_uvicorn()
            listener = beside.enter_context(listen(config.host, config.http_port))
            front = replace(front, blobs=Blobs(config.blob_bytes), http_port=listener.getsockname()[1])
        else:
            listener = None
        server, health, address = _grpc_server(front, config)
        if config.preload:
            service.preload()
        if metrics is not None and config.metrics_port is not None:
            port, exporter = metrics.listen(config.metrics_port)
            beside.callback(exporter.close)
            log.info("metrics on http://127.0.0.1:%d/metrics", port)
        if listener is not None:
            web = Web(front, config.http_hosts, config.http_origins)
            # Polls that hang take none of the connections that calls need.
            busy = 4 * service.limits.max_calls + config.jobs.max_waits
            beside.callback(WebServer(web, listener, config.tls, busy, MAX_AWAITED).close)
            log.info("HTTP on %s://%s:%d", "https" if config.tls else "http", config.host, front.http_port)
        if config.watch_s and config.folders:
            watch = Watch(service, config.folders, config.watch_s, preload=config.preload, signers=config.signers)
            beside.callback(watch.close)
        _serve_until_stopped(service, server, health, lambda: ready(address))


def _shared_files(max_bytes: int | None) -> SharedFiles | None:
    """As configured; where nothing is, a system without such memory does without."""
    if max_bytes is not None:
        return SharedFiles(max_bytes) if max_bytes else None
    try:
        return SharedFiles(SHARED_BYTES)
    except (RuntimeMissing, ConfigInvalid) as error:
        log.info("no files in shared memory: %s", error.message)
        return None


def _grpc_server(front: Front, config: ServerConfig) -> tuple[grpc.Server, Health, str]:
    """The server, what says how its services are, and its address."""
    # A thread for each who may wait or be under way, and some to refuse others and answer what is quick.
    waiting = config.jobs.max_waits + MAX_AWAITED + MAX_WATCHERS
    threads = front.service.limits.max_calls + SPARE_THREADS + waiting
    pool = Pool(threads, "assetgen-call")
    guards = [message_guard(front.tokens), *([token_guard(front.tokens)] if front.tokens else [])]
    server = grpc.server(pool, interceptors=guards, options=OPTIONS)
    server.add_generic_rpc_handlers(handlers(front))
    health = Health([*METHODS, OVERALL])
    server.add_generic_rpc_handlers([health.handler()])
    if config.reflection:
        _add_reflection(server)
    return server, health, _listen(server, config)


def _serve_until_stopped(service: Service, server: grpc.Server, health: Health, ready: Callable[[], None]) -> None:
    stop = _stop_on_signals()
    gc.collect()
    gc.freeze()  # what is here stays: no call shall wait until it was looked through once more
    server.start()
    health.tell([*METHODS, OVERALL], serving=True)
    ready()
    able, tidy_s = True, time.monotonic() + TIDY_S
    while not stop.wait(WAKE_S):  # without a limit, Windows would not deliver signals
        if time.monotonic() >= tidy_s:
            give_freed_memory_back()
            tidy_s = time.monotonic() + TIDY_S
        if able != (not service.problem):
            able = not able
            health.tell((GENERATION_SERVICE, JOB_SERVICE, OVERALL), serving=able)
    log.info("draining: %d calls under way", service.calls_under_way)
    service.drain()
    health.end()
    if not service.wait_until_idle(service.limits.drain_s):
        log.warning("%d calls did not end within %.3g s", service.calls_under_way, service.limits.drain_s)
        service.cancel_all()
    server.stop(grace=1.0).wait()  # for the last bytes, and for watchers of the health service


def _check_open(config: ServerConfig) -> None:
    """Refuse to serve whoever passes by."""
    if not is_loopback(config.host) and not (config.tls and config.tokens):
        missing = " and ".join(name for name, given in (("TLS", config.tls), ("a token", config.tokens)) if not given)
        raise AddressUnusable(
            f"{config.host} is not a loopback address; without {missing} anybody there could use the server",
            hint="give --tls-cert, --tls-key and --tokens; or use 127.0.0.1 and an SSH tunnel",
            metadata={"host": config.host},
        )


def _listen(server: grpc.Server, config: ServerConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    credentials = server_credentials(config.tls) if config.tls else None
    try:
        if credentials:
            port = server.add_secure_port(f"{host}:{config.port}", credentials)
        else:
            port = server.add_insecure_port(f"{host}:{config.port}")
    except RuntimeError as error:
        raise AddressUnusable(
            f"cannot listen on {host}:{config.port}; the port is in use, or the address does not exist here",
            hint="stop the other server, or choose another port with --port (0 lets the system choose)",
            metadata={"host": config.host, "port": str(config.port)},
        ) from error
    return f"{host}:{port}"


def _add_reflection(server: grpc.Server) -> None:
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError as error:
        raise RuntimeMissing(
            "grpcio-reflection is not installed", hint="run `uv sync --extra cpu`, or leave --reflection out"
        ) from error
    reflection.enable_server_reflection([*METHODS, HEALTH_SERVICE, reflection.SERVICE_NAME], server)


def _stop_on_signals() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets; the second ends the process."""
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop
