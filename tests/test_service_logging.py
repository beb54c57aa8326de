"""Every line is JSON, joins with its trace, and belongs to its request."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from ragprof.service.logging import EventLogger, LoggingMiddleware, get_logger, setup_logging

fastapi = importlib.import_module("fastapi")
tracer = TracerProvider().get_tracer("test")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    setup_logging(stream=stream, json_logs=True)
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_where_and_in_which_trace(lines: io.StringIO) -> None:
    with tracer.start_as_current_span("work") as span:
        get_logger("test.logger").info("happened", answer=42)
        context = span.get_span_context()
    (record,) = records(lines)
    assert record["event"] == "happened"
    assert record["answer"] == 42
    assert record["level"] == "info"
    assert record["logger"] == "test.logger"
    assert record["timestamp"].endswith("Z")
    assert record["filename"] == "test_service_logging.py"
    assert record["func_name"] == "test_a_line_says_when_where_and_in_which_trace"
    assert record["trace_id"] == f"{context.trace_id:032x}"
    assert record["span_id"] == f"{context.span_id:016x}"


def test_standard_library_and_uvicorn_loggers_share_the_pipeline(lines: io.StringIO) -> None:
    with tracer.start_as_current_span("work") as span:
        logging.getLogger("uvicorn.error").warning("port %d is busy", 8000)
        trace_id = f"{span.get_span_context().trace_id:032x}"
    (record,) = records(lines)
    assert record["event"] == "port 8000 is busy"
    assert record["trace_id"] == trace_id


def test_tracebacks_are_structured(lines: io.StringIO) -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        get_logger("test").exception("failed")
    (record,) = records(lines)
    assert record["exception"][0]["exc_type"] == "KeyError"


def app() -> Any:
    application = fastapi.FastAPI()

    @application.get("/fine")
    async def fine() -> dict[str, str]:
        get_logger("endpoint").info("inside")
        return {}

    @application.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    application.add_middleware(LoggingMiddleware)
    return application


def get(path: str, **headers: str) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(run())


def test_all_lines_of_a_request_carry_its_id_which_is_returned(lines: io.StringIO) -> None:
    response = get("/fine", **{"X-Request-ID": "abc-1"})
    found = [record for record in records(lines) if record.get("request_id") == "abc-1"]
    assert [record["event"] for record in found] == [
        "request_started",
        "inside",
        "request_completed",
    ]
    assert found[-1]["status_code"] == 200
    assert found[-1]["duration_ms"] >= 0
    assert found[0]["method"] == "GET"
    assert found[0]["path"] == "/fine"
    assert response.headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("given", ["", "x" * 129, "caf\u00e9", "a\tb"])
def test_an_unfit_request_id_is_replaced(lines: io.StringIO, given: str) -> None:
    async def run() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/fine",
            "query_string": b"",
            "headers": [(b"x-request-id", given.encode("latin-1"))],
        }
        await app()(scope, receive, send)
        return sent

    returned = dict(asyncio.run(run())[0]["headers"])[b"x-request-id"]
    assert len(returned) == 32
    assert int(returned, 16) >= 0


def test_an_unhandled_error_is_logged_as_a_failed_request(lines: io.StringIO) -> None:
    assert get("/broken").status_code == 500
    failed = [record for record in records(lines) if record["event"] == "request_failed"]
    assert failed[0]["exception"][0]["exc_type"] == "RuntimeError"


@pytest.mark.parametrize("keep", [True, False])
def test_query_text_is_cut_and_can_be_left_out(lines: io.StringIO, keep: bool) -> None:
    EventLogger(log_query_text=keep).log_search_performed("q1", "x" * 300, "hybrid", 5, 0.5, 12.0)
    (record,) = records(lines)
    assert record["event"] == "search_performed"
    assert record["query_text"] == ("x" * 100 if keep else "")
    assert record["func_name"] == "test_query_text_is_cut_and_can_be_left_out"


def test_a_line_is_strict_json_whatever_was_logged(lines: io.StringIO) -> None:
    class Odd:
        def __repr__(self) -> str:
            return "an odd thing"

    loop: list[Any] = []
    loop.append(loop)
    get_logger("test").info(
        "odd",
        nan=float("nan"),
        inside={"inf": [float("inf")], (1, 2): "key"},
        thing=Odd(),
        loop=loop,
    )
    text = lines.getvalue()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["nan"] is None
    assert record["inside"] == {"inf": [None], "(1, 2)": "key"}
    assert record["thing"] == "an odd thing"
    assert text.count("\n") == 1


def test_tracebacks_hold_no_local_variables(lines: io.StringIO) -> None:
    def deep(password: str) -> None:
        raise KeyError("lost")

    try:
        deep("hunter2")
    except KeyError:
        get_logger("test").exception("failed")
    assert "hunter2" not in lines.getvalue()


def test_levels_below_the_configured_one_cost_no_line(lines: io.StringIO) -> None:
    get_logger("test").debug("quiet")
    logging.getLogger("test").debug("quiet")
    assert lines.getvalue() == ""


def test_uvicorn_that_configures_its_loggers_later_is_adopted_again(lines: io.StringIO) -> None:
    config = importlib.import_module("uvicorn.config")
    setup_logging(stream=lines, service="shop")
    config.Config("nowhere:app")  # as `uvicorn.run` does after the application was imported
    logging.getLogger("uvicorn.error").info(
        "Started", extra={"color_message": "\x1b[36mStarted\x1b[0m"}
    )
    logging.getLogger("uvicorn.access").info("GET / 200")
    (record,) = records(lines)
    assert (record["event"], record["service"]) == ("Started", "shop")
    assert "color_message" not in record


def test_variables_of_the_caller_survive_a_request_in_the_same_task(lines: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(job="nightly")

    async def run() -> None:
        transport = httpx.ASGITransport(app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/fine")
        get_logger("caller").info("after")

    try:
        asyncio.run(run())
    finally:
        structlog.contextvars.clear_contextvars()
    inside, after = (
        next(record for record in records(lines) if record["event"] == event)
        for event in ("inside", "after")
    )
    assert "job" not in inside
    assert after["job"] == "nightly"
    assert "request_id" not in after


def test_the_mean_of_no_scores_is_null(lines: io.StringIO) -> None:
    EventLogger().log_search_performed("q1", "x", "hybrid", 0, float("nan"), 1.0)
    EventLogger().log_document_processed("d1", 12, 3.14159, "minilm")
    searched, processed = records(lines)
    assert searched["avg_score"] is None
    assert (processed["document_id"], processed["chunks_created"]) == ("d1", 12)
    assert processed["processing_time_ms"] == 3.142


def test_development_has_the_console_form(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setenv("ENVIRONMENT", "development")
    stream = io.StringIO()
    try:
        setup_logging(stream=stream)
        get_logger("test").info("happened", answer=42)
    finally:
        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()
    assert "happened" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
