"""Stacks of a capture: what services kept of slow requests, and what py-spy sees meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import ragprof as rp
from ragprof.capturing import config, live
from ragprof.service import keeping, pprof_endpoint
from ragprof.sources import stacks
from ragprof.sources.http import Client, Connection
from ragprof.sources.settings import ConfigError
from ragprof.sources.source import Query, Window, fetch

S = 1_000_000_000
BEGIN = 1_700_000_000 * S
REQUESTS = 45  # more than two pages
WINDOW = Window(BEGIN, BEGIN + REQUESTS * S)


def trace(number: int) -> str:
    return f"{number + 1:032x}"


def lines(number: int) -> list[dict[str, Any]]:
    """What the sampler saw of one request: two stacks, one of them awaiting."""
    begin = BEGIN + number * S
    return [
        {
            "type": "frames",
            "rows": [
                [1, "app", "main", "/srv/app.py", 1, "app"],
                [2, "app", "embed", "/srv/app.py", 10 + number % 2, "app"],
            ],
        },
        {"type": "stacks", "rows": [[1, [1, 2], [5, 12]], [2, [1], [6]]]},
        {
            "type": "samples",
            "columns": {
                "time": [begin + 100_000_001, begin + 200_000_003],
                "weight_ns": [10_000_000, 10_000_000],
                "stack_id": [1, 2],
                "thread": [7, 7],
                "task": [0, 3],
                "state": ["running", "awaiting"],
                "wait": ["", "lock"],
                "trace_id": [trace(number)] * 2,
                "span_id": ["00000000000000ab"] * 2,
            },
        },
    ]


@pytest.fixture
def folder(tmp_path: Path) -> keeping.KeptFolder:
    made = keeping.KeptFolder(tmp_path / "kept", 1 << 30)
    for number in range(REQUESTS):
        begin = BEGIN + number * S
        made.store(
            keeping.Request(
                trace(number), "/ask", begin, begin + S // 2, 0.25, 4711, f"rag-{number % 3}"
            ),
            lines(number),
        )
    return made


def replica(folder: keeping.KeptFolder, fail: int = 0) -> stacks.Stacks:
    """A source on the answers that a service gives, the first `fail` of them cut short."""
    left = [fail]

    def nanoseconds(text: str) -> int:
        return int(datetime.fromisoformat(text).timestamp() * 1e6) * 1000

    def answer(request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        body, _, _ = pprof_endpoint.kept(
            folder,
            nanoseconds(asked["since"]),
            nanoseconds(asked["until"]),
            int(asked["limit"]),
            asked["format"],
        )
        if left[0]:
            left[0] -= 1
            body = body[: len(body) // 2]
        return httpx.Response(200, content=body)

    client = Client(
        "stacks",
        Connection("http://replica.test"),
        transport=httpx.MockTransport(answer),
        wait=lambda seconds: None,
    )
    return stacks.Stacks("stacks", [client])


def samples(source: stacks.Stacks, query: Query | None = None) -> list[dict[str, Any]]:
    """Samples with their stack as functions, by time."""
    frames: dict[int, str] = {}
    paths: dict[int, list[str]] = {}
    found = []
    for table, rows in fetch(source, WINDOW, query):
        for row in rows.to_pylist():
            if table == "frames":
                frames[row["frame_id"]] = row["function"]
            elif table == "stacks":
                paths[row["stack_id"]] = [frames[each] for each in row["frame_ids"]]
            else:
                found.append({**row, "time": row["time"].value, "stack": paths[row["stack_id"]]})
    return sorted(found, key=lambda row: row["time"])


@pytest.mark.parametrize("fail", [0, 3])
def test_every_kept_sample_arrives_once_from_a_replica(
    folder: keeping.KeptFolder, fail: int
) -> None:
    found = samples(replica(folder, fail))
    assert len(found) == 2 * REQUESTS
    assert len({row["time"] for row in found}) == 2 * REQUESTS
    first, second = found[:2]
    assert first["time"] == BEGIN + 100_000_001
    assert first["stack"] == ["app:main", "app:embed"]
    assert (first["state"], first["task"], first["thread"]) == ("running", 0, 7)
    assert (second["state"], second["wait"], second["task"]) == ("awaiting", "lock", 3)
    assert first["trace_id"] == trace(0)
    assert first["span_id"] == "00000000000000ab"
    assert (first["service"], first["process"]) == ("rag-0", 4711)
    assert first["weight_ns"] == 10_000_000


def test_the_folder_gives_what_the_endpoint_gives(folder: keeping.KeptFolder) -> None:
    def content(source: stacks.Stacks) -> list[tuple[Any, ...]]:
        return [
            tuple(str(row[name]) for name in sorted(row) if name not in ("stack_id",))
            for row in samples(source)
        ]

    own = stacks.Stacks("stacks", [], (str(folder.path),))
    assert content(own) == content(replica(folder))


def test_services_and_traces_restrict(folder: keeping.KeptFolder) -> None:
    found = samples(replica(folder), Query(services=("rag-1",)))
    assert {row["service"] for row in found} == {"rag-1"}
    found = samples(replica(folder), Query(trace_ids=(trace(3),)))
    assert [row["trace_id"] for row in found] == [trace(3)] * 2


def test_a_capture_says_who_has_stacks_and_when(folder: keeping.KeptFolder, tmp_path: Path) -> None:
    settings = config.read({"sources": {"stacks": {"folders": [str(folder.path)]}}})
    result = live.run(settings, WINDOW, tmp_path / "a.ragprof")
    assert result.rows["samples"] == 2 * REQUESTS
    found = rp.open(tmp_path / "a.ragprof")
    assert set(found.manifest["stacks"]) == {"rag-0", "rag-1", "rag-2"}
    assert found.manifest["stacks"]["rag-0"] == {
        "samples": 30,
        "minutes": ["2023-11-14T22:13Z", "2023-11-14T22:14Z"],
    }
    assert len(found.dataset("frames").to_table()) == 3


def test_a_folder_that_is_not_there_is_a_failed_check(tmp_path: Path) -> None:
    [check] = stacks.Stacks("stacks", [], (str(tmp_path / "none"),)).check(WINDOW)
    assert check.state == "failed"
    assert "is not a folder" in check.text


BUSY = """
import time
print("ready", flush=True)
def crunch():
    ends = time.monotonic() + 300
    while time.monotonic() < ends:
        sum(range(1000))
