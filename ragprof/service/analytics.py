"""The analytics API: what a product's dashboard shows, answered from Prometheus.

`summary` and `realtime` do the work; `analytics_router` puts them into a FastAPI application. A
figure without data is null, and `missing` says why: it is never 0.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ragprof.monitoring.catalogue_alerts import ALERT_BY_NAME
from ragprof.service.prometheus_queries import Prometheus, PrometheusError

PREFIX = "/api/v1/analytics"
DEFAULT_WINDOW = timedelta(hours=24)

# `$m` are the matchers of the service, `$w` is the window. A key is the place in the answer.
_REQUESTS = "sum(increase(rag_http_requests_total{$m}[$w]))"
_FAILED = 'sum(increase(rag_http_requests_total{status_code=~"5..",$m}[$w]))'
_DOCUMENTS = "sum(increase(rag_documents_processed_total{$m}[$w]))"
_HITS = "sum(increase(rag_cache_hits_total{$m}[$w]))"
_MISSES = "sum(increase(rag_cache_misses_total{$m}[$w]))"


def _mean(metric: str) -> str:
    return f"sum(increase({metric}_sum{{$m}}[$w])) / sum(increase({metric}_count{{$m}}[$w]))"


SUMMARY = {
    "requests.total": _REQUESTS,
    "requests.error_rate": f"({_FAILED} or {_REQUESTS} * 0) / {_REQUESTS}",
    "requests.avg_latency_ms": f"1000 * {_mean('rag_http_request_duration_seconds')}",
    "retrieval.total_searches": "sum(increase(rag_search_queries_total{$m}[$w]))",
    "retrieval.strategy_breakdown": (
        "sum by (strategy) (increase(rag_search_queries_total{$m}[$w]))"
    ),
    "retrieval.avg_results_per_search": _mean("rag_search_results"),
    "documents.total_processed": _DOCUMENTS,
    "documents.success_rate": (
        '(sum(increase(rag_documents_processed_total{status="success",$m}[$w]))'
        f" or {_DOCUMENTS} * 0) / {_DOCUMENTS}"
    ),
    "documents.avg_processing_time_s": _mean("rag_document_processing_duration_seconds"),
    # Instances may know the same users, so theirs are not added: a lower bound.
    "system.active_users": 'max(rag_active_users{window="24h",$m})',
    "system.cache_hit_rate": (
        f"({_HITS} or {_MISSES} * 0) / (({_HITS} or {_MISSES} * 0) + ({_MISSES} or {_HITS} * 0))"
    ),
    "system.database_connections": "sum(rag_database_connection_pool_in_use{$m})",
}
_WHOLE = ("requests.total", "retrieval.total_searches", "documents.total_processed")

REALTIME = {
    "active_requests": "sum(rag_active_requests{$m})",
    "requests_per_second": "sum(rate(rag_http_requests_total{$m}[1m]))",
    "error_rate_5m": f"({_FAILED} or {_REQUESTS} * 0) / {_REQUESTS}".replace("$w", "5m"),
    "avg_latency_1m": f"1000 * {_mean('rag_http_request_duration_seconds')}".replace("$w", "1m"),
    "queue_depth": "sum(rag_background_jobs_queued{$m})",
}
HEALTH = {
    "HighErrorRate": f"({_FAILED} or {_REQUESTS} * 0) / {_REQUESTS}".replace("$w", "5m"),
    "HighLatency": (
        "histogram_quantile(0.95, "
        "sum by (le) (rate(rag_http_request_duration_seconds_bucket{$m}[5m])))"
    ),
    "DatabaseConnectionPoolExhausted": (
        "max(rag_database_connection_pool_in_use{$m} / rag_database_connection_pool_max{$m})"
    ),
    "BackgroundJobQueueGrowing": "max(rag_background_jobs_queued{$m})",
}
"""What the health is made of: the alert whose threshold counts, and the query."""
_NEEDED = ("HighErrorRate", "HighLatency")


async def summary(
    prometheus: Prometheus, start: datetime | None = None, end: datetime | None = None
) -> dict[str, Any]:
    """The figures of a window of time (the last 24 hours), in groups, with `missing` reasons.

    Counts are Prometheus' `increase`: exact for counters that were scraped at both edges, an
    extrapolation at the edges otherwise. Rates are shares from 0 to 1. Raises `ValueError` for a
    window that is empty or has naive times, `PrometheusError` when Prometheus does not answer.
    """
    end = end or datetime.now(UTC)
    start = start or end - DEFAULT_WINDOW
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("a time has no time zone: add Z or an offset")
    seconds = math.ceil((end - start).total_seconds())
    if seconds <= 0:
        raise ValueError("start_date is not before end_date")
    answers = await _ask(prometheus, SUMMARY, end, f"{seconds}s")
    result: dict[str, Any] = {
        "start_date": start.astimezone(UTC).isoformat(),
        "end_date": end.astimezone(UTC).isoformat(),
    }
    missing: dict[str, str] = {}
    for place, rows in answers.items():
        group, name = place.split(".")
        if place == "retrieval.strategy_breakdown":
            value: Any = {labels["strategy"]: round(count) for labels, count in rows} or None
        else:
            value = _figure(rows)
        if value is None:
            missing[place] = _why(rows, SUMMARY[place])
        elif place in _WHOLE:
            value = round(value)
        result.setdefault(group, {})[name] = value
    result["missing"] = missing
    return result


async def realtime(prometheus: Prometheus, now: datetime | None = None) -> dict[str, Any]:
    """How the service is now, with `missing` reasons; raises `PrometheusError`.

    `avg_latency_1m` is in milliseconds. `system_health` is 1 - max(value / threshold) / 2, not
    below 0, over the share of server errors, the 95th percentile of the response time, the fullest
    connection pool and the longest queue, each with the threshold of its alert: 1 is a service at
    rest, 0.5 the first threshold reached, 0 twice a threshold or more. `health_parts` has each
    value / threshold. A part without data is left out; without errors or latency there is no
    health.
    """
    now = now or datetime.now(UTC)
    answers = await _ask(prometheus, {**REALTIME, **HEALTH}, now, "5m")
    result: dict[str, Any] = {"timestamp": now.astimezone(UTC).isoformat()}
    missing: dict[str, str] = {}
    for name, query in REALTIME.items():
        result[name] = _figure(answers[name])
        if result[name] is None:
            missing[name] = _why(answers[name], query)
    parts: dict[str, float] = {}
    for alert, query in HEALTH.items():
        value = _figure(answers[alert])
        if value is None:
            missing[f"health_parts.{alert}"] = _why(answers[alert], query)
        else:
            parts[alert] = round(value / ALERT_BY_NAME[alert].threshold, 4)
    result["health_parts"] = {alert: parts.get(alert) for alert in HEALTH}
    known = all(alert in parts for alert in _NEEDED)
    result["system_health"] = max(0.0, round(1 - max(parts.values()) / 2, 4)) if known else None
    if not known:
        missing["system_health"] = "the share of errors or the response time is missing"
    result["missing"] = missing
    return result


def analytics_router(prometheus: Prometheus | str, dependencies: Sequence[Any] = ()) -> Any:
    """The FastAPI router with prefix `/api/v1/analytics`; `prometheus` is it or its address.

    `dependencies` are FastAPI's, for instance for authentication: the router has none of its own.
    """
    from fastapi import APIRouter, HTTPException

    source = Prometheus(prometheus) if isinstance(prometheus, str) else prometheus
    router = APIRouter(prefix=PREFIX, tags=["analytics"], dependencies=list(dependencies))

    @router.get("/dashboard/summary")
    async def dashboard_summary(
        start_date: str | None = None, end_date: str | None = None
    ) -> dict[str, Any]:
        """Requests, retrieval, documents and system of a window; ISO times with a time zone."""
        try:
            return await summary(
                source, _moment("start_date", start_date), _moment("end_date", end_date)
            )
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        except PrometheusError as error:
            raise HTTPException(503, str(error)) from None

    @router.get("/dashboard/realtime")
    async def dashboard_realtime() -> dict[str, Any]:
        """How the service is now."""
        try:
            return await realtime(source)
        except PrometheusError as error:
            raise HTTPException(503, str(error)) from None

    return router


async def _ask(
    prometheus: Prometheus, queries: dict[str, str], at: datetime, window: str
) -> dict[str, list[tuple[dict[str, str], float]]]:
    matchers = prometheus.selector()
    ready = [query.replace("$m", matchers).replace("$w", window) for query in queries.values()]
    answers = await asyncio.gather(
        *(asyncio.to_thread(prometheus.query, query, at) for query in ready)
    )
    return dict(zip(queries, answers, strict=True))


def _figure(rows: list[tuple[dict[str, str], float]]) -> float | None:
    value = rows[0][1] if rows else None
    return value if value is not None and math.isfinite(value) else None


def _why(rows: list[tuple[dict[str, str], float]], query: str) -> str:
    if rows:
        return "nothing happened in this time, so a share or a mean has no value"
    metrics = sorted({word for word in _words(query) if word.startswith("rag_")})
    return f"Prometheus has no data of {', '.join(metrics)} for this time"


def _words(query: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in query).split()


def _moment(name: str, text: str | None) -> datetime | None:
    """An ISO time with a time zone; a `+` that the address turned into a space is put back."""
    if text is None:
        return None
    if len(text) > 6 and text[-6] == " " and text[-3] == ":":
        text = f"{text[:-6]}+{text[-5:]}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} is no time: write it as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{name} has no time zone: write it as {moment.isoformat()}Z")
    return moment
