"""OTLP protobuf and JSON -> spans and logs."""

from __future__ import annotations

import base64
import gc
import json
import threading
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from ragprof.sources import otlp

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
START = 1_700_000_000_000_000_000


def trace_json(**changes: Any) -> dict[str, Any]:
    span = {
        "traceId": TRACE,
        "spanId": SPAN,
        "parentSpanId": PARENT,
        "name": "search",
        "kind": 3,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 1500),
        "status": {"code": 2, "message": "timeout"},
        "attributes": [
            {"key": "db.system", "value": {"stringValue": "sqlite"}},
            {"key": "rows", "value": {"intValue": "12"}},
            {"key": "hit", "value": {"boolValue": True}},
            {"key": "share", "value": {"doubleValue": 0.25}},
            {"key": "raw", "value": {"bytesValue": base64.b64encode(b"\x00\xff").decode()}},
            {"key": "ids", "value": {"arrayValue": {"values": [{"intValue": 1}, {}]}}},
            {
                "key": "tree",
                "value": {"kvlistValue": {"values": [{"key": "a", "value": {"stringValue": "b"}}]}},
            },
        ],
        "events": [{"timeUnixNano": str(START + 5), "name": "exception", "attributes": []}],
        "links": [{"traceId": "f" * 32, "spanId": "e" * 16}],
        "somethingNew": {"ignored": [1, 2]},
    }
    span.update(changes)
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "rag"}}]}
    scoped = {"scope": {"name": "app"}, "spans": [span]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scoped]}]}


def decode(content: dict[str, Any]) -> list[dict[str, Any]]:
    table, refused = otlp.spans(otlp.parse("traces", json.dumps(content).encode(), is_json=True))
    assert not refused
    return table.to_pylist()


def test_a_span_becomes_a_row() -> None:
    (row,) = decode(trace_json())
    assert (row["trace_id"], row["span_id"], row["parent_span_id"]) == (TRACE, SPAN, PARENT)
    assert (row["service"], row["scope"], row["name"], row["kind"]) == (
        "rag", "app", "search", "client",
    )  # fmt: skip
    assert row["start"].value == START
    assert row["duration_ns"] == 1500
    assert (row["status"], row["status_message"]) == ("error", "timeout")
    assert dict(row["attributes"]) == {
        "db.system": "sqlite",
        "rows": "12",
        "hit": "true",
        "share": "0.25",
        "raw": base64.b64encode(b"\x00\xff").decode(),
        "ids": "[1, null]",
        "tree": '{"a": "b"}',
    }
    assert json.loads(row["events"]) == [{"time": START + 5, "name": "exception", "attributes": {}}]
    assert json.loads(row["links"]) == [
        {"trace_id": "f" * 32, "span_id": "e" * 16, "attributes": {}}
    ]


