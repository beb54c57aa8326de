"""The dashboard "RAG System Overview" as data: rows of panels with their queries.

`$__rate_interval` is Grafana's: a window of at least four scrapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ragprof.monitoring.catalogue_alerts import cache_hit_rate, quantile
from ragprof.monitoring.catalogue_objectives import OBJECTIVES, Objective

TITLE = "RAG System Overview"
UID = "rag-overview"
RATE = "$__rate_interval"

Unit = Literal["reqps", "percentunit", "s", "short", "ops"]


@dataclass(frozen=True)
class Query:
    """One query of a panel; `legend` is Grafana's template. `exemplars`: show them as dots."""

    expression: str
    legend: str
    exemplars: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel. `threshold` is drawn as a line; `alert` and `objective` name what it shows."""

    title: str
    row: str
    unit: Unit
    queries: tuple[Query, ...]
    description: str
    kind: Literal["timeseries", "stat"] = "timeseries"
    threshold: float | None = None
    alert: str = ""
    objective: str = ""


_ERRORS = f'sum(rate(rag_http_requests_total{{status_code=~"5.."}}[{RATE}]))'
_REQUESTS = f"sum(rate(rag_http_requests_total[{RATE}]))"

_REQUEST_ROW = "Requests"
_RAG_ROW = "Retrieval, generation, documents"
_RESOURCE_ROW = "Resources"
_OBJECTIVE_ROW = "Objectives"

_PANELS = (
    Panel(
        "Request rate by endpoint",
        _REQUEST_ROW,
        "reqps",
        (Query(f"sum by (endpoint) (rate(rag_http_requests_total[{RATE}]))", "{{endpoint}}"),),
        "Requests per second.",
    ),
    Panel(
        "Error rate",
        _REQUEST_ROW,
        "percentunit",
        (Query(f"({_ERRORS} or {_REQUESTS} * 0) / {_REQUESTS}", "5xx"),),
        "Share of requests that ended with a server error.",
        threshold=0.05,
        alert="HighErrorRate",
    ),
    Panel(
        "p95 response time by endpoint",
        _REQUEST_ROW,
        "s",
        (
            Query(
                quantile(0.95, "rag_http_request_duration_seconds", "endpoint", RATE),
                "{{endpoint}}",
                exemplars=True,
            ),
        ),
        "95th percentile of the response time; a dot is one request with its trace.",
        threshold=2,
        alert="HighLatency",
    ),
    Panel(
        "Active requests",
        _REQUEST_ROW,
        "short",
        (Query("sum by (endpoint) (rag_active_requests)", "{{endpoint}}"),),
        "Requests in progress.",
    ),
    Panel(
        "p95 retrieval by strategy",
        _RAG_ROW,
        "s",
        (
            Query(
                quantile(0.95, "rag_retrieval_latency_seconds", "strategy", RATE),
                "{{strategy}}",
                exemplars=True,
            ),
        ),
        "95th percentile of the retrieval time.",
        threshold=1,
        alert="RetrievalPerformanceDegradation",
    ),
    Panel(
        "Cache hit rate by type",
        _RAG_ROW,
        "percentunit",
        (Query(cache_hit_rate(RATE), "{{cache_type}}"),),
        "Hits over all look-ups.",
        threshold=0.5,
        alert="LowCacheHitRate",
    ),
    Panel(
        "Documents processed by status",
        _RAG_ROW,
        "ops",
        (Query(f"sum by (status) (rate(rag_documents_processed_total[{RATE}]))", "{{status}}"),),
        "Documents per second.",
        alert="DocumentProcessingFailures",
    ),
    Panel(
        "p95 generation by model",
        _RAG_ROW,
        "s",
        (
            Query(
                quantile(0.95, "rag_generation_latency_seconds", "model", RATE),
                "{{model}}",
                exemplars=True,
            ),
        ),
        "95th percentile of the time to generate one answer.",
    ),
    Panel(
        "p95 time to first token by model",
        _RAG_ROW,
        "s",
        (
            Query(
                quantile(0.95, "rag_time_to_first_token_seconds", "model", RATE),
                "{{model}}",
                exemplars=True,
            ),
        ),
        "95th percentile of the time to the first token of streamed answers.",
    ),
    Panel(
        "Tokens by direction",
        _RAG_ROW,
        "ops",
        (Query(f"sum by (direction) (rate(rag_tokens_total[{RATE}]))", "{{direction}}"),),
        "Tokens per second.",
    ),
    Panel(
        "Connection pool use",
        _RESOURCE_ROW,
        "percentunit",
        (
            Query(
                "sum by (pool_name) (rag_database_connection_pool_in_use)"
                " / sum by (pool_name) (rag_database_connection_pool_max)",
                "{{pool_name}}",
            ),
        ),
        "Connections in use over the most that there can be.",
        threshold=0.9,
        alert="DatabaseConnectionPoolExhausted",
    ),
    Panel(
        "Background jobs queued",
        _RESOURCE_ROW,
        "short",
        (Query("sum by (job_type) (rag_background_jobs_queued)", "{{job_type}}"),),
        "Jobs that wait.",
        threshold=1000,
        alert="BackgroundJobQueueGrowing",
    ),
    Panel(
        "p99 event loop lag",
        _RESOURCE_ROW,
        "s",
        (
            Query(
                "histogram_quantile(0.99, sum by (le) "
                f"(rate(rag_event_loop_lag_seconds_bucket[{RATE}])))",
                "p99",
            ),
        ),
        "How late timers of the event loop run: something blocks the loop when it rises.",
    ),
)


def _objective_panels(objective: Objective) -> tuple[Panel, ...]:
    """The value against the target and, where there are events, how fast the budget burns."""
    indicator, window = objective.indicator, f"{objective.window_days}d"
    value = Panel(
        f"{objective.name}: {objective.window_days} days",
        _OBJECTIVE_ROW,
        "percentunit",
        (Query(indicator.value(window), objective.name),),
        objective.description,
        kind="stat",
        threshold=objective.target,
        objective=objective.name,
    )
    if not objective.has_budget:
        trend = Panel(
            f"{objective.name}: trend",
            _OBJECTIVE_ROW,
            "percentunit",
            (Query(indicator.value("1h"), "1 h"), Query(indicator.value("1d"), "1 d")),
            f"{indicator.description} A mean has no events, so there is no budget.",
            threshold=objective.target,
            objective=objective.name,
        )
        return value, trend
    allowed = f"{1 - objective.target:.10g}"
    left = Panel(
        f"{objective.name}: error budget left",
        _OBJECTIVE_ROW,
        "percentunit",
        (Query(f"1 - ({indicator.error_ratio(window)}) / {allowed}", "left"),),
        f"Share of the error budget of {objective.window_days} days that is left.",
        kind="stat",
        threshold=0,
        objective=objective.name,
    )
    burn = Panel(
        f"{objective.name}: burn rate",
        _OBJECTIVE_ROW,
        "short",
        tuple(
            Query(f"({indicator.error_ratio(over)}) / {allowed}", over)
            for over in ("5m", "1h", "6h")
        ),
        "How many times too fast the budget burns; 1 uses it up exactly at the window's end.",
        threshold=1,
        objective=objective.name,
    )
    return value, left, burn


PANELS: tuple[Panel, ...] = (
    *_PANELS,
    *(panel for objective in OBJECTIVES for panel in _objective_panels(objective)),
)

PANEL_BY_TITLE: Mapping[str, Panel] = {panel.title: panel for panel in PANELS}
