"""OTLP traces and logs -> the tables `spans` and `logs`.

Follows opentelemetry-proto 1.x. Ids become lower-case hex, attribute values become text
(structured ones JSON). Messages come from `parse`; metrics are in `otlp_metrics`.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ragprof.errors import RagprofError
from ragprof.sources import otlp_json
from ragprof.tables import LOGS, SPANS

REQUESTS: dict[str, type[Message]] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")
SEVERITIES = ("trace", "debug", "info", "warn", "error", "fatal")
REQUEST_ID_KEYS = ("request_id", "request.id", "http.request.header.x-request-id", "x-request-id")
LATEST_NS = 2**63 - 1  # what a 64-bit timestamp holds: the year 2262

Pairs = list[tuple[str, str]]


class BadPayload(RagprofError):  # a payload is refused, the program has no error
    """A request body that is not the OTLP message it claims to be."""


_pauses = 0
_was_enabled = False
_pause_lock = threading.Lock()


@contextlib.contextmanager
def paused_gc() -> Iterator[None]:
    """Keep the cyclic GC from walking half-decoded rows: they hold no cycles. Nests, any thread."""
    global _pauses, _was_enabled
    with _pause_lock:
        if _pauses == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _pause_lock:
            _pauses -= 1
            if _pauses == 0 and _was_enabled:
                gc.enable()


def parse(signal: str, body: bytes, *, is_json: bool = False) -> Any:
    """The request message of `signal` (traces, logs, metrics) in `body`.

    Raises BadPayload when the bytes are not such a message.
    """
    try:
        if is_json:
            return filled(signal, json.loads(body))
        message = REQUESTS[signal]()
        message.ParseFromString(body)
    except (DecodeError, ValueError, RecursionError) as error:
        raise _bad(signal, "JSON" if is_json else "protobuf", error) from None
    return message


def filled(signal: str, content: Any) -> Any:
    """The request message of `signal` from parsed JSON; raises BadPayload."""
    message = REQUESTS[signal]()
    try:
        otlp_json.fill(message, content)
    except (DecodeError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise _bad(signal, "JSON", error) from None
    return message


def _bad(signal: str, form: str, error: Exception) -> BadPayload:
    return BadPayload(
        f"The body is not an OTLP {signal} request in {form} ({error}); "
        "send the bytes of an Export request with its Content-Type."
    )


def text(value: Any) -> str:
    """An AnyValue as text: strings as they are, structured values as JSON."""
    which = value.WhichOneof("value")
    if which == "string_value":
        return str(value.string_value)
    if which is None:
        return ""
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    content = getattr(value, which)
    if which == "array_value":
        return [_plain(item) for item in content.values]
    if which == "kvlist_value":
        return {item.key: _plain(item.value) for item in content.values}
    if which == "bytes_value":
        return base64.b64encode(content).decode()
    return content


def pairs(attributes: Any) -> Pairs:
    """Attributes as (key, text) pairs; of a repeated key the last value counts."""
    found = {item.key: text(item.value) for item in attributes}
    return list(found.items())


def resources(message: Any) -> Iterator[dict[str, str]]:
    """The attributes of each resource in a request of any signal."""
    for field in ("resource_spans", "resource_logs", "resource_metrics"):
        for group in getattr(message, field, ()):
            yield dict(pairs(group.resource.attributes))


def spans(message: ExportTraceServiceRequest) -> tuple[pa.Table, Counter[str]]:
    """Rows of `spans` without the key columns, and what was refused: reason -> spans.

    A span without a valid trace id, span id or start cannot be placed and is refused.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SPANS.names if not name.endswith("_key")}
    refused: Counter[str] = Counter()
    with paused_gc():
        for group in message.resource_spans:
            resource = pairs(group.resource.attributes)
            service = _get(resource, "service.name")
            for scoped in group.scope_spans:
                scope = scoped.scope.name
                for span in scoped.spans:
                    reason = _unplaceable(span)
                    if reason:
                        refused[reason] += 1
                        continue
                    if span.end_time_unix_nano < span.start_time_unix_nano:
                        refused["span ended before it began (kept with duration 0)"] += 1
                    columns["trace_id"].append(span.trace_id.hex())
                    columns["span_id"].append(span.span_id.hex())
                    columns["parent_span_id"].append(_parent(span.parent_span_id))
                    columns["service"].append(service)
                    columns["scope"].append(scope)
                    columns["name"].append(span.name)
                    columns["kind"].append(enum_name(KINDS, span.kind))
                    columns["start"].append(span.start_time_unix_nano)
                    columns["duration_ns"].append(
                        max(0, min(span.end_time_unix_nano, LATEST_NS) - span.start_time_unix_nano)
                    )
                    columns["status"].append(enum_name(STATUSES, span.status.code))
                    columns["status_message"].append(span.status.message)
                    columns["attributes"].append(pairs(span.attributes))
                    columns["resource"].append(resource)
                    columns["events"].append(events_json(span.events))
                    columns["links"].append(links_json(span.links))
        return table(SPANS, columns), refused


