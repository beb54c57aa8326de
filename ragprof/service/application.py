"""Everything in one line: `app = instrument(app, "rag-api")`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ragprof.errors import RagprofError
from ragprof.service.asgi import ASGIApp, Message, Receive, Scope, Send
from ragprof.service.eventloop import watch_event_loop
from ragprof.service.exposition import METRICS_PATH, MetricsEndpoint
from ragprof.service.logging import (
    LoggingMiddleware,
    adopt_server_loggers,
    get_logger,
    setup_logging,
)
from ragprof.service.profiling import setup_profiling
from ragprof.service.prometheus_queries import Prometheus
from ragprof.service.requests import MetricsMiddleware
from ragprof.service.server_spans import is_contrib, is_fastapi
from ragprof.service.tracing import setup_tracing

UNOBSERVED = (METRICS_PATH, "/health")

_SEEN = "ragprof.observed"


class InstrumentationError(RagprofError):
    """An application cannot be instrumented as asked."""


def instrument(
    app: Any,
    service_name: str,
    *,
    version: str = "",
    environment: str = "",
    metrics: bool = True,
    logging: bool = True,
    tracing: bool = True,
    event_loop: bool = True,
    exclude: tuple[str, ...] = UNOBSERVED,
    endpoint: Callable[[Scope], str] | None = None,
    otlp_endpoint: str | None = None,
    sample_ratio: float | None = None,
    sampler: str | os.PathLike[str] | None = None,
    profiling: Mapping[str, Any] | None = None,
    analytics: Prometheus | str | None = None,
) -> Any:
    """Observe a FastAPI, Starlette or plain ASGI application; returns what the server should run.

    That is `app` itself for FastAPI and Starlette, and a wrapped application otherwise. Call it
    in the main thread, before the application starts.

    - `metrics`: every request counted and timed, and `/metrics`; `endpoint` names a request's
      endpoint in applications without Starlette's routes (few distinct values).
    - `logging`: `setup_logging`, and the lines of each request; answers carry `X-Request-ID`.
    - `tracing`: `setup_tracing` with `otlp_endpoint` and `sample_ratio`.
    - `event_loop`: the lag of the loop is measured.
    - `exclude`: paths that are neither counted, logged nor traced.
    - `sampler`: folder for the stacks of this process, for a recording.
    - `profiling`: options of `setup_profiling`; it stays off without a token.
    - `analytics`: the Prometheus that answers `/api/v1/analytics` (FastAPI only).

    Each part is also to be had on its own, from `ragprof.service.metrics`, `.logging`,
    `.tracing`, `.profiling` and `.analytics`. Raises `InstrumentationError` for an application
    that has started, and for `analytics` without FastAPI.
    """
    outside, app = app, _inside_contrib(app)
    if analytics is not None and not is_fastapi(app):
        raise InstrumentationError("The analytics API is a FastAPI router: this is no FastAPI.")
    if getattr(app, "middleware_stack", None) is not None:
        raise InstrumentationError(
            f"{service_name} has handled a request already: call instrument() before it starts."
        )
    layers = Layers()
    if logging:
        setup_logging(service=service_name)
        layers.add_middleware(LoggingMiddleware, exclude=exclude)
    if metrics:
        layers.add_middleware(MetricsMiddleware, exclude=exclude, endpoint=endpoint)
    _start_sampler(sampler or os.environ.get("RAGPROF_SPOOL"))
    setup_profiling(layers, **(profiling or {}))
    if tracing:
        setup_tracing(
            app if is_fastapi(app) else layers,
            service_name,
            otlp_endpoint,
            version,
            environment=environment,
            sample_ratio=sample_ratio,
            exclude=exclude,
        )
    if metrics:
        layers.add_middleware(MetricsEndpoint)
    if analytics is not None:
        from ragprof.service.analytics import analytics_router

        app.include_router(analytics_router(analytics))
    if hasattr(app, "add_middleware"):
        app.add_middleware(Observed, layers=layers, event_loop=event_loop)
        return outside
    observed = Observed(app, layers, event_loop)
    if outside is app:
        return observed
    _innermost_contrib(outside).app = observed
    return outside


def _inside_contrib(app: Any) -> Any:
    """What contrib's ASGI instrumentation wraps: the layers belong inside its server span."""
    return _innermost_contrib(app).app if is_contrib(app) else app


def _innermost_contrib(app: Any) -> Any:
    while is_contrib(app.app):
        app = app.app
    return app


class Layers:
    """Middlewares that are put around an application together, the last one outermost."""

    def __init__(self) -> None:
        self._layers: list[tuple[Callable[..., ASGIApp], dict[str, Any]]] = []

    def add_middleware(self, middleware: Callable[..., ASGIApp], **options: Any) -> None:
        """As Starlette's."""
        self._layers.append((middleware, options))

    def around(self, app: ASGIApp) -> ASGIApp:
        """`app` inside all of them."""
        for middleware, options in self._layers:
            app = middleware(app, **options)
        return app


class Observed:
    """The layers as one middleware, which observes each request once.

    As an ordinary middleware it stands inside Starlette's handling of unhandled errors: it would
    see neither the answer to them, nor put the request id there. So, when the application starts,
    it puts the layers around that handling, inside every server span, and then only passes on.
    """

    def __init__(self, app: ASGIApp, layers: Layers, event_loop: bool = True) -> None:
        self.app = app
        self.layers = layers
        self.event_loop = event_loop
        self.observed = layers.around(app)
        self._watcher: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif _SEEN in scope:
            await self.app(scope, receive, send)
        else:
            scope[_SEEN] = True
            if self.event_loop and self._loop is not asyncio.get_running_loop():
                self._watch()  # served without lifespan
            await self.observed(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        adopt_server_loggers()
        self._lift(scope.get("app"))

        async def started(message: Message) -> None:
            # What holds the loop during start-up (models, caches) makes nobody wait.
            if self.event_loop and message["type"] == "lifespan.startup.complete":
                self._watch()
            await send(message)

        try:
            await self.app(scope, receive, started)
        finally:
            watcher, self._watcher = self._watcher, None
            if watcher is not None:
                watcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watcher

    def _watch(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watcher = self._loop.create_task(watch_event_loop(), name="ragprof-event-loop-lag")

    def _lift(self, app: Any) -> None:
        parent, name, node = app, "middleware_stack", getattr(app, "middleware_stack", None)
        found = None
        while node is not None and node is not self:
            if isinstance(node, _Lifted):
                return
            if type(node).__name__ == "ServerErrorMiddleware":
                found = parent, name, node
            parent, name, node = node, "app", getattr(node, "app", None)
        if node is self and found is not None:
            parent, name, inside = found
            setattr(parent, name, _Lifted(inside, self.layers))


class _Lifted:
    """The layers around the handling of errors; marks each request as observed."""

    def __init__(self, app: ASGIApp, layers: Layers) -> None:
        self.app = app
        self.observed = layers.around(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _SEEN in scope:
            await self.app(scope, receive, send)
        else:
            scope[_SEEN] = True
            await self.observed(scope, receive, send)


def _start_sampler(folder: str | os.PathLike[str] | None) -> None:
    if not folder:
        return
    from ragprof import sampler
    from ragprof.sampler import sharing

    if sharing.running() is not None:  # a recorder was first
        return
    if threading.current_thread() is not threading.main_thread():
        get_logger(__name__).warning("sampler_not_started", reason="not in the main thread")
        return
    started = sampler.start(os.fspath(folder))
    if not started.running:
        get_logger(__name__).warning("sampler_not_started", reason=started.disabled)
