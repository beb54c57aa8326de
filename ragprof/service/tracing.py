"""OpenTelemetry tracing of a service: one call to set it up, one decorator for own functions."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import ProxyTracerProvider, Span, Status, StatusCode

P = ParamSpec("P")
R = TypeVar("R")

tracer = trace.get_tracer("ragprof.service")

# Instrumentations that are used when they and their library are installed.
_INSTRUMENTATIONS = {
    "sqlalchemy": ("opentelemetry.instrumentation.sqlalchemy", "SQLAlchemyInstrumentor"),
    "redis": ("opentelemetry.instrumentation.redis", "RedisInstrumentor"),
    "httpx": ("opentelemetry.instrumentation.httpx", "HTTPXClientInstrumentor"),
}


def setup_tracing(
    app: Any, service_name: str, otlp_endpoint: str | None = None, version: str = ""
) -> None:
    """Trace `app` (FastAPI) and the libraries that it uses, and export by OTLP.

    `otlp_endpoint` is the base URL of a collector (`http://host:4318`); None: the standard
    `OTEL_EXPORTER_OTLP_*` variables, and without them nothing is exported. Other `OTEL_*`
    variables (service name, resource attributes, sampler, batch sizes) keep their meaning and
    win. Under `opentelemetry-instrument` a provider exists already and is used as it is.
    """
    if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        _make_provider(service_name, otlp_endpoint, version)
    _trace_requests(app)
    for library, (module, name) in _INSTRUMENTATIONS.items():
        if importlib.util.find_spec(library) and _installed(module):
            instrumentor = getattr(importlib.import_module(module), name)()
            if not instrumentor.is_instrumented_by_opentelemetry:
                instrumentor.instrument()


def _make_provider(service_name: str, endpoint: str | None, version: str) -> None:
    attributes = {"service.name": os.environ.get("OTEL_SERVICE_NAME", service_name)}
    if version:
        attributes["service.version"] = version
    if environment := os.environ.get("ENVIRONMENT"):
        attributes["deployment.environment.name"] = environment
    provider = TracerProvider(resource=Resource.create(attributes))
    if endpoint or any(
        os.environ.get(name)
        for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    ):
        provider.add_span_processor(BatchSpanProcessor(_exporter(endpoint)))
    trace.set_tracer_provider(provider)


def _exporter(endpoint: str | None) -> SpanExporter:
    protocol = os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    )
    if protocol == "grpc" and _installed("opentelemetry.exporter.otlp.proto.grpc"):
        grpc = importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
        exporter: SpanExporter = grpc.OTLPSpanExporter(endpoint=endpoint)
        return exporter
    if endpoint:
        return OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")
    return OTLPSpanExporter()


def _trace_requests(app: Any) -> None:
    """Server spans, exactly one per request.

    FastAPI emits them itself from 0.150 on, under its own scope; an older one needs the
    instrumentation. A second layer would double every request.
    """
    if importlib.util.find_spec("fastapi") is None or hasattr(app, "_native_telemetry"):
        return
    if _installed("opentelemetry.instrumentation.fastapi"):
        fastapi = importlib.import_module("opentelemetry.instrumentation.fastapi")
        fastapi.FastAPIInstrumentor.instrument_app(app)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def trace_method(span_name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run a function in its own span, named `span_name` or `module.qualname`.

    Works on sync functions, coroutine functions, generators and async generators (their span
    lasts from the first item asked for to the end). Sets `function.name`, `function.module` and
    the conventional `code.function.name`; an exception is recorded and is the span's status.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = span_name or f"{function.__module__}.{function.__qualname__}"
        start = functools.partial(
            tracer.start_as_current_span,
            name,
            attributes={
                "function.name": function.__qualname__,
                "function.module": function.__module__,
                "code.function.name": f"{function.__module__}.{function.__qualname__}",
            },
        )
        wrapped: Any
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                # The span is current while the generator runs, not while its consumer does: a
                # context attached across a yield would be detached in another one.
                span = tracer.start_span(name, attributes=start.keywords["attributes"])
                items = function(*args, **kwargs)
                try:
                    while True:
                        with trace.use_span(span, record_exception=False):
                            try:
                                item = await anext(items)
                            except StopAsyncIteration:
                                return
                        yield item
                except GeneratorExit:
                    await items.aclose()
                    raise
                except Exception as error:
                    _record_failure(span, error)
                    raise
                finally:
                    span.end()

        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                span = tracer.start_span(name, attributes=start.keywords["attributes"])
                items = function(*args, **kwargs)
                try:
                    while True:
                        with trace.use_span(span, record_exception=False):
                            try:
                                item = next(items)
                            except StopIteration as stop:
                                return stop.value
                        yield item
                except GeneratorExit:
                    items.close()
                    raise
                except Exception as error:
                    _record_failure(span, error)
                    raise
                finally:
                    span.end()

        elif inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                with start():
                    return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with start():
                    return function(*args, **kwargs)

        result: Callable[P, R] = wrapped
        return result

    return decorate


def _record_failure(span: Span, error: Exception) -> None:
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
