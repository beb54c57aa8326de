"""`ragprof capture`: configuration, plan, resumption, redaction, choice of requests, manifest."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from traceback import TracebackException
from typing import Any

import pyarrow as pa
import pytest
from backends import remote_write, servers
from backends.proxy import FaultyProxy
from backends.servers import Server
from prometheus_data import POINTS, STEP, series

import ragprof as rp
from ragprof.capturing import assembly, choosing, config, live, pieces
from ragprof.capturing.checks import check_sources
from ragprof.cli import main
from ragprof.errors import RagprofError
from ragprof.journal import Journal
from ragprof.sources import source as interface
from ragprof.sources.settings import ConfigError
from ragprof.sources.source import Check, Piece, Query, SourceError, Tables, Window

S = 1_000_000_000
BEGIN = 1_700_000_000 * S
WINDOW = Window(BEGIN, BEGIN + 100 * S)


def trace(number: int) -> str:
    return hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


class Backend:
    """A source of spans, logs, samples and metrics in ten pieces; it fails where it is told to."""

    name, kind = "jaeger", "jaeger"
    tables: tuple[str, ...] = ("spans", "logs", "metrics", "samples")

    def __init__(self, broken: set[str] | None = None) -> None:
        self.broken = broken or set()
        self.fetched: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def check(self, window: Window) -> list[Check]:
        return [Check(self.name, "reachable", interface.OK, "yes")]

    def plan(self, window: Window, query: Query) -> list[Piece]:
        request = {"trace_ids": list(query.trace_ids)}
        return [
            Piece(f"p{number}", cut, f"traces {number}", request, rows=20, bytes=2000)
            for number, cut in enumerate(window.cut((window.end - window.start) // 10))
        ]

    def fetch_piece(self, piece: Piece) -> Tables:
        self.fetched.append(piece.key)
        number = int(piece.key[1:])
        yield "series", pa.table({"series_id": [7], "name": ["up"]})
        yield "frames", pa.table({"frame_id": [3, 4], "function": ["a:f", f"a:g{number % 2}"]})
        yield "stacks", pa.table({"stack_id": [9], "frame_ids": [[3, 4]]})
        if piece.key in self.broken:
            raise SourceError(f"{self.name}: cut in the middle of {piece.key}.")
        at = piece.window.start
        rows = range(number * 10, number * 10 + 11)  # the last is the next piece's first, too
        yield (
            "spans",
            pa.table(
                {
                    "trace_id": [trace(row) for row in rows],
                    "span_id": [f"{row:016x}" for row in rows],
                    "name": ["GET /"] * 11,
                    "service": ["rag"] * 11,
                    "start": pa.array([BEGIN + row * S for row in rows], pa.timestamp("ns", "UTC")),
                    "duration_ns": [row * 1_000_000 for row in rows],
                }
            ),
        )
        times = pa.array([at], pa.timestamp("ns", "UTC"))
        yield "metrics", pa.table({"series_id": [7], "time": times, "value": [float(number)]})
        yield (
            "samples",
            pa.table({"stack_id": [9], "time": times, "weight_ns": [1], "service": ["rag"]}),
        )
        yield "logs", pa.table({"time": times, "body": [f"mail me@x.org {number}"]})

    def roots(self, window: Window, query: Query) -> pa.Table:
        return pa.table(
            {
                "trace_id": [trace(row) for row in range(100)],
                "service": ["rag"] * 100,
                "name": ["GET /"] * 100,
                "start": [BEGIN + row * S for row in range(100)],
                "duration_ns": [row * 1_000_000 for row in range(100)],
            }
        )

    def close(self) -> None:
        pass


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    one = Backend()
    monkeypatch.setattr(config, "connect", lambda settings: [one])
    return one


def settings(**more: Any) -> config.Config:
    return config.read({"sources": {"jaeger": {"url": "http://jaeger.test"}}, **more})


def content(path: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows, in an order of their own."""
    found = rp.open(path)
    return {
        table: sorted(
            found.dataset(table).to_table().to_pylist(),
            key=lambda row: json.dumps(row, default=str),
        )
        for table in ("spans", "logs", "metrics", "series", "samples", "stacks", "frames")
    }


# Fetching and assembling


