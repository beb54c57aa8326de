"""What is counted, timed and logged of requests that do not end as they should."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from asgi_driver import call, cancel_when_running, http_scope, websocket_scope
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from ragprof.monitoring.catalogue import Metric
from ragprof.service.asgi import Outcome, follow
from ragprof.service.collectors import MAX_VALUES, BoundedCounter, _Bounded, http_requests
from ragprof.service.logging import LoggingMiddleware, setup_logging
from ragprof.service.requests import MetricsMiddleware
from ragprof.service.routes import RouteTable

fastapi = importlib.import_module("fastapi")
responses = importlib.import_module("starlette.responses")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    setup_logging(stream=stream, json_logs=True)
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def last(stream: io.StringIO) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return record


def count(endpoint: str, status: int, method: str = "GET") -> float:
    labels = {"method": method, "endpoint": endpoint, "status_code": str(status)}
    return REGISTRY.get_sample_value("rag_http_requests_total", labels) or 0.0


def timed(endpoint: str) -> tuple[float, float]:
    """How many requests were timed, and their seconds in all."""
    labels = {"method": "GET", "endpoint": endpoint}
    name = "rag_http_request_duration_seconds"
    return (
        REGISTRY.get_sample_value(f"{name}_count", labels) or 0.0,
        REGISTRY.get_sample_value(f"{name}_sum", labels) or 0.0,
    )


def active(endpoint: str) -> float:
    return REGISTRY.get_sample_value("rag_active_requests", {"endpoint": endpoint}) or 0.0


def observed(**endpoints: Any) -> Any:
    """A FastAPI application with one endpoint per keyword, counted and logged."""
    app = fastapi.FastAPI()
    for name, endpoint in endpoints.items():
        app.add_api_route(f"/{name}", endpoint, methods=["GET"], response_model=None)
    app.add_middleware(LoggingMiddleware)
    app.add_middleware(MetricsMiddleware)
    return app


def test_a_cancelled_request_is_499_and_active_no_more(lines: io.StringIO) -> None:
    running = asyncio.Event()
    seen = []

    async def cancelled() -> None:
        running.set()
        seen.append(active("/cancelled"))
        await asyncio.sleep(600)

    asyncio.run(
        cancel_when_running(observed(cancelled=cancelled), http_scope("/cancelled"), running)
    )
    assert seen == [1]
    assert active("/cancelled") == 0
    assert count("/cancelled", 499) == 1
    record = last(lines)
    assert (record["event"], record["reason"]) == ("request_failed", "cancelled")
    assert record["status_code"] == 499


def test_a_client_that_leaves_a_stream_is_no_server_error(lines: io.StringIO) -> None:
    async def left() -> Any:
        async def made() -> AsyncIterator[bytes]:
            for _ in range(100_000):
                await asyncio.sleep(0.01)
                yield b"token "

        return responses.StreamingResponse(made())

    leaves = [{"type": "http.request"}, {"type": "http.disconnect"}, {"type": "http.disconnect"}]
    asyncio.run(call(observed(left=left), http_scope("/left"), *leaves))
    assert count("/left", 200) + count("/left", 499) == 1
    assert active("/left") == 0
    assert last(lines)["event"] == "request_failed"
    assert last(lines)["reason"] == "disconnected"


def test_an_error_in_the_middle_of_a_stream_counts_as_500(lines: io.StringIO) -> None:
    async def torn() -> Any:
        async def made() -> AsyncIterator[bytes]:
            yield b"one "
            raise RuntimeError("torn")

        return responses.StreamingResponse(made())

    sent = asyncio.run(call(observed(torn=torn), http_scope("/torn")))
    assert sent[0]["status"] == 200  # what the client saw
    assert count("/torn", 500) == 1
    assert last(lines)["event"] == "request_failed"


def test_a_stream_is_timed_to_its_last_byte_and_a_background_task_is_not(
    lines: io.StringIO,
) -> None:
    pause = 0.5
    during = []

    async def streamed() -> Any:
        async def made() -> AsyncIterator[bytes]:
            yield b"one "
            await asyncio.sleep(pause)
            yield b"two"

        return responses.StreamingResponse(made())

    async def answered(tasks: fastapi.BackgroundTasks) -> dict[str, str]:
        async def later() -> None:
            during.append(active("/answered"))
            await asyncio.sleep(3 * pause)
            raise RuntimeError("too late to change the answer")

        tasks.add_task(later)
        return {}

    answered.__annotations__["tasks"] = fastapi.BackgroundTasks
    app = observed(streamed=streamed, answered=answered)
    asyncio.run(call(app, http_scope("/streamed")))
    assert timed("/streamed")[1] >= pause
    asyncio.run(call(app, http_scope("/answered")))
    requests, seconds = timed("/answered")
    assert requests == 1
    assert seconds < 3 * pause
    assert during == [0]
    assert (count("/answered", 200), count("/answered", 500)) == (1, 0)
    assert last(lines)["event"] == "background_task_failed"


@pytest.mark.parametrize(
    ("room", "status", "event"),
    [("open", 101, "request_completed"), ("closed", 403, "request_completed"),
     ("broken", 500, "request_failed")],
)  # fmt: skip
def test_a_web_socket_counts_by_its_handshake(
    lines: io.StringIO, room: str, status: int, event: str
) -> None:
    app = fastapi.FastAPI()

    @app.websocket("/socket/{room}")
    async def socket(websocket: fastapi.WebSocket, room: str) -> None:
        if room == "broken":
            raise RuntimeError("before the handshake")
        if room == "closed":
            await websocket.close()
            return
        await websocket.accept()
        await websocket.receive_text()  # raises when the other side leaves

    socket.__annotations__["websocket"] = fastapi.WebSocket
    app.add_middleware(LoggingMiddleware)
    app.add_middleware(MetricsMiddleware)
    before = count("/socket/{room}", status)
    messages = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]
    sent = asyncio.run(call(app, websocket_scope(f"/socket/{room}"), *messages))
    assert count("/socket/{room}", status) == before + 1
    assert timed("/socket/{room}")[0] == 0
    record = last(lines)
    assert record["event"] == event
    assert (record["method"], record["status_code"]) == ("WEBSOCKET", status)
    if room == "open":
        assert record["close_code"] == 1001
        assert b"x-request-id" in dict(sent[0]["headers"])


def test_methods_that_clients_invent_are_one_label(lines: io.StringIO) -> None:
    app = observed()
    for number in range(20):
        asyncio.run(call(app, http_scope("/", method=f"INVENTED{number}")))
    assert count("unmatched", 404, method="other") == 20


def test_labels_stay_few_whatever_the_application_passes() -> None:
    metric = Metric("flood_total", "counter", "x", ("kind", "result"), values={"result": ("yes",)})
    flood = BoundedCounter(metric.name, metric.help, metric.labels, registry=None)
    flood._bounded = _Bounded(metric)
    for number in range(3 * MAX_VALUES):
        flood.labels(kind=f"flood-{number}", result=f"no-{number}").inc()
    flood.labels("flood-1", "yes").inc()
    counted = {
        s.labels["kind"]: s.value for s in flood.collect()[0].samples if s.name == metric.name
    }
    assert len(counted) == MAX_VALUES + 1
    assert counted["other"] == 2 * MAX_VALUES
    results = {s.labels["result"] for s in flood.collect()[0].samples}
    assert results == {"yes", "other"}
    with pytest.raises(ValueError, match="label"):
        http_requests.labels(method="GET", wrong="x", status_code="200")
    with pytest.raises(ValueError, match="label"):
        http_requests.labels("GET", "/")


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/api/v1/ask/x", "/api/v1/ask/{question}"),
        ("/api/v7/ask/x", "/api/{version}/ask/{question}"),
        ("/tenants/acme/documents/7", "/tenants/{tenant}/documents/{document}"),
        ("/tenants/acme/elsewhere", "/tenants/{tenant}/{path}"),
        ("/files/a/b/c.txt", "/files/{path}"),
        ("/foreign/one/two", "/foreign/{path}"),
        ("/items/special", "/items/special"),
        ("/items/7", "/items/{item}"),
        ("/nowhere", "unmatched"),
        ("/ITEMS/7", "unmatched"),
    ],
)
@pytest.mark.parametrize("root", ["", "/behind/a/proxy"])
def test_the_endpoint_is_the_route_template(path: str, template: str, root: str) -> None:
    app, tenant, router = fastapi.FastAPI(), fastapi.FastAPI(), fastapi.APIRouter()

    async def endpoint() -> dict[str, str]:
        return {}

    async def foreign(scope: Any, receive: Any, send: Any) -> None:
        await responses.PlainTextResponse("foreign")(scope, receive, send)

    router.add_api_route("/ask/{question}", endpoint)
    app.include_router(router, prefix="/api/v1")
    app.include_router(router, prefix="/api/{version}")
    app.add_api_route("/files/{path:path}", endpoint)
    app.add_api_route("/items/{item}", endpoint, methods=["GET"])
    app.add_api_route("/items/special", endpoint, methods=["POST"])
    tenant.add_api_route("/documents/{document}", endpoint)
    app.mount("/tenants/{tenant}", tenant)
    app.mount("/foreign", foreign)
    app.add_middleware(MetricsMiddleware)
    method = "POST" if template == "/items/special" else "GET"
    status = 404 if template == "unmatched" or "elsewhere" in path else 200
    before = count(template, status, method)
    scope = http_scope(root + path, method) | {"root_path": root}
    sent = asyncio.run(call(app, scope))
    assert sent[0]["status"] == status
    assert count(template, status, method) == before + 1


def test_a_request_that_a_middleware_answers_counts_under_its_route() -> None:
    class Refuses:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await responses.PlainTextResponse("no", 401)(scope, receive, send)

    app = fastapi.FastAPI()
    app.add_api_route("/guarded/{item}", lambda item: {})
    app.add_middleware(Refuses)
    app.add_middleware(MetricsMiddleware)
    asyncio.run(call(app, http_scope("/guarded/7")))
    assert count("/guarded/{item}", 401) == 1


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_path_has_a_template_of_the_table(path: str) -> None:
    app = fastapi.FastAPI()
    app.add_api_route("/items/{item}", lambda item: {})
    app.mount("/m/{x}", fastapi.FastAPI(openapi_url=None))
    scope = http_scope("/" + path) | {"app": app}
    known = {"/items/{item}", "/m/{x}/{path}", "/docs", "/docs/oauth2-redirect", "/redoc",
             "/openapi.json", "unmatched"}  # fmt: skip
    assert RouteTable().expected(scope) in known


def test_an_application_without_any_answer_has_failed() -> None:
    ends: list[Outcome] = []

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        return None

    async def run() -> None:
        await call(lambda *asgi: follow(silent, *asgi, ends.append), http_scope("/"))

    asyncio.run(run())
    (end,) = ends
    assert (end.end, end.status, end.error) == ("failed", 500, None)


def test_plain_asgi_names_its_endpoints() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await responses.PlainTextResponse("fine")(scope, receive, send)

    counted = MetricsMiddleware(app, endpoint=lambda scope: "/" + scope["path"].split("/")[1])
    asyncio.run(call(counted, http_scope("/plain/7")))
    assert count("/plain", 200) == 1
