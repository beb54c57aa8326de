"""Documents of Elasticsearch -> rows: every shipper's names, and nothing lost on the way."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragprof.rows import conform
from ragprof.sources import elasticsearch_logs, elasticsearch_spans
from ragprof.sources.elasticsearch_documents import Leaves, TooWide, leaves
from ragprof.sources.elasticsearch_logs import FieldNames
from ragprof.sources.elasticsearch_pages import Document, PageReader
from ragprof.sources.elasticsearch_spans import APM, JAEGER, OTEL, Kind
from ragprof.sources.ids import span_id, trace_id, written_forms
from ragprof.sources.times import time_ns

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def documents(*contents: Any) -> list[Document]:
    return [msgspec.json.decode(json.dumps(each), type=Document) for each in contents]


def log(content: dict[str, Any], fields: FieldNames | None = None) -> dict[str, Any]:
    rows, refused = elasticsearch_logs.rows(documents(content), fields or FieldNames())
    assert not refused
    conform("logs", rows)
    (row,) = rows.to_pylist()
    return {**row, "attributes": dict(row["attributes"])}


def test_structlog_with_nested_kubernetes_metadata() -> None:
    row = log(
        {
            "@timestamp": "2026-11-24T14:00:00.123456789Z",
            "event": 'said "hi" \n é',
            "level": "warning",
            "service": "rag-api",
            "trace_id": TRACE.upper(),
            "span_id": SPAN,
            "request_id": "r1",
            "rows": 12,
            "share": 0.5,
            "nothing": None,
            "kubernetes": {"pod_name": "p", "labels": {"app": "other", "a.b": "c"}},
            "list": [1, {"a": "é"}],
        }
    )
    assert row["time"].value == 1_795_528_800_123_456_789
    assert (row["severity"], row["service"], row["body"]) == ("warn", "rag-api", 'said "hi" \n é')
    assert (row["trace_id"], row["span_id"], row["request_id"]) == (TRACE, SPAN, "r1")
    assert row["attributes"] == {
        "rows": "12",
        "share": "0.5",
        "kubernetes.pod_name": "p",
        "kubernetes.labels.app": "other",
        "kubernetes.labels.a.b": "c",
        "list": '[1, {"a": "\\u00e9"}]',
    }


def test_a_line_that_fluentd_did_not_parse() -> None:
    line = {"event": "slow", "level": "error", "timestamp": "x", "trace_id": TRACE, "a": {"b": 1}}
    row = log(
        {
            "@timestamp": 1_795_528_800_123,
            "log": json.dumps(line) + "\n",
            "stream": "stdout",
            "kubernetes.container_name": "rag-worker",
        }
    )
    assert (row["body"], row["severity"], row["trace_id"]) == ("slow", "error", TRACE)
    assert row["service"] == "rag-worker"  # a workload names the service when nothing else does
    assert row["attributes"] == {
        "stream": "stdout",
        "timestamp": "x",
        "a.b": "1",
        "kubernetes.container_name": "rag-worker",
    }


def test_a_line_of_text_stays_the_body() -> None:
    for text in ("{not json", "plain", "{}", '"quoted"', "[1]"):
        assert log({"@timestamp": 1_795_528_800_123, "log": text})["body"] == text


def test_elastic_common_schema() -> None:
    row = log(
        {
            "@timestamp": "2026-11-24T15:00:00.5+01:00",
            "message": "m",
            "log.level": "INFO",
            "service": {"name": "s", "version": "1"},
            "trace": {"id": TRACE},
            "span": {"id": SPAN},
            "http": {"request": {"id": "r"}},
            "event": {"dataset": "d"},
        }
    )
    assert row["time"].value == 1_795_528_800_500_000_000
    assert (row["body"], row["severity"], row["service"]) == ("m", "info", "s")
    assert (row["trace_id"], row["span_id"], row["request_id"]) == (TRACE, SPAN, "r")
    assert row["attributes"] == {"service.version": "1", "event.dataset": "d"}


def test_opentelemetry_data_stream() -> None:
    row = log(
        {
            "@timestamp": "1795528800123.456789",
            "body": {"text": "b"},
            "severity_text": "WARN",
            "attributes": {"http.route": "/a"},
            "resource": {"attributes": {"service.name": "s", "host.name": "h"}},
            "trace_id": TRACE,
            "span_id": SPAN,
        }
    )
    assert row["time"].value == 1_795_528_800_123_456_789
    assert (row["body"], row["severity"], row["service"]) == ("b", "warn", "s")
    assert row["attributes"] == {"http.route": "/a", "resource.attributes.host.name": "h"}


def test_fields_can_be_named() -> None:
    roles = {**elasticsearch_logs.ROLES, "service": ("app",), "body": ("text_of",)}
    content = {"@timestamp": 1_795_528_800_123, "app": "mine", "service": "s", "text_of": "t"}
    row = log(content, FieldNames(roles))
    assert (row["service"], row["body"]) == ("mine", "t")
    assert row["attributes"] == {"service": "s"}


def test_what_has_no_time_is_refused() -> None:
    contents = [{"message": "a"}, {"@timestamp": "yesterday"}, {"@timestamp": True}, {}]
    rows, refused = elasticsearch_logs.rows(documents(*contents), FieldNames())
    assert rows.num_rows == 0
    assert refused == {"document without a usable time": 4}


def test_odd_ids_and_levels_stay_attributes() -> None:
    row = log({"@timestamp": 1_795_528_800_123, "trace_id": "none", "level": "odd", "span": 5})
    assert (row["trace_id"], row["span_id"], row["severity"]) == ("", "", "")
    assert row["attributes"]["trace_id"] == "none"
    assert row["attributes"]["level"] == "odd"


names = st.sampled_from(["a", "b", "a.b", "é", "log", "message"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.lists(st.integers(), max_size=2),
)
contents = st.dictionaries(
    names,
    st.recursive(scalars, lambda inner: st.dictionaries(names, inner, max_size=3)),
    max_size=5,
)


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return found


def texts_of(read: Leaves) -> list[dict[str, str]]:
    assert len(read.keys) == len(set(read.keys))
    return [
        {
            name: read.values[int(code)].as_py()
            for name, code in zip(read.keys, row, strict=True)
            if code >= 0
        }
        for row in read.code
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(contents, max_size=6))
def test_every_leaf_is_there_once(found: list[dict[str, Any]]) -> None:
    rows = texts_of(leaves(documents(*found)))
    expected = [flat(content) for content in found]
    assert [sorted(row) for row in rows] == [sorted(row) for row in expected]
    for row, wanted, content in zip(rows, expected, found, strict=True):
        for name, text in wanted.items():
            clash = name.count(".") and name in content  # the same name in two forms: either
            try:
                text.encode()
            except UnicodeEncodeError:
                continue
            assert clash or row[name] == text or _twice(content, name)


def answer(found: list[dict[str, Any]]) -> bytes:
    hits = [{"_source": content, "sort": [n]} for n, content in enumerate(found)]
    return json.dumps({"took": 1, "pit_id": "p", "hits": {"hits": hits}}).encode()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(contents, max_size=4), max_size=3))
def test_a_reader_that_has_learned_reads_the_same(pages: list[list[dict[str, Any]]]) -> None:
    """Page after page, and once more when it has seen all names."""
    reader = PageReader()
    for found in [*pages, *pages]:
        page = reader(answer(found))
        assert page.pit_id == "p"
        assert [json.loads(bytes(hit.sort)) for hit in page.hits.hits] == [
            [n] for n in range(len(found))
        ]
        for embedded in ((), ("log", "message")):
            read = leaves([hit.source for hit in page.hits.hits], embedded)
            assert texts_of(read) == texts_of(leaves(documents(*found), embedded))


def test_documents_of_one_shipper_are_read_as_structs() -> None:
    reader = PageReader()
    reader(answer([{"a": 1, "b": {"c": "x"}}] * 3))
    page = reader(answer([{"b": {"c": "y"}, "a": 2}, {"a": 3}]))
    assert all(isinstance(hit.source, msgspec.Struct) for hit in page.hits.hits)
    new = reader(answer([{"d": 4}]))  # a field that it has not seen
    assert new.hits.hits[0].source == {"d": msgspec.Raw(b"4")}
    assert isinstance(reader(answer([{"d": 4}])).hits.hits[0].source, msgspec.Struct)


def test_documents_of_all_different_fields_take_bounded_memory() -> None:
    contents = [
        {"@timestamp": 1_795_528_800_123, "m": "x", **{f"f{n}_{k}": k for k in range(30)}}
        for n in range(100)
    ]
    with pytest.raises(TooWide):
        leaves(documents(*contents))
    rows, refused = elasticsearch_logs.rows(documents(*contents), FieldNames())
    assert not refused
    found = [dict(row["attributes"]) for row in rows.to_pylist()]
    assert found == [{"m": "x", **{f"f{n}_{k}": str(k) for k in range(30)}} for n in range(100)]


def test_odd_documents_do_not_make_large_structs() -> None:
    reader = PageReader()
    for _ in range(2):
        page = reader(answer([{f"field{n}": n} for n in range(20)]))
        assert isinstance(page.hits.hits[0].source, dict)


def _twice(content: dict[str, Any], name: str) -> bool:
    """Whether nested and dotted keys of a document spell the same name."""
    spelled: list[str] = []

    def walk(inner: dict[str, Any], prefix: str) -> None:
        for key, value in inner.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                spelled.append(prefix + key)

    walk(content, "")
    return spelled.count(name) > 1


def spans(kind: Kind, *found: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    rows, refused = elasticsearch_spans.rows(kind, documents(*found))
    conform("spans", rows)
    return rows.to_pylist(), dict(refused)


def test_span_documents_of_jaeger() -> None:
    (row,), refused = spans(
        JAEGER,
        {
            "traceID": TRACE,
            "spanID": SPAN,
            "operationName": "get",
            "references": [{"refType": "CHILD_OF", "traceID": TRACE, "spanID": "00f067aa0ba902b7"}],
            "startTime": 1_795_528_800_123_456,
            "startTimeMillis": 1_795_528_800_123,
            "duration": 1500,
            "tags": [{"key": "otel.status_code", "type": "string", "value": "ERROR"}],
            "tag": {"http@route": "/a", "span@kind": "server"},
            "process": {"serviceName": "s", "tags": [], "tag": {"host@name": "h"}},
        },
        {"spanID": 5},
    )
    assert (row["trace_id"], row["parent_span_id"]) == (TRACE, "00f067aa0ba902b7")
    assert (row["service"], row["status"], row["kind"]) == ("s", "error", "server")
    assert row["start"].value == 1_795_528_800_123_456_000
    assert dict(row["attributes"]) == {"http.route": "/a"}
    assert dict(row["resource"]) == {"service.name": "s", "host.name": "h"}
    assert refused == {"document that is not a span of Jaeger": 1}


def test_span_documents_of_opentelemetry() -> None:
    (row,), refused = spans(
        OTEL,
        {
            "@timestamp": "2026-11-24T14:00:00.123456789Z",
            "trace_id": TRACE,
            "span_id": SPAN,
            "parent_span_id": "00f067aa0ba902b7",
            "name": "get",
            "kind": "Server",
            "duration": 1500,
            "status": {"code": "Ok"},
            "attributes": {"http.route": "/a", "n": {"m": 1}},
            "resource": {"attributes": {"service.name": "s"}},
            "scope": {"name": "sc"},
            "links": [{"trace_id": "f" * 32, "span_id": "e" * 16}],
        },
        {"@timestamp": "2026-11-24T14:00:00Z", "trace_id": TRACE},
    )
    assert (row["start"].value, row["duration_ns"]) == (1_795_528_800_123_456_789, 1500)
    assert (row["kind"], row["status"], row["scope"]) == ("server", "ok", "sc")
    assert dict(row["attributes"]) == {"http.route": "/a", "n.m": "1"}
    assert json.loads(row["links"])[0]["span_id"] == "e" * 16
    assert refused == {"span without a valid span id": 1}


def test_documents_of_elastic_apm() -> None:
    common = {"trace": {"id": TRACE}, "service": {"name": "s"}, "labels": {"tenant": "t"}}
    rows, refused = spans(
        APM,
        {
            **common,
            "processor": {"event": "transaction"},
            "timestamp": {"us": 1_795_528_800_123_456},
            "transaction": {
                "id": SPAN,
                "name": "GET /a",
                "type": "request",
                "duration": {"us": 2000},
            },
            "event": {"outcome": "failure"},
        },
        {
            **common,
            "processor": {"event": "span"},
            "timestamp": {"us": 1_795_528_800_123_500},
            "parent": {"id": SPAN},
            "transaction": {"id": SPAN},
            "span": {
                "id": "00f067aa0ba902b7",
                "name": "SELECT",
                "type": "db",
                "subtype": "sqlite",
                "duration": {"us": 5},
            },
        },
    )
    transaction, span = rows
    assert (transaction["kind"], transaction["status"]) == ("server", "error")
    assert transaction["duration_ns"] == 2_000_000
    assert (span["kind"], span["parent_span_id"], span["name"]) == ("client", SPAN, "SELECT")
    assert dict(span["attributes"])["tenant"] == "t"
    assert dict(span["attributes"])["span.subtype"] == "sqlite"
    assert not refused


@given(st.binary(min_size=16, max_size=16).filter(any))
def test_ids_have_one_form(raw: bytes) -> None:
    hexadecimal = raw.hex()
    grouped = f"{hexadecimal[:8]}-{hexadecimal[8:12]}-{hexadecimal[12:]}"
    for form in (hexadecimal, hexadecimal.upper(), f"0x{hexadecimal}", grouped):
        assert trace_id(form) == hexadecimal
    assert trace_id(msgspec.json.decode(msgspec.json.encode(raw))) == hexadecimal  # base64
    short = hexadecimal.lstrip("0")
    assert trace_id(short) == hexadecimal
    for form in written_forms(hexadecimal):
        assert trace_id(form) == hexadecimal


def test_short_ids_are_padded_and_others_are_none() -> None:
    assert trace_id("abcdef0123456789") == "0" * 16 + "abcdef0123456789"
    assert written_forms("0" * 17 + "bcdef0123456789") == [
        "0" * 17 + "bcdef0123456789",
        "0bcdef0123456789",
        "bcdef0123456789",
    ]
    for word in ("", "0", "xyz", "0" * 32, "a" * 33, None, 5.5, True):
        assert trace_id(word) == ""
    assert span_id(5) == f"{5:016x}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("2026-11-24 14:00:00,5", 1_795_528_800_500_000_000),
        ("2026-11-24T14:00:00.1234567891Z", 1_795_528_800_123_456_789),
        ("2026-11-24T09:00:00-0500", 1_795_528_800_000_000_000),
        ("1795528800", 1_795_528_800_000_000_000),
        ("1795528800.25", 1_795_528_800_250_000_000),
        ("1795528800123", 1_795_528_800_123_000_000),
        ("1795528800123456", 1_795_528_800_123_456_000),
        ("1795528800123456789", 1_795_528_800_123_456_789),
        ("2026-13-24T14:00:00Z", None),
        ("NaN", None),
        ("", None),
        ("-5", None),
    ],
)
def test_times_of_any_writing(text: str, expected: int | None) -> None:
    assert time_ns(text) == expected