def test_pieces_become_one_recording_with_nothing_twice(backend: Backend, tmp_path: Path) -> None:
    result = live.run(settings(), WINDOW, tmp_path / "a.ragprof")
    assert result.complete
    found = content(tmp_path / "a.ragprof")
    assert [row["span_id"] for row in found["spans"]].sort() == [
        f"{n:016x}" for n in range(101)
    ].sort()
    assert len(found["spans"]) == 101
    assert len(found["logs"]) == len(found["metrics"]) == len(found["samples"]) == 10
    assert len(found["series"]) == 1
    assert len(found["frames"]) == 3
    assert len(found["stacks"]) == 2
    frames = {row["frame_id"]: row["function"] for row in found["frames"]}
    stacks = {row["stack_id"]: [frames[f] for f in row["frame_ids"]] for row in found["stacks"]}
    by_time = {row["time"]: stacks[row["stack_id"]][1] for row in found["samples"]}
    assert [by_time[at] for at in sorted(by_time)] == ["a:g0", "a:g1"] * 5
    manifest = rp.open(tmp_path / "a.ragprof").manifest
    assert manifest["capture"]["doubled_spans"] == 9
    assert [each["query"] for each in manifest["queries"]] == [f"traces {n}" for n in range(10)]
    assert manifest["sources"][0]["rows"]["logs"] == 10
    assert manifest["window"] == [
        "2023-11-14T22:13:20.000000000Z",
        "2023-11-14T22:15:00.000000000Z",
    ]
    assert manifest["stacks"]["rag"]["samples"] == 10
    assert len(manifest["stacks"]["rag"]["minutes"]) == 2
    coverage = manifest["coverage"]
    assert (coverage["spans"], coverage["logs"], coverage["logs_with_trace_id"]) == (101, 10, 0)
    assert not (tmp_path / "a.ragprof.partial").exists()


def test_a_capture_that_was_cut_goes_on_and_ends_up_the_same(
    backend: Backend, tmp_path: Path
) -> None:
    live.run(settings(), WINDOW, tmp_path / "whole.ragprof")
    backend.fetched.clear()
    backend.broken = {"p3", "p7"}
    first = live.run(settings(), WINDOW, tmp_path / "cut.ragprof")
    assert [each["query"] for each in first.missing] == ["traces 3", "traces 7"]
    assert rp.open(tmp_path / "cut.ragprof").manifest["missing"] == first.missing
    assert len(content(tmp_path / "cut.ragprof")["spans"]) < 101
    assert sorted(set(backend.fetched)) == sorted(f"p{n}" for n in range(10))
    backend.fetched.clear()
    backend.broken = set()
    later = Window(WINDOW.start + 5 * S, WINDOW.end + 5 * S)  # `--since 30m` a while later
    second = live.run(settings(), later, tmp_path / "cut.ragprof")
    assert second.complete
    assert second.plan.went_on
    assert second.plan.window == WINDOW
    assert sorted(backend.fetched) == ["p3", "p7"]
    assert content(tmp_path / "cut.ragprof") == content(tmp_path / "whole.ragprof")


def test_a_source_that_fails_again_and_again_is_left_alone(
    backend: Backend, tmp_path: Path
) -> None:
    backend.broken = {f"p{number}" for number in range(10)}
    result = live.run(settings(capture={"parallel": 1}), WINDOW, tmp_path / "a.ragprof")
    assert len(result.missing) == 10
    assert backend.fetched == ["p0", "p1", "p2"]


def test_another_configuration_does_not_mix_with_what_was_begun(
    backend: Backend, tmp_path: Path
) -> None:
    backend.broken = {"p3"}
    live.run(settings(), WINDOW, tmp_path / "a.ragprof")
    with pytest.raises(ConfigError, match="another configuration"):
        live.run(settings(capture={"services": ["x"]}), WINDOW, tmp_path / "a.ragprof")


def test_a_recording_that_exists_is_not_overwritten(backend: Backend, tmp_path: Path) -> None:
    live.run(settings(), WINDOW, tmp_path / "a.ragprof")
    with pytest.raises(ConfigError, match="exists already"):
        live.run(settings(), WINDOW, tmp_path / "a.ragprof")
    assert len(content(tmp_path / "a.ragprof")["spans"]) == 101
    assert not (tmp_path / "a.ragprof.partial").exists()


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
import test_capture as t
from pathlib import Path
from ragprof.capturing import config, live
one = t.Backend()
config.connect = lambda settings: [one]
def progress(done, total, rows):
    if done == 6:
        os.kill(os.getpid(), 9)
