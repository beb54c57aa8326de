"""The metrics of a RAG service: the catalogue, the request middleware, `/metrics`.

Names, labels and buckets are those that alerts, dashboards and SLOs are written against. Latency
histograms carry the trace id of the observation as an exemplar (OpenMetrics form only;
prometheus_client drops exemplars in multiprocess mode).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from opentelemetry import trace
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

P = ParamSpec("P")
R = TypeVar("R")

http_requests = Counter(
    "rag_http_requests_total",
    "HTTP requests by route template and status code.",
    ["method", "endpoint", "status_code"],
)
http_request_duration = Histogram(
    "rag_http_request_duration_seconds",
    "Duration of HTTP requests in seconds.",
    ["method", "endpoint"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10),
)
active_requests = Gauge(
    "rag_active_requests",
    "HTTP requests in progress.",
    ["endpoint"],
    multiprocess_mode="livesum",
)
documents_processed = Counter(
    "rag_documents_processed_total",
    "Documents that went through processing.",
    ["file_type", "status", "processing_strategy"],
)
document_chunks_created = Histogram(
    "rag_document_chunks_created",
    "Chunks made from one document.",
    ["file_type"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
document_processing_duration = Histogram(
    "rag_document_processing_duration_seconds",
    "Time to process one document in seconds.",
    ["file_type"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
search_queries = Counter(
    "rag_search_queries_total",
    "Searches; user_type is api, dashboard or internal.",
    ["strategy", "user_type"],
)
search_results = Histogram(
    "rag_search_results",
    "Results per search.",
    ["strategy"],
    buckets=(0, 1, 2, 5, 10, 20, 50, 100),
)
search_relevance_score = Histogram(
    "rag_search_relevance_score",
    "Relevance of the results of a search, 0 to 1.",
    ["strategy"],
    buckets=tuple(n / 10 for n in range(1, 11)),
)
retrieval_latency = Histogram(
    "rag_retrieval_latency_seconds",
    "Time of one retrieval in seconds.",
    ["strategy", "query_complexity"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
generation_latency = Histogram(
    "rag_generation_latency_seconds",
    "Time to generate one answer in seconds.",
    ["model", "prompt_size_category"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
time_to_first_token = Histogram(
    "rag_time_to_first_token_seconds",
    "Time to the first token of a streamed answer in seconds.",
    ["model"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
tokens = Counter(
    "rag_tokens_total", "Tokens; direction is prompt or completion.", ["model", "direction"]
)
cache_hits = Counter("rag_cache_hits_total", "Cache hits.", ["cache_type", "operation"])
cache_misses = Counter("rag_cache_misses_total", "Cache misses.", ["cache_type", "operation"])
embedding_generation_duration = Summary(
    "rag_embedding_generation_duration_seconds",
    "Time to embed one batch in seconds.",
    ["model", "batch_size_category"],
)
reranking_scores = Histogram(
    "rag_reranking_scores",
    "Scores given by the reranker, 0 to 1.",
    ["model", "query_type"],
    buckets=tuple(n / 10 for n in range(1, 11)),
)
database_connection_pool_size = Gauge(
    "rag_database_connection_pool_size",
    "Connections that the pool holds open.",
    ["pool_name"],
    multiprocess_mode="livesum",
)
database_connection_pool_max = Gauge(
    "rag_database_connection_pool_max",
    "Connections that the pool may open.",
    ["pool_name"],
    multiprocess_mode="livesum",
)
database_connection_pool_in_use = Gauge(
    "rag_database_connection_pool_in_use",
    "Connections checked out of the pool.",
    ["pool_name"],
    multiprocess_mode="livesum",
)
background_jobs_queued = Gauge(
    "rag_background_jobs_queued",
    "Background jobs that wait.",
    ["job_type"],
    multiprocess_mode="livesum",
)
active_users = Gauge(
    "rag_active_users",
    "Distinct hashed user ids in the window; off unless the application sets it.",
    ["window"],
    multiprocess_mode="livemostrecent",
)
event_loop_lag = Histogram(
    "rag_event_loop_lag_seconds",
    "Time between due and run of a timer of the event loop in seconds.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)

UNMATCHED = "unmatched"
"""The endpoint label of a request that no route took: raw paths would be unbounded."""


def exemplar() -> dict[str, str] | None:
    """Trace and span id of the current span, for `observe(..., exemplar=...)`; None outside."""
    context = trace.get_current_span().get_span_context()
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


class MetricsMiddleware:
    """Counts and times every HTTP request; install it with `app.add_middleware`.

    Pure ASGI: it starts no task, so context variables set by the endpoint stay visible, and a
    streamed response is timed to its last byte. The endpoint label is the route template.
    """

    def __init__(self, app: ASGIApp, exclude: tuple[str, ...] = ("/metrics",)) -> None:
        self.app = app
        self.exclude = exclude

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.exclude:
            await self.app(scope, receive, send)
            return
        status = 500  # what the server answers when nothing was sent

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # The route is known only once routing is done; until then the request counts here.
        in_progress = active_requests.labels(endpoint=_mounted_route(scope))
        in_progress.inc()
        started = time.perf_counter()
        try:
            await self.app(scope, receive, counted_send)
        finally:
            in_progress.dec()
            _record_request(scope["method"], route_template(scope), status, started)


def _mounted_route(scope: Scope) -> str:
    """The template of the route that will take this request, found as the router does."""
    router = getattr(scope.get("app"), "router", None)
    for route in getattr(router, "routes", ()):
        match, _ = route.matches(scope)
        if match.value == 2:  # starlette.routing.Match.FULL
            return getattr(route, "path", UNMATCHED)
    return UNMATCHED


def route_template(scope: Scope) -> str:
    """The matched route's template with its mount prefix (`/items/{id}`), else `unmatched`."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    if path is None:
        return UNMATCHED
    prefix = scope.get("app_root_path", "")
    root = scope.get("root_path", "")
    mounted = root[len(prefix) :] if root.startswith(prefix) else ""
    return f"{mounted}{path}"


