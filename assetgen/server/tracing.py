"""One span a call, and one a job, for OpenTelemetry, sent by OTLP over HTTP; imports opentelemetry only when made."""

from __future__ import annotations

import contextvars
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from assetgen import __version__
from assetgen.errors import ConfigInvalid, RuntimeMissing
from assetgen.server import logs

TRACE_PARENT = "traceparent"
# What is asked for may stand in a span as it does in the log: never a picture or a token.
_ATTRIBUTES = ("job", "model", "seed", "count", "bytes")
# Of the call that is being answered; a job begins in a copy of that call's context.
_span_of_call: contextvars.ContextVar[Any] = contextvars.ContextVar("span_of_call", default=None)


class Tracing:
    """Makes spans and sends them, in the background, until closed.

    A span costs half as much again as a small call, so it is made by choice only.

    Args:
        endpoint: such as ``http://127.0.0.1:4318/v1/traces``; headers and certificates come from the variables
            ``OTEL_EXPORTER_OTLP_...`` that every OpenTelemetry program reads.
        exporter: takes the place of that one.

    Raises:
        RuntimeMissing: opentelemetry is not installed.
        ConfigInvalid: the endpoint is no HTTP address.
    """

    def __init__(self, endpoint: str, exporter: Any = None) -> None:
        if exporter is None and not endpoint.startswith(("http://", "https://")):
            raise ConfigInvalid(
                f"otlp_endpoint: {endpoint!r:.120} is no HTTP address",
                hint="give one such as http://127.0.0.1:4318/v1/traces",
            )
        resources, sdk, export = (
            _module(f"opentelemetry.sdk.{name}") for name in ("resources", "trace", "trace.export")
        )
        self._api = _module("opentelemetry.trace")
        context = _module("opentelemetry.trace.propagation.tracecontext")
        self._parents = context.TraceContextTextMapPropagator()
        if exporter is None:
            otlp = _module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
            exporter = otlp.OTLPSpanExporter(endpoint=endpoint)
        resource = resources.Resource.create({"service.name": "assetgen", "service.version": __version__})
        self._provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("assetgen.server", __version__)

    def begin(self, method: str, request_id: str, parent: str | None) -> Any:
        """Begin the span of a call; ``parent`` is the client's ``traceparent`` (W3C), if it sent one."""
        context = self._parents.extract({TRACE_PARENT: parent}) if parent else None
        attributes = {"rpc.system": "grpc", "rpc.method": method, "assetgen.request_id": request_id}
        span = self._tracer.start_span(
            f"assetgen.v1/{method}", context, kind=self._api.SpanKind.SERVER, attributes=attributes
        )
        _span_of_call.set(span)
        return span

    def begin_job(self) -> Callable[[str, str, Mapping[str, Any]], None]:
        """Begin the span of a job; what is returned ends it as ``end`` does.

        It may last long after the call that submitted it, so it is linked to that call's span and no child of it.
        """
        call = _span_of_call.get()
        span = self._tracer.start_span(
            "assetgen.v1/Job",
            attributes={"assetgen.request_id": logs.request_id.get()},
            links=[] if call is None else [self._api.Link(call.get_span_context())],
        )
        return partial(self.end, span)

    def end(self, span: Any, code: str, reason: str, facts: Mapping[str, Any]) -> None:
        """End it with what the log says of the call; stages are milliseconds."""
        for name in _ATTRIBUTES:
            if name in facts:
                span.set_attribute(f"assetgen.{name}", facts[name])
        for stage, spent_ms in facts.get("ms", {}).items():
            span.set_attribute(f"assetgen.{stage}_ms", spent_ms)
        span.set_attribute("rpc.grpc.status", code)
        if reason:
            span.set_attribute("assetgen.reason", reason)
            span.set_status(self._api.StatusCode.ERROR, reason)
        span.end()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeMissing(
            f"traces need OpenTelemetry: {error}", hint="pip install 'assetgen[otel]', or leave --otlp-endpoint out"
        ) from error