live.run(t.settings(), t.WINDOW, Path(sys.argv[1]), progress=progress)
"""


def test_a_capture_that_was_killed_goes_on(backend: Backend, tmp_path: Path) -> None:
    live.run(settings(), WINDOW, tmp_path / "whole.ragprof")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "a.ragprof"), str(Path(__file__).parent)],
        timeout=200,
    )
    assert killed.returncode == -9
    backend.fetched.clear()
    assert live.run(settings(), WINDOW, tmp_path / "a.ragprof").complete
    assert 0 < len(backend.fetched) <= 4
    assert content(tmp_path / "a.ragprof") == content(tmp_path / "whole.ragprof")


def test_two_captures_do_not_write_one_recording(tmp_path: Path) -> None:
    first = pieces.Pieces(tmp_path / "a.ragprof.partial")
    try:
        with pytest.raises(ConfigError, match="another capture"):
            pieces.Pieces(tmp_path / "a.ragprof.partial")
    finally:
        first.close()


# The plan


def test_a_plan_that_is_too_large_fetches_nothing(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(live.TooLarge, match="about 200 rows, and most_rows is 100"):
        live.run(settings(capture={"most_rows": 100}), WINDOW, tmp_path / "a.ragprof")
    assert not backend.fetched
    assert not list(tmp_path.iterdir())


def test_slow_requests_are_all_kept_and_the_others_fairly(backend: Backend, tmp_path: Path) -> None:
    result = live.run(settings(), WINDOW, tmp_path / "a.ragprof", slow="90ms")
    assert result.plan.choice is not None
    [operation] = result.plan.choice.operations
    assert (operation["slow"], operation["slow_kept"], operation["baseline_kept"]) == (10, 10, 90)
    assert rp.open(tmp_path / "a.ragprof").manifest["capture"]["chosen"] == [operation]


def roots(lengths: list[int], names: list[str] | None = None) -> pa.Table:
    return pa.table(
        {
            "trace_id": [trace(number) for number in range(len(lengths))],
            "service": ["rag"] * len(lengths),
            "name": names or ["GET /"] * len(lengths),
            "duration_ns": lengths,
        }
    )


def test_slow_is_slow_for_its_operation_and_the_choice_is_the_same_again() -> None:
    lengths = [number * 1000 for number in range(2000)] + [10_000_000] * 100
    names = ["GET /a"] * 2000 + ["GET /b"] * 100
    choice = choosing.choose(roots(lengths, names), "p95")
    assert choice == choosing.choose(roots(lengths, names), "p95")
    by_name = {each["operation"]: each for each in choice.operations}
    assert by_name["rag GET /a"]["slow_kept"] == 100
    assert by_name["rag GET /a"]["baseline_kept"] == 200
    chosen = {n for n in range(2000) if trace(n) in set(choice.trace_ids)}
    baseline = sorted(n for n in chosen if n < 1900)
    assert 700 < sum(baseline) / len(baseline) < 1200  # no part of the others is preferred


def test_more_slow_requests_than_are_kept_lose_neither_the_slowest_nor_fairness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "MOST_SLOW", 10)
    choice = choosing.choose(roots(list(range(1000, 1100))), "1000ns".replace("1000ns", "0.001ms"))
    assert choice.operations[0]["slow_kept"] == 10
    assert {trace(number) for number in range(95, 100)} <= set(choice.trace_ids)


# Redaction


def test_what_must_not_leave_is_replaced_before_it_is_written(
    backend: Backend, tmp_path: Path
) -> None:
    backend.broken = {"p3"}  # so that the folder of pieces stays
    redacted = settings(redaction={"ids": True})
    live.run(redacted, WINDOW, tmp_path / "a.ragprof")
    for path in tmp_path.rglob("*.arrows"):
        with pa.ipc.open_stream(path) as stream:
            assert b"me@x.org" not in repr(stream.read_all().to_pylist()).encode()
    backend.broken = set()
    live.run(redacted, WINDOW, tmp_path / "a.ragprof")
    found = content(tmp_path / "a.ragprof")
    assert {row["body"] for row in found["logs"]} == {"[redacted]"}
    assert len({row["trace_id"] for row in found["spans"]}) == 101  # one hash over both calls
    assert not {row["trace_id"] for row in found["spans"]} & {trace(n) for n in range(101)}
    assert rp.open(tmp_path / "a.ragprof").manifest["redacted"][0]["ids"] == "keyed BLAKE2b"


# Alerts told twice


def test_an_alert_that_two_sources_tell_is_one(tmp_path: Path) -> None:
    def alert(start: int, end: int | None, **more: str) -> dict[str, Any]:
        labels = {"alertname": "Slow", "severity": "page", **more}
        return {"time": start, "end": end, "kind": "alert", "text": "x", "attributes": labels}

    store = pieces.Pieces(tmp_path / "p")
    rows = [
        alert(BEGIN, BEGIN + 10 * S),
        alert(BEGIN + S, None, **{"annotation.summary": "slow", "state": "active"}),
        alert(BEGIN, None, pod="other"),
        alert(BEGIN + 3600 * S, None),
    ]
    from ragprof.rows import conform

    for number, row in enumerate(rows):
        store.store(number, [("changes", conform("changes", [row]))])
    with Journal(tmp_path / "a.ragprof") as journal:
        assembly.assemble(journal, store, range(4))
    store.close()
    found = rp.open(tmp_path / "a.ragprof").dataset("changes").to_table().to_pylist()
    assert len(found) == 2
    assert sorted(row["time"].value for row in found) == [BEGIN, BEGIN + 3600 * S]


# With a real server


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    start = (int(time.time()) - POINTS * STEP // 1000 - 60) * 1000
    with servers.start_prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        remote_write.write(server.url, series(start))
        yield server, start


def toml(tmp_path: Path, url: str, more: str = "") -> Path:
    path = tmp_path / "ragprof.toml"
    path.write_text(f'[sources.prometheus]\nurl = "{url}"\n{more}')
    return path


def test_capture_as_a_user_calls_it(
    stored: tuple[Server, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, _ = stored
    path, out = toml(tmp_path, server.url), tmp_path / "a.ragprof"
    assert main(["capture", "--config", str(path), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["rows"] > 0
    assert plan["sources"][0]["bytes"] > 0
    assert not out.exists()
    assert main(["capture", "--config", str(path), "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["complete"] is True
    assert summary["rows"]["changes"] >= 3
    assert summary["rows"]["metrics"] > 100
    assert main(["recording", "verify", str(out)]) == 0


def test_rp_capture_gives_the_recording(stored: tuple[Server, int], tmp_path: Path) -> None:
    server, _ = stored
    found = rp.capture(toml(tmp_path, server.url), since="20m", out=tmp_path / "a.ragprof")
    names = found.sql("select distinct name from series").iloc[:, 0].tolist()
    assert {"up", "lat_seconds", "native"} <= set(names)


def test_no_secret_is_in_anything_that_is_written(
    stored: tuple[Server, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server, _ = stored
    monkeypatch.setenv("RP_TEST_SECRET", "s3cret-t0ken")
    more = (
        'token = { env = "RP_TEST_SECRET" }\nheaders = { X-Api-Key = { env = "RP_TEST_SECRET" } }\n'
    )
    path = toml(tmp_path, server.url, more)
    assert main(["capture", "--config", str(path), "--out", str(tmp_path / "a.ragprof")]) == 0
    with FaultyProxy(server.url, lambda n, method, where: "garbage" if n > 20 else "") as proxy:
        path = toml(tmp_path, proxy.url, more + "retries = 1\n")
        main(["capture", "--config", str(path), "--out", str(tmp_path / "b.ragprof")])
    said = capsys.readouterr()
    assert "s3cret" not in said.out + said.err
    for written in tmp_path.rglob("*"):
        if written.is_file():
            assert b"s3cret" not in written.read_bytes()


@pytest.mark.parametrize("fault", ["garbage", "500", "refuse"])
@pytest.mark.parametrize(
    "kind", ["prometheus", "alertmanager", "elasticsearch", "jaeger", "tempo", "zipkin", "stacks"]
)
def test_no_secret_is_in_a_traceback_or_a_log(
    kind: str, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RP_TEST_SECRET", "s3cret-t0ken")
    secret = {"env": "RP_TEST_SECRET"}
    with FaultyProxy("http://127.0.0.1:9", lambda n, method, path: fault) as proxy:
        section = {"url" if kind != "stacks" else "urls": proxy.url, "retries": 0, "token": secret}
        section["headers"] = {"X-Api-Key": secret}
        [source] = config.connect(config.read({"sources": {kind: section}}))
        with caplog.at_level("DEBUG"), pytest.raises(RagprofError) as caught:
            list(interface.fetch(source, WINDOW))
        assert proxy.seen
        assert not [check for check in source.check(WINDOW) if "s3cret" in check.text]
        source.close()
    whole = TracebackException.from_exception(caught.value, capture_locals=True)
    said = "".join(whole.format()) + caplog.text + repr(source.describe()) + repr(vars(source))
    assert "s3cret" not in said
    assert base64.b64encode(b"s3cret").decode()[:7] not in said


def test_a_server_that_goes_away_leaves_a_recording_that_is_completed_later(
    stored: tuple[Server, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, start = stored
    monkeypatch.setattr("ragprof.sources.prometheus.PIECE_POINTS", 60)
    end = start + POINTS * STEP
    window = Window(start * 1_000_000, end * 1_000_000)
    whole = config.read({"sources": {"prometheus": {"url": server.url}}})
    live.run(whole, window, tmp_path / "whole.ragprof")
    gone = False
    with FaultyProxy(
        server.url, lambda n, method, path: "refuse" if gone and n % 4 else ""
    ) as proxy:

        def progress(done: int, total: int, rows: Any) -> None:
            nonlocal gone
            gone = done >= 3

        cut = config.read({"sources": {"prometheus": {"url": proxy.url, "retries": 0}}})
        first = live.run(cut, window, tmp_path / "cut.ragprof", progress=progress)
        assert first.missing
        gone = False
        second = live.run(cut, window, tmp_path / "cut.ragprof")
        assert second.complete
    one, other = (content(tmp_path / name) for name in ("whole.ragprof", "cut.ragprof"))
    assert len(one["metrics"]) == len(other["metrics"])
    points = [
        rp.open(tmp_path / name)
        .sql(
            "select s.name, s.labels::varchar l, m.time, m.value from metrics m "
            "join series s using (series_id) order by all"
        )
        .to_csv()
        for name in ("whole.ragprof", "cut.ragprof")
    ]
    assert points[0] == points[1]


def test_checks_of_a_configuration_never_raise(stored: tuple[Server, int], tmp_path: Path) -> None:
    server, _ = stored
    [port] = servers.free_ports(1)
    more = f'[sources.alertmanager]\nurl = "http://127.0.0.1:{port}"\nretries = 0\n'
    more += '[sources.other]\nkind = "prometheus"\nurl = "not an address"\n'
    found = check_sources(config.read(toml(tmp_path, server.url, more)))
    states = {(each.source, each.subject): each.state for each in found}
    assert states["prometheus", "reachable"] == "ok"
    assert states["alertmanager", "reachable"] == "failed"
    assert states["other", "configuration"] == "failed"
    assert states["capture", "joins"] == "warning"  # there are no spans


def test_alerts_of_an_alertmanager(alertmanager: Server, tmp_path: Path) -> None:
    import urllib.request

    name = f"Slow{os.getpid()}"
    begins = time.time_ns() - 300 * S
    body = [
        {
            "labels": {"alertname": name, "service": "rag"},
            "annotations": {"summary": "p95 above 2 s"},
            "startsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begins // S)),
        }
    ]
    request = urllib.request.Request(
        f"{alertmanager.url}/api/v2/alerts",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=60).close()
    said = {"sources": {"alertmanager": {"url": alertmanager.url}}}
    found = rp.capture(said, since="1h", out=tmp_path / "a.ragprof")
    rows = found.dataset("changes").to_table().to_pylist()
    [row] = [row for row in rows if dict(row["attributes"]).get("alertname") == name]
    assert row["kind"] == "alert"
    assert row["service"] == "rag"
    assert row["end"] is None
    assert row["time"].value // S == begins // S
    assert dict(row["attributes"])["annotation.summary"] == "p95 above 2 s"
