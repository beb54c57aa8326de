"""The analytics API on a real Prometheus, whose stored points are known one by one."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from backends import servers
from backends.servers import Server, find, start_prometheus
from fastapi import Depends, FastAPI, HTTPException

from ragprof.monitoring.catalogue import BY_NAME, SAMPLES
from ragprof.monitoring.promql import references
from ragprof.service.analytics import HEALTH, REALTIME, SUMMARY, analytics_router, realtime
from ragprof.service.prometheus_queries import Prometheus, PrometheusError

STEP = 15
END = datetime.fromtimestamp(int(datetime.now(UTC).timestamp()) // STEP * STEP - 60, UTC)
JOB = 'job="rag-api",instance="a:1"'

# Series and what one step of 15 s adds to them; a tuple is (first value, added).
COUNTERS = {
    f'rag_http_requests_total{{{JOB},method="GET",endpoint="/a",status_code="200"}}': 9,
    f'rag_http_requests_total{{{JOB},method="GET",endpoint="/a",status_code="500"}}': 1,
    f'rag_http_request_duration_seconds_count{{{JOB},method="GET",endpoint="/a"}}': 10,
    f'rag_http_request_duration_seconds_sum{{{JOB},method="GET",endpoint="/a"}}': 2,
    f'rag_http_request_duration_seconds_bucket{{{JOB},method="GET",endpoint="/a",le="0.5"}}': 10,
    f'rag_http_request_duration_seconds_bucket{{{JOB},method="GET",endpoint="/a",le="+Inf"}}': 10,
    f'rag_search_queries_total{{{JOB},strategy="hybrid",user_type="api"}}': 3,
    f'rag_search_queries_total{{{JOB},strategy="vector",user_type="api"}}': 1,
    f'rag_search_results_count{{{JOB},strategy="hybrid"}}': 4,
    f'rag_search_results_sum{{{JOB},strategy="hybrid"}}': 20,
    f'rag_documents_processed_total{{{JOB},file_type="pdf",status="success"}}': 4,
    f'rag_documents_processed_total{{{JOB},file_type="pdf",status="error"}}': 1,
    f'rag_document_processing_duration_seconds_count{{{JOB},file_type="pdf"}}': 0,
    f'rag_document_processing_duration_seconds_sum{{{JOB},file_type="pdf"}}': 0,
    f'rag_cache_hits_total{{{JOB},cache_type="answers",operation="get"}}': 3,
    'rag_http_requests_total{job="other",method="GET",endpoint="/a",status_code="200"}': 1000,
}
GAUGES = {
    f'rag_active_requests{{{JOB},endpoint="/a"}}': 2,
    f'rag_background_jobs_queued{{{JOB},job_type="index"}}': 500,
    f'rag_database_connection_pool_in_use{{{JOB},pool_name="main"}}': 3,
    f'rag_database_connection_pool_max{{{JOB},pool_name="main"}}': 4,
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prometheus with two hours of points before END, and none before or after."""
    folder = tmp_path_factory.mktemp("prometheus")
    lines = []
    for series, added in [*COUNTERS.items(), *((name, None) for name in GAUGES)]:
        for step in range(481):
            value = GAUGES[series] if added is None else 100 + added * step
            at = int(END.timestamp()) - (480 - step) * STEP
            lines.append(f"{series} {value} {at}")
    points = folder / "points.txt"
    points.write_text("\n".join([*lines, "# EOF", ""]))
    subprocess.run(
        [find("promtool"), "tsdb", "create-blocks-from", "openmetrics", points, folder / "data"],
        check=True,
        capture_output=True,
    )
    with start_prometheus(folder) as server:
        yield server


def ask(app: FastAPI, path: str, **parameters: str) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(f"/api/v1/analytics/dashboard/{path}", params=parameters)

    return asyncio.run(run())


