"""Request metrics, business metrics and /metrics, on a real FastAPI application."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import REGISTRY

from ragprof.service import metrics
from ragprof.service.metrics import BusinessMetrics, setup_metrics, track_request_metrics

fastapi = importlib.import_module("fastapi")

CATALOGUE = {
    "rag_http_requests_total": ("counter", ("method", "endpoint", "status_code")),
    "rag_http_request_duration_seconds": ("histogram", ("method", "endpoint")),
    "rag_active_requests": ("gauge", ("endpoint",)),
    "rag_documents_processed_total": ("counter", ("file_type", "status", "processing_strategy")),
    "rag_document_chunks_created": ("histogram", ("file_type",)),
    "rag_search_queries_total": ("counter", ("strategy", "user_type")),
    "rag_retrieval_latency_seconds": ("histogram", ("strategy", "query_complexity")),
    "rag_generation_latency_seconds": ("histogram", ("model", "prompt_size_category")),
    "rag_cache_hits_total": ("counter", ("cache_type", "operation")),
    "rag_cache_misses_total": ("counter", ("cache_type", "operation")),
    "rag_embedding_generation_duration_seconds": ("summary", ("model", "batch_size_category")),
    "rag_reranking_scores": ("histogram", ("model", "query_type")),
    "rag_search_relevance_score": ("histogram", ("strategy",)),
    "rag_database_connection_pool_size": ("gauge", ("pool_name",)),
    "rag_database_connection_pool_max": ("gauge", ("pool_name",)),
    "rag_database_connection_pool_in_use": ("gauge", ("pool_name",)),
    "rag_background_jobs_queued": ("gauge", ("job_type",)),
    "rag_search_results": ("histogram", ("strategy",)),
    "rag_document_processing_duration_seconds": ("histogram", ("file_type",)),
    "rag_active_users": ("gauge", ("window",)),
    "rag_event_loop_lag_seconds": ("histogram", ()),
    "rag_time_to_first_token_seconds": ("histogram", ("model",)),
    "rag_tokens_total": ("counter", ("model", "direction")),
}


def test_every_metric_of_the_catalogue_exists_with_its_type_and_labels() -> None:
    found = {}
    for value in vars(metrics).values():
        if hasattr(value, "_labelnames") and hasattr(value, "describe"):
            family = value.describe()[0]
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, tuple(value._labelnames))
    assert found == CATALOGUE


@pytest.fixture
def app() -> Any:
    app = fastapi.FastAPI()

    @app.get("/items/{item}")
    async def item(item: str) -> dict[str, str]:
        if item == "missing":
            raise fastapi.HTTPException(404)
        if item == "broken":
            raise RuntimeError("broken")
        return {"item": item}

    @app.get("/sync/{item}")
    def sync_item(item: str) -> dict[str, str]:
        return {"item": item}

    setup_metrics(app)
    return app


def get(app: Any, *paths: str, headers: dict[str, str] | None = None) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.get(path, headers=headers) for path in paths]

    return asyncio.run(run())


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def requests(endpoint: str, status: int) -> float:
    return value(
        "rag_http_requests_total", method="GET", endpoint=endpoint, status_code=str(status)
    )


@pytest.mark.parametrize(
    ("path", "endpoint", "status"),
    [
        ("/items/7", "/items/{item}", 200),
        ("/items/missing", "/items/{item}", 404),
        ("/items/broken", "/items/{item}", 500),
        ("/sync/7", "/sync/{item}", 200),
        ("/nowhere/7", "unmatched", 404),
    ],
)
def test_requests_count_under_the_route_template_with_the_right_status(
    app: Any, path: str, endpoint: str, status: int
) -> None:
    before = requests(endpoint, status)
    assert get(app, path)[0].status_code == status
    assert requests(endpoint, status) == before + 1
    assert value("rag_active_requests", endpoint=endpoint) == 0


def test_metrics_page_in_both_forms_and_exemplars_only_in_openmetrics(app: Any) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request") as span:
        get(app, "/items/1")
        trace_id = f"{span.get_span_context().trace_id:032x}"
    plain = get(app, "/metrics")[0]
    openmetrics = get(app, "/metrics", headers={"Accept": "application/openmetrics-text"})[0]
    assert plain.headers["content-type"].startswith("text/plain")
    assert trace_id not in plain.text
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
    assert f'trace_id="{trace_id}"' in openmetrics.text
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_metrics_page_does_not_count_itself(app: Any) -> None:
    assert "/metrics" not in get(app, "/metrics", "/metrics")[1].text.replace("# HELP", "")


def test_decorator_takes_the_status_from_response_error_and_exception() -> None:
    class ConflictError(Exception):
        status_code = 409

    @track_request_metrics("/decorated")
    async def endpoint(what: str) -> Any:
        if what == "raise":
            raise ConflictError
        if what == "bug":
            raise ValueError("bug")
        return httpx.Response(202) if what == "accepted" else {}

    @track_request_metrics("/decorated")
    def sync_endpoint() -> dict[str, str]:
        return {}

    def count(status: int) -> float:
        labels = {"method": "other", "endpoint": "/decorated", "status_code": str(status)}
        return value("rag_http_requests_total", **labels)

    asyncio.run(endpoint("accepted"))
    asyncio.run(endpoint("fine"))
    sync_endpoint()
    with pytest.raises(ConflictError):
        asyncio.run(endpoint("raise"))
    with pytest.raises(ValueError, match="bug"):
        asyncio.run(endpoint("bug"))
    assert [count(status) for status in (202, 200, 409, 500)] == [1, 2, 1, 1]


def test_business_recorders_feed_what_the_dashboard_reads() -> None:
    BusinessMetrics.record_search_performed("hybrid", "small", 0.2, results=4, relevance=0.8)
    BusinessMetrics.record_document_processed("pdf", "success", 12, duration=1.5)
    assert value("rag_search_queries_total", strategy="hybrid", user_type="api") == 1
    assert value("rag_search_results_sum", strategy="hybrid") == 4
    assert value("rag_search_relevance_score_sum", strategy="hybrid") == pytest.approx(0.8)
    assert value("rag_document_chunks_created_sum", file_type="pdf") == 12
    assert value("rag_document_processing_duration_seconds_sum", file_type="pdf") == 1.5


def test_event_loop_lag_is_seen_when_the_loop_is_blocked() -> None:
    import time

    async def block() -> None:
        watcher = asyncio.create_task(metrics.watch_event_loop(0.01))
        await asyncio.sleep(0.03)
        time.sleep(0.2)
        await asyncio.sleep(0.02)
        watcher.cancel()

    before = value("rag_event_loop_lag_seconds_sum")
    asyncio.run(block())
    assert value("rag_event_loop_lag_seconds_sum") - before > 0.15


def test_multiprocess_mode_sums_the_workers(tmp_path: Any) -> None:
    code = (
        "from ragprof.service import metrics as m;"
        "m.http_requests.labels(method='GET',endpoint='/x',status_code='200').inc();"
        "import sys; sys.stdout.write(m.exposition()[0].decode())"
    )
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": ""}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
    line = 'rag_http_requests_total{endpoint="/x",method="GET",status_code="200"} 2.0'
    assert line in done.stdout


def test_the_service_package_needs_no_heavy_library() -> None:
    code = (
        "import sys, ragprof.service.metrics, ragprof.service.logging, ragprof.service.tracing;"
        "heavy = {'pandas', 'pyarrow', 'numpy', 'fastapi', 'starlette', 'duckdb', 'IPython'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
