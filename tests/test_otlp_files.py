"""Files of telemetry -> the same rows, whatever their form; bad content is counted or said."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragprof.rows import conform
from ragprof.sources import otlp, otlp_files
from ragprof.sources.otlp_files import connect, read_file
from ragprof.sources.settings import Settings
from ragprof.sources.source import FAILED, OK, Query, SourceError, Window, fetch

START = 1_790_000_000_000_000_000
EVER = Window(1, 2**62)


def span(number: int, trace: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "traceId": f"{trace or number + 1:032x}",
        "spanId": f"{number + 1:016x}",
        "name": f"step {number % 3}",
        "kind": 2,
        "startTimeUnixNano": str(START + number * 1000),
        "endTimeUnixNano": str(START + number * 1000 + 500 * (number + 1)),
        "attributes": [{"key": "n", "value": {"intValue": str(number)}}],
        **changes,
    }


def request(*spans: dict[str, Any], service: str = "rag") -> dict[str, Any]:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


def encoded(content: dict[str, Any], signal: str = "traces") -> bytes:
    return bytes(otlp.filled(signal, content).SerializeToString())


def framed(*messages: bytes) -> bytes:
    return b"".join(len(each).to_bytes(4, "big") + each for each in messages)


def compressed(data: bytes, tmp_path: Path) -> bytes:
    path = tmp_path / "part.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(data)
    return path.read_bytes()


def source(*paths: Path) -> otlp_files.OtlpFiles:
    return connect(Settings("otlp", {"path": [str(path) for path in paths]}))


def ids(source: otlp_files.OtlpFiles, query: Query | None = None, window: Window = EVER) -> list:
    return sorted(
        each
        for table, rows in fetch(source, window, query)
        if table == "spans"
        for each in rows["span_id"].to_pylist()
    )


REQUESTS = [request(*(span(number) for number in range(first, first + 30))) for first in (0, 30)]
EXPECTED = sorted(f"{number + 1:016x}" for number in range(60))


@pytest.mark.parametrize("form", ["lines", "array", "pretty", "framed", "one", "utf-16", "bom"])
@pytest.mark.parametrize("packing", ["", "gzip", "zstd"])
def test_every_form_gives_the_same_spans(tmp_path: Path, form: str, packing: str) -> None:
    lines = "".join(json.dumps(each) + "\n" for each in REQUESTS)
    both = {"resourceSpans": [*REQUESTS[0]["resourceSpans"], *REQUESTS[1]["resourceSpans"]]}
    data = {
        "lines": lines.encode(),
        "array": json.dumps(REQUESTS).encode(),
        "pretty": json.dumps(both, indent=1).encode(),
        "framed": framed(*map(encoded, REQUESTS)),
        "one": b"".join(map(encoded, REQUESTS)),
        "utf-16": lines.encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + lines.encode(),
    }[form]
    path = tmp_path / "spans.bin"
    if packing == "gzip":
        data = gzip.compress(data)
    elif packing == "zstd":
        data = compressed(data, tmp_path)
    path.write_bytes(data)
    read = source(path)
    assert ids(read) == EXPECTED
    assert not read.refused


def test_the_collectors_compressed_frames(tmp_path: Path) -> None:
    parts = [compressed(encoded(each), tmp_path) for each in REQUESTS]
    path = tmp_path / "frames"
    path.write_bytes(framed(*parts))
    assert ids(source(path)) == EXPECTED


def test_lines_are_cut_into_pieces_without_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp_files, "PIECE", 1000)
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(request(span(number))) + "\n" for number in range(60)))
    read = source(path)
    assert len(read.plan(EVER, Query())) > 10
    assert ids(read) == EXPECTED


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=12), st.integers(1, 900))
def test_any_cut_of_lines_gives_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, paddings: list[int], step: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "lines"
    lines = [
        json.dumps(request(span(number), service="s" * padding))
        for number, padding in enumerate(paddings)
    ]
    path.write_text("\n".join(lines) + "\n")
    size = path.stat().st_size
    found: list[str] = []
    for first in range(0, size, step):
        refused: Counter[str] = Counter()
        for _, rows in read_file(path, refused, first, min(first + step, size)):
            found += rows["span_id"].to_pylist()
        assert not refused
    assert sorted(found) == sorted(f"{number + 1:016x}" for number in range(len(paddings)))


def test_logs_and_metrics_are_told_by_content(tmp_path: Path) -> None:
    record = {"timeUnixNano": str(START), "body": {"stringValue": "b"}}
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    point = {"timeUnixNano": str(START), "asDouble": 1.5}
    metrics = {
        "resourceMetrics": [
            {"scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": [point]}}]}]}
        ]
    }
    (tmp_path / "a").write_bytes(framed(encoded(logs, "logs")))
    (tmp_path / "b").write_bytes(framed(encoded(metrics, "metrics"), encoded(metrics, "metrics")))
    (tmp_path / "c").write_text(json.dumps(logs) + "\n" + json.dumps(metrics) + "\n")
    rows: dict[str, int] = {}
    for table, found in fetch(source(tmp_path), EVER):
        conform(table, found)
        rows[table] = rows.get(table, 0) + found.num_rows
    assert rows == {"logs": 2, "metrics": 3, "series": 2}


def test_bad_lines_are_counted_and_the_good_ones_kept(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    good = [json.dumps(each) for each in REQUESTS]
    path.write_bytes(
        "\n".join(
            [good[0], "{'not': strict}", '{"resourceSpans": {}}', "[1]", good[1], good[0][:-40]]
        ).encode()
        + b"\n\xff\xfe\x00\n"
        + good[0][:100].encode()
    )
    read = source(path)
    assert ids(read) == EXPECTED
    assert read.refused == {
        f"{path}: line that is not JSON": 3,
        f"{path}: line that is JSON but not OTLP": 1,
        f"{path}: line that is no object of telemetry": 1,
        f"{path}: half-written line at the end": 1,
    }


def test_a_half_written_frame_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "half.pb"
    path.write_bytes(framed(*map(encoded, REQUESTS), encoded(REQUESTS[0]))[:-7])
    read = source(path)
    assert ids(read) == EXPECTED
    assert read.refused == {f"{path}: half-written message at the end": 1}


def test_one_broken_frame_does_not_take_the_others(tmp_path: Path) -> None:
    path = tmp_path / "broken.pb"
    path.write_bytes(framed(encoded(REQUESTS[0]), b"\x0a\xff\xff", encoded(REQUESTS[1])))
    read = source(path)
    assert ids(read) == EXPECTED
    assert read.refused == {f"{path}: message that is not OTLP": 1}


@pytest.mark.parametrize("content", [b"{", b"hello\nworld\n", b"\x1f\x8b\x08half", b"[1, 2]"])
def test_a_file_of_something_else_is_one_error_that_names_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "else"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="else"):
        ids(source(path))


def test_no_file_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file is at .*missing.*give files"):
        ids(source(tmp_path / "missing" / "*.jsonl"))
    assert source(tmp_path / "missing").check(EVER)[0].state == FAILED


def test_queries(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    slow = span(9, trace=77, endTimeUnixNano=str(START + 10**9))
    child = span(10, trace=77, parentSpanId=f"{10:016x}")
    path.write_text(json.dumps(request(slow, child)) + "\n" + json.dumps(request(span(1))) + "\n")
    read = source(path)
    whole = [f"{10:016x}", f"{11:016x}"]
    assert ids(read, Query(min_duration=10**8)) == whole
    assert ids(read, Query(tags={"n": "9"})) == whole
    assert ids(read, Query(trace_ids=(f"{77:032x}",))) == whole
    assert ids(read, Query(services=("other",))) == []
    assert ids(read, window=Window(START + 9000, START + 9001)) == [whole[0]]
    roots = read.roots(EVER, Query()).to_pylist()
    assert {row["trace_id"]: row["duration_ns"] for row in roots} == {
        f"{77:032x}": 10**9 - 9000,
        f"{2:032x}": 1000,
    }
    assert read.check(EVER)[0].state == OK


def test_files_of_jaeger_and_zipkin(tmp_path: Path) -> None:
    jaeger = {
        "data": [
            {
                "traceID": "ab",
                "spans": [
                    {
                        "traceID": "ab",
                        "spanID": "1",
                        "operationName": "o",
                        "startTime": START // 1000,
                        "duration": 5,
                        "processID": "p1",
                        "references": [],
                        "tags": [],
                    }
                ],
                "processes": {"p1": {"serviceName": "s"}},
            }
        ]
    }
    zipkin = [
        {
            "traceId": "cd",
            "id": "2",
            "timestamp": START // 1000,
            "duration": 5,
            "localEndpoint": {"serviceName": "z"},
        }
    ]
    (tmp_path / "jaeger.json").write_text(json.dumps(jaeger, indent=2))
    (tmp_path / "zipkin.json").write_text(json.dumps(zipkin))
    assert ids(source(tmp_path)) == [f"{1:016x}", f"{2:016x}"]
