"""Building, running and stopping the server; imports servicer, service, errors and grpc."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from assetgen.errors import AddressUnusable, ConfigInvalid, RuntimeMissing
from assetgen.server.memory import keep_freed_memory
from assetgen.server.servicer import GENERATION_SERVICE, MAX_REQUEST_BYTES, MODEL_SERVICE, handlers
from assetgen.service import Service

log = logging.getLogger(__name__)

OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


SPARE_THREADS = 16
WAKE_S = 0.5


@dataclass(frozen=True)
class ServerConfig:
    """How to listen.

    Attributes:
        host: a loopback address; others would need TLS and a token, which this version does not have.
        port: 0 lets the system choose.
        reflection: whether clients may list services and messages.
        preload: open all models before the server says that it is ready.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    reflection: bool = False
    preload: bool = True


def serve(service: Service, config: ServerConfig, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then let calls under way end; a second signal exits at once.

    Args:
        service: the core; it stays open.
        config: where to listen.
        ready: called with the address, such as ``127.0.0.1:50051``, once calls are answered.

    Raises:
        AddressUnusable: the address is taken, absent, or not a loopback address.
        RuntimeMissing: reflection is wanted but not installed.
    """
    keep_freed_memory()
    # A thread for each call that may be under way, and some to refuse the others and to answer what is quick.
    pool = ThreadPoolExecutor(service.limits.max_calls + SPARE_THREADS, thread_name_prefix="assetgen-call")
    server = grpc.server(pool, options=OPTIONS)
    server.add_generic_rpc_handlers(handlers(service))
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    services = [GENERATION_SERVICE, MODEL_SERVICE, health.OVERALL_HEALTH]
    if config.reflection:
        _add_reflection(server, services)
    address = _listen(server, config)
    if config.preload:
        service.preload()
    stop = _stop_on_signals()
    server.start()
    for name in services:
        health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    ready(address)
    while not stop.wait(WAKE_S):  # without a limit, Windows would not deliver signals
        pass
    log.info("draining: %d calls under way", service.calls_under_way)
    service.drain()
    health_servicer.enter_graceful_shutdown()
    if not service.wait_until_idle(service.limits.drain_s):
        log.warning("%d calls did not end within %.0f s", service.calls_under_way, service.limits.drain_s)
        service.cancel_all()
    server.stop(grace=1.0).wait()  # for the last bytes, and for watchers of the health service


def _listen(server: grpc.Server, config: ServerConfig) -> str:
    if not 0 <= config.port <= 65535:
        raise ConfigInvalid(f"port: {config.port} is not allowed; use 0 to 65535")
    if not _is_loopback(config.host):
        raise AddressUnusable(
            f"{config.host} is not a loopback address; without TLS and a token anybody there could use the server",
            hint="use 127.0.0.1, and reach it from elsewhere through an SSH tunnel or a proxy with TLS",
            metadata={"host": config.host},
        )
    host = f"[{config.host}]" if ":" in config.host else config.host
    try:
        port = server.add_insecure_port(f"{host}:{config.port}")
    except RuntimeError as error:
        raise AddressUnusable(
            f"cannot listen on {host}:{config.port}; the port is in use, or the address does not exist here",
            hint="stop the other server, or choose another port with --port (0 lets the system choose)",
            metadata={"host": config.host, "port": str(config.port)},
        ) from error
    return f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _add_reflection(server: grpc.Server, services: list[str]) -> None:
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError as error:
        raise RuntimeMissing(
            "grpcio-reflection is not installed", hint="run `uv sync --extra cpu`, or leave --reflection out"
        ) from error
    names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection([name for name in names if name], server)


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
