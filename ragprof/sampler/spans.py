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
_MAX_LABELS = 2_000


class SpanReader:
    """Reads labels from contexts; knows nothing until OpenTelemetry has been imported."""

    def __init__(self) -> None:
        self.variable: contextvars.ContextVar[Any] | None = None
        self.runtime: Any = None  # OpenTelemetry's runtime context, once it is loaded
        self._key = ""
        self._labels: dict[int, tuple[int, Label]] = {}  # by span id: the trace id, and the label

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
        trace_id, span_id = ids.trace_id, ids.span_id
        known = self._labels.get(span_id)
        if known is not None and known[0] == trace_id:
            return known[1]
        if not trace_id or not span_id:
            return UNKNOWN
        label = f"{trace_id:032x}", f"{span_id:016x}"
        if len(self._labels) >= _MAX_LABELS:
            self._labels.clear()
        self._labels[span_id] = (trace_id, label)
        return label
