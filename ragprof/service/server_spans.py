"""The server span of a request, for applications that have nobody else to open it."""

from __future__ import annotations

import importlib.util
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from ragprof.monitoring.catalogue import METHODS
from ragprof.service.asgi import (
    ASGIApp,
    Outcome,
    Receive,
    Scope,
    Send,
    follow,
    follow_websocket,
)
from ragprof.service.exposition import METRICS_PATH
from ragprof.service.routes import UNMATCHED, RouteTable

_CONTRIB = "opentelemetry.instrumentation.asgi"


class ServerSpanMiddleware:
    """Opens a span of kind SERVER around every request, unless one is open already.

    FastAPI from 0.150 on and contrib's ASGI instrumentation open their own: then this does
    nothing, so no request has two. Names and attributes follow the conventions for HTTP spans.
    """

    def __init__(self, app: ASGIApp, exclude: tuple[str, ...] = (METRICS_PATH,)) -> None:
        self.app = app
        self.exclude = frozenset(exclude)
        self.routes = RouteTable()
        self.tracer = trace.get_tracer("ragprof.service")
        self.elsewhere = has_contrib_middleware(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if (
            self.elsewhere
            or kind not in ("http", "websocket")
            or scope["path"] in self.exclude
            or _is_server(trace.get_current_span())
        ):
            await self.app(scope, receive, send)
            return
        expected = self.routes.expected(scope)
        method = _method(scope)
        parent = propagate.extract(scope, getter=_HEADERS)
        span = self.tracer.start_span(
            _name(method, expected),
            context=parent,
            kind=SpanKind.SERVER,
            attributes=_attributes(scope, method),
        )

        def end(outcome: Outcome) -> None:
            taken = self.routes.taken(scope, expected)
            if taken != UNMATCHED:
                span.update_name(_name(method, taken))
                span.set_attribute("http.route", taken)
            span.set_attribute("http.response.status_code", outcome.status)
            if outcome.error is not None and outcome.end == "failed":
                span.record_exception(outcome.error)
                span.set_attribute("error.type", type(outcome.error).__qualname__)
            if outcome.end == "failed" or outcome.status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        token = otel_context.attach(parent)  # with the caller's baggage
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                if kind == "http":
                    await follow(self.app, scope, receive, send, end)
                else:
                    await follow_websocket(self.app, scope, receive, send, on_end=end)
        finally:
            otel_context.detach(token)


def emits_server_spans(app: Any) -> bool:
    """Whether FastAPI opens the server spans of `app` itself."""
    return is_fastapi(app) and importlib.util.find_spec("fastapi.telemetry") is not None


def is_fastapi(app: Any) -> bool:
    """Whether `app` is a FastAPI application, or of a class derived from it."""
    return any(each.__module__.startswith("fastapi.") for each in type(app).__mro__)


def has_contrib_middleware(app: Any) -> bool:
    """Whether contrib's ASGI instrumentation stands somewhere inside `app`."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        if is_contrib(app):
            return True
        seen.add(id(app))
        app = getattr(app, "app", None)
    return False


def is_contrib(app: Any) -> bool:
    """Whether `app` is contrib's ASGI instrumentation itself."""
    return type(app).__module__ == _CONTRIB


def _is_server(span: Span) -> bool:
    return span.is_recording() and getattr(span, "kind", None) is SpanKind.SERVER


def _method(scope: Scope) -> str:
    """The method as a span may have it: what a client invents is `_OTHER`."""
    if scope["type"] == "websocket":
        return "WS"
    method: str = scope["method"]
    return method if method in METHODS else "_OTHER"


def _name(method: str, route: str) -> str:
    shown = "HTTP" if method == "_OTHER" else method
    return shown if route == UNMATCHED else f"{shown} {route}"


def _attributes(scope: Scope, method: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "url.scheme": scope.get("scheme", "http"),
        "url.path": scope["path"],
    }
    if method != "WS":
        attributes["http.request.method"] = method
    for where, name in (("server", "server"), ("client", "client")):
        address = scope.get(where)
        if address:
            attributes[f"{name}.address"] = address[0]
            if address[1] is not None:
                attributes[f"{name}.port"] = address[1]
    return attributes


class _Headers(Getter[Scope]):
    """The headers of a scope, as a propagator reads them."""

    def get(self, carrier: Scope, key: str) -> list[str] | None:
        wanted = key.lower().encode()
        found = [
            value.decode("latin-1") for name, value in carrier.get("headers", ()) if name == wanted
        ]
        return found or None

    def keys(self, carrier: Scope) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier.get("headers", ())]


_HEADERS = _Headers()
