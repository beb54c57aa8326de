"""What the telemetry of this process calls itself, and the trace that runs now."""

from __future__ import annotations

import os

from opentelemetry import trace


def service_name() -> str:
    """What the traces of this process call the service; empty when nobody has said."""
    if named := os.environ.get("OTEL_SERVICE_NAME", ""):
        return named
    resource = getattr(trace.get_tracer_provider(), "resource", None)
    return str(resource.attributes.get("service.name", "")) if resource is not None else ""


def current_trace() -> str:
    """The trace id of the current span, sampled or not; empty without one."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