def application(url: str, **options: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(analytics_router(Prometheus(url, matchers={"job": "rag-api"}), **options))
    return app


def iso(moment: datetime) -> str:
    return moment.isoformat()


def test_the_summary_of_an_hour(stored: Server) -> None:
    answer = ask(
        application(stored.url),
        "summary",
        start_date=iso(END - timedelta(hours=1)),
        end_date=iso(END),
    ).json()
    # 240 steps, of 10 requests each; the other job's are not among them.
    assert answer["requests"]["total"] == pytest.approx(2400, rel=0.01)
    assert answer["requests"]["error_rate"] == pytest.approx(0.1)
    assert answer["requests"]["avg_latency_ms"] == pytest.approx(200)
    retrieval = answer["retrieval"]
    assert retrieval["total_searches"] == pytest.approx(960, rel=0.01)
    assert retrieval["strategy_breakdown"] == {
        "hybrid": pytest.approx(720, rel=0.01),
        "vector": pytest.approx(240, rel=0.01),
    }
    assert retrieval["avg_results_per_search"] == pytest.approx(5)
    assert answer["documents"]["total_processed"] == pytest.approx(1200, rel=0.01)
    assert answer["documents"]["success_rate"] == pytest.approx(0.8)
    assert answer["system"]["cache_hit_rate"] == 1  # there were no misses
    assert answer["system"]["database_connections"] == 3
    assert datetime.fromisoformat(answer["end_date"]) == END
    # What nobody counts, and what did not happen, is null with its reason and never 0.
    assert answer["system"]["active_users"] is None
    assert "rag_active_users" in answer["missing"]["system.active_users"]
    assert answer["documents"]["avg_processing_time_s"] is None
    assert "nothing happened" in answer["missing"]["documents.avg_processing_time_s"]
    assert set(answer["missing"]) == {"system.active_users", "documents.avg_processing_time_s"}


def test_a_window_without_data_has_only_reasons(stored: Server) -> None:
    before = END - timedelta(days=3)
    answer = ask(
        application(stored.url),
        "summary",
        start_date=iso(before - timedelta(hours=1)),
        end_date=iso(before),
    ).json()
    figures = {
        f"{group}.{name}": value
        for group in ("requests", "retrieval", "documents", "system")
        for name, value in answer[group].items()
    }
    assert set(figures) == set(SUMMARY) == set(answer["missing"])
    assert set(figures.values()) == {None}


def test_the_default_window_is_the_last_day(stored: Server) -> None:
    answer = ask(application(stored.url), "summary").json()
    start, end = (datetime.fromisoformat(answer[name]) for name in ("start_date", "end_date"))
    assert end - start == timedelta(hours=24)
    assert answer["requests"]["total"] == pytest.approx(4800, rel=0.02)


def test_how_the_service_is_now(stored: Server) -> None:
    source = Prometheus(stored.url, matchers={"job": "rag-api"})
    answer = asyncio.run(realtime(source, END))
    assert datetime.fromisoformat(answer["timestamp"]) == END
    assert answer["active_requests"] == 2
    assert answer["requests_per_second"] == pytest.approx(10 / STEP, rel=0.01)
    assert answer["error_rate_5m"] == pytest.approx(0.1)
    assert answer["avg_latency_1m"] == pytest.approx(200)
    assert answer["queue_depth"] == 500
    # Twice the share of errors that raises the alarm; 3 of 4 connections; half the queue.
    assert answer["health_parts"]["HighErrorRate"] == pytest.approx(2)
    assert answer["health_parts"]["DatabaseConnectionPoolExhausted"] == pytest.approx(
        0.75 / 0.9, abs=1e-3
    )
    assert answer["health_parts"]["BackgroundJobQueueGrowing"] == pytest.approx(0.5)
    assert answer["system_health"] == pytest.approx(0)
    assert answer["missing"] == {}
    later = asyncio.run(realtime(source, END + timedelta(hours=1)))
    assert later["system_health"] is None
    assert later["missing"]["system_health"]
    assert datetime.fromisoformat(ask(application(stored.url), "realtime").json()["timestamp"])


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"start_date": "2026-01-01T00:00:00"}, "time zone"),
        ({"start_date": "yesterday"}, "start_date is no time"),
        ({"start_date": "2026-01-02T00:00:00Z", "end_date": "2026-01-01T00:00:00Z"}, "before"),
    ],
)
def test_a_bad_window_is_refused_in_a_sentence(parameters: dict[str, str], said: str) -> None:
    response = ask(application("http://127.0.0.1:9"), "summary", **parameters)
    assert response.status_code == 422
    assert said in response.json()["detail"]


def test_a_plus_that_the_address_made_a_space_is_read(stored: Server) -> None:
    app = application(stored.url)
    spaced = iso(END).replace("+", " ")
    answer = ask(app, "summary", start_date=iso(END - timedelta(hours=1)), end_date=spaced).json()
    assert datetime.fromisoformat(answer["end_date"]) == END


def test_without_prometheus_the_answer_is_503_and_says_where_it_should_be() -> None:
    (port,) = servers.free_ports(1)
    response = ask(application(f"http://127.0.0.1:{port}"), "realtime")
    assert response.status_code == 503
    assert f"127.0.0.1:{port}" in response.json()["detail"]
    with pytest.raises(PrometheusError, match="address"):
        Prometheus("file:///etc/passwd")


def test_a_refused_query_names_the_query(stored: Server) -> None:
    with pytest.raises(PrometheusError, match="refused 'sum\\('"):
        Prometheus(stored.url).query("sum(", END)


def test_the_router_takes_the_applications_authentication() -> None:
    def refuse() -> None:
        raise HTTPException(401, "who are you?")

    app = application("http://127.0.0.1:9", dependencies=[Depends(refuse)])
    assert ask(app, "realtime").status_code == 401


def test_matchers_are_quoted() -> None:
    assert Prometheus("http://p", matchers={"job": 'a"} or {b="'}).selector() == (
        r'job="a\"} or {b=\""'
    )


def test_every_query_asks_for_what_the_catalogue_has() -> None:
    for query in {**SUMMARY, **REALTIME, **HEALTH}.values():
        ready = query.replace("$m", 'job="x"').replace("$w", "1h")
        found = list(references(ready))
        assert found, query
        for reference in found:
            assert reference.metric in SAMPLES, query
            assert reference.labels <= {*SAMPLES[reference.metric], "job"}, query
    assert "rag_active_users" in BY_NAME
