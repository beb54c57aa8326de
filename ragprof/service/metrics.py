"""The metrics of a RAG service: what an application imports to count, time and expose.

Names, labels and buckets are those of `ragprof.monitoring.catalogue`, against which alerts,
dashboards and objectives are generated.
"""

from __future__ import annotations

from typing import Any

from ragprof.service.business import ActiveUsers, BusinessMetrics, timed_stream
from ragprof.service.collectors import (
    active_requests,
    active_users,
    background_jobs_queued,
    cache_hits,
    cache_misses,
    database_connection_pool_in_use,
    database_connection_pool_max,
    database_connection_pool_size,
    document_chunks_created,
    document_processing_duration,
    documents_processed,
    embedding_generation_duration,
    event_loop_lag,
    exemplar,
    generation_latency,
    http_request_duration,
    http_requests,
    observe,
    reranking_scores,
    retrieval_latency,
    search_queries,
    search_relevance_score,
    search_results,
    size_category,
    time_to_first_token,
    tokens,
)
from ragprof.service.eventloop import watch_event_loop
from ragprof.service.exposition import METRICS_PATH, MetricsEndpoint, exposition, metrics_app
from ragprof.service.requests import MetricsMiddleware, track_request_metrics
from ragprof.service.routes import UNMATCHED

__all__ = [
    "UNMATCHED",
    "ActiveUsers",
    "BusinessMetrics",
    "MetricsEndpoint",
    "MetricsMiddleware",
    "active_requests",
    "active_users",
    "background_jobs_queued",
    "cache_hits",
    "cache_misses",
    "database_connection_pool_in_use",
    "database_connection_pool_max",
    "database_connection_pool_size",
    "document_chunks_created",
    "document_processing_duration",
    "documents_processed",
    "embedding_generation_duration",
    "event_loop_lag",
    "exemplar",
    "exposition",
    "generation_latency",
    "http_request_duration",
    "http_requests",
    "metrics_app",
    "observe",
    "reranking_scores",
    "retrieval_latency",
    "search_queries",
    "search_relevance_score",
    "search_results",
    "setup_metrics",
    "size_category",
    "time_to_first_token",
    "timed_stream",
    "tokens",
    "track_request_metrics",
    "watch_event_loop",
]


def setup_metrics(app: Any, exclude: tuple[str, ...] = (METRICS_PATH,)) -> None:
    """Install the request metrics and `/metrics` in a Starlette or FastAPI application."""
    app.add_middleware(MetricsMiddleware, exclude=exclude)
    app.add_middleware(MetricsEndpoint)