def logs(message: ExportLogsServiceRequest) -> tuple[pa.Table, Counter[str]]:
    """Rows of `logs` without the key columns, and what was refused: reason -> records."""
    columns: dict[str, list[Any]] = {name: [] for name in LOGS.names if not name.endswith("_key")}
    refused: Counter[str] = Counter()
    with paused_gc():
        for group in message.resource_logs:
            service = _get(pairs(group.resource.attributes), "service.name")
            for scoped in group.scope_logs:
                for record in scoped.log_records:
                    time = record.time_unix_nano or record.observed_time_unix_nano
                    if not 0 < time <= LATEST_NS:
                        refused["log record without a usable time"] += 1
                        continue
                    attributes = dict(pairs(record.attributes))
                    if scoped.scope.name:
                        attributes.setdefault("otel.scope.name", scoped.scope.name)
                    if record.event_name:
                        attributes.setdefault("event.name", record.event_name)
                    columns["time"].append(time)
                    columns["severity"].append(_severity(record))
                    columns["service"].append(service)
                    columns["body"].append(text(record.body) or record.event_name)
                    columns["trace_id"].append(_id(record.trace_id, 16))
                    columns["span_id"].append(_id(record.span_id, 8))
                    columns["request_id"].append(
                        next((attributes[key] for key in REQUEST_ID_KEYS if key in attributes), "")
                    )
                    columns["attributes"].append(list(attributes.items()))
        return table(LOGS, columns), refused


def table(schema: pa.Schema, columns: dict[str, list[Any]]) -> pa.Table:
    """Columns as a Table in the types of `schema`; integer lists become its timestamps."""
    fields = [schema.field(name) for name in columns]
    return pa.table(
        [pa.array(columns[field.name], field.type) for field in fields], schema=pa.schema(fields)
    )


def _unplaceable(span: Any) -> str:
    if len(span.trace_id) != 16 or not any(span.trace_id):
        return "span without a valid trace id"
    if len(span.span_id) != 8 or not any(span.span_id):
        return "span without a valid span id"
    if not 0 < span.start_time_unix_nano <= LATEST_NS:
        return "span without a usable start"
    return ""


def _parent(raw: bytes) -> str:
    return raw.hex() if len(raw) == 8 and any(raw) else ""


def _id(raw: bytes, length: int) -> str:
    return raw.hex() if len(raw) == length and any(raw) else ""


def enum_name(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else names[0]


def _get(attributes: Iterable[tuple[str, str]], key: str) -> str:
    return next((value for name, value in attributes if name == key), "")


def _severity(record: Any) -> str:
    if 1 <= record.severity_number <= 24:
        return SEVERITIES[(record.severity_number - 1) // 4]
    return severity(record.severity_text)


def severity(word: str) -> str:
    """The severity that a level name of any logging library stands for, or empty."""
    word = word.strip().lower()
    return _LEVELS.get(word, "")


_LEVELS = {
    **{name: name for name in SEVERITIES},
    "notset": "trace",
    "information": "info",
    "informational": "info",
    "notice": "info",
    "success": "info",
    "warning": "warn",
    "err": "error",
    "exception": "error",
    "critical": "fatal",
    "alert": "fatal",
    "emergency": "fatal",
    "panic": "fatal",
}


def events_json(events: Any) -> str:
    if not events:
        return "[]"
    return json.dumps(
        [
            {
                "time": event.time_unix_nano,
                "name": event.name,
                "attributes": dict(pairs(event.attributes)),
            }
            for event in events
        ],
        ensure_ascii=False,
    )


def links_json(links: Any) -> str:
    if not links:
        return "[]"
    return json.dumps(
        [
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "attributes": dict(pairs(link.attributes)),
            }
            for link in links
        ],
        ensure_ascii=False,
    )
