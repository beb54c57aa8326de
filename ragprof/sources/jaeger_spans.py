"""Spans in Jaeger's own JSON (the UI's API, saved traces, documents in Elasticsearch) -> rows.

Times are microseconds. Jaeger keeps kind, status and scope among the tags, as OpenTelemetry's
mapping to Jaeger wrote them there; they become columns again. Its v2 puts the resource into the
process's tags.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from ragprof.sources.ids import span_id, trace_id
from ragprof.sources.otlp import Pairs
from ragprof.sources.span_rows import SpanRows, distinct

_OWN = {
    "span.kind",
    "otel.status_code",
    "otel.status_description",
    "otel.scope.name",
    "otel.library.name",
    "internal.span.format",
    "w3c.tracestate",
}


def add(
    made: SpanRows,
    span: Mapping[str, Any],
    process: Mapping[str, Any],
    *,
    tag_of: Mapping[str, Any] | None = None,
) -> None:
    """One span and its process as a row.

    `tag_of`: tags as an object, in which Elasticsearch keeps those that are searched for. Raises
    TypeError, ValueError or KeyError for what is no span of Jaeger.
    """
    tags = _tags(span.get("tags"))
    for key, value in (tag_of or {}).items():
        tags.setdefault(key.replace("@", "."), _text(value, ""))
    own_trace = trace_id(span["traceID"])
    parent, links = _references(span, own_trace)
    own = {key: tags.pop(key, "") for key in _OWN}
    failed = tags.get("error", "").lower() == "true"
    if failed and own["otel.status_code"]:
        del tags["error"]
    process_tags = _tags(process.get("tags"))
    for key, value in (process.get("tag") or {}).items():
        process_tags.setdefault(key.replace("@", "."), _text(value, ""))
    service = str(process.get("serviceName") or "")
    duration = span.get("duration")
    made.add(
        trace=own_trace,
        span=span_id(span["spanID"]),
        parent=parent,
        service=service,
        scope=own["otel.scope.name"] or own["otel.library.name"],
        name=str(span.get("operationName") or ""),
        kind=own["span.kind"].lower(),
        start=_nanoseconds(span.get("startTime")),
        duration=None if duration is None else _nanoseconds(duration),
        status=own["otel.status_code"].lower() or ("error" if failed else "unset"),
        status_message=own["otel.status_description"],
        attributes=list(tags.items()),
        resource=distinct([("service.name", service), *process_tags.items()]),
        events=[_event(log) for log in span.get("logs") or []],
        links=links,
    )


def _nanoseconds(microseconds: Any) -> int | None:
    if isinstance(microseconds, str):
        return int(microseconds) * 1000
    if isinstance(microseconds, bool) or not isinstance(microseconds, int | float):
        return None
    return int(microseconds * 1000)


def _references(span: Mapping[str, Any], own_trace: str) -> tuple[str, list[dict[str, Any]]]:
    """The parent (the first reference into the same trace), and the others as links."""
    parent, links = span_id(span.get("parentSpanID")), []
    for reference in span.get("references") or []:
        trace, target = trace_id(reference["traceID"]), span_id(reference["spanID"])
        kind = str(reference.get("refType") or "CHILD_OF").upper()
        if not parent and trace == own_trace and kind == "CHILD_OF":
            parent = target
        elif target and target != parent:
            links.append({"trace_id": trace, "span_id": target, "attributes": {}})
    return parent, links


def _event(log: Mapping[str, Any]) -> dict[str, Any]:
    fields = _tags(log.get("fields"))
    name = fields.pop("event", "") or fields.pop("message", "")
    return {"time": _nanoseconds(log.get("timestamp")) or 0, "name": name, "attributes": fields}


def _tags(tags: Any) -> dict[str, str]:
    pairs: Pairs = [
        (str(tag["key"]), _text(tag.get("value"), str(tag.get("type") or ""))) for tag in tags or []
    ]
    return dict(pairs)


def _text(value: Any, type_: str) -> str:
    if isinstance(value, str):
        if type_.lower() == "binary":
            return _binary(value)
        return value
    return json.dumps(value, ensure_ascii=False)


def _binary(value: str) -> str:
    """Binary tags are base64 or, in Elasticsearch, hex; attributes have base64."""
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (ValueError, binascii.Error):
        return value
