"""The live investigation: a window is captured by a configuration and investigated, headless."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from backends.proxy import FaultyProxy

from ragprof.errors import RagprofError
from ragprof.reports import live, runner

START = 1_790_000_000_000_000_000
MS = 1_000_000
WINDOW = "2026-09-21T13:00:00Z..2026-09-21T15:00:00Z"


def span(trace: int, n: int, parent: int, name: str, at: int, length: int) -> dict[str, Any]:
    return {
        "traceId": f"{trace + 1:032x}",
        "spanId": f"{n:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "name": name,
        "kind": 2 if not parent else 1,
        "startTimeUnixNano": str(at),
        "endTimeUnixNano": str(at + length),
    }


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose source is a file: 200 requests, of which 30 rerank for long."""
    rng = random.Random(1)
    spans = []
    for number in range(200):
        at = START + number * 1000 * MS
        retrieve = int(rng.uniform(10, 20) * MS)
        rerank = int(rng.uniform(20, 30) * MS) + (400 * MS if number >= 170 else 0)
        spans += [
            span(number, 1, 0, "GET /search", at, retrieve + rerank + 5 * MS),
            span(number, 2, 1, "retrieve", at + MS, retrieve),
            span(number, 3, 1, "rerank", at + MS + retrieve, rerank),
        ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "rag"}}]}
    content = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}
    (tmp_path / "spans.jsonl").write_text(json.dumps(content) + "\n")
    path = tmp_path / "ragprof.toml"
    path.write_text(f'[sources.otlp]\npath = ["{tmp_path}/spans.jsonl"]\n')
    return path


def test_the_notebook_runs_headless(config: Path, tmp_path: Path) -> None:
    page = runner.run(
        "live_investigation",
        tmp_path / "report",
        {
            "config": str(config),
            "window": WINDOW,
            "slow": "200ms",
            "out": str(tmp_path / "live.ragprof"),
        },
    )
    text = page.read_text(encoding="utf-8")
    assert "rerank" in text
    assert (tmp_path / "live.ragprof" / "manifest.json").is_file()


def test_a_notebook_that_fails_holds_no_secret(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RP_TEST_SECRET", "s3cret-t0ken")
    secret = '{ env = "RP_TEST_SECRET" }'
    with FaultyProxy("http://127.0.0.1:9", lambda n, method, path: "garbage") as proxy:
        lines = f'url = "{proxy.url}"\ntoken = {secret}\nretries = 0\n'
        config.write_text(f"{config.read_text()}[sources.prometheus]\n{lines}")
        parameters = {"config": str(config), "window": WINDOW, "out": str(tmp_path / "a")}
        with pytest.raises(RagprofError, match="garbage"):
            runner.run("live_investigation", tmp_path / "report", parameters)
        assert proxy.seen
    written = [path for path in (tmp_path / "report").rglob("*") if path.is_file()]
    assert any(path.suffix == ".ipynb" for path in written)
    for path in written:
        assert b"s3cret" not in path.read_bytes()


def test_the_window_of_the_recording_is_the_one_asked_for(config: Path, tmp_path: Path) -> None:
    recording = live.captured(config, WINDOW, slow="200ms", out=tmp_path / "live.ragprof")
    rows = recording.to_pandas("spans")
    roots = rows[rows["parent_span_id"] == ""]
    assert (roots["duration_ns"] >= 200 * MS).sum() == 30  # all slow ones
    assert (roots["duration_ns"] < 200 * MS).sum() >= 100  # and others beside them
    found = live.investigated(recording, slow="200ms")
    assert "rerank" in str(found.findings.head(3).to_dict())


def test_wrong_windows_are_said(config: Path) -> None:
    with pytest.raises(RagprofError, match="no time zone"):
        live.captured(config, "2026-09-21T13:00:00..2026-09-21T15:00:00")
    with pytest.raises(RagprofError):
        live.captured(config, "soon")
