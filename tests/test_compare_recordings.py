"""Recordings in `ragprof compare` and `ragprof flamegraph`: requests, spans, stages, the gate."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import planted
import pytest

from ragprof.cli import FAILED, GATE, OK, TOO_LITTLE_DATA, main
from ragprof.flamegraph import inputs, requests
from ragprof.profiles import gate
from ragprof.profiles.model import ProfileError
from ragprof.recording import Recording


def slower_scoring(tree: planted.Tree, draw: random.Random, faulty: bool) -> None:
    embed = 10 + draw.random() * 6
    score = 8 + draw.random() * 4 + (45 if faulty else 0)
    root = tree.span(planted.ASK, 0, embed + score + 40, kind="server")
    first = tree.span("embedding", 1, embed, root, openinference__span__kind="EMBEDDING")
    tree.sample(first, 2, embed, 1)
    second = tree.span("scoring", 2 + embed, score, root, openinference__span__kind="RERANKER")
    tree.sample(second, 3 + embed, score, 2)
    tree.span("scoring", 3 + embed, score / 2, second)  # inside another match


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return planted.record(tmp_path_factory.mktemp("r") / "planted.ragprof", slower_scoring)


def test_slow_and_fast_requests_are_told_apart(recorded: Recording) -> None:
    slow, fast = requests.choose(recorded, "slow"), requests.choose(recorded, "fast")
    everything = requests.choose(recorded)
    assert len(everything) == 240
    assert 100 <= len(slow) <= 120
    took = {
        name: group.durations(re.compile("scoring")).mean() / 1e6
        for name, group in (("slow", slow), ("fast", fast))
    }
    assert took["slow"] == pytest.approx(55, abs=3)  # the span inside a match is not added
    assert took["fast"] == pytest.approx(10, abs=3)
    profile = slow.profile()
    assert profile.total() / 1e6 == pytest.approx(68, abs=4)  # per request
    whole = slow.profile(whole=True)
    sums = slow.sums(whole, gate.matching(whole, gate.condition("self(f2)>1%")))
    assert len(sums) == len(slow)
    assert sums.mean() / 1e6 == pytest.approx(55, abs=3)


def test_requests_without_samples_count_as_nothing(recorded: Recording) -> None:
    group = requests.choose(recorded)
    whole = group.profile(whole=True)
    none = group.sums(whole, gate.matching(whole, gate.condition("self(f4)>1%")))
    assert none.tolist() == [0.0] * 240


def test_samples_are_filtered_by_span_and_stage(recorded: Recording) -> None:
    given = inputs.load(recorded.path, "slow")
    rerank = inputs.filtered(given, {"stage": "rerank"})
    assert {frame.function for frame in (rerank.stack(int(rerank.sample_stacks[0])))} >= {"app:f2"}
    assert inputs.filtered(given, {"span": "scor*"}).total() == pytest.approx(rerank.total())
    assert inputs.filtered(given, {"span": "embedding"}).total() == pytest.approx(
        given.profile.total() - rerank.total()
    )


def test_a_trace_is_chosen_by_its_id(recorded: Recording) -> None:
    chosen = requests.choose(recorded, f"{7:032x},{9:032X}")
    assert sorted(chosen.trace_ids) == [f"{7:032x}", f"{9:032x}"]
    with pytest.raises(ProfileError, match="neither slow, fast nor a trace id"):
        requests.choose(recorded, "ff" * 16)


def test_the_gate_reads_spans_and_stacks(
    recorded: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(recorded.path)
    assert main(["compare", path, "--json", "--fail-if", "p90(POST /ask)>+10%"]) == GATE
    result = json.loads(capsys.readouterr().out)
    assert result["functions"][0]["function"] == "app:f2"
    assert result["gate"][0]["counts"][0] >= 100
    assert main(["compare", path, "--fail-if", "self(app:f2)>+10ms"]) == GATE
    assert main(["compare", path, "--fail-if", "self(app:f1)>+25%"]) == OK
    assert main(["compare", path, path, "--fail-if", "mean(scoring)>+5%"]) == OK
    assert main(["compare", path, "--fail-if", "p99(scoring)>+10%"]) == TOO_LITTLE_DATA
    assert main(["compare", path, "--fail-if", "p90(no such span)>+10%"]) == FAILED
    assert "no span of" in capsys.readouterr().err


def test_the_flame_graph_of_slow_requests(
    recorded: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "slow.html"
    command = ["flamegraph", str(recorded.path), "--traces", "slow"]
    assert main([*command, "--filter", "stage=rerank", "--out", str(out), "--json"]) == OK
    described = json.loads(capsys.readouterr().out)
    assert described["requests"] >= 100
    assert described["functions"][0]["function"] == "app:f2"
    assert "slow requests of POST /ask" in out.read_text(encoding="utf-8")
    assert main([*command, "--filter", "stage=nothing"]) == FAILED
    assert "no sample fits the filter" in capsys.readouterr().err
