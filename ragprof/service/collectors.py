"""The collectors of the service, made from the catalogue, with bounded label values.

In multiprocess mode (`PROMETHEUS_MULTIPROC_DIR`) prometheus_client stores numbers only: exemplars
are lost there.
"""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry import trace
from prometheus_client import Counter, Gauge, Histogram, Summary

from ragprof.monitoring.catalogue import BY_NAME, OTHER, Metric

MAX_VALUES = 200
"""Values that one label of one metric may have; further ones are counted as `other`."""


class _Bounded:
    """Keeps the values of each label of one metric few, however many the application passes."""

    def __init__(self, metric: Metric) -> None:
        self.names = metric.labels
        self.closed = [metric.values.get(name) for name in metric.labels]
        self.seen: list[dict[str, str]] = [{} for _ in metric.labels]
        self.lock = threading.Lock()

    def fit(self, values: tuple[object, ...]) -> list[str]:
        return [
            seen.get(text) or self._admit(number, text)
            for number, (seen, text) in enumerate(
                zip(self.seen, (str(value) for value in values), strict=True)
            )
        ]

    def _admit(self, number: int, text: str) -> str:
        closed, seen = self.closed[number], self.seen[number]
        if closed is not None and text not in closed:
            return OTHER
        with self.lock:
            if len(seen) >= MAX_VALUES and text not in seen:
                return OTHER
            return seen.setdefault(text, text)


class _BoundedLabels:
    """`labels()` of prometheus_client behind `_Bounded`."""

    _bounded: _Bounded | None = None

    def labels(self, *values: Any, **named: Any) -> Any:
        inherited: Any = super()
        if self._bounded is None:
            return inherited.labels(*values, **named)
        names = self._bounded.names
        if named and not values and len(named) == len(names):
            try:
                values, named = tuple([named[name] for name in names]), {}
            except KeyError:
                return inherited.labels(**named)  # raises: a name is wrong
        if not named:
            known = self._metrics.get(values)  # type: ignore[attr-defined]
            if known is not None:
                return known
            if len(values) == len(names):
                values = tuple(self._bounded.fit(values))
        return inherited.labels(*values, **named)


class BoundedCounter(_BoundedLabels, Counter):
    """A counter of the catalogue."""


class BoundedGauge(_BoundedLabels, Gauge):
    """A gauge of the catalogue."""


class BoundedHistogram(_BoundedLabels, Histogram):
    """A histogram of the catalogue."""


class BoundedSummary(_BoundedLabels, Summary):
    """A summary of the catalogue."""


def _counter(name: str) -> Counter:
    metric = BY_NAME[name]
    made = BoundedCounter(name, metric.help, metric.labels)
    made._bounded = _Bounded(metric)
    return made


def _gauge(name: str) -> Gauge:
    metric = BY_NAME[name]
    made = BoundedGauge(
        name, metric.help, metric.labels, multiprocess_mode=metric.multiprocess or "all"
    )
    made._bounded = _Bounded(metric)
    return made


def _histogram(name: str) -> Histogram:
    metric = BY_NAME[name]
    made = BoundedHistogram(name, metric.help, metric.labels, buckets=metric.buckets)
    made._bounded = _Bounded(metric)
    return made


def _summary(name: str) -> Summary:
    metric = BY_NAME[name]
    made = BoundedSummary(name, metric.help, metric.labels)
    made._bounded = _Bounded(metric)
    return made


http_requests = _counter("rag_http_requests_total")
http_request_duration = _histogram("rag_http_request_duration_seconds")
active_requests = _gauge("rag_active_requests")
documents_processed = _counter("rag_documents_processed_total")
document_chunks_created = _histogram("rag_document_chunks_created")
document_processing_duration = _histogram("rag_document_processing_duration_seconds")
search_queries = _counter("rag_search_queries_total")
search_results = _histogram("rag_search_results")
search_relevance_score = _histogram("rag_search_relevance_score")
retrieval_latency = _histogram("rag_retrieval_latency_seconds")
generation_latency = _histogram("rag_generation_latency_seconds")
time_to_first_token = _histogram("rag_time_to_first_token_seconds")
tokens = _counter("rag_tokens_total")
cache_hits = _counter("rag_cache_hits_total")
cache_misses = _counter("rag_cache_misses_total")
embedding_generation_duration = _summary("rag_embedding_generation_duration_seconds")
reranking_scores = _histogram("rag_reranking_scores")
database_connection_pool_size = _gauge("rag_database_connection_pool_size")
database_connection_pool_max = _gauge("rag_database_connection_pool_max")
database_connection_pool_in_use = _gauge("rag_database_connection_pool_in_use")
background_jobs_queued = _gauge("rag_background_jobs_queued")
active_users = _gauge("rag_active_users")
event_loop_lag = _histogram("rag_event_loop_lag_seconds")


def exemplar(span: trace.Span | None = None) -> dict[str, str] | None:
    """Trace and span id of `span` (the current one) for an observation; None when unsampled."""
    context = (span or trace.get_current_span()).get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return None
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def observe(histogram: Histogram, seconds: float, **labels: str) -> None:
    """One observation with the current trace as its exemplar."""
    child = histogram.labels(**labels) if labels else histogram
    child.observe(seconds, exemplar=exemplar())


def size_category(count: int, small: int, large: int) -> str:
    """`small` up to `small`, `large` from `large` on, `medium` between: bounded label values."""
    return "small" if count <= small else "large" if count >= large else "medium"
