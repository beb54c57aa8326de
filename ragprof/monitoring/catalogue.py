"""The metrics of a RAG service as data: what the service emits, and what every rule, panel and
objective may ask for.

Standard library only. `ragprof.service.metrics` makes its collectors from this list, so a name
that is not here does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]

OTHER = "other"
"""The label value that stands for all that are not listed, or too many to keep."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
USER_TYPES = ("api", "dashboard", "internal")
DOCUMENT_STATUSES = ("success", "error")
TOKEN_DIRECTIONS = ("prompt", "completion")


@dataclass(frozen=True)
class Metric:
    """One metric family.

    `name` is the name of its samples (counters end in `_total`). `values` lists the values that a
    label may have, where that is a closed list; any other value is counted as `other`. `exemplar`:
    observations carry the trace id. `multiprocess` is how prometheus_client joins the workers of a
    gauge.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    exemplar: bool = False
    multiprocess: Literal["", "livesum", "livemax", "livemostrecent"] = ""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def samples(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The names of its samples with their labels, as a query may use them."""
        if self.kind in ("counter", "gauge"):
            yield self.name, self.labels
            return
        yield f"{self.name}_count", self.labels
        yield f"{self.name}_sum", self.labels
        if self.kind == "histogram":
            yield f"{self.name}_bucket", (*self.labels, "le")


_SCORES = tuple(n / 10 for n in range(1, 11))

METRICS: tuple[Metric, ...] = (
    Metric(
        "rag_http_requests_total",
        "counter",
        "HTTP requests by route template and status code.",
        ("method", "endpoint", "status_code"),
        values={"method": METHODS},
    ),
    Metric(
        "rag_http_request_duration_seconds",
        "histogram",
        "Duration of HTTP requests in seconds, to the last byte of the answer.",
        ("method", "endpoint"),
        (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10),
        exemplar=True,
        values={"method": METHODS},
    ),
    Metric(
        "rag_active_requests",
        "gauge",
        "HTTP requests in progress.",
        ("endpoint",),
        multiprocess="livesum",
    ),
    Metric(
        "rag_documents_processed_total",
        "counter",
        "Documents that went through processing; status is success or error.",
        ("file_type", "status", "processing_strategy"),
        values={"status": DOCUMENT_STATUSES},
    ),
    Metric(
        "rag_document_chunks_created",
        "histogram",
        "Chunks made from one document.",
        ("file_type",),
        (1, 2, 5, 10, 20, 50, 100, 200, 500),
    ),
    Metric(
        "rag_document_processing_duration_seconds",
        "histogram",
        "Time to process one document in seconds.",
        ("file_type",),
        (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    ),
    Metric(
        "rag_search_queries_total",
        "counter",
        "Searches; user_type is api, dashboard or internal.",
        ("strategy", "user_type"),
        values={"user_type": USER_TYPES},
    ),
    Metric(
        "rag_search_results",
        "histogram",
        "Results per search.",
        ("strategy",),
        (0, 1, 2, 5, 10, 20, 50, 100),
    ),
    Metric(
        "rag_search_relevance_score",
        "histogram",
        "Mean relevance of the results of a search, 0 to 1.",
        ("strategy",),
        _SCORES,
    ),
    Metric(
        "rag_retrieval_latency_seconds",
        "histogram",
        "Time of one retrieval in seconds.",
        ("strategy", "query_complexity"),
        (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
        exemplar=True,
    ),
    Metric(
        "rag_generation_latency_seconds",
        "histogram",
        "Time to generate one answer in seconds.",
        ("model", "prompt_size_category"),
        (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        exemplar=True,
    ),
    Metric(
        "rag_time_to_first_token_seconds",
        "histogram",
        "Time to the first token of a streamed answer in seconds.",
        ("model",),
        (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        exemplar=True,
    ),
    Metric(
        "rag_tokens_total",
        "counter",
        "Tokens; direction is prompt or completion.",
        ("model", "direction"),
        values={"direction": TOKEN_DIRECTIONS},
    ),
    Metric("rag_cache_hits_total", "counter", "Cache hits.", ("cache_type", "operation")),
    Metric("rag_cache_misses_total", "counter", "Cache misses.", ("cache_type", "operation")),
    Metric(
        "rag_embedding_generation_duration_seconds",
        "summary",
        "Time to embed one batch in seconds.",
        ("model", "batch_size_category"),
    ),
    Metric(
        "rag_reranking_scores",
        "histogram",
        "Scores given by the reranker, 0 to 1.",
        ("model", "query_type"),
        _SCORES,
    ),
    Metric(
        "rag_database_connection_pool_size",
        "gauge",
        "Connections that the pool keeps.",
        ("pool_name",),
        multiprocess="livesum",
    ),
    Metric(
        "rag_database_connection_pool_max",
        "gauge",
        "Connections that the pool may open.",
        ("pool_name",),
        multiprocess="livesum",
    ),
    Metric(
        "rag_database_connection_pool_in_use",
        "gauge",
        "Connections checked out of the pool.",
        ("pool_name",),
        multiprocess="livesum",
    ),
    Metric(
        "rag_background_jobs_queued",
        "gauge",
        "Background jobs that wait.",
        ("job_type",),
        multiprocess="livesum",
    ),
    Metric(
        "rag_active_users",
        "gauge",
        "Distinct hashed user ids in the window; off unless the application turns it on.",
        ("window",),
        # A user may be seen by several workers: their numbers must not be added.
        multiprocess="livemax",
    ),
    Metric(
        "rag_event_loop_lag_seconds",
        "histogram",
        "Time between due and run of a timer of the event loop in seconds.",
        (),
        (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    ),
)

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}

SAMPLES: Mapping[str, tuple[str, ...]] = {
    name: labels for metric in METRICS for name, labels in metric.samples()
}
"""Every sample name that a query may ask for, with its labels (without those of the scrape)."""
