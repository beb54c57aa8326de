"""Systems that are observed badly: investigated with what there is, and told what is missing.

The same requests are captured twice: as they should be seen; and with log records that carry no
trace ids, from a service whose clock is two seconds ahead, beside a Prometheus with a hole.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from pathlib import Path
from typing import Any

import pytest
from backends import remote_write
from backends.servers import Server

import ragprof as rp
from ragprof.analysis import absences
from ragprof.capturing.checks import check_sources
from ragprof.capturing.config import read
from ragprof.cli import main
from ragprof.reports import sections
from ragprof.rows import conform
from ragprof.sources.source import OK, WARNING, Window

S, MS = 1_000_000_000, 1_000_000
SECONDS = 120
AFTER = 4  # seconds more of the window, for the clock that is ahead
SKEW = 2 * S
HOLE = (40, 90)  # seconds of the window
Capture = tuple[Path, Window]


def system(folder: Path, prometheus: Server, *, lacking: bool) -> Capture:
    """The configuration of a capture, and its window. From its half on, reranking takes long."""
    folder.mkdir()
    rng, run = random.Random(1), secrets.token_hex(8)
    start = (time.time_ns() // S - SECONDS - 60) * S
    skew = SKEW if lacking else 0
    front, back, records = [], [], []
    for number in range(SECONDS * 2):
        at, trace = start + number * S // 2, f"{number + 1:032x}"
        embed, rerank = (int(rng.uniform(10, 20) * MS) for _ in range(2))
        rerank += 300 * MS if number >= SECONDS else 0
        call = at + MS + embed

        def span(n: int, above: int, name: str, kind: int, begin: int, length: int) -> Any:
            return {
                "traceId": trace,  # noqa: B023
                "spanId": f"{n:016x}",
                "parentSpanId": f"{above:016x}" if above else "",
                "name": name,
                "kind": kind,
                "startTimeUnixNano": str(begin),
                "endTimeUnixNano": str(begin + length),
            }

        front += [
            span(1, 0, "POST /ask", 2, at, embed + rerank + 5 * MS),
            span(2, 1, "embed", 1, at + MS, embed),
            span(3, 1, "POST", 3, call, rerank + 2 * MS),
        ]
        back += [
            span(4, 3, "POST /rerank", 2, call + MS + skew, rerank),
            span(5, 4, "rerank", 1, call + 2 * MS + skew, rerank - 2 * MS),
        ]
        records.append(
            {
                "timeUnixNano": str(at + 2 * MS),
                "severityText": "INFO",
                "body": {"stringValue": f"asked {number}"},
                **({} if lacking else {"traceId": trace, "spanId": f"{1:016x}"}),
            }
        )

    def lines(key: str, below: str, rows: dict[str, list[Any]]) -> str:
        scope = "scopeSpans" if key == "resourceSpans" else "scopeLogs"
        groups = [
            {
                "resource": {
                    "attributes": [{"key": "service.name", "value": {"stringValue": service}}]
                },
                scope: [{below: found}],
            }
            for service, found in rows.items()
        ]
        return json.dumps({key: groups}) + "\n"

    (folder / "otel.jsonl").write_text(
        lines("resourceSpans", "spans", {"rag-api": front, "rag-models": back})
        + lines("resourceLogs", "logRecords", {"rag-api": records})
    )
    times = [start // MS + second * 1000 for second in range(0, SECONDS + AFTER, 2)]
    times = [at for n, at in enumerate(times) if not (lacking and HOLE[0] <= 2 * n < HOLE[1])]
    labels = {"__name__": "up", "service": "rag-api", "run": run}
    exemplars = [(times[3], 0.1, {"trace_id": f"{7:032x}"})]
    remote_write.write(
        prometheus.url,
        [
            {"labels": labels, "points": [(at, 1.0) for at in times]},
            {
                "labels": {**labels, "__name__": "asked_bucket", "le": "+Inf"},
                "points": [(at, 1.0) for at in times],
                **({} if lacking else {"exemplars": exemplars}),
            },
        ],
    )
    path = folder / "ragprof.toml"
    path.write_text(
        f'[sources.otlp]\npath = ["{folder}/otel.jsonl"]\n'
        f'[sources.prometheus]\nurl = "{prometheus.url}"\n'
        f"match = ['{{run=\"{run}\"}}']\n"
    )
    return path, Window(start, start + (SECONDS + AFTER) * S)


@pytest.fixture(scope="module")
def systems(
    prometheus: Server, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Capture, rp.Recording]]:
    folder = tmp_path_factory.mktemp("lacking")
    found = {}
    for name in ("seen", "lacking"):
        path, window = system(folder / name, prometheus, lacking=name == "lacking")
        start, end = (str(rp_time(edge)) for edge in (window.start, window.end))
        out = folder / f"{name}.ragprof"
        found[name] = ((path, window), rp.capture(path, start=start, end=end, out=out))
    return found


def rp_time(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // S))


def test_the_first_finding_is_that_of_the_system_seen_well(
    systems: dict[str, tuple[Capture, rp.Recording]],
) -> None:
    first = []
    for _, recording in systems.values():
        found = rp.investigate(recording)
        assert found.verdict == "cause_found"
        first.append(found.findings.iloc[0][["stage", "kind", "service", "span"]].to_dict())
    assert first[0] == first[1]
    assert first[0]["service"] == "rag-models"


def test_the_coverage_says_what_is_missing(
    systems: dict[str, tuple[Capture, rp.Recording]],
) -> None:
    found = rp.investigate(systems["lacking"][1])
    rows = found.coverage.set_index("table")
    missing = rows["missing"]
    requests = SECONDS * 2
    assert missing["spans"] == (
        "the clock of rag-models is 2 s ahead of that of rag-api "
        f"(aligned for {requests} of {requests} calls)"
    )
    assert missing["logs"] == "no record has a trace id"
    assert rows.loc["logs", ["rows", "trace_id", "service_time"]].tolist() == [
        *(requests, 0, requests),
    ]
    assert missing["metrics"].startswith("no exemplars; no point of rag-api for 52 s from ")
    assert missing["samples"] == "no stacks"
    assert found.to_dict()["coverage"]["logs"]["missing"] == "no record has a trace id"
    assert "no record has a trace id" in sections.coverage(found)._repr_html_()


def test_nothing_is_said_to_be_missing_that_is_there(
    systems: dict[str, tuple[Capture, rp.Recording]],
) -> None:
    rows = rp.investigate(systems["seen"][1]).coverage.set_index("table")
    assert rows.loc[["spans", "logs", "metrics"], "missing"].tolist() == ["", "", ""]
    assert rows.loc["logs", "trace_id"] == SECONDS * 2
    assert rows.loc["metrics", "exemplar"] == 1


def test_the_manifest_and_the_checks_say_it_too(
    systems: dict[str, tuple[Capture, rp.Recording]],
) -> None:
    for name, traced in (("seen", SECONDS * 2), ("lacking", 0)):
        (path, window), recording = systems[name]
        coverage = recording.manifest["coverage"]
        assert coverage["logs_with_trace_id"] == traced
        assert coverage["logs"] == SECONDS * 2
        states = {check.subject: check.state for check in check_sources(read(path), window)}
        wanted = OK if name == "seen" else WARNING
        assert (states["gaps"], states["exemplars"]) == (wanted, wanted)


def test_without_stacks_it_stops_at_the_span_and_says_how_to_get_them(
    systems: dict[str, tuple[Capture, rp.Recording]], capsys: pytest.CaptureFixture[str]
) -> None:
    recording = systems["lacking"][1]
    assert main(["investigate", str(recording.path)]) == 0
    said = capsys.readouterr().out
    assert "no stacks of these requests" in said
    assert "`ragprof capture --attach PID`" in said
    assert not rp.investigate(recording).findings["function"].any()


def test_holes_are_those_of_a_service_and_not_of_one_series() -> None:
    series = conform(
        "series",
        [
            {"series_id": n, "name": f"s{n}", "labels": {"service": "a" if n < 2 else "b"}}
            for n in range(3)
        ],
    )
    points = [
        *((0, second) for second in range(0, 60, 2)),
        *((1, second) for second in range(60, 100, 2)),  # another series goes on
        *((2, second) for second in [*range(20, 40, 2), *range(70, 80, 2)]),
    ]
    metrics = conform(
        "metrics", [{"series_id": n, "time": at * S, "value": 1.0} for n, at in points]
    )
    found = absences.holes(metrics, series, (0, 100 * S))
    assert found[["service", "seconds"]].to_dict("list") == {
        "service": ["b", "b"],
        "seconds": [32.0, 22.0],  # within, and to the window's end; its start may be its begin
    }
    assert absences.holes(metrics.slice(0, 0), series, (0, 100 * S)).empty
