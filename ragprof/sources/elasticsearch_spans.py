"""Span documents of Elasticsearch -> rows of `spans`: Jaeger's, OpenTelemetry's, Elastic APM's.

Each kind is told by its fields. Times keep every digit that the document has: Jaeger and APM
store microseconds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from ragprof.sources import jaeger_spans
from ragprof.sources.elasticsearch_pages import Document
from ragprof.sources.ids import span_id, trace_id
from ragprof.sources.otlp import Pairs
from ragprof.sources.span_rows import SpanRows
from ragprof.sources.times import time_ns


@dataclass(frozen=True)
class Kind:
    """How one writer of span documents names things.

    time: the indexed date field. exists: a field that all its documents have. trace, service,
    operation, duration: fields to search by; unit: ns in one unit of `duration`. root: a query for
    the spans without a parent.
    """

    name: str
    time: str
    exists: str
    trace: str
    service: tuple[str, ...]
    operation: tuple[str, ...]
    duration: tuple[str, ...]
    unit: int
    tags: tuple[str, ...]  # prefixes of an attribute's field
    parent: str
    read: Callable[[dict[str, Any], SpanRows], None]


def rows(kind: Kind, documents: list[Document]) -> tuple[pa.Table, Counter[str]]:
    """Rows of `spans` without the key columns, and what was refused: reason -> documents."""
    made = SpanRows()
    for document in documents:
        try:
            kind.read(decoded(document), made)
        except (TypeError, ValueError, AttributeError, KeyError, IndexError):
            made.refused[f"document that is not a span of {kind.name}"] += 1
    return made.table(), made.refused


def decoded(document: Document) -> dict[str, Any]:
    """A whole document."""
    return {key: msgspec.json.decode(value) for key, value in document.items()}


def flat(content: Mapping[str, Any], prefix: str = "") -> Pairs:
    """Objects as dotted names with texts; arrays stay JSON; null is left out."""
    pairs: Pairs = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            pairs += flat(value, f"{name}.")
        elif value is not None:
            pairs.append((name, plain_text(value)))
    return pairs


def plain_text(value: Any) -> str:
    """A value of JSON as text: strings as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def field_of(content: Mapping[str, Any], path: str) -> Any:
    """What a dotted name holds, whether it is nested, dotted, or partly both; None if absent."""
    if path in content:
        return content[path]
    head, dot, rest = path.partition(".")
    while dot:
        inner = content.get(head)
        if isinstance(inner, dict):
            found = field_of(inner, rest)
            if found is not None:
                return found
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def _text_of(content: Mapping[str, Any], *paths: str) -> str:
    for path in paths:
        value = field_of(content, path)
        if value is not None and not isinstance(value, dict):
            return plain_text(value)
    return ""


def _read_jaeger(content: dict[str, Any], made: SpanRows) -> None:
    process = content.get("process") or {}
    jaeger_spans.add(made, content, process, tag_of=content.get("tag"))


def _read_otel(content: dict[str, Any], made: SpanRows) -> None:
    start = time_ns(_text_of(content, "@timestamp", "start_timestamp", "startTimeUnixNano"))
    duration = field_of(content, "duration")
    if duration is None:
        end = time_ns(_text_of(content, "end_timestamp", "@endTimestamp"))
        duration = None if end is None or start is None else end - start
    resource = dict(flat(field_of(content, "resource.attributes") or {}))
    status = _text_of(content, "status.code").lower().removeprefix("status_code_")
    made.add(
        trace=trace_id(field_of(content, "trace_id")),
        span=span_id(field_of(content, "span_id")),
        parent=span_id(field_of(content, "parent_span_id")),
        service=resource.get("service.name", "") or _text_of(content, "service.name"),
        scope=_text_of(content, "scope.name"),
        name=_text_of(content, "name"),
        kind=_text_of(content, "kind").lower().removeprefix("span_kind_"),
        start=start,
        duration=None if duration is None else int(duration),
        status=status,
        status_message=_text_of(content, "status.message"),
        attributes=flat(field_of(content, "attributes") or {}),
        resource=list(resource.items()),
        events=[],
        links=[
            {
                "trace_id": trace_id(link.get("trace_id")),
                "span_id": span_id(link.get("span_id")),
                "attributes": dict(flat(link.get("attributes") or {})),
            }
            for link in field_of(content, "links") or []
        ],
    )


_APM_KINDS = {"request": "server", "messaging": "consumer"}
_APM_OWN = ("transaction.", "span.", "parent.", "trace.", "timestamp.", "processor.", "event.")


def _read_apm(content: dict[str, Any], made: SpanRows) -> None:
    event = _text_of(content, "processor.event")
    is_span = event == "span" or (not event and field_of(content, "span.duration.us") is not None)
    what = "span" if is_span else "transaction"
    start = field_of(content, "timestamp.us")
    outcome = _text_of(content, "event.outcome")
    kind = _text_of(content, "span.kind").lower()
    of_type = _text_of(content, f"{what}.type")
    attributes = [
        (key.removeprefix("labels.").removeprefix("numeric_labels."), value)
        for key, value in flat(content)
        if not key.startswith(_APM_OWN) and key != "@timestamp"
    ]
    for key in ("type", "subtype", "action", "result"):
        value = _text_of(content, f"{what}.{key}")
        if value:
            attributes.append((f"{what}.{key}", value))
    made.add(
        trace=trace_id(field_of(content, "trace.id")),
        span=span_id(field_of(content, f"{what}.id")),
        parent=span_id(field_of(content, "parent.id")),
        service=_text_of(content, "service.name"),
        scope=_text_of(content, "service.framework.name", "agent.name"),
        name=_text_of(content, f"{what}.name"),
        kind=kind
        or ("client" if is_span and of_type in ("db", "external") else _APM_KINDS.get(of_type, ""))
        or "internal",
        start=int(start) * 1000 if start is not None else time_ns(_text_of(content, "@timestamp")),
        duration=round(float(field_of(content, f"{what}.duration.us")) * 1000),
        status={"failure": "error", "success": "ok"}.get(outcome, "unset"),
        status_message="",
        attributes=list(dict(attributes).items()),
        resource=[],
        events=[],
        links=[],
    )


JAEGER = Kind(
    "Jaeger",
    time="startTimeMillis",
    exists="traceID",
    trace="traceID",
    service=("process.serviceName",),
    operation=("operationName",),
    duration=("duration",),
    unit=1000,
    tags=("tag.",),
    parent="references.spanID",
    read=_read_jaeger,
)
OTEL = Kind(
    "OpenTelemetry",
    time="@timestamp",
    exists="span_id",
    trace="trace_id",
    service=("resource.attributes.service.name", "service.name"),
    operation=("name",),
    duration=("duration",),
    unit=1,
    tags=("attributes.", "resource.attributes."),
    parent="parent_span_id",
    read=_read_otel,
)
APM = Kind(
    "Elastic APM",
    time="@timestamp",
    exists="timestamp.us",
    trace="trace.id",
    service=("service.name",),
    operation=("transaction.name", "span.name"),
    duration=("transaction.duration.us", "span.duration.us"),
    unit=1000,
    tags=("labels.", ""),
    parent="parent.id",
    read=_read_apm,
)
KINDS_OF_SPANS = (JAEGER, OTEL, APM)
