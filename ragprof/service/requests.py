"""Counting and timing HTTP requests: the ASGI middleware, and the decorator for one endpoint."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from opentelemetry import trace

from ragprof.service.asgi import (
    CLIENT_CLOSED,
    ASGIApp,
    Outcome,
    Receive,
    Scope,
    Send,
    follow,
    follow_websocket,
)
from ragprof.service.collectors import (
    active_requests,
    exemplar,
    http_request_duration,
    http_requests,
)
from ragprof.service.exposition import METRICS_PATH
from ragprof.service.routes import RouteTable

P = ParamSpec("P")
R = TypeVar("R")


class MetricsMiddleware:
    """Counts and times every HTTP request; install it with `app.add_middleware`.

    The endpoint label is the route template. A streamed answer is timed to its last byte, and
    background tasks are not part of the time. A web socket counts once, when its handshake is
    answered (status 101, or that of the refusal), and is not timed. `endpoint` names the endpoint
    from the scope in applications without Starlette's routes; it must return few distinct values.
    """

    def __init__(
        self,
        app: ASGIApp,
        exclude: tuple[str, ...] = (METRICS_PATH,),
        endpoint: Callable[[Scope], str] | None = None,
    ) -> None:
        self.app = app
        self.exclude = frozenset(exclude)
        self.endpoint = endpoint
        self.routes = RouteTable()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket") or scope["path"] in self.exclude:
            await self.app(scope, receive, send)
            return
        # Routing comes later; until then a request counts under the route that will take it.
        expected = self.endpoint(scope) if self.endpoint else self.routes.expected(scope)
        if kind == "websocket":

            def answered(status: int) -> None:
                http_requests.labels("GET", expected, str(status)).inc()

            await follow_websocket(self.app, scope, receive, send, on_handshake=answered)
            return
        server_span = trace.get_current_span()
        in_progress = active_requests.labels(expected)

        def end(outcome: Outcome) -> None:
            in_progress.dec()
            taken = expected if self.endpoint else self.routes.taken(scope, expected)
            record_request(scope["method"], taken, outcome.status, outcome.seconds, server_span)

        in_progress.inc()
        await follow(self.app, scope, receive, send, end)


def record_request(
    method: str, endpoint: str, status: int, seconds: float, span: trace.Span | None = None
) -> None:
    """Count and time one request; `span` is its server span, for the exemplar."""
    http_requests.labels(method, endpoint, str(status)).inc()
    http_request_duration.labels(method, endpoint).observe(seconds, exemplar=exemplar(span))


def track_request_metrics(endpoint: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate one endpoint (async or sync) instead of installing the middleware.

    The status code is that of a returned response (`status_code`), of a raised HTTP error
    (`status_code` of the exception), else 200; 500 for any other exception, 499 when cancelled.
    The method is that of a request among the arguments, else `other`.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def tracked(*args: P.args, **kwargs: P.kwargs) -> Any:
                with _tracked(endpoint, args, kwargs) as status:
                    result = await function(*args, **kwargs)
                    status[0] = _status(result, 200)
                    return result

            return tracked  # type: ignore[return-value]

        @functools.wraps(function)
        def tracked_sync(*args: P.args, **kwargs: P.kwargs) -> R:
            with _tracked(endpoint, args, kwargs) as status:
                result = function(*args, **kwargs)
                status[0] = _status(result, 200)
                return result

        return tracked_sync

    return decorate


@contextmanager
def _tracked(
    endpoint: str, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> Iterator[list[int]]:
    status = [500]
    in_progress = active_requests.labels(endpoint)
    in_progress.inc()
    started = time.perf_counter()
    try:
        yield status
    except asyncio.CancelledError:
        status[0] = CLIENT_CLOSED
        raise
    except Exception as error:
        status[0] = _status(error, 500)
        raise
    finally:
        in_progress.dec()
        seconds = time.perf_counter() - started
        record_request(_method(arguments, keywords), endpoint, status[0], seconds)


def _status(result: object, default: int) -> int:
    status = getattr(result, "status_code", default)
    return status if isinstance(status, int) else default


def _method(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str:
    for value in (*arguments, *keywords.values()):
        method = getattr(value, "method", None)
        if isinstance(method, str) and hasattr(value, "headers"):
            return method
    return "other"
