"""Planted causes are found, nothing is found where nothing is, and names do not matter."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import jsonschema
import planted
import pytest
from planted import ASK, Tree, record

import ragprof.investigation
from ragprof.cli import main
from ragprof.errors import RagprofError
from ragprof.investigation.run import investigate

SCHEMA = json.loads(
    (Path(ragprof.investigation.__file__).parent / "findings.schema.json").read_text()
)


def steady(tree: Tree, draw: random.Random, faulty: bool, rerank: float = 0.0) -> None:
    embed, score = 10 + draw.random() * 6, 8 + draw.random() * 4 + rerank
    took = embed + score + 40 + draw.random() * 10
    root = tree.span(ASK, 0, took, kind="server", query__length=str(draw.randrange(30, 60)))
    first = tree.span("embedding", 1, embed, root, openinference__span__kind="EMBEDDING")
    tree.sample(first, 2, embed, 1)
    second = tree.span("scoring", 2 + embed, score, root, openinference__span__kind="RERANKER")
    tree.sample(second, 3 + embed, score, 2)


def cpu(tree: Tree, draw: random.Random, faulty: bool) -> None:
    steady(tree, draw, faulty, 45 if faulty else 0)


def blocked(tree: Tree, draw: random.Random, faulty: bool) -> None:
    own = 60.0 if faulty else 0.0
    root = tree.span(ASK, 0, 40 + own + draw.random() * 10, kind="server")
    span = tree.span("generation", 5, 20 + own, root, openinference__span__kind="LLM")
    tree.sample(span, 6, 10, 1)
    if faulty:
        tree.sample(span, 8, own, 3, "waiting", "sleep")


def many_calls(tree: Tree, draw: random.Random, faulty: bool) -> None:
    calls = 30 if faulty else 2
    root = tree.span(ASK, 0, 30 + calls * 2 + draw.random() * 8, kind="server")
    outer = tree.span("retriever", 5, calls * 2 + 5, root, openinference__span__kind="RETRIEVER")
    for n in range(calls):
        tree.span(
            "SELECT", 6 + n * 2, 1.2, outer, kind="client", db__system="sqlite", db__statement="s"
        )
    tree.sample(outer, 7, calls * 2, 4, task=0)


def downstream(tree: Tree, draw: random.Random, faulty: bool) -> None:
    far = 15 + draw.random() * 5 + (70 if faulty else 0)
    root = tree.span(ASK, 0, far + 30, kind="server")
    call = tree.span("GET", 10, far + 4, root, kind="client", http__request__method="GET")
    there = tree.span(
        "GET /x", 12, far, call, kind="server", service="other", http__request__method="GET"
    )
    tree.sample(there, 13, far, 4, "awaiting", "sleep", service="other")


def network(tree: Tree, draw: random.Random, faulty: bool) -> None:
    gap = 2 + draw.random() + (50 if faulty else 0)
    root = tree.span(ASK, 0, gap * 2 + 40, kind="server")
    call = tree.span("GET", 10, gap * 2 + 10, root, kind="client", http__request__method="GET")
    tree.span("GET /x", 10 + gap, 10, call, kind="server", service="other")


def pool(tree: Tree, draw: random.Random, faulty: bool) -> None:
    wait = 0.2 + (draw.random() * 100 if faulty else 0)
    root = tree.span(ASK, 0, wait + 30 + draw.random() * 5, kind="server")
    tree.span("connect", 2, wait, root, kind="client", db__system="sqlite")
    tree.span("SELECT", 3 + wait, 5, root, kind="client", db__system="sqlite", db__statement="s")


def load(tree: Tree, draw: random.Random, faulty: bool) -> None:
    length = draw.randrange(200, 400) if faulty else draw.randrange(30, 80)
    embed = 5 + length * 0.2 + draw.random()
    root = tree.span(ASK, 0, embed + 20, kind="server", query__length=str(length))
    span = tree.span("embedding", 1, embed, root, openinference__span__kind="EMBEDDING")
    tree.sample(span, 2, embed, 1)


def locked(tree: Tree, draw: random.Random, faulty: bool) -> None:
    held = draw.random() * 4 + (60 if faulty else 0)
    root = tree.span(ASK, 0, held + 40, kind="server")
    span = tree.span("encode", 3, held + 12, root, openinference__span__kind="EMBEDDING")
    tree.sample(span, 4, held + 12, 1, "awaiting", "executor")
    tree.sample(span, 5, held, 2, "waiting", "lock", task=0)
    tree.sample(span, 5 + held, 12, 3, task=0)


def retried(tree: Tree, draw: random.Random, faulty: bool) -> None:
    tries = 4 if faulty else 1
    root = tree.span(ASK, 0, 20 + tries * 22 + draw.random() * 5, kind="server")
    for n in range(tries):
        status = "error" if n < tries - 1 else "unset"
        tree.span("charge", 5 + n * 22, 20, root, kind="client", status=status)


def backed_off(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """Another service refuses two calls of three; the caller waits between its tries."""
    tries, at = 3 if faulty else 1, 5.0
    waits = [20 + 40 * n for n in range(tries - 1)]
    root = tree.span(ASK, 0, 30 + tries * 22 + sum(waits) + draw.random() * 5, kind="server")
    for n in range(tries):
        status = "error" if n < tries - 1 else "unset"
        call = tree.span(
            "GET", at, 20, root, kind="client", status=status, http__request__method="GET"
        )
        tree.span(
            "GET /x", at + 2, 15, call, kind="server", status=status, service="other",
            http__request__method="GET",
        )  # fmt: skip
        tree.sample(call, at, 20, 2, "awaiting", "io")
        at += 21
        if n < tries - 1:
            tree.sample(root, at, waits[n], 4, "awaiting", "sleep")
            at += waits[n]
    tree.sample(root, at, 5, 1)


def reading(tree: Tree, draw: random.Random, faulty: bool) -> None:
    took = draw.random() * 4 + (60 if faulty else 5)
    root = tree.span(ASK, 0, took + 40, kind="server")
    span = tree.span("scoring", 3, took, root, openinference__span__kind="RERANKER")
    tree.sample(span, 4, took, 2, "waiting", "io", task=0)


def missed(tree: Tree, draw: random.Random, faulty: bool) -> None:
    hit = draw.random() < (0.1 if faulty else 0.8)
    root = tree.span(ASK, 0, (10 if hit else 70) + draw.random() * 5, kind="server")
    tree.span("lookup", 1, 2, root, cache__hit="true" if hit else "false")


def switched_off(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """Nearly all was answered from the cache: what a miss costs is seen only afterwards."""
    hit = not faulty and draw.random() < 0.995
    root = tree.span(ASK, 0, (10 if hit else 70) + draw.random() * 5, kind="server")
    tree.span("lookup", 1, 2, root, cache__hit="true" if hit else "false")
    if not hit:
        for n in range(5):
            tree.span(f"step{n}", 4 + n * 12, 11, root)


STARTED: list[int] = []


def crowded(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """Three times as many requests, each the slower the more began in the second before."""
    if int(tree.trace, 16) == 1:
        STARTED.clear()
    middle = planted.BEGIN + 12_000 * planted.MS
    gap = int(draw.expovariate(1) * (33 if faulty else 95) * planted.MS)
    start = (STARTED[-1] if STARTED else planted.BEGIN) + gap
    tree.start = max(start, middle) if faulty else min(start, middle - planted.MS)
    before = sum(tree.start - each < 1000 * planted.MS for each in STARTED)
    STARTED.append(tree.start)
    took = 30 + draw.random() * 5 + 3 * before
    root = tree.span(ASK, 0, took, kind="server", query__length=str(draw.randrange(30, 60)))
    tree.sample(root, 1, took - 2, 1)


def now_and_then(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """One request in twenty waits for something."""
    waits = 300.0 if faulty and int(tree.trace, 16) % 20 == 0 else 0.0
    took = 8 + draw.random() * 4 + waits
    root = tree.span(ASK, 0, took + 50 + draw.random() * 30, kind="server")
    span = tree.span("scoring", 3, took, root, openinference__span__kind="RERANKER")
    tree.sample(span, 3, took - waits, 1, task=0)
    if waits:
        tree.sample(span, 12, waits, 2, "waiting", "io", task=0)


def two_at_once(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """Scoring computes longer, and another service answers later by half as much."""
    score, far = 15 + draw.random() * 5 + 60 * faulty, 20 + draw.random() * 5 + 30 * faulty
    root = tree.span(ASK, 0, score + far + 30, kind="server")
    span = tree.span("scoring", 3, score, root, openinference__span__kind="RERANKER")
    tree.sample(span, 4, score, 2, task=0)
    call = tree.span("GET", score + 5, far + 4, root, kind="client", http__request__method="GET")
    there = tree.span(
        "GET /x", score + 7, far, call, kind="server", service="other", http__request__method="GET"
    )
    tree.sample(there, score + 8, far, 4, "awaiting", "sleep", service="other")


def collected(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """In the faulty half each tenth request meets the pause that ends with the second."""
    at = (tree.start - planted.BEGIN) / planted.MS % 1000
    own = 30 + draw.random() * 10
    paused = 400.0 if faulty and at >= 600 else 0.0
    root = tree.span(ASK, 0, own + min(paused, 1000 - at), kind="server")
    tree.sample(root, 5, own, 1)


def pauses(faulty: bool) -> dict[str, float]:
    return {"python.gc.pause": 0.4 if faulty else 0.002}


def denied(tree: Tree, draw: random.Random, faulty: bool) -> None:
    own = 30 + draw.random() * 10 + (40 + draw.random() * 20 if faulty else 0)
    root = tree.span(ASK, 0, own, kind="server")
    tree.sample(root, 1, own, 1)


def busy_neighbour(faulty: bool) -> dict[str, float]:
    return {"process.cpu.wait_time": 0.6 if faulty else 0.02, "process.cpu.time": 0.3}


def own_computing(faulty: bool) -> dict[str, float]:
    more = 0.5 if faulty else 0.0
    return {"process.cpu.wait_time": 0.02 + more, "process.cpu.time": 0.3 + more}


def everywhere(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """Six places that compute, all of them half as long again."""
    times = [(4 + n + draw.random() * 3) * (1.5 if faulty else 1) for n in range(5)]
    root = tree.span(ASK, 0, sum(times) + (12 if faulty else 8), kind="server")
    at = 2.0
    for n, took in enumerate(times):
        span = tree.span(f"step{n}", at, took, root)
        tree.sample(span, at, took, 1 + n % 4)
        at += took


def saturated(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """The search computes longer, and all stages wait for the interpreter lock meanwhile."""
    steps = (("embedding", "EMBEDDING", 0, 50), ("search", "RETRIEVER", 40, 20),
             ("scoring", "RERANKER", 0, 40), ("merge", "", 0, 30))  # fmt: skip
    spans, at = [], 2.0
    for n, (name, kind, more, stood) in enumerate(steps):
        own = 3 + draw.random() * 2 + more * faulty
        waited = stood * (0.8 + 0.4 * draw.random()) * faulty
        spans.append((name, kind, at, own, waited, 1 + n))
        at += own + waited
    root = tree.span(ASK, 0, at + 3, kind="server")
    for name, kind, begin, own, waited, stack in spans:
        attributes = {"openinference__span__kind": kind} if kind else {}
        span = tree.span(name, begin, own + waited, root, **attributes)
        tree.sample(span, begin, own, stack, task=0)
        if waited:
            tree.sample(span, begin + own, waited, stack, "waiting", "gil", task=0)


def computing_twice(faulty: bool) -> dict[str, float]:
    own = 0.9 if faulty else 0.2
    return {"process.cpu.time": own, "system.cpu.time": own + 0.3}


def allocating(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """The collector pauses within a function that computes longer than the pauses."""
    steady(tree, draw, faulty, 90 if faulty else 0)


def some_pauses(faulty: bool) -> dict[str, float]:
    return {"python.gc.pause": 0.35 if faulty else 0.002}


def held(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """Scoring takes longer with the connection in hand, so that others wait for one."""
    score = 20 + draw.random() * 5 + (50 if faulty else 0)
    wait = 0.2 + (draw.random() * 150 if faulty else 0)
    root = tree.span(ASK, 0, wait + score + 20, kind="server")
    tree.span("connect", 2, wait, root, kind="client", db__system="sqlite")
    span = tree.span("scoring", 5 + wait, score, root, openinference__span__kind="RERANKER")
    tree.sample(span, 5 + wait, score, 2)


def all_in_use(faulty: bool) -> dict[str, float]:
    used = 8.0 if faulty else 2.0
    return {"x_database_connection_pool_in_use": used, "x_database_connection_pool_max": 8.0}


def full(faulty: bool) -> dict[str, float]:
    most = 1.0 if faulty else 8.0
    return {"x_database_connection_pool_in_use": 1.0, "x_database_connection_pool_max": most}


CASES = [
    (cpu, None, ("rerank", "cpu", "app:f2")),
    (blocked, None, ("generate", "blocked_loop", "app:f3")),
    (many_calls, None, ("retrieve", "extra_calls", "app:f4")),
    (downstream, None, ("http", "downstream", "app:f4")),
    (network, None, ("http", "network", "")),
    (pool, full, ("database", "pool_wait", "")),
    (load, None, ("request", "load", "")),
    (locked, None, ("embed", "lock_wait", "app:f2")),
    (retried, None, ("request", "retry", "")),
    (backed_off, None, ("http", "retry", "app:f4")),
    (reading, None, ("rerank", "io", "app:f2")),
    (missed, None, ("cache", "cache_miss", "")),
    (switched_off, None, ("cache", "cache_miss", "")),
    (crowded, None, ("request", "load", "")),
    (collected, pauses, ("request", "gc", "")),
    (saturated, computing_twice, ("retrieve", "cpu", "app:f2")),
    (allocating, some_pauses, ("rerank", "cpu", "app:f2")),
    (denied, busy_neighbour, ("request", "throttled", "")),
    (denied, own_computing, ("request", "cpu", "app:f1")),
]
NAMES = [" ".join(one.__name__ for one in case[:2] if one is not None) for case in CASES]


@pytest.mark.parametrize(("trace", "metrics", "expected"), CASES, ids=NAMES)
def test_planted_cause(tmp_path, trace, metrics, expected):
    found = investigate(record(tmp_path / "a.ragprof", trace, metrics=metrics))
    assert found.verdict == "cause_found"
    top = found.findings.iloc[0]
    assert (top["stage"], top["kind"], top["function"]) == expected
    assert top["added_ms"] > 0.6 * found.stages["added_ms"].sum()
    assert top["p_value"] < 0.02
    middle = (planted.BEGIN + 12_000 * planted.MS) / 1e9
    assert abs(found.window[0].timestamp() - middle) < 1.0
    jsonschema.validate(found.to_dict(), SCHEMA)
    assert not found.recording.sql(top["sql"]).empty
    # Were it as before, the p95 would be near that of the healthy half.
    times = found.requests.groupby("group")["duration_ms"].quantile(0.95)
    assert top["p95_ms"] == pytest.approx(times["slow"])
    assert top["p95_without_ms"] < times["baseline"] + 0.35 * (times["slow"] - times["baseline"])
    assert top["p95_without_low_ms"] <= top["p95_without_ms"] <= top["p95_without_high_ms"]
    assert "Were this as before" in top["text"]


def test_what_is_called_and_how_many_come_are_named(tmp_path):
    again = investigate(record(tmp_path / "a.ragprof", backed_off)).findings.iloc[0]
    assert again["resource"] == "other"
    assert "2.0 errors instead of 0.0" in again["for"][0]
    more = investigate(record(tmp_path / "b.ragprof", crowded)).findings.iloc[0]
    assert more["resource"] == "requests per second"
    assert "per request unexplained" in more["for"][1]


def test_one_request_in_twenty(tmp_path):
    found = investigate(record(tmp_path / "a.ragprof", now_and_then, requests=800))
    top = found.findings.iloc[0]
    assert (top["stage"], top["kind"], top["function"]) == ("rerank", "io", "app:f2")
    assert found.requests.query("group == 'baseline'")["duration_ms"].max() < 120


def test_two_causes_at_once_are_both_named_with_their_shares(tmp_path):
    found = investigate(record(tmp_path / "a.ragprof", two_at_once)).findings
    assert list(zip(found["stage"], found["kind"], strict=True)) == [
        ("rerank", "cpu"),
        ("http", "downstream"),
    ]
    shares = found["added_ms"] / found["added_ms"].sum()
    assert shares.iloc[0] == pytest.approx(2 / 3, abs=0.05)


def test_a_healthy_deploy_just_before_is_not_blamed(tmp_path):
    plain = investigate(record(tmp_path / "a.ragprof", downstream))
    marked = investigate(record(tmp_path / "b.ragprof", downstream, deploy="version 1.0 -> 1.1"))
    assert list(marked.changes["text"]) == ["version 1.0 -> 1.1"]
    assert marked.to_dict()["findings"] == plain.to_dict()["findings"]
    assert marked.findings["resource"].iloc[0] == "other"


def test_a_machine_that_is_slower_everywhere(tmp_path):
    top = investigate(record(tmp_path / "a.ragprof", everywhere)).findings.iloc[0]
    assert (top["kind"], top["resource"], top["function"]) == ("throttled", "system.cpu", "")


def test_a_full_pool_follows_from_what_holds_it(tmp_path):
    found = investigate(record(tmp_path / "a.ragprof", held, metrics=all_in_use)).findings
    assert list(found["kind"]) == ["cpu", "pool_wait"]
    assert found["function"].iloc[0] == "app:f2"
    assert "it follows from that" in found["against"].iloc[1][0]


@pytest.mark.parametrize("seed", range(4))
def test_nothing_found_where_nothing_is(tmp_path, seed):
    found = investigate(record(tmp_path / "a.ragprof", steady, seed=seed))
    assert found.verdict == "no_cause_found"
    assert found.findings.empty
    assert found.summary.startswith("No cause found")
    jsonschema.validate(found.to_dict(), SCHEMA)


def hashed(name: str) -> str:
    return "n" + hashlib.blake2b(name.encode(), digest_size=6).hexdigest()


@pytest.mark.parametrize(("trace", "metrics", "expected"), CASES, ids=NAMES)
def test_names_do_not_matter(tmp_path, trace, metrics, expected):
    plain = investigate(record(tmp_path / "a.ragprof", trace, metrics=metrics))
    blind = investigate(record(tmp_path / "b.ragprof", trace, metrics=metrics, say=hashed))
    for column in ("stage", "kind", "span", "line"):
        assert list(plain.findings[column]) == list(blind.findings[column])
    named = [hashed(name) if name else "" for name in plain.findings["function"]]
    assert named == list(blind.findings["function"])


def test_sums_and_views(tmp_path):
    found = investigate(record(tmp_path / "a.ragprof", downstream))
    groups = found.requests.groupby("group")["duration_ms"].mean()
    whole = groups["slow"] - groups["baseline"]
    assert found.stages["added_ms"].sum() == pytest.approx(whole)
    assert found.operations_path["added_ms"].sum() == pytest.approx(whole)
    trace = found.requests["trace_id"].iloc[-1]
    path = found.critical_path(trace)
    waterfall = found.waterfall(trace)
    assert path["duration_ns"].sum() == round(waterfall["duration_ms"].iloc[0] * 1e6)
    assert list(waterfall["depth"]) == [0, 1, 2]
    assert found.profile("slow").total() > found.profile("baseline").total()
    assert "http" in found._repr_html_()
    rows = found.finding(1).evidence()
    assert not rows["samples"].empty
    assert set(rows["requests"]["group"]) == {"slow", "baseline"}
    claimed = rows["requests"].groupby("group")["claimed_ms"].mean()
    assert claimed["slow"] - claimed["baseline"] > 60
    assert rows["spans"]["own_ms"].iloc[0] > 60
    with pytest.raises(RagprofError, match="no finding 9"):
        found.finding(9)
    with pytest.raises(RagprofError, match="no trace"):
        found.waterfall("f" * 32)


def test_slow_by_duration_and_by_id(tmp_path):
    recording = record(tmp_path / "a.ragprof", cpu)
    found = investigate(recording, slow="80ms")
    assert (found.requests.query("group == 'slow'")["duration_ms"] >= 80).all()
    assert found.findings.iloc[0]["stage"] == "rerank"
    assert any("chosen by duration" in text for text in found.findings.iloc[0]["against"])
    ids = list(found.requests.query("group == 'slow'")["trace_id"].head(3))
    few = investigate(recording, slow=ids)
    assert any("only 3 slow" in note for note in few.notes)
    with pytest.raises(RagprofError, match="neither a percentile"):
        investigate(recording, slow="banana")
    with pytest.raises(RagprofError, match="no operation"):
        investigate(recording, operation="GET /nowhere")


def test_command(tmp_path, capsys):
    record(tmp_path / "a.ragprof", cpu)
    out = tmp_path / "out"
    assert main(["investigate", str(tmp_path / "a.ragprof"), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "rerank" in lines[0]
    assert lines[3] == f"Report: {out / 'report.html'}"
    assert (out / "report.html").is_file()
    jsonschema.validate(json.loads((out / "findings.json").read_text()), SCHEMA)
    assert len((out / "summary.md").read_text().splitlines()) <= 10
    naive = ["--window", "2026-01-01T00:00:00..2026-01-02T00:00:00"]
    assert main(["investigate", str(tmp_path / "a.ragprof"), *naive]) == 1
    assert "time zone" in capsys.readouterr().err
