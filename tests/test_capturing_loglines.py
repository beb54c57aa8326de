"""Lines of stdout and stderr -> log records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragprof.capturing.loglines import MAX_LINE, Lines, row
from ragprof.tables import LOGS

NOW = 1_700_000_000_123_456_789
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def parsed(**fields: Any) -> dict[str, Any]:
    return row(json.dumps(fields), NOW, "svc", "stdout")


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "slow", "level": "warning", "trace_id": TRACE, "span_id": SPAN},
        {"message": "slow", "levelname": "WARNING", "otelTraceID": TRACE, "otelSpanID": SPAN},
        {"msg": "slow", "severity": "WARN", "trace": TRACE, "span": SPAN},
        {"message": "slow", "log.level": "warn", "trace": {"id": TRACE}, "span": {"id": SPAN}},
        {"message": "slow", "level": 30, "dd.trace_id": str(int(TRACE, 16)),
         "dd.span_id": str(int(SPAN, 16))},
        {"message": "slow", "level": "warn", "dd": {"trace_id": TRACE, "span_id": SPAN}},
        {"event": "slow", "level": "warning",
         "trace_id": "0af76519-16cd-43dd-8448-eb211c80319c", "span_id": int(SPAN, 16)},
    ],
)  # fmt: skip
def test_the_dialects_of_json_logging(fields: dict[str, Any]) -> None:
    found = parsed(**fields)
    assert (found["body"], found["severity"]) == ("slow", "warn")
    assert (found["trace_id"], found["span_id"]) == (TRACE, SPAN)
    assert found["attributes"] == [("log.iostream", "stdout")]


def test_other_fields_become_attributes() -> None:
    found = parsed(event="e", request_id="r1", top_k=5, ids=[1, 2], service="rag", ok=True)
    assert found["service"] == "rag"
    assert found["request_id"] == "r1"
    assert dict(found["attributes"]) == {
        "top_k": "5", "ids": "[1, 2]", "ok": "true", "log.iostream": "stdout",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("2023-11-14T22:13:20.5Z", 1_700_000_000_500_000_000),
        ("2023-11-14T23:13:20.500000+01:00", 1_700_000_000_500_000_000),
        (1_700_000_000.5, 1_700_000_000_500_000_000),
        (1_700_000_000_500, 1_700_000_000_500_000_000),
        (1_700_000_000_500_000, 1_700_000_000_500_000_000),
        (1_700_000_000_500_000_001, 1_700_000_000_500_000_001),
    ],
)
def test_times_in_every_usual_form(value: Any, ns: int) -> None:
    found = parsed(event="e", timestamp=value)
    assert found["time"] == ns
    assert "timestamp" not in dict(found["attributes"])


@pytest.mark.parametrize(
    "value",
    [
        "2023-11-14T22:13:20",  # of which zone?
        "2001-01-01T00:00:00Z",  # not when this process logged
        "yesterday",
        12,
        True,
        None,
        1e300,
    ],
)
def test_a_time_that_cannot_be_meant_is_kept_as_an_attribute(value: Any) -> None:
    found = parsed(event="e", timestamp=value)
    assert found["time"] == NOW
    assert "timestamp" in dict(found["attributes"])


def test_ids_that_are_none_are_kept_as_attributes() -> None:
    found = parsed(event="e", trace_id="not hex", span_id=SPAN)
    assert (found["trace_id"], found["span_id"]) == ("", "")
    assert dict(found["attributes"])["trace_id"] == "not hex"
    assert parsed(event="e", trace_id="0" * 32)["trace_id"] == ""


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("INFO:     127.0.0.1:4 - 'GET / HTTP/1.1' 200 OK", "info"),
        ("[2026-11-24 12:00:00 +0000] [7] [ERROR] worker died", "error"),
        ("WARNING:root:careful", "warn"),
        ("\x1b[32mINFO\x1b[0m:     started", "info"),
        ("information is power", ""),
        ("hello", ""),
        ("Traceback (most recent call last):\n  File\nValueError", "error"),
    ],
)
def test_other_lines_stay_text(line: str, severity: str) -> None:
    found = row(line, NOW, "svc", "stderr")
    assert found["severity"] == severity
    assert "\x1b" not in found["body"]
    assert found["attributes"] == [("log.iostream", "stderr")]


@pytest.mark.parametrize("line", ["{}", "{not json", '{"a": 1', "[1]", '"text"', "{" * 10_000])
def test_what_only_looks_like_json_stays_text(line: str) -> None:
    assert row(line, NOW, "svc", "stdout")["body"] == line


def test_a_traceback_is_one_record() -> None:
    lines = Lines()
    text = (
        "before\nTraceback (most recent call last):\n  File 'a.py', line 1\n    1/0\n"
        "ZeroDivisionError: division by zero\nafter\n"
    )
    records = lines.feed(text.encode())
    assert [record.split("\n")[0] for record in records] == [
        "before", "Traceback (most recent call last):", "after",
    ]  # fmt: skip
    assert records[1].endswith("ZeroDivisionError: division by zero")


def test_a_traceback_cut_short_comes_out_when_the_stream_is_silent() -> None:
    lines = Lines()
    assert lines.feed(b"Traceback (most recent call last):\n  File 'a.py'\n") == []
    assert len(lines.idle()) == 1
    assert lines.idle() == []


def test_an_endless_line_is_cut_and_counted() -> None:
    lines = Lines()
    records: list[str] = []
    for _ in range(40):
        records += lines.feed(b"x" * 10_000)
    records += lines.feed(b"\nnext\n") + lines.close()
    assert [len(record) for record in records] == [MAX_LINE, 4]
    assert lines.cut == 1


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
known = st.sampled_from(
    ["timestamp", "ts", "level", "event", "message", "trace_id", "span_id", "dd", "service"]
)


@given(st.dictionaries(known | st.text(max_size=5), json_like, min_size=1, max_size=6))
def test_any_json_line_becomes_a_row_that_keeps_every_field(fields: dict[str, Any]) -> None:
    line = json.dumps(fields)
    found = row(line, NOW, "svc", "stdout")
    assert set(found) == {name for name in LOGS.names if not name.endswith("_key")}
    assert abs(found["time"] - NOW) <= 3600 * 10**9
    assert all(isinstance(value, str) for pair in found["attributes"] for value in pair)
    texts = [found["body"], *(value for _, value in found["attributes"])]
    for key, value in fields.items():
        if key in ("event", "message") and isinstance(value, str) and value:
            assert value in texts


@given(st.text(max_size=200))
def test_any_text_becomes_a_row(line: str) -> None:
    assert isinstance(row(line, NOW, "svc", "stderr")["body"], str)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1)),
    st.lists(st.integers(1, 30)),
)
def test_cutting_does_not_depend_on_how_bytes_arrive(texts: list[str], sizes: list[int]) -> None:
    data = "".join(text + "\n" for text in texts).encode()
    whole = Lines()
    expected = whole.feed(data) + whole.close()
    pieces, records, rest = Lines(), [], data
    for size in sizes:
        records += pieces.feed(rest[:size])
        rest = rest[size:]
    records += pieces.feed(rest) + pieces.close()
    assert records == expected
    assert records == [text for text in texts if text.strip()]