def test_json_and_protobuf_decode_to_the_same_rows() -> None:
    message = otlp.parse("traces", json.dumps(trace_json()).encode(), is_json=True)
    again = otlp.parse("traces", message.SerializeToString())
    assert otlp.spans(message)[0].equals(otlp.spans(again)[0])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"traceId": ""}, "trace id"),
        ({"traceId": "0" * 32}, "trace id"),
        ({"traceId": "ab"}, "trace id"),
        ({"spanId": "0" * 16}, "span id"),
        ({"startTimeUnixNano": "0"}, "usable start"),
        ({"startTimeUnixNano": str(2**64 - 1)}, "usable start"),
    ],
)
def test_spans_that_cannot_be_placed_are_refused_by_reason(
    changes: dict[str, Any], reason: str
) -> None:
    content = trace_json(**changes)
    good = trace_json()["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    content["resourceSpans"][0]["scopeSpans"][0]["spans"].append(good)
    message = otlp.parse("traces", json.dumps(content).encode(), is_json=True)
    table, refused = otlp.spans(message)
    assert table.num_rows == 1
    ((why, count),) = refused.items()
    assert reason in why
    assert count == 1


def test_a_span_that_ends_before_it_begins_is_kept_and_said() -> None:
    content = trace_json(endTimeUnixNano=str(START - 1))
    message = otlp.parse("traces", json.dumps(content).encode(), is_json=True)
    table, refused = otlp.spans(message)
    assert table.column("duration_ns").to_pylist() == [0]
    assert list(refused.values()) == [1]


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b'{"resourceSpans": {}}',
        b'{"resourceSpans": [[]]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 5}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "1e9x"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": -1}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "\\ud800"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"kind": "NO_KIND"}]}]}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_wrong_json_is_a_bad_payload(body: bytes) -> None:
    with pytest.raises(otlp.BadPayload):
        otlp.parse("traces", body, is_json=True)


@given(st.binary(max_size=300), st.sampled_from(sorted(otlp.REQUESTS)))
def test_any_bytes_decode_or_are_a_bad_payload(body: bytes, signal: str) -> None:
    try:
        message = otlp.parse(signal, body)
    except otlp.BadPayload:
        return
    assert isinstance(message, Message)
    if signal == "traces":
        otlp.spans(message)
    elif signal == "logs":
        otlp.logs(message)


JSON_KEYS = (
    *("resourceSpans", "scopeSpans", "spans", "attributes", "key", "value", "intValue"),
    *("stringValue", "kind", "traceId", "startTimeUnixNano", "status", "code", "events"),
    *("resource", "arrayValue", "values"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(JSON_KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_json_decodes_or_is_a_bad_payload(content: Any) -> None:
    try:
        message = otlp.parse("traces", json.dumps(content).encode(), is_json=True)
    except otlp.BadPayload:
        return
    otlp.spans(message)


texts = st.text(st.characters(codec="utf-8"), max_size=20)


trace_ids = st.binary(min_size=16, max_size=16).filter(any)
span_ids = st.binary(min_size=8, max_size=8).filter(any)


@given(st.dictionaries(texts, texts, max_size=5), st.integers(1, 2**63 - 1), trace_ids, span_ids)
def test_attributes_ids_and_times_survive_exactly(
    attributes: dict[str, str], start: int, trace: bytes, span: bytes
) -> None:
    message = otlp.REQUESTS["traces"]()
    row = message.resource_spans.add().scope_spans.add().spans.add()
    row.trace_id, row.span_id = trace, span
    row.start_time_unix_nano = row.end_time_unix_nano = start
    for key, value in attributes.items():
        item = row.attributes.add()
        item.key, item.value.string_value = key, value
    table, refused = otlp.spans(otlp.parse("traces", message.SerializeToString()))
    assert not refused
    (decoded,) = table.drop_columns(["start"]).to_pylist()
    assert dict(decoded["attributes"]) == attributes
    assert bytes.fromhex(decoded["trace_id"]) == trace
    assert bytes.fromhex(decoded["span_id"]) == span
    assert table.column("start").cast("int64").to_pylist() == [start]


def log_message(**fields: Any) -> Any:
    message = otlp.REQUESTS["logs"]()
    group = message.resource_logs.add()
    item = group.resource.attributes.add()
    item.key, item.value.string_value = "service.name", "rag"
    scoped = group.scope_logs.add()
    scoped.scope.name = "app.search"
    record = scoped.log_records.add(**fields)
    item = record.attributes.add()
    item.key, item.value.string_value = "request_id", "r-1"
    return message


def test_a_log_record_becomes_a_row() -> None:
    message = log_message(
        time_unix_nano=START,
        severity_number=13,
        severity_text="WARNING",
        body=AnyValue(string_value="slow"),
        trace_id=bytes.fromhex(TRACE),
        span_id=bytes.fromhex(SPAN),
    )
    table, refused = otlp.logs(message)
    (row,) = table.to_pylist()
    assert not refused
    assert (row["severity"], row["service"], row["body"]) == ("warn", "rag", "slow")
    assert (row["trace_id"], row["span_id"], row["request_id"]) == (TRACE, SPAN, "r-1")
    assert dict(row["attributes"])["otel.scope.name"] == "app.search"


def test_log_records_fall_back_to_what_they_have() -> None:
    message = log_message(
        observed_time_unix_nano=START, severity_text="CRITICAL", event_name="cache.miss"
    )
    (row,) = otlp.logs(message)[0].to_pylist()
    assert (row["severity"], row["body"], row["trace_id"]) == ("fatal", "cache.miss", "")
    assert row["time"].value == START


def test_a_log_record_without_a_time_is_refused() -> None:
    table, refused = otlp.logs(log_message())
    assert table.num_rows == 0
    assert refused.total() == 1


def test_the_collector_is_paused_while_any_thread_decodes() -> None:
    assert gc.isenabled()
    inside, leave = threading.Event(), threading.Event()

    def decode_long() -> None:
        with otlp.paused_gc():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=decode_long)
    thread.start()
    inside.wait(10)
    with otlp.paused_gc():
        pass
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()
