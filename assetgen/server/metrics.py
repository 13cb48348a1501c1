"""What the server counts, for Prometheus; imports service, metrics_port and, when used, prometheus_client.

Counted here and not by an interceptor, which costs a quarter of a small call. Labels have known values only: whatever a
client sends, their number is bounded.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from assetgen.errors import AddressUnusable, RuntimeMissing
from assetgen.server.metrics_port import serve_metrics
from assetgen.service import Service

CAUSES = ("crash", "fault", "hang", "memory")
STAGES = ("queue", "prepare", "graph", "encode")
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)


class Metrics:
    """Counters of one server.

    Raises:
        RuntimeMissing: prometheus_client is not installed.
    """

    def __init__(self, service: Service) -> None:
        library = _library()
        self._library, self._service = library, service
        self.registry = library.CollectorRegistry()
        shared: dict[str, Any] = {"registry": self.registry}
        self._calls = library.Counter("assetgen_calls", "Calls ended.", ["method", "code", "reason"], **shared)
        self._call_seconds = library.Histogram(
            "assetgen_call_seconds", "From the arrival of a call to its end.", ["method"], buckets=SECONDS, **shared
        )
        self._stage_seconds = library.Histogram(
            "assetgen_stage_seconds", "Of calls that succeeded.", ["model", "stage"], buckets=SECONDS, **shared
        )
        self._sent = library.Counter("assetgen_sent_bytes", "Messages sent.", ["model"], **shared)
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "calls_under_way": ("Calls accepted that have not ended.", lambda: service.calls_under_way),
            "held_pixels": ("Pixels of the assets under way.", lambda: service.held_px),
            "assets_waiting": ("Assets that wait for a place.", lambda: service.worker.waiting),
            "models": ("Models served.", lambda: len(service.packages)),
            "models_open": ("Models that are open.", lambda: len(service.worker.sessions.digests)),
            "models_held_bytes": ("What open models hold, by estimate.", lambda: service.worker.sessions.held_bytes),
            "resident_bytes": ("Resident memory of the process.", _resident_bytes),
        }
        process = service.worker.process
        if process is not None:
            gauges |= {
                "worker_resident_bytes": ("Resident memory of the process of models.", lambda: process.resident_bytes),
                "models_paused": ("Models refused for a while.", lambda: len(process.breaker.paused())),
            }
            ends = library.Gauge("assetgen_worker_ends", "Processes of models that ended.", ["cause"], **shared)
            for cause in CAUSES:
                ends.labels(cause).set_function(lambda cause=cause: process.ends[cause])
        for name, (text, read) in gauges.items():
            self.watch(name, text, read)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show what ``read`` says whenever somebody looks."""
        self._library.Gauge(f"assetgen_{name}", text, registry=self.registry).set_function(read)

    def call(self, method: str, code: str, reason: str, seconds: float) -> None:
        """Count a call that has ended."""
        self._calls.labels(method, code, reason).inc()
        self._call_seconds.labels(method).observe(seconds)

    def made(self, model_id: str, spent_s: Mapping[str, float], sent_bytes: int = 0) -> None:
        """Count what a call of a model that is served took and sent."""
        self._sent.labels(model_id).inc(sent_bytes)
        for stage in STAGES:
            if stage in spent_s:
                self._stage_seconds.labels(model_id, stage).observe(spent_s[stage])

    def listen(self, port: int) -> tuple[int, Any]:
        """Answer on the loopback address until what is returned is closed; returns the port, too.

        Raises:
            AddressUnusable: the port is taken.
        """
        try:
            return serve_metrics(self._library.make_wsgi_app(self.registry), port)
        except (OSError, OverflowError) as error:
            raise AddressUnusable(
                f"cannot listen for metrics on 127.0.0.1:{port}: {error}",
                hint="choose another port with --metrics-port",
            ) from error


def _library() -> ModuleType:
    try:
        return importlib.import_module("prometheus_client")
    except ImportError as error:
        raise RuntimeMissing(
            "prometheus-client is not installed", hint="pip install prometheus-client, or leave --metrics-port out"
        ) from error


def _resident_bytes() -> int:
    import psutil

    resident: int = psutil.Process().memory_info().rss
    return resident