crunch()
"""


def test_a_process_is_sampled_while_the_capture_is_made(
    folder: keeping.KeptFolder, tmp_path: Path
) -> None:
    settings = config.read({"sources": {"stacks": {"folders": [str(folder.path)]}}})
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            began = time.time_ns()
            result = live.run(
                settings, WINDOW, tmp_path / "a.ragprof", attach=[busy.pid], attach_seconds=8
            )
        finally:
            busy.kill()
    assert result.plan.window.end > began  # the window reaches until the samples
    found = rp.open(tmp_path / "a.ragprof")
    rows = found.dataset("samples").to_table().to_pylist()
    assert len(rows) > 2 * REQUESTS
    assert any(row["process"] == busy.pid for row in rows)
    names = {row["function"] for row in found.dataset("frames").to_table().to_pylist()}
    assert any("crunch" in name for name in names)
    assert "app:embed" in names


def test_a_process_that_does_not_run_is_named(folder: keeping.KeptFolder, tmp_path: Path) -> None:
    settings = config.read({"sources": {"stacks": {"folders": [str(folder.path)]}}})
    with pytest.raises(ConfigError, match="No process has the id 4194304"):
        live.run(settings, WINDOW, tmp_path / "a.ragprof", attach=[4194304])
    assert not (tmp_path / "a.ragprof").exists()
