"""The names under which logging libraries and shippers write what every log record has."""

from __future__ import annotations

from ragprof.sources.otlp import REQUEST_ID_KEYS

TIMES = ("timestamp", "@timestamp", "time", "ts", "asctime", "created", "datetime", "date")
LEVELS = ("level", "severity", "levelname", "log.level", "log_level", "lvl", "level_name")
BODIES = ("event", "message", "msg", "body", "text")
SERVICES = ("service", "service.name", "service_name", "dd.service", "otelServiceName")
TRACES = (
    "trace_id", "traceid", "otelTraceID", "trace.id", "dd.trace_id", "traceId", "trace", "TraceId",
)  # fmt: skip
SPANS = (
    "span_id", "spanid", "otelSpanID", "span.id", "dd.span_id", "spanId", "span", "SpanId",
)  # fmt: skip
REQUEST_IDS = (*REQUEST_ID_KEYS, "requestId", "correlation_id", "x_request_id")


def severity_of_number(level: int) -> str:
    """What a numeric level means: the standard library counts 10 to 50, pino the same with
    trace 10 and fatal 60.
    """
    for limit, name in ((10, "debug"), (20, "info"), (30, "warn"), (40, "error")):
        if level <= limit:
            return name
    return "fatal"
