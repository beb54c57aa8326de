"""OpenTelemetry tracing of a service: one call to set it up, one decorator for own functions."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import Link, ProxyTracerProvider, SpanKind
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

from ragprof.errors import RagprofError
from ragprof.service.exposition import METRICS_PATH
from ragprof.service.methods import trace_method
from ragprof.service.server_spans import ServerSpanMiddleware, emits_server_spans, is_fastapi

__all__ = ["TracingError", "setup_tracing", "trace_method"]

Protocol = Literal["grpc", "http/protobuf"]

GRPC_PORT = 4317
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_GRPC = "opentelemetry.exporter.otlp.proto.grpc"

# Instrumentations that are used when they and their library are installed.
_INSTRUMENTATIONS = {
    "sqlalchemy": ("opentelemetry.instrumentation.sqlalchemy", "SQLAlchemyInstrumentor"),
    "redis": ("opentelemetry.instrumentation.redis", "RedisInstrumentor"),
    "httpx": ("opentelemetry.instrumentation.httpx", "HTTPXClientInstrumentor"),
}


class TracingError(RagprofError):
    """Tracing cannot be set up as asked."""


def setup_tracing(
    app: Any,
    service_name: str,
    otlp_endpoint: str | None = None,
    version: str = "",
    *,
    environment: str = "",
    protocol: Protocol | None = None,
    sample_ratio: float | None = None,
    exclude: tuple[str, ...] = (METRICS_PATH,),
) -> None:
    """Trace `app` (FastAPI, Starlette) and the libraries that it uses, and export by OTLP.

    `otlp_endpoint` is the base URL of a collector (`http://host:4318`); None: the standard
    `OTEL_EXPORTER_OTLP_*` variables, and without them nothing is exported. `protocol` None: the
    variables, else gRPC for port 4317 and HTTP for any other. `sample_ratio` (0 to 1) is the share
    of new traces that is kept; a caller's decision is followed. Requests to the paths in `exclude`
    have no spans. `environment` empty: the variable
    `ENVIRONMENT`. `OTEL_*` variables (service name, resource attributes, sampler, batch sizes)
    win over the arguments. Under `opentelemetry-instrument` a provider exists already and is used
    as it is. Raises `TracingError` when the exporter of a protocol is not installed, or the ratio
    is no share.
    """
    if sample_ratio is not None and not 0 <= sample_ratio <= 1:
        raise TracingError(f"sample_ratio is {sample_ratio}: give a share from 0 to 1.")
    if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        resource = Resource.create(_resource(service_name, version, environment))
        provider = TracerProvider(resource=resource, sampler=_sampler(sample_ratio))
        provider.sampler = ExcludingSampler(provider.sampler, exclude)
        if otlp_endpoint or any(os.environ.get(name) for name in _ENDPOINTS):
            exporter = _exporter(otlp_endpoint, protocol)
            provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
    _trace_requests(app)
    instrument_libraries()


def instrument_libraries() -> list[str]:
    """Trace SQLAlchemy, Redis and HTTPX where they and their instrumentation are installed.

    Returns the libraries that were instrumented now; none is instrumented twice.
    """
    done = []
    for library, (module, name) in _INSTRUMENTATIONS.items():
        if importlib.util.find_spec(library) and _installed(module):
            instrumentor = getattr(importlib.import_module(module), name)()
            if not instrumentor.is_instrumented_by_opentelemetry:
                instrumentor.instrument()
                done.append(library)
    return done


def _resource(service_name: str, version: str, environment: str) -> dict[str, str]:
    attributes = {"service.name": os.environ.get("OTEL_SERVICE_NAME", service_name)}
    if version:
        attributes["service.version"] = version
    if environment := environment or os.environ.get("ENVIRONMENT", ""):
        # The convention's present name, and the one that most tools still read.
        attributes["deployment.environment.name"] = environment
        attributes["deployment.environment"] = environment
    given = Resource.create({}).attributes  # OTEL_RESOURCE_ATTRIBUTES among them
    return {
        key: str(given[key]) if key in given and key != "service.name" else value
        for key, value in attributes.items()
    }


def _sampler(ratio: float | None) -> Sampler | None:
    if ratio is None or os.environ.get("OTEL_TRACES_SAMPLER"):
        return None  # the SDK reads the variable
    return ParentBasedTraceIdRatio(ratio)


class ExcludingSampler(Sampler):
    """Drops server spans of some paths, whoever opens them; else does what `sampler` does."""

    def __init__(self, sampler: Sampler, paths: tuple[str, ...]) -> None:
        self.sampler = sampler
        self.paths = frozenset(paths)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if kind is SpanKind.SERVER and attributes:
            path = attributes.get("url.path") or attributes.get("http.target")
            if path in self.paths:
                return SamplingResult(Decision.DROP)
        return self.sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        return self.sampler.get_description()


def _exporter(endpoint: str | None, protocol: Protocol | None) -> SpanExporter:
    asked = str(protocol or "")
    for name in _PROTOCOLS:
        asked = asked or os.environ.get(name, "")
    if not asked and endpoint and urlsplit(endpoint).port == GRPC_PORT:
        asked = "grpc"
    if asked == "grpc":
        if not _installed(_GRPC):
            raise TracingError(
                "OTLP over gRPC was asked for and its exporter is not installed: "
                'pip install "ragprof[grpc]", or use the HTTP port (4318).'
            )
        grpc = importlib.import_module(f"{_GRPC}.trace_exporter")
        # The scheme of the endpoint says whether the connection is encrypted.
        exporter: SpanExporter = grpc.OTLPSpanExporter(endpoint=endpoint)
        return exporter
    if endpoint:
        return OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")
    return OTLPSpanExporter()


def _trace_requests(app: Any) -> None:
    """Server spans, exactly one per request.

    FastAPI emits them itself from 0.150 on. An older one is instrumented by contrib's package
    when that is installed; every other application gets our own middleware, which steps aside
    for any server span that is there already.
    """
    if emits_server_spans(app) or not hasattr(app, "add_middleware"):
        return
    contrib = "opentelemetry.instrumentation.fastapi"
    if is_fastapi(app) and _installed(contrib):
        importlib.import_module(contrib).FastAPIInstrumentor.instrument_app(app)
    else:
        app.add_middleware(ServerSpanMiddleware)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
