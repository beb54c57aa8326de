"""The tracing decorator on every kind of function, and exactly one server span per request."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ragprof.service import methods
from ragprof.service.tracing import trace_method


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(methods, "tracer", provider.get_tracer("test"))
    return exporter


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def test_a_sync_function_gets_its_span_and_names(spans: InMemorySpanExporter) -> None:
    @trace_method()
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == 8
    span = only(spans)
    assert span.name.endswith("double")
    assert span.attributes is not None
    assert span.attributes["function.name"].endswith("double")  # type: ignore[union-attr]
    assert span.attributes["function.module"] == __name__


def test_a_coroutine_is_timed_to_its_end(spans: InMemorySpanExporter) -> None:
    @trace_method("waits")
    async def wait() -> bool:
        await asyncio.sleep(0.02)
        return trace.get_current_span().is_recording()

    assert asyncio.run(wait())
    span = only(spans)
    assert span.name == "waits"
    assert (span.end_time or 0) - (span.start_time or 0) >= 19e6


def test_a_generator_is_traced_while_it_runs_and_not_while_its_consumer_does(
    spans: InMemorySpanExporter,
) -> None:
    @trace_method("items")
    def items() -> Iterator[bool]:
        yield trace.get_current_span().is_recording()
        yield trace.get_current_span().is_recording()

    for inside in items():
        assert inside
        assert not trace.get_current_span().is_recording()
    assert only(spans).name == "items"


def test_an_async_generator_left_early_ends_its_span(spans: InMemorySpanExporter) -> None:
    closed = []

    @trace_method("stream")
    async def stream() -> AsyncIterator[int]:
        try:
            for n in range(10):
                yield n
        finally:
            closed.append(True)

    async def take_two() -> list[int]:
        taken = []
        generator: Any = stream()
        async for n in generator:
            taken.append(n)
            if n == 1:
                break
        await generator.aclose()
        return taken

    assert asyncio.run(take_two()) == [0, 1]
    assert closed == [True]
    assert only(spans).status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("kind", ["sync", "coroutine", "generator", "async generator"])
def test_an_exception_is_recorded_once_and_passed_on(
    spans: InMemorySpanExporter, kind: str
) -> None:
    @trace_method()
    def sync() -> None:
        raise ValueError("bad")

    @trace_method()
    async def coroutine() -> None:
        raise ValueError("bad")

    @trace_method()
    def generator() -> Iterator[int]:
        yield 1
        raise ValueError("bad")

    @trace_method()
    async def async_generator() -> AsyncIterator[int]:
        yield 1
        raise ValueError("bad")

    async def exhaust() -> None:
        async for _ in async_generator():
            pass

    calls: dict[str, Any] = {
        "sync": sync,
        "coroutine": lambda: asyncio.run(coroutine()),
        "generator": lambda: list(generator()),
        "async generator": lambda: asyncio.run(exhaust()),
    }
    with pytest.raises(ValueError, match="bad"):
        calls[kind]()
    span = only(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


def test_what_is_sent_and_thrown_into_a_generator_arrives(spans: InMemorySpanExporter) -> None:
    @trace_method("echo")
    def echo() -> Any:
        heard = []
        while len(heard) < 3:
            try:
                heard.append((yield len(heard)))
            except KeyError:
                heard.append("key error")
        return heard

    generator = echo()
    assert next(generator) == 0
    assert generator.send("hello") == 1
    assert generator.throw(KeyError("x")) == 2
    with pytest.raises(StopIteration) as stop:
        generator.send("bye")
    assert stop.value.value == ["hello", "key error", "bye"]

    @trace_method("aecho")
    async def aecho() -> Any:
        heard = "nothing"
        while True:
            try:
                heard = yield heard
            except KeyError:
                heard = "key error"

    async def talk() -> list[Any]:
        generator = aecho()
        said = [await anext(generator), await generator.asend("hello")]
        said.append(await generator.athrow(KeyError("x")))
        await generator.aclose()
        return said

    assert asyncio.run(talk()) == ["nothing", "hello", "key error"]
    assert [span.name for span in spans.get_finished_spans()] == ["echo", "aecho"]
    assert all(s.status.status_code is StatusCode.UNSET for s in spans.get_finished_spans())


def test_one_server_span_per_request_with_the_request_id() -> None:
    code = """
import asyncio, fastapi, httpx
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from ragprof.service.logging import LoggingMiddleware
from ragprof.service.metrics import setup_metrics
from ragprof.service.tracing import setup_tracing
app = fastapi.FastAPI()
@app.get("/items/{item}")
async def item(item: str): return {}
app.add_middleware(LoggingMiddleware)
setup_metrics(app)
setup_tracing(app, "shop", version="1.2.3")
spans = InMemorySpanExporter()
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
async def main():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/items/1", headers={"x-request-id": "r1"})
asyncio.run(main())
for span in spans.get_finished_spans():
    if span.kind.name == "SERVER":
        r = span.resource.attributes
        told = span.attributes["request.id"], r["service.name"], r["service.version"]
        print("SPAN", span.name, *told)
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    spans = [line for line in done.stdout.splitlines() if line.startswith("SPAN")]
    assert spans == ["SPAN GET /items/{item} r1 shop 1.2.3"]
