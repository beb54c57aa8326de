"""Slices partition a Recording, merging them gives it back, redaction keeps the joins."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_rows import QUICK, SERVICES, T0, TRACES, as_set, plain, recordings, write

import ragprof
from ragprof.recording import RecordingError
from ragprof.redaction import MARK
from ragprof.tables import SCHEMAS, TIME_COLUMN, join_key


def rows(recording: ragprof.Recording, name: str) -> list[dict[str, Any]]:
    return plain(recording.table(name))


def assert_pruned(recording: ragprof.Recording) -> None:
    """The dictionaries hold what the rows use, and no more."""
    used = {
        "series": set(recording.table("metrics")["series_id"].to_pylist()),
        "stacks": set(recording.table("samples")["stack_id"].to_pylist()),
    }
    assert set(recording.table("series")["series_id"].to_pylist()) == used["series"]
    stacks = recording.table("stacks")
    assert set(stacks["stack_id"].to_pylist()) == used["stacks"]
    frames = {frame for stack in stacks["frame_ids"].to_pylist() for frame in stack}
    assert set(recording.table("frames")["frame_id"].to_pylist()) == frames


def without_unused(recording: ragprof.Recording) -> ragprof.Recording:
    return recording.slice()


@settings(max_examples=8, deadline=None, phases=QUICK)
@given(tables=recordings, cuts=st.lists(st.integers(T0 - 1, T0 + 52), min_size=1, max_size=2))
def test_slices_by_time_partition_and_merge_back(
    tables: dict[str, list[dict[str, Any]]], cuts: list[int]
) -> None:
    edges = [None, *sorted(cuts), None]
    with tempfile.TemporaryDirectory() as folder:
        whole = write(Path(folder) / "a.ragprof", tables)
        parts = [whole.slice(since, until) for since, until in itertools.pairwise(edges)]
        for name in TIME_COLUMN:
            assert [r for part in parts for r in rows(part, name)] == rows(whole, name)
        for part in parts:
            assert_pruned(part)
        merged = ragprof.merge(parts, Path(folder) / "m.ragprof")
        expected = without_unused(whole)
        for name in SCHEMAS:
            assert rows(merged, name) == rows(expected, name)
        assert merged.verify() == []
        assert merged.window == whole.window


@settings(max_examples=8, deadline=None, phases=QUICK)
@given(tables=recordings)
def test_slices_by_service_partition_and_merge_back(
    tables: dict[str, list[dict[str, Any]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = write(Path(folder) / "a.ragprof", tables)
        parts = [whole.slice(services=[service]) for service in SERVICES]
        for part, service in zip(parts, SERVICES, strict=True):
            assert_pruned(part)
            for name in ("spans", "logs", "samples", "changes"):
                assert set(part.to_pandas(name).service) <= {service}
        merged = ragprof.merge(parts, Path(folder) / "m.ragprof.zip")
        expected = without_unused(whole)
        for name in SCHEMAS:
            assert as_set(rows(merged, name)) == as_set(rows(expected, name))


@settings(max_examples=8, deadline=None, phases=QUICK)
@given(tables=recordings, chosen=st.sets(st.sampled_from(TRACES), min_size=1))
def test_a_slice_by_trace(tables: dict[str, list[dict[str, Any]]], chosen: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = write(Path(folder) / "a.ragprof", tables)
        part = whole.slice(traces=chosen)
        for name in ("spans", "logs", "samples"):
            wanted = [row for row in rows(whole, name) if row["trace_id"] in chosen]
            assert rows(part, name) == wanted
        assert_pruned(part)
        spans = part.to_pandas("spans")
        ends = spans.start + pd.to_timedelta(spans.duration_ns, unit="ns")
        for name in ("metrics", "changes"):
            wanted = [
                row
                for row in rows(whole, name)
                if len(spans) and spans.start.min() <= row["time"] <= ends.max()
            ]
            assert rows(part, name) == wanted
        if len(spans):
            assert part.window[0] <= spans.start.min()


def test_slices_take_every_kind_of_time(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.ragprof", {"logs": [{"time": T0 + n} for n in range(3)]})
    second = pd.Timestamp(T0 + 1, tz="UTC")
    for since in (T0 + 1, second, second.isoformat(), second.tz_convert("Asia/Tokyo")):
        part = whole.slice(since=since, until=T0 + 2)
        assert part.table("logs").num_rows == 1
        assert part.window == (second, pd.Timestamp(T0 + 2, tz="UTC"))
    assert part.manifest["slices"][0]["since"].endswith("Z")
    for naive in (second.tz_localize(None), "2026-01-01", "2026-01-01 10:00"):
        with pytest.raises(RecordingError, match=r"since.*no time zone"):
            whole.slice(since=naive)


def test_a_merge_renumbers_and_keeps_what_differs(tmp_path: Path) -> None:
    def one(name: str, function: str, line: int) -> ragprof.Recording:
        return write(
            tmp_path / name,
            {
                "frames": [
                    {"frame_id": 1, "function": function, "file": "a.py", "line": line},
                    {"frame_id": 2, "function": "both:f", "file": "b.py", "line": 1},
                ],
                "stacks": [
                    {"stack_id": 1, "frame_ids": [2, 1], "lines": [3, 4]},
                    {"stack_id": 2, "frame_ids": [2], "lines": [3]},
                ],
                "samples": [{"time": T0 + line, "stack_id": s, "process": line} for s in (1, 2, 9)],
                "series": [{"series_id": 1, "name": function}, {"series_id": 2, "name": "both"}],
                "metrics": [{"series_id": s, "time": T0 + line, "value": line} for s in (1, 2)],
            },
            sources=[{"kind": name}],
            refused={"r": line},
        )

    merged = ragprof.merge(
        [one("a.ragprof", "a:f", 1), one("b.ragprof", "b:f", 2)], tmp_path / "m.ragprof"
    )
    stacks = merged.sql(
        """select process, list(function order by depth) functions from (
             select s.process, s.stack_id, unnest(k.frame_ids) frame_id,
                    generate_subscripts(k.frame_ids, 1) depth
             from samples s join stacks k using (stack_id))
           join frames using (frame_id) group by process, stack_id order by 1, 2"""
    )
    assert stacks.functions.map(list).tolist() == [
        ["both:f"],
        ["both:f", "a:f"],
        ["both:f"],
        ["both:f", "b:f"],
    ]
    assert merged.table("frames").num_rows == merged.table("series").num_rows == 3
    assert merged.table("stacks").num_rows == 3
    assert merged.table("samples")["stack_id"].to_pylist().count(-1) == 2  # of no known stack
    values = merged.sql("select name, value from metrics join series using (series_id) order by 2")
    assert sorted(zip(values.name, values.value, strict=True)) == [
        ("a:f", 1), ("b:f", 2), ("both", 1), ("both", 2),
    ]  # fmt: skip
    assert merged.manifest["refused"] == {"r": 3}
    assert merged.manifest["sources"] == [{"kind": "a.ragprof"}, {"kind": "b.ragprof"}]
    with pytest.raises(RecordingError, match="nothing to merge"):
        ragprof.merge([], tmp_path / "none.ragprof")
    with pytest.raises(RecordingError, match="exists"):
        ragprof.merge([merged], tmp_path / "m.ragprof")


LABELS = {"service": "s", "user": "PRIVATE"}


def private(path: Path) -> ragprof.Recording:
    trace, span = TRACES[0], "00000000000000aa"
    event = {"time": T0, "name": "exception", "attributes": {"exception.message": "PRIVATE"}}
    link = {"trace_id": TRACES[1], "span_id": span, "attributes": {"user.id": "PRIVATE"}}
    return write(
        path,
        {
            "spans": [
                {
                    "trace_id": trace,
                    "span_id": span,
                    "start": T0,
                    "name": "ask",
                    "service": "rag-api",
                    "status_message": "PRIVATE",
                    "attributes": {
                        "db.query.text": "PRIVATE",
                        "rag.query": "PRIVATE",
                        "http.request.header.x_api": '["PRIVATE"]',
                        "http.request_id": "REQUEST-7",
                        "llm.token_count.prompt": "812",
                        "gen_ai.usage.input_tokens": "812",
                    },
                    "resource": {"process.command_args": "PRIVATE", "service.version": "1.4"},
                    "events": [event],
                    "links": [link],
                },
                {
                    "trace_id": trace,
                    "span_id": "bb",
                    "parent_span_id": span,
                    "start": T0 + 1,
                    "name": "db",
                },
            ],
            "logs": [
                {
                    "time": T0,
                    "body": "PRIVATE",
                    "trace_id": trace,
                    "span_id": span,
                    "request_id": "REQUEST-7",
                    "attributes": {"password": "PRIVATE", "trace_id": trace, "rows": 3},
                }
            ],
            "samples": [{"time": T0, "stack_id": 1, "trace_id": trace, "span_id": span}],
            "stacks": [{"stack_id": 1, "frame_ids": [], "lines": []}],
            "series": [
                {"series_id": 1, "name": "m", "labels": {"service": "s", "user": "PRIVATE"}}
            ],
            "metrics": [
                {
                    "series_id": 1,
                    "time": T0,
                    "exemplars": [{"time": T0, "value": 1.0, "trace_id": trace, "span_id": span}],
                },
                {"series_id": 1, "time": T0 + 1, "value": 2.0},
            ],
            "changes": [{"time": T0, "text": "PRIVATE", "attributes": {"api_key": "PRIVATE"}}],
        },
        sources=[{"kind": "child", "command": ["run", "--key=PRIVATE"], "trace_id": trace}],
        queries=["up{x='PRIVATE'}"],
    )


def everything(recording: ragprof.Recording) -> str:
    tables = {name: recording.table(name).to_pylist() for name in SCHEMAS}
    return json.dumps([tables, recording.manifest], default=str)


def test_redaction_removes_what_is_private_and_keeps_the_joins(tmp_path: Path) -> None:
    whole = private(tmp_path / "a.ragprof")
    redacted = whole.redact().save(tmp_path / "b.ragprof")
    text = everything(redacted)
    assert "PRIVATE" in everything(whole)
    for secret in ("PRIVATE", "REQUEST-7", TRACES[0], TRACES[1], "00000000000000aa"):
        assert secret not in text
    joined = redacted.sql(
        """select count(*) n from spans s join logs l using (span_key)
           join samples p using (span_key) join spans c on c.parent_key = s.span_key
           join (select unnest(exemplars) e from metrics) on e.trace_id = s.trace_id
             and e.span_id = s.span_id
           where l.request_id = s.attributes['http.request_id']
             and l.attributes['trace_id'] = s.trace_id"""
    )
    assert joined.n[0] == 1
    spans = redacted.to_pandas("spans")
    assert spans.trace_id.str.fullmatch("[0-9a-f]{32}").all()
    assert spans.span_key[0] == join_key(spans.trace_id[0], spans.span_id[0])
    assert spans.attributes[0]["db.query.text"] == MARK
    assert spans.attributes[0]["llm.token_count.prompt"] == "812"
    assert spans.attributes[0]["gen_ai.usage.input_tokens"] == "812"
    assert spans.resource[0]["service.version"] == "1.4"
    assert redacted.to_pandas("series").labels[0] == {"service": "s", "user": MARK}
    assert redacted.to_pandas("metrics").exemplars.isna().tolist() == [False, True]
    (said,) = redacted.manifest["redacted"]
    assert said["replaced"]["db.query.text"] == 1
    assert said["replaced"]["logs.body"] == 1
    assert said["ids"] == "keyed BLAKE2b"
    assert redacted.verify() == []
    assert whole.redact().to_pandas("spans").trace_id[0] != spans.trace_id[0]  # another key


def test_redaction_by_own_patterns(tmp_path: Path) -> None:
    whole = private(tmp_path / "a.ragprof")
    one = whole.redact(allow=["gen_ai.*"], deny=["GEN_AI.usage.*"], texts=False, ids=False)
    attributes = one.to_pandas("spans").attributes[0]
    assert set(attributes.values()) == {MARK}
    assert one.to_pandas("logs").body[0] == "PRIVATE"
    assert one.to_pandas("spans").trace_id[0] == TRACES[0]
    assert one.manifest["redacted"][0]["ids"] == "kept"
    two = whole.redact(allow=["gen_ai.*"], deny=[])
    assert two.to_pandas("spans").attributes[0]["gen_ai.usage.input_tokens"] == "812"


def test_the_same_key_joins_two_recordings(tmp_path: Path) -> None:
    whole = private(tmp_path / "a.ragprof")
    ids = [whole.redact(key=b"k" * 16).to_pandas("spans").trace_id[0] for _ in range(2)]
    assert ids[0] == ids[1]
    assert "k" * 16 not in everything(whole.redact(key=b"k" * 16))


@settings(max_examples=10, deadline=None, phases=QUICK)
@given(tables=recordings)
def test_redaction_changes_no_number_and_no_join(
    tables: dict[str, list[dict[str, Any]]],
) -> None:
    count = (
        "select (select count(*) from spans a join spans b on a.span_key = b.parent_key), "
        "(select count(*) from spans join logs using (span_key) where span_key != 0), "
        "(select count(*) from spans join samples using (trace_key)), "
        "(select sum(duration_ns) from spans), (select count(distinct trace_id) from logs)"
    )
    with tempfile.TemporaryDirectory() as folder:
        whole = write(Path(folder) / "a.ragprof", tables)
        redacted = whole.redact()
        assert whole.sql(count).to_string() == redacted.sql(count).to_string()
        for name in TIME_COLUMN:
            column = TIME_COLUMN[name]
            assert redacted.table(name)[column].equals(whole.table(name)[column])
