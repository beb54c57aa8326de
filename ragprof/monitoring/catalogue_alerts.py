"""When somebody is called: the alert rules as data.

Condition and threshold stand apart, so that a replay can ask "what if 1.5 s?".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ragprof.monitoring.catalogue_objectives import BURN_RATES, OBJECTIVES, BurnRate, Objective

Severity = Literal["critical", "warning"]

RULE_NAME = "rag-system-alerts"
GROUP = "rag-api-alerts"
BURN_GROUP = "rag-slo-burn-rate"
INTERVAL = "30s"


@dataclass(frozen=True)
class Alert:
    """One alert rule: `query` `operator` `threshold`, held for `wait` (PromQL durations).

    `guard` is a further condition on the same series (joined with `and`), `by` the labels that
    tell the firing series apart. `summary` and `description` are Prometheus templates. `runbook`
    is the anchor in the page of the runbooks. `objective` names the SLO of a burn alert.
    """

    name: str
    query: str
    operator: Literal[">", "<"]
    threshold: float
    wait: str
    severity: Severity
    service: str
    by: tuple[str, ...]
    summary: str
    description: str
    runbook: str
    group: str = GROUP
    guard: str = ""
    objective: str = ""

    @property
    def expression(self) -> str:
        """The whole condition as PromQL (no syntax of Prometheus 3)."""
        condition = f"{self.query} {self.operator} {self.threshold:g}"
        return f"({condition}) and {self.guard}" if self.guard else condition

    def with_threshold(self, threshold: float) -> Alert:
        """The same alert with another threshold."""
        return replace(self, threshold=threshold)


def cache_hit_rate(window: str) -> str:
    """Hits over hits and misses by cache type; a cache with misses only has 0, not nothing."""
    hits = f"sum by (cache_type) (rate(rag_cache_hits_total[{window}]))"
    misses = f"sum by (cache_type) (rate(rag_cache_misses_total[{window}]))"
    return f"({hits} or {misses} * 0) / ({cache_traffic(window)})"


def cache_traffic(window: str) -> str:
    """Look-ups per second by cache type."""
    hits = f"sum by (cache_type) (rate(rag_cache_hits_total[{window}]))"
    misses = f"sum by (cache_type) (rate(rag_cache_misses_total[{window}]))"
    return f"({hits} or {misses} * 0) + ({misses} or {hits} * 0)"


def quantile(q: float, metric: str, by: str, window: str) -> str:
    """A quantile of a histogram by one label."""
    return f"histogram_quantile({q:g}, sum by ({by}, le) (rate({metric}_bucket[{window}])))"


_SYMPTOMS = (
    Alert(
        "HighErrorRate",
        'sum by (endpoint) (rate(rag_http_requests_total{status_code=~"5.."}[5m]))'
        " / sum by (endpoint) (rate(rag_http_requests_total[5m]))",
        ">",
        0.05,
        "5m",
        "critical",
        "rag-api",
        ("endpoint",),
        "High share of server errors on {{ $labels.endpoint }}",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.endpoint }} "
        "of the last 5 minutes ended with a server error.",
        "higherrorrate",
    ),
    Alert(
        "HighLatency",
        quantile(0.95, "rag_http_request_duration_seconds", "endpoint", "5m"),
        ">",
        2,
        "5m",
        "warning",
        "rag-api",
        ("endpoint",),
        "Slow answers on {{ $labels.endpoint }}",
        "The 95th percentile of the response time of {{ $labels.endpoint }} "
        "is {{ $value | humanizeDuration }}.",
        "highlatency",
    ),
    Alert(
        "DatabaseConnectionPoolExhausted",
        "rag_database_connection_pool_in_use / rag_database_connection_pool_max",
        ">",
        0.9,
        "5m",
        "warning",
        "database",
        ("pool_name",),
        "Connection pool {{ $labels.pool_name }} is nearly exhausted",
        "{{ $value | humanizePercentage }} of the connections of pool "
        "{{ $labels.pool_name }} are in use.",
        "databaseconnectionpoolexhausted",
    ),
    Alert(
        "LowCacheHitRate",
        cache_hit_rate("5m"),
        "<",
        0.5,
        "10m",
        "warning",
        "cache",
        ("cache_type",),
        "Low hit rate of cache {{ $labels.cache_type }}",
        "Only {{ $value | humanizePercentage }} of the look-ups in cache "
        "{{ $labels.cache_type }} are hits.",
        "lowcachehitrate",
        guard=f"({cache_traffic('5m')}) > 0",
    ),
    Alert(
        "RetrievalPerformanceDegradation",
        quantile(0.95, "rag_retrieval_latency_seconds", "strategy", "5m"),
        ">",
        1,
        "10m",
        "warning",
        "retrieval",
        ("strategy",),
        "Slow retrieval with strategy {{ $labels.strategy }}",
        "The 95th percentile of the retrieval time of strategy {{ $labels.strategy }} "
        "is {{ $value | humanizeDuration }}.",
        "retrievalperformancedegradation",
    ),
    Alert(
        "BackgroundJobQueueGrowing",
        "rag_background_jobs_queued",
        ">",
        1000,
        "15m",
        "warning",
        "workers",
        ("job_type",),
        "The queue of {{ $labels.job_type }} jobs grows",
        "{{ $value | humanize }} jobs of type {{ $labels.job_type }} wait.",
        "backgroundjobqueuegrowing",
    ),
    Alert(
        "DocumentProcessingFailures",
        'sum(rate(rag_documents_processed_total{status="error"}[10m]))'
        " / sum(rate(rag_documents_processed_total[10m]))",
        ">",
        0.1,
        "10m",
        "critical",
        "document-processor",
        (),
        "Many documents cannot be processed",
        "{{ $value | humanizePercentage }} of the documents of the last 10 minutes failed.",
        "documentprocessingfailures",
    ),
)


def burn_alert(objective: Objective, rate: BurnRate) -> Alert:
    """The alert of one objective and one pair of windows; its value is the burn rate.

    A burn rate is the share of bad events over the share that the target allows; without traffic
    it is NaN, which is above nothing.
    """
    if not objective.has_budget:
        raise ValueError(f"{objective.name} has no events, so it has no budget to burn")
    allowed = f"{1 - objective.target:.10g}"
    over_long = f"({objective.indicator.error_ratio(rate.long)}) / {allowed}"
    over_short = f"({objective.indicator.error_ratio(rate.short)}) / {allowed}"
    title = "".join(part.capitalize() for part in objective.name.split("_"))
    return Alert(
        f"{title}BudgetBurn{rate.long}",
        over_long,
        ">",
        rate.factor,
        rate.wait,
        rate.severity,
        "rag-api",
        (),
        f"The error budget of {objective.name} burns {rate.factor:g} times too fast",
        f"Over {rate.long} and {rate.short}, {objective.name} used its budget "
        "{{ $value | humanize }} times as fast as the objective allows.",
        "budgetburn",
        group=BURN_GROUP,
        guard=f"({over_short}) > {rate.factor:g}",
        objective=objective.name,
    )


ALERTS: tuple[Alert, ...] = (
    *_SYMPTOMS,
    *(burn_alert(each, rate) for each in OBJECTIVES if each.has_budget for rate in BURN_RATES),
)

ALERT_BY_NAME: Mapping[str, Alert] = {alert.name: alert for alert in ALERTS}