def _record_request(method: str, endpoint: str, status: int, started: float) -> None:
    http_requests.labels(method=method, endpoint=endpoint, status_code=str(status)).inc()
    observe(http_request_duration, time.perf_counter() - started, method=method, endpoint=endpoint)


def track_request_metrics(endpoint: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate one endpoint (async or sync) instead of installing the middleware.

    The status code is that of a returned response (`status_code`), of a raised HTTP error
    (`status_code` of the exception), else 200, and 500 for any other exception.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @contextmanager
        def tracked(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Iterator[list[int]]:
            status = [500]
            started = time.perf_counter()
            active_requests.labels(endpoint=endpoint).inc()
            try:
                yield status
            except Exception as error:
                status[0] = _status(error, 500)
                raise
            finally:
                active_requests.labels(endpoint=endpoint).dec()
                _record_request(_method(arguments, keywords), endpoint, status[0], started)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:
                with tracked(args, kwargs) as status:
                    result = await function(*args, **kwargs)
                    status[0] = _status(result, 200)
                    return result

            return wrapped  # type: ignore[return-value]

        @functools.wraps(function)
        def wrapped_sync(*args: P.args, **kwargs: P.kwargs) -> R:
            with tracked(args, kwargs) as status:
                result = function(*args, **kwargs)
                status[0] = _status(result, 200)
                return result

        return wrapped_sync

    return decorate


def _status(result: object, default: int) -> int:
    status = getattr(result, "status_code", default)
    return status if isinstance(status, int) else default


def _method(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str:
    """The method of a request among the endpoint's arguments; POST is never guessed."""
    for value in (*arguments, *keywords.values()):
        method = getattr(value, "method", None)
        if isinstance(method, str) and hasattr(value, "headers"):
            return method
    return "unknown"


class BusinessMetrics:
    """Recorders of what the service did, in the words of its users."""

    @staticmethod
    def record_search_performed(
        strategy: str,
        query_complexity: str,
        duration: float,
        *,
        user_type: str = "api",
        results: int | None = None,
        relevance: float | None = None,
    ) -> None:
        """One search: `duration` in seconds, `relevance` from 0 to 1."""
        search_queries.labels(strategy=strategy, user_type=user_type).inc()
        observe(retrieval_latency, duration, strategy=strategy, query_complexity=query_complexity)
        if results is not None:
            search_results.labels(strategy=strategy).observe(results)
        if relevance is not None:
            search_relevance_score.labels(strategy=strategy).observe(relevance)

    @staticmethod
    def record_document_processed(
        file_type: str,
        status: str,
        chunks_created: int,
        *,
        processing_strategy: str = "default",
        duration: float | None = None,
    ) -> None:
        """One document: `status` is success or error, `duration` in seconds."""
        documents_processed.labels(
            file_type=file_type, status=status, processing_strategy=processing_strategy
        ).inc()
        document_chunks_created.labels(file_type=file_type).observe(chunks_created)
        if duration is not None:
            document_processing_duration.labels(file_type=file_type).observe(duration)


async def watch_event_loop(interval: float = 0.05) -> None:
    """Measure the lag of the running loop until cancelled: a timer's run minus its due time."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        event_loop_lag.observe(max(0.0, loop.time() - due))


def exposition(accept: str = "") -> tuple[bytes, str]:
    """All metrics and their content type, in the form that the `Accept` header asks for.

    With `PROMETHEUS_MULTIPROC_DIR` set, the sum over the workers (without exemplars).
    """
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


async def metrics_app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/metrics` as an ASGI application, for `app.mount` or `app.add_route`."""
    headers = dict(scope.get("headers", ()))
    body, content_type = exposition(headers.get(b"accept", b"").decode("latin-1"))
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", content_type.encode()),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


class MetricsEndpoint:
    """Answers one path with the metrics and passes everything else on.

    A middleware and not a route: it stands outside routing, tracing of endpoints and
    authentication dependencies, and works in any ASGI application.
    """

    def __init__(self, app: ASGIApp, path: str = "/metrics") -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self.path:
            await metrics_app(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def setup_metrics(app: Any, exclude: tuple[str, ...] = ("/metrics",)) -> None:
    """Install the request metrics and `/metrics` in a Starlette or FastAPI application."""
    app.add_middleware(MetricsMiddleware, exclude=exclude)
    app.add_middleware(MetricsEndpoint)
