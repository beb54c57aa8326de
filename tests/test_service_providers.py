"""Exporters, sampling, instrumentations, and never two server spans for one request.

Each case is a process of its own: a tracer provider can be set once.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from asgi_driver import call, http_scope, websocket_scope
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode
from served import receiving, wait_for

from ragprof.service import instrument, tracing
from ragprof.service.application import InstrumentationError
from ragprof.service.server_spans import ServerSpanMiddleware
from ragprof.service.tracing import TracingError, setup_tracing

START = """
import asyncio, json, os, sys
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
sys.path.insert(0, os.environ["TESTS"])
from asgi_driver import call, http_scope
from ragprof.service import instrument
from ragprof.service.tracing import setup_tracing
spans = InMemorySpanExporter()
def keep():
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
def report():
    print(json.dumps([
        [s.kind.name, s.name, s.instrumentation_scope.name, dict(s.attributes),
         s.status.status_code.name]
        for s in spans.get_finished_spans()
    ]))
def fastapi_app(**options):
    import fastapi
    app = fastapi.FastAPI(**options)
    @app.get("/items/{item}")
    async def item(item: str): return {}
    return app
"""


def run(code: str, **environment: str) -> Any:
    """The last line that the code prints, as JSON."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    tests = Path(__file__).parent
    env |= {"TESTS": str(tests), "PYTHONPATH": str(tests.parent), **environment}
    done = subprocess.run(
        [sys.executable, "-c", START + code], env=env, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


APPLICATIONS = {
    "native": "app = instrument(fastapi_app(), 'x')",
    "contrib before": """
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
app = fastapi_app(); FastAPIInstrumentor.instrument_app(app); instrument(app, 'x')
""",
    "contrib after": """
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
app = instrument(fastapi_app(), 'x'); FastAPIInstrumentor.instrument_app(app)
""",
    "contrib outside": """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
app = OpenTelemetryMiddleware(instrument(fastapi_app(telemetry={"tracing": False}), 'x'))
""",
    "contrib inside": """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
app = instrument(OpenTelemetryMiddleware(fastapi_app(telemetry={"tracing": False})), 'x')
""",
    "starlette": """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
app = instrument(Starlette(routes=[Route("/items/{item}", lambda r: PlainTextResponse("x"))]), 'x')
""",
    "plain": """
async def plain(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
app = instrument(plain, 'x', endpoint=lambda scope: "/items/{item}")
""",
}


def test_one_server_span_whoever_opens_it() -> None:
    calls = "".join(
        code
        + f"""
if not found: keep()
spans.clear()
asyncio.run(call(app, http_scope("/items/7")))
found[{kind!r}] = [
    [s.name, s.instrumentation_scope.name, dict(s.attributes), s.status.status_code.name]
    for s in spans.get_finished_spans() if s.kind.name == "SERVER"
]
"""
        for kind, code in APPLICATIONS.items()
    )
    found = run(f"found = {{}}\n{calls}\nprint(json.dumps(found))")
    assert list(found) == list(APPLICATIONS)
    for kind, spans in found.items():
        assert len(spans) == 1, (kind, spans)
        name, scope, attributes, status = spans[0]
        assert status != "ERROR", kind
        assert len(attributes["request.id"]) == 32, kind
        if kind == "plain":
            assert name == "GET"  # nobody knows a route
        elif kind not in ("contrib outside", "contrib inside"):
            assert name == "GET /items/{item}", kind
        assert (scope == "ragprof.service") == (kind in ("starlette", "plain")), kind


def test_our_own_server_span_follows_its_caller_and_knows_the_failure() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("gone")

    app = ServerSpanMiddleware(broken)
    app.tracer = provider.get_tracer("test")
    ids = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    parent = [(b"traceparent", f"00-{ids[0]}-{ids[1]}-01".encode())]
    asyncio.run(call(app, http_scope("/broken", "INVENTED", parent)))
    asyncio.run(call(app, http_scope("/metrics")))
    asyncio.run(call(app, websocket_scope("/socket")))
    failed, socket = exporter.get_finished_spans()
    assert failed.context is not None
    assert failed.parent is not None
    assert (f"{failed.context.trace_id:032x}", f"{failed.parent.span_id:016x}") == ids
    assert failed.attributes is not None
    assert failed.attributes["http.request.method"] == "_OTHER"
    assert failed.attributes["http.response.status_code"] == 500
    assert failed.attributes["error.type"] == "KeyError"
    assert failed.status.status_code is StatusCode.ERROR
    assert [event.name for event in failed.events] == ["exception"]
    assert socket.name == "WS"


def test_spans_go_out_over_http_and_the_environment_wins() -> None:
    code = """
app = fastapi_app()
setup_tracing(app, "named-here", os.environ["RECEIVER"], "2.0", environment="here")
asyncio.run(call(app, http_scope("/items/7")))
print("null")
"""
    with receiving() as receiver:
        run(
            code,
            RECEIVER=receiver.url,
            OTEL_SERVICE_NAME="named-outside",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment=outside,team=search",
        )
        (span,) = [s for s in wait_for(lambda: receiver.spans, "span") if s["kind"] == 2]
    resource = span["resource"]
    assert resource["service.name"] == "named-outside"
    assert resource["service.version"] == "2.0"
    assert resource["deployment.environment"] == "outside"
    assert resource["team"] == "search"


def test_spans_go_out_over_grpc() -> None:
    grpc = importlib.import_module("grpc")
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    names: list[str] = []

    class Service(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            for resource in request.resource_spans:
                names.extend(s.name for scope in resource.scope_spans for s in scope.spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        code = """
app = fastapi_app()
setup_tracing(app, "x", os.environ["RECEIVER"], protocol="grpc")
asyncio.run(call(app, http_scope("/items/7")))
print("null")
"""
        run(code, RECEIVER=f"http://127.0.0.1:{port}")
        assert "GET /items/{item}" in wait_for(lambda: names, "span")
    finally:
        server.stop(None).wait()


def test_the_port_of_grpc_means_grpc_and_a_missing_exporter_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "_installed", lambda module: False)
    with pytest.raises(TracingError, match=r"ragprof\[grpc\]"):
        tracing._exporter("http://127.0.0.1:4317", None)
    assert "http" in type(tracing._exporter("http://127.0.0.1:4318", None)).__module__


@pytest.mark.parametrize(
    ("ratio", "variable", "low", "high"),
    [(0.25, "", 60, 140), (0.0, "", 0, 0), (None, "", 400, 400), (0.25, "always_off", 0, 0)],
)
def test_new_traces_are_sampled_at_the_ratio(
    monkeypatch: pytest.MonkeyPatch, ratio: float | None, variable: str, low: int, high: int
) -> None:
    if variable:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", variable)
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=tracing._sampler(ratio))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("x")
    for _ in range(400):
        with tracer.start_as_current_span("root"), tracer.start_as_current_span("child"):
            pass
    names = [span.name for span in exporter.get_finished_spans()]
    assert names.count("root") == names.count("child")  # whole traces
    assert low <= names.count("root") <= high


def test_requests_to_excluded_paths_have_no_spans_at_all() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=tracing.ExcludingSampler(ALWAYS_ON, ("/metrics",)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("x")
    for path in ("/metrics", "/items/7"):
        attributes = {"url.path": path}
        with tracer.start_as_current_span("GET", kind=SpanKind.SERVER, attributes=attributes):
            pass
    (kept,) = exporter.get_finished_spans()
    assert kept.attributes == {"url.path": "/items/7"}


def test_a_ratio_that_is_no_share_is_refused() -> None:
    with pytest.raises(TracingError, match="from 0 to 1"):
        setup_tracing(object(), "x", sample_ratio=25)


def test_instrument_refuses_what_cannot_work() -> None:
    started = FastAPI()
    asyncio.run(call(started, http_scope("/")))
    with pytest.raises(InstrumentationError, match="before it starts"):
        instrument(started, "x")

    async def plain(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(InstrumentationError, match="FastAPI"):
        instrument(plain, "x", analytics="http://127.0.0.1:9090")


def test_libraries_are_traced_when_they_are_installed() -> None:
    code = """
import socketserver, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
setup_tracing(fastapi_app(), "x")
setup_tracing(fastapi_app(), "x")  # nothing is instrumented twice
keep()
import httpx, redis, sqlalchemy
class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204); self.end_headers()
    def log_message(self, *a): pass
class Redis(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            if line.startswith(b"*"):
                for _ in range(int(line[1:])):
                    self.rfile.readline(); last = self.rfile.readline()
                self.wfile.write(b"+OK\\r\\n")
page = HTTPServer(("127.0.0.1", 0), Page)
store = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Redis)
store.daemon_threads = True
for server in (page, store): threading.Thread(target=server.serve_forever, daemon=True).start()
httpx.get(f"http://127.0.0.1:{page.server_port}/x")
client = redis.Redis(port=store.server_address[1], protocol=2); client.set("key", "secret value")
with sqlalchemy.create_engine("sqlite://").connect() as c: c.execute(sqlalchemy.text("select 1"))
report()
"""
    found = run(code)
    scopes = [span[2].rsplit(".", 1)[-1] for span in found]
    assert scopes.count("httpx") == 1
    assert "redis" in scopes
    assert [span[1] for span in found if span[2].endswith("sqlalchemy")].count("select") == 1
    assert "secret value" not in json.dumps(found)
