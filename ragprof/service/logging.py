"""Structured logging: JSON lines that join with traces.

Every line carries `trace_id` and `span_id` of the current span, also the lines of standard-library
and uvicorn loggers, which go through the same pipeline.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from typing import TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from ragprof.service.asgi import ASGIApp, Message, Receive, Scope, Send

QUERY_TEXT_LIMIT = 100


def setup_logging(
    level: str = "INFO", json_logs: bool | None = None, stream: TextIO | None = None
) -> None:
    """Configure structlog and the standard library to one pipeline on `stream` (stdout).

    JSON unless `json_logs` is False or, when it is None, the environment variable
    `ENVIRONMENT` is `development`, which gives the console form.
    """
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
            additional_ignores=[__name__],
        ),
        add_trace_context,
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    rendered: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if json_logs
        else [structlog.dev.ConsoleRenderer()]
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
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel("NOTSET")
        logging.getLogger(name).propagate = True
    # LoggingMiddleware logs each request with its ids; uvicorn's own line would double it.
    logging.getLogger("uvicorn.access").setLevel("WARNING")
    # One line per outgoing request would drown the service's own; the client span has it.
    logging.getLogger("httpx").setLevel("WARNING")


def add_trace_context(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The structlog processor that adds `trace_id` and `span_id` (empty outside of a span)."""
    context = trace.get_current_span().get_span_context()
    event["trace_id"] = f"{context.trace_id:032x}" if context.is_valid else ""
    event["span_id"] = f"{context.span_id:016x}" if context.is_valid else ""
    return event


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of the configured pipeline."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


class LoggingMiddleware:
    """Binds `request_id`, method, path and client to every line of a request and logs its course.

    Pure ASGI. The request id comes from `X-Request-ID` (at most 128 printable characters) or is
    new; it is returned in the response and set on the server span, so that lines, spans and the
    caller's own logs join. Install it with `app.add_middleware`.
    """

    def __init__(self, app: ASGIApp, exclude: tuple[str, ...] = ("/metrics", "/health")) -> None:
        self.app = app
        self.exclude = exclude
        self.log = get_logger("ragprof.service.request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.exclude:
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        client = scope.get("client")
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            request_id=request_id,
            method=scope["method"],
            path=scope["path"],
            client_host=client[0] if client else "",
        )
        trace.get_current_span().set_attribute("request.id", request_id)
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        started = time.perf_counter()
        self.log.info("request_started")
        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            self.log.exception("request_failed", duration_ms=_ms_since(started))
            raise
        self.log.info("request_completed", status_code=status, duration_ms=_ms_since(started))


def _request_id(scope: Scope) -> str:
    for name, value in scope.get("headers", ()):
        if name == b"x-request-id":
            given = str(value.decode("latin-1"))
            if given.isascii() and given.isprintable() and 0 < len(given) <= 128:
                return given
    return uuid.uuid4().hex


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


class EventLogger:
    """The domain events of a RAG service, one method each."""

    def __init__(self, name: str = "ragprof.service.events", log_query_text: bool = True) -> None:
        self.log = get_logger(name)
        self.log_query_text = log_query_text

    def log_document_processed(
        self,
        document_id: str,
        chunks_created: int,
        processing_time_ms: float,
        embedding_model: str,
    ) -> None:
        """A document became chunks with embeddings."""
        self.log.info(
            "document_processed",
            document_id=document_id,
            chunks_created=chunks_created,
            processing_time_ms=round(processing_time_ms, 3),
            embedding_model=embedding_model,
        )

    def log_search_performed(
        self,
        query_id: str,
        query_text: str,
        strategy: str,
        results_count: int,
        avg_score: float,
        total_time_ms: float,
    ) -> None:
        """A search was answered; the text is cut to 100 characters, or left out by choice."""
        self.log.info(
            "search_performed",
            query_id=query_id,
            query_text=query_text[:QUERY_TEXT_LIMIT] if self.log_query_text else "",
            strategy=strategy,
            results_count=results_count,
            avg_score=round(avg_score, 4),
            total_time_ms=round(total_time_ms, 3),
        )
