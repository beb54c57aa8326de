"""The fast decoding gives the rows of the plain one, whatever the bytes are."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ragprof.sources import otlp, otlp_decode, otlp_wire
from ragprof.sources.otlp_decode import FEWEST, decode

texts = st.text(st.characters(codec="utf-8"), max_size=6)
values: st.SearchStrategy[AnyValue] = st.deferred(
    lambda: st.one_of(
        st.just(AnyValue()),
        st.builds(AnyValue, string_value=texts),
        st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
        st.builds(AnyValue, double_value=st.floats()),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, bytes_value=st.binary(max_size=5)),
        st.lists(values, max_size=2).map(lambda items: AnyValue(array_value={"values": items})),
        st.dictionaries(texts, values, max_size=2).map(
            lambda items: AnyValue(
                kvlist_value={"values": [KeyValue(key=k, value=v) for k, v in items.items()]}
            )
        ),
    )
)
keys = st.sampled_from(["a", "b", "service.name", "request_id", "x-request-id", "event.name"])
attributes = st.one_of(
    st.dictionaries(keys, values, max_size=4).map(
        lambda items: [KeyValue(key=key, value=value) for key, value in items.items()]
    ),
    st.lists(st.builds(KeyValue, key=texts, value=values), max_size=3),  # keys may repeat
)
times = st.one_of(st.integers(0, 3), st.just(1_790_000_000_000_000_000), st.integers(0, 2**64 - 1))
trace_ids = st.binary(min_size=16, max_size=16) | st.sampled_from([b"", b"abc", bytes(16)])
span_ids = st.binary(min_size=8, max_size=8) | st.sampled_from([b"", b"abc", bytes(8)])
spans = st.builds(
    Span,
    trace_id=trace_ids,
    span_id=span_ids,
    parent_span_id=span_ids,
    trace_state=texts,
    flags=st.integers(0, 2**32 - 1),
    name=texts,
    kind=st.integers(-2, 9),
    start_time_unix_nano=times,
    end_time_unix_nano=times,
    attributes=attributes,
    dropped_attributes_count=st.integers(0, 2**32 - 1),
    events=st.lists(
        st.builds(Span.Event, time_unix_nano=times, name=texts, attributes=attributes), max_size=2
    ),
    links=st.lists(
        st.builds(Span.Link, trace_id=trace_ids, span_id=span_ids, attributes=attributes),
        max_size=2,
    ),
    status=st.none() | st.builds(Status, code=st.integers(-1, 3), message=texts),
)
records = st.builds(
    LogRecord,
    time_unix_nano=times,
    observed_time_unix_nano=times,
    severity_number=st.integers(-1, 26),
    severity_text=st.sampled_from(["", "INFO", "warning", "odd"]),
    body=st.none() | values,
    attributes=attributes,
    flags=st.integers(0, 3),
    trace_id=trace_ids,
    span_id=span_ids,
    event_name=st.sampled_from(["", "cache.miss"]),
)


def request(signal: str, items: list[Any], sizes: list[int], resource: list[KeyValue]) -> bytes:
    """Items spread over groups and scopes, enough of them for the fast way."""
    message = otlp.REQUESTS[signal]()
    items = (items * FEWEST)[: max(FEWEST, len(items))] if items else []
    for number, size in enumerate([*sizes, len(items)]):
        part, items = items[:size], items[size:]
        if signal == "traces":
            scoped = message.resource_spans.add(resource={"attributes": resource}).scope_spans.add()
            scoped.spans.extend(part)
        else:
            scoped = message.resource_logs.add(resource={"attributes": resource}).scope_logs.add()
            scoped.log_records.extend(part)
        scoped.scope.name = ["", "app", "lib"][number % 3]
    return message.SerializeToString()


def plain(signal: str, body: bytes) -> tuple[list[Any], dict[str, int], list[dict[str, str]]]:
    message = otlp.parse(signal, body)
    rows, refused = otlp.spans(message) if signal == "traces" else otlp.logs(message)
    return comparable(rows), dict(refused), list(otlp.resources(message))


def comparable(rows: Any) -> list[Any]:
    time = "start" if "start" in rows.column_names else "time"
    return [
        *rows.drop_columns([time]).to_pylist(),
        rows.column(time).cast("int64").to_pylist(),
        rows.schema.names,
        rows.schema.types,
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["traces", "logs"]).flatmap(
        lambda signal: st.tuples(
            st.just(signal),
            st.lists(spans if signal == "traces" else records, max_size=5),
            st.lists(st.integers(0, 6), max_size=3),
            attributes,
        )
    )
)
def test_both_ways_give_the_same_rows(case: tuple[str, list[Message], list[int], Any]) -> None:
    signal, *rest = case
    body = request(signal, *rest)
    rows, refused, resources = plain(signal, body)
    decoded = decode(signal, body)
    assert comparable(decoded.rows) == rows
    assert dict(decoded.refused) == refused
    assert decoded.resources == resources


def ordinary(count: int = 40) -> bytes:
    found = [
        Span(
            trace_id=bytes([number + 1]) * 16,
            span_id=bytes([number + 1]) * 8,
            name=f"operation {number % 3}",
            start_time_unix_nano=1_790_000_000_000_000_000 + number,
            end_time_unix_nano=1_790_000_000_000_000_900,
            attributes=[
                KeyValue(key="n", value=AnyValue(int_value=number - 3)),
                KeyValue(key="text", value=AnyValue(string_value="same")),
            ],
        )
        for number in range(count)
    ]
    return request("traces", found, [10], [])


def test_ordinary_spans_go_the_fast_way() -> None:
    decoded = otlp_decode._spans(ordinary())
    assert decoded.rows.num_rows == 40
    assert decoded.rows.column("attributes").to_pylist()[0] == [("n", "-3"), ("text", "same")]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_are_what_the_plain_way_says(data: st.DataObject) -> None:
    body = bytearray(ordinary(20))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body
    try:
        rows, refused, _ = plain("traces", bytes(body))
    except otlp.BadPayload:
        try:
            decode("traces", bytes(body))
        except otlp.BadPayload:
            return
        # protobuf checks fields that become no column (trace state); the rows need not
        return
    decoded = decode("traces", bytes(body))
    assert comparable(decoded.rows) == rows
    assert dict(decoded.refused) == refused


@pytest.mark.parametrize(
    "span",
    [
        b"\x0b\x0c",  # a group
        Span(name="a").SerializeToString() * 2,  # a field twice: the last counts
        Span(status=Status(code=2)).SerializeToString()
        + Span(status=Status(message="m")).SerializeToString(),  # merged
        b"\x28\x05",  # the name as a number: an unknown field
        Span(
            attributes=[
                KeyValue(key="k", value=AnyValue(int_value=1)),
                KeyValue(key="k", value=AnyValue(int_value=2)),
            ]
        ).SerializeToString(),
    ],
)
def test_what_is_legal_but_never_sent_is_decoded_too(span: bytes) -> None:
    good = Span(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=5)
    body = ordinary() + _wrapped(good.SerializeToString() + span)
    with pytest.raises(otlp_wire.Unusual):
        otlp_decode._spans(body)
    assert comparable(decode("traces", body).rows) == plain("traces", body)[0]


def _wrapped(span: bytes) -> bytes:
    for tag in (b"\x12", b"\x12", b"\x0a"):  # spans, scope_spans, resource_spans
        length = len(span)
        assert length < 128 * 128
        size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
        span = tag + size + span
    return span


def test_bodies_behind_one_another_are_one_request() -> None:
    both = decode("traces", ordinary() + ordinary(20)).rows
    assert both.num_rows == 60


def test_json_is_decoded_too() -> None:
    span = {
        "traceId": "0AF7651916CD43DD8448EB211C80319C",
        "spanId": base64.b64encode(b"12345678").decode(),  # some write ids in base64
        "startTimeUnixNano": "5",
        "endTimeUnixNano": "7",
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    (row,) = decode("traces", body, is_json=True).rows.to_pylist()
    assert row["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert row["span_id"] == b"12345678".hex()
