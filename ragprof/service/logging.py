"""Structured logging: JSON lines that join with traces.

Every line carries `trace_id` and `span_id` of the current span, also the lines of standard-library,
uvicorn and gunicorn loggers, which go through the same pipeline.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import uuid
from typing import Any, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from ragprof.service.asgi import ASGIApp, Outcome, Receive, Scope, Send, follow, follow_websocket
from ragprof.service.events import QUERY_TEXT_LIMIT, EventLogger

__all__ = [
    "QUERY_TEXT_LIMIT",
    "EventLogger",
    "LoggingMiddleware",
    "adopt_server_loggers",
    "get_logger",
    "setup_logging",
]

REQUEST_ID_LIMIT = 128
MAX_FRAMES = 50

_SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access", "gunicorn.error")
_configured = False


def setup_logging(
    level: str = "INFO",
    json_logs: bool | None = None,
    stream: TextIO | None = None,
    service: str = "",
) -> None:
    """Configure structlog and the standard library to one pipeline on `stream` (stdout).

    JSON unless `json_logs` is False or, when it is None, the environment variable
    `ENVIRONMENT` is `development`, which gives the console form. `service` is added to every line.
    The handlers of the root logger are replaced.
    """
    global _configured
    if json_logs is None:
        json_logs = os.environ.get("ENVIRONMENT", "production") != "development"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.CallsiteParameterAdder(
            [
                structlog.processors.CallsiteParameter.FILENAME,
                structlog.processors.CallsiteParameter.FUNC_NAME,
                structlog.processors.CallsiteParameter.LINENO,
            ],
            additional_ignores=[EventLogger.__module__],
        ),
        add_trace_context,
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.PositionalArgumentsFormatter(),
        _drop_colours,
    ]
    if service:
        shared.insert(0, _named(service))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # Local variables stay out of tracebacks: they hold questions, keys and passwords.
    tracebacks = structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=MAX_FRAMES)
    )
    rendered: list[Processor] = (
        [tracebacks, render_json] if json_logs else [structlog.dev.ConsoleRenderer()]
    )
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # One line per outgoing request would drown the service's own; the client span has it.
    logging.getLogger("httpx").setLevel("WARNING")
    _configured = True
    adopt_server_loggers()


def adopt_server_loggers() -> None:
    """Send the lines of uvicorn and gunicorn through the pipeline of `setup_logging`.

    Servers configure their loggers when they start, which may be after `setup_logging`; so the
    middleware calls this again when the application starts. Without `setup_logging` it does
    nothing.
    """
    if not _configured:
        return
    for name in _SERVERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel("NOTSET")
        logger.propagate = True
    # LoggingMiddleware logs each request with its ids; the servers' own lines would double it.
    for name in ("uvicorn.access", "gunicorn.access"):
        logging.getLogger(name).setLevel("WARNING")
    config = sys.modules.get("uvicorn.config")
    if config is not None:  # a server that starts later configures from here
        for entry in config.LOGGING_CONFIG.get("loggers", {}).values():
            entry.update(handlers=[], level="NOTSET", propagate=True)
        config.LOGGING_CONFIG["loggers"]["uvicorn.access"]["level"] = "WARNING"


def _named(service: str) -> Processor:
    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    return add_service


def add_trace_context(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The structlog processor that adds `trace_id` and `span_id` of the current span.

    Outside of every span those of the request's server span stay, which `LoggingMiddleware`
    binds; without a request both are empty.
    """
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    else:
        event.setdefault("trace_id", "")
        event.setdefault("span_id", "")
    return event


def _drop_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)  # uvicorn's message again, with escape sequences
    return event


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One line of strict JSON whatever was logged: NaN is null, unknown objects are their repr."""
    try:
        return json.dumps(event, default=repr, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(_plain(dict(event), 8), default=repr)


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if depth == 0:
        return "..."
    if isinstance(value, dict):
        return {str(key): _plain(each, depth - 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, depth - 1) for each in value]
    return repr(value)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of the configured pipeline."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


class LoggingMiddleware:
    """Binds `request_id`, method, path and client to every line of a request and logs its course.

    Pure ASGI. The request id comes from `X-Request-ID` (at most 128 printable characters) or is
    new; it is returned in the response and set on the server span, so that lines, spans and the
    caller's own logs join. Events: `request_started`; `request_completed` with `status_code` and
    `duration_ms` (to the last byte); `request_failed` with `reason` for an error, a cancelled
    request, and a client that left; `background_task_failed` for an error after the last byte. A
    web socket is one request with the method WEBSOCKET. Install it with `app.add_middleware`.
    """

    def __init__(self, app: ASGIApp, exclude: tuple[str, ...] = ("/metrics", "/health")) -> None:
        self.app = app
        self.exclude = frozenset(exclude)
        self.log = get_logger("ragprof.service.request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            adopt_server_loggers()
        if kind not in ("http", "websocket") or scope["path"] in self.exclude:
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        before = structlog.contextvars.get_contextvars()
        structlog.contextvars.clear_contextvars()
        client = scope.get("client")
        structlog.contextvars.bind_contextvars(
            request_id=request_id,
            method=scope["method"] if kind == "http" else "WEBSOCKET",
            path=scope["path"],
            client_host=client[0] if client else "",
            **_server_span(request_id),
        )
        self.log.info("request_started")
        header = (b"x-request-id", request_id.encode())
        try:
            if kind == "http":
                await self._http(scope, receive, send, header)
            else:
                await self._websocket(scope, receive, send, header)
        except BaseException:
            # The server logs the error next, in this context: without other requests' variables
            # in it, the request's own stay, so that this line joins too.
            if before:
                _restore(before)
            raise
        _restore(before)

    async def _http(
        self, scope: Scope, receive: Receive, send: Send, header: tuple[bytes, bytes]
    ) -> None:
        answered = False

        def end(outcome: Outcome) -> None:
            nonlocal answered
            answered = outcome.end == "completed"
            self._ended(outcome)

        try:
            await follow(self.app, scope, receive, send, end, header)
        except Exception:
            if answered:
                self.log.exception("background_task_failed")
            raise

    async def _websocket(
        self, scope: Scope, receive: Receive, send: Send, header: tuple[bytes, bytes]
    ) -> None:
        await follow_websocket(self.app, scope, receive, send, on_end=self._ended, header=header)

    def _ended(self, outcome: Outcome) -> None:
        fields: dict[str, Any] = {
            "status_code": outcome.status,
            "duration_ms": round(outcome.seconds * 1000, 3),
        }
        if outcome.close_code is not None:
            fields["close_code"] = outcome.close_code
        if outcome.end == "completed":
            self.log.info("request_completed", **fields)
        elif outcome.end == "failed":
            reason = "error" if outcome.error else "no_response"
            self.log.error("request_failed", reason=reason, exc_info=outcome.error, **fields)
        else:
            self.log.warning("request_failed", reason=outcome.end, **fields)


def _restore(variables: dict[str, Any]) -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**variables)


def _server_span(request_id: str) -> dict[str, str]:
    """The ids of the server span, which learns the request id."""
    span = trace.get_current_span()
    context = span.get_span_context()
    if not context.is_valid:
        return {}
    span.set_attribute("request.id", request_id)
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _request_id(scope: Scope) -> str:
    for name, value in scope.get("headers", ()):
        if name == b"x-request-id":
            given = str(value.decode("latin-1"))
            if given.isascii() and given.isprintable() and 0 < len(given) <= REQUEST_ID_LIMIT:
                return given
    return uuid.uuid4().hex
