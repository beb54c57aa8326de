"""Which span is current in a context: OpenTelemetry looked up where it is loaded, never imported.

The API keeps its context in one `ContextVar`, and the current span in it under one key. Both are
private names that have not changed since 1.0; where they are missing, labels are unknown.
"""

from __future__ import annotations

import contextvars
import sys
from typing import Any

Label = tuple[str, str]
"""(trace id, span id), 32 and 16 hex digits; two empty strings when unknown."""

UNKNOWN: Label = ("", "")


class SpanReader:
    """Reads labels from contexts; knows nothing until OpenTelemetry has been imported."""

    def __init__(self) -> None:
        self.variable: contextvars.ContextVar[Any] | None = None
        self.runtime: Any = None  # OpenTelemetry's runtime context, once it is loaded
        self._key = ""

    def ready(self) -> bool:
        """Whether OpenTelemetry is loaded; looks again as long as it is not."""
        if self.variable is not None:
            return True
        context = sys.modules.get("opentelemetry.context")
        propagation = sys.modules.get("opentelemetry.trace.propagation")
        runtime = getattr(context, "_RUNTIME_CONTEXT", None)
        variable = getattr(runtime, "_current_context", None)
        key = getattr(propagation, "_SPAN_KEY", "")
        if not key or not isinstance(variable, contextvars.ContextVar):
            return False
        self._key, self.runtime, self.variable = key, runtime, variable
        return True

    def current(self) -> Label:
        """Label of the context that runs now: in a signal handler, that of the running task."""
        if self.variable is None:
            return UNKNOWN
        return self.of(self.variable.get(None))

    def in_context(self, context: contextvars.Context | None) -> Label:
        """Label of a context object, also of one that another thread has entered."""
        if self.variable is None or context is None:
            return UNKNOWN
        return self.of(context.get(self.variable))

    def of(self, value: Any) -> Label:
        """Label of a value of OpenTelemetry's context variable."""
        span = value.get(self._key) if value else None
        if span is None:
            return UNKNOWN
        ids = span.get_span_context()
        if not ids.trace_id or not ids.span_id:
            return UNKNOWN
        return f"{ids.trace_id:032x}", f"{ids.span_id:016x}"
