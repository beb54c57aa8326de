"""The parts of the demo: corpus, embedders, index, rerank, cache, jobs, load, evaluation."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragprof.analysis.stages import STAGES
from ragprof.demo import corpus, evaluate, faults, load
from ragprof.demo.cache import Cache
from ragprof.demo.effects import row
from ragprof.demo.embedder import Embedding, HashingEmbedder, MiniLMEmbedder
from ragprof.demo.faults import computing, waiting
from ragprof.demo.generation import extract_answer
from ragprof.demo.index import Index, build_index
from ragprof.demo.jobs import Jobs
from ragprof.demo.minilm import MiniLM
from ragprof.demo.reference import Shelf
from ragprof.demo.rerank import late_interaction
from ragprof.demo.stage import effect
from ragprof.demo.weights import find_weights
from ragprof.errors import RagprofError
from ragprof.investigation.evidence import KINDS


def test_the_corpus_is_deterministic_and_skewed_in_length() -> None:
    documents = corpus.documents()
    assert documents == corpus.documents()
    chunks = [chunk for document in documents for chunk in document.chunks]
    lengths = [len(chunk.text.split()) for chunk in chunks]
    assert len(chunks) == 360
    assert max(lengths) > 8 * np.median(lengths)
    assert corpus.fingerprint(documents) != corpus.fingerprint(documents[1:])


def test_minilm_agrees_with_the_published_model() -> None:
    folder = find_weights()
    if folder is None:  # the hashing embedder stands in everywhere else
        assert "hashing" in HashingEmbedder.name
        return
    first, second, other = (
        each.vector
        for each in MiniLMEmbedder(MiniLM(folder)).embed(
            ["That is a happy person", "That is a very happy person", "Today is a sunny day"]
        )
    )
    # The similarities on the model's card: 0.943 and 0.257.
    assert first @ second == pytest.approx(0.943, abs=0.002)
    assert first @ other == pytest.approx(0.257, abs=0.002)


def test_hashing_embedder_finds_shared_words() -> None:
    bees, again, tides = (
        each.vector
        for each in HashingEmbedder().embed(["bees in winter", "winter bees", "the spring tide"])
    )
    assert bees @ again > 0.7
    assert abs(bees @ tides) < 0.3


@pytest.mark.parametrize("strategy", ["hybrid", "vector", "keyword"])
def test_search_finds_the_chunk_that_a_question_is_about(strategy: str) -> None:
    texts = ["Bees are fed before the winter.", "Spring tides come at new moon.", "Oil the chain."]
    embedder = HashingEmbedder()
    index = Index(texts, embedder.embed(texts))
    question = "When do spring tides come?"
    hits = index.search(embedder.embed([question])[0].vector, question, 3, strategy)
    assert hits[0].chunk == 1
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_embeddings_are_cached_and_a_damaged_cache_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    class Counting(HashingEmbedder):
        def embed(self, texts: Any) -> list[Embedding]:
            calls.append(len(texts))
            return super().embed(texts)

    texts = ["one", "two words"]
    first = build_index(texts, Counting(), "f")
    second = build_index(texts, Counting(), "f")
    assert calls == [2]
    assert np.allclose(first.tokens[1], second.tokens[1], atol=1e-3)
    (file,) = (tmp_path / "ragprof").iterdir()
    file.write_bytes(b"damaged")
    build_index(texts, Counting(), "f")
    assert calls == [2, 2]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 12), st.integers(0, 99))
def test_slow_ways_of_scoring_change_no_score(
    lengths: list[int], query_length: int, seed: int
) -> None:
    random = np.random.default_rng(seed)

    def unit(rows: int) -> Any:
        x = random.standard_normal((rows, 16)).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    query = Embedding(unit(1)[0], unit(query_length))
    passages = [unit(length) for length in lengths]
    expected = pytest.approx(late_interaction(query.tokens, passages), abs=1e-5)
    assert computing.score_padded_batch(query, passages) == expected
    assert computing.score_row_by_row(query, passages) == expected


@settings(max_examples=25, deadline=None)
@given(st.lists(st.permutations(range(9)), min_size=1, max_size=4))
def test_merging_by_scanning_is_reciprocal_rank_fusion(rankings: list[list[int]]) -> None:
    fused = np.zeros(9)
    for ranking in rankings:
        fused[ranking] += 1 / (60 + np.arange(1, 10))
    found = computing.merge_by_scanning(rankings)
    assert [hit.score for hit in found] == pytest.approx(sorted(fused, reverse=True))
    assert {hit.chunk: hit.score for hit in found} == pytest.approx(dict(enumerate(fused)))


def test_an_extracted_answer_is_made_of_sentences_of_its_sources() -> None:
    passages = ["Bees fly. A hive needs honey in winter.", "Tides turn twice a day."]
    answer = extract_answer(
        "What does a hive need in winter?", passages, {"hive": 3, "winter": 2}, len, sentences=1
    )
    assert answer.text == "A hive needs honey in winter."
    assert answer.model == "extractive"


def test_cache_forgets_the_least_recently_used_and_the_expired() -> None:
    cache = Cache("test", capacity=2)
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.get("a") == 1
    cache.set("c", 3)
    assert cache.get("b") is None
    assert cache.get("a") == 1
    expired = Cache("test", seconds=-1)
    expired.set("a", 1)
    assert expired.get("a") is None


def test_a_failing_job_does_not_stop_the_next() -> None:
    done = []

    async def fail() -> None:
        raise RuntimeError

    async def work(what: str) -> None:
        done.append(what)

    async def run() -> None:
        jobs = Jobs()
        jobs.put("test", fail)
        jobs.put("test", work, "second")
        worker = asyncio.create_task(jobs.run())
        await jobs.drain()
        worker.cancel()

    asyncio.run(run())
    assert done == ["second"]


def test_arrivals_are_seeded_open_and_bounded() -> None:
    arrivals = load.schedule(1, 60)
    assert arrivals == load.schedule(1, 60)
    assert arrivals != load.schedule(2, 60)
    times = [arrival.at for arrival in arrivals]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 60
    assert len(times) == pytest.approx(60 * load.RATE, rel=0.25)
    bodies = [json.dumps(arrival.body) for arrival in arrivals if arrival.body]
    assert 0.1 < 1 - len(set(bodies)) / len(bodies) < 0.5


def test_the_heavy_mix_asks_longer_questions_for_more_results() -> None:
    def mean(mix: str, field: Any) -> float:
        return float(np.mean([field(a.body) for a in load.schedule(1, 60, mix) if a.body]))

    assert mean("heavy", lambda b: len(b["question"])) > 3 * mean(
        "normal", lambda b: len(b["question"])
    )
    assert mean("heavy", lambda b: b["top_k"]) > mean("normal", lambda b: b["top_k"])


def test_other_mixes_ask_for_more_or_again_or_never_again() -> None:
    def asked(mix: str, start: float = 0) -> list[dict[str, Any]]:
        return [a.body for a in load.schedule(1, 60, mix, start=start) if a.body]

    def different(bodies: list[dict[str, Any]]) -> float:
        return len({json.dumps(body) for body in bodies}) / len(bodies)

    normal = asked("normal")
    assert min(body["top_k"] for body in asked("wide")) > max(body["top_k"] for body in normal)
    assert len(asked("busy")) > 2 * len(normal)
    assert different(asked("new")) > 0.9 > different(normal) > different(asked("repeated"))
    known = load.popular(1, load.MIXES["popular"])
    for start in (0, 60):
        bodies = asked("popular", start)
        assert sum(body in known for body in bodies) > 0.94 * len(bodies)
    assert not load.popular(1, load.MIXES["normal"])


def test_a_refused_call_is_tried_again_after_longer_and_longer_waits() -> None:
    waits: list[int] = []

    class Refusing:
        reference_url = ""
        calls = 0

        async def http(self, subjects: Any) -> dict[str, str]:
            self.calls += 1
            if self.calls % 3:
                raise httpx.HTTPStatusError("503", request=Any, response=Any)  # type: ignore[arg-type]
            return {"a": "b"}

    async def nothing(*_: Any) -> None:
        return None

    async def wait(_: Any, tried: int) -> None:
        waits.append(tried)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "tell_reference", nothing)
        patch.setattr(waiting.Retrying, "back_off", wait)
        service: Any = Refusing()
        asyncio.run(waiting.retry_storm(service))
        assert asyncio.run(service.http(["a"])) == {"a": "b"}
    assert waits == [0, 1]


def test_calls_are_refused_until_they_were_made_often_enough() -> None:
    shelf = Shelf()
    assert not shelf.refuses(("tides",))
    shelf.every = 3
    calls = [("tides",), ("bees",), ("tides",), ("bees",), ("tides",), ("tides",), ("bees",)]
    assert [shelf.refuses(call) for call in calls] == [True, True, True, True, False, True, False]
    assert sum(shelf.refused.values()) == 1


def test_one_search_in_fifteen_waits_for_the_statistics() -> None:
    waits: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", waits.append)
        statistics = waiting.SearchStatistics(waiting.ONE_IN, 0.4)
        for _ in range(45):
            statistics.count()
    assert waits == [0.4] * 3


def test_latency_counts_from_the_due_time_so_nothing_is_omitted() -> None:
    async def slow_server() -> list[dict[str, Any]]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readline():
                while (await reader.readline()).strip():
                    pass
                await asyncio.sleep(0.3)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        arrivals = [load.Arrival(n * 0.02, "GET", "/api/v1/documents/x", None) for n in range(10)]
        import time

        results = await load.run(f"http://127.0.0.1:{port}", arrivals, time.time())
        server.close()
        return results

    results = asyncio.run(slow_server())
    assert [result["at"] for result in results] == [n * 0.02 for n in range(10)]
    assert all(290 < result["milliseconds"] < 20_000 for result in results)
    assert results[0]["path"] == "/api/v1/documents/{slug}"


def test_effect_and_row_say_what_a_fault_added() -> None:
    requests = [
        {"at": float(n), "path": "/api/v1/ask", "status": 200, "milliseconds": 100.0 + (n >= 50)}
        for n in range(100)
    ]
    found = effect(requests, 50)
    assert (found["healthy_p95_ms"], found["faulty_p95_ms"]) == (100.0, 101.0)
    assert found["healthy_requests"] == 50
    judged = row({"fault": "x", "seed": 1, "operation": "o", "effect": found})
    assert judged["added_p95_ms"] == 1.0
    assert not judged["large_enough"]


def finding(rank: int, **fields: str) -> dict[str, Any]:
    return {"rank": rank, "stage": "rerank", "kind": "cpu", "function": "m:f"} | fields


def write(folder: Path, truth: dict[str, Any], findings: list[dict[str, Any]]) -> Path:
    verdict = "cause_found" if findings else "no_cause_found"
    base = {"seed": 1, "functions": [], "resource": "", "stage": "", "kind": ""}
    (folder / "truth.json").write_text(json.dumps(base | truth))
    (folder / "findings.json").write_text(json.dumps({"verdict": verdict, "findings": findings}))
    return folder


def test_a_hit_needs_stage_kind_and_function_or_resource(tmp_path: Path) -> None:
    truth = {"fault": "x", "stage": "rerank", "kind": "cpu", "functions": ["m:f"]}
    judged = evaluate.judge(write(tmp_path, truth, [finding(1, kind="io"), finding(2)]))
    assert (judged.stage, judged.kind, judged.function, judged.hit) == (1, 2, 1, 2)
    assert not judged.at_1
    assert judged.at_3
    by_resource = truth | {"functions": [], "resource": "rag"}
    assert evaluate.judge(write(tmp_path, by_resource, [finding(1, resource="rag")])).at_1
    assert not evaluate.judge(write(tmp_path, by_resource, [finding(1, resource="")])).at_3


def test_none_is_right_only_when_no_cause_is_named(tmp_path: Path) -> None:
    assert evaluate.judge(write(tmp_path, {"fault": "none"}, [])).at_1
    judged = evaluate.judge(write(tmp_path, {"fault": "none"}, [finding(1)]))
    assert not judged.at_3
    assert "nothing changed: 1 of 1" in evaluate.table([judged])
    standing = {"fault": "long_standing", "verdict": "no_cause_found"}
    assert evaluate.judge(write(tmp_path, standing, [])).at_1


def test_of_two_causes_both_must_be_named_with_their_shares(tmp_path: Path) -> None:
    one = {"stage": "rerank", "kind": "cpu", "functions": ["m:f"], "share": 0.75}
    other = {"stage": "http", "kind": "downstream", "functions": [], "resource": "b", "share": 0.25}
    truth = {"fault": "both", **one, "also": [other]}
    second = finding(2, stage="http", kind="downstream", function="", resource="b") | {
        "added_ms": 20.0
    }
    judged = evaluate.judge(write(tmp_path, truth, [finding(1) | {"added_ms": 60.0}, second]))
    assert judged.at_1
    assert judged.shares == ((0.75, 0.75), (0.25, 0.25))
    between = [finding(1), finding(2, kind="io"), second | {"rank": 3}]
    judged = evaluate.judge(write(tmp_path, truth, [each | {"added_ms": 1.0} for each in between]))
    assert (judged.at_1, judged.at_3, judged.hit) == (False, True, 2)
    judged = evaluate.judge(write(tmp_path, truth, [finding(1) | {"added_ms": 60.0}]))
    assert not judged.at_3
    assert judged.shares == ((0.75, 1.0), (0.25, None))


def test_accuracy_stands_beside_what_guessing_would_get() -> None:
    def run(fault: str, stage: str, ranks: tuple[int | None, ...]) -> evaluate.Judgement:
        truths = ((stage, "cpu", fault),)
        return evaluate.Judgement("f", fault, 1, *ranks, first="", truths=truths)

    rows = [
        run("a", "rerank", (1, 1, 1, 1)),
        run("a", "rerank", (1, 1, 4, 4)),
        run("b", "embed", (None, 2, 2, None)),
        run("c", "http", (2, 1, 3, 3)),
        evaluate.Judgement("f", "none", 1, None, None, None, 1, "no_cause_found"),
        evaluate.Judgement("f", "none", 2, None, None, None, None, "x"),
    ]
    told = evaluate.evaluation(rows)
    by_fault = {each["fault"]: each for each in told["faults"]}
    assert by_fault["a"]["hit_at_1"] == 0.5
    assert by_fault["a"]["function_at_3"] == 0.5
    assert by_fault["b"]["stage_at_3"] == 0
    assert by_fault[""]["kind_at_1"] == 0.75
    assert by_fault[""]["stage_at_3"] == 0.75
    commonest, uniform = told["chance"]
    assert (commonest["stage_at_1"], commonest["stage_at_3"]) == (0.5, 1.0)
    assert commonest["kind_at_1"] == 1
    assert uniform["stage_at_1"] == pytest.approx(1 / 3)
    assert told["false_alarms"] == {"runs": 2, "false": 1}
    assert json.loads(json.dumps(told)) == json.loads(json.dumps(told, allow_nan=False))
    page = evaluate.table(rows)
    assert "| **all faults** | 4 | 50% | 75% |" in page
    assert "guessing the commonest" in page
    assert "Right at rank 1: 1 of 4; within rank 3: 2." in page


def test_a_fault_without_a_truth_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(RagprofError, match="no kind"):
        evaluate.judge(write(tmp_path, {"fault": "mine.py:slow"}, []))


def test_every_fault_tells_a_truth_whose_functions_exist() -> None:
    import importlib

    truths = [fault.truth for fault in faults.FAULTS.values() if fault.truth]
    truths += [other for truth in truths for other in truth.also]
    assert {truth.kind for truth in truths} <= set(KINDS)
    assert {truth.stage for truth in truths} <= set(STAGES)
    for truth in truths:
        assert truth.functions or truth.resource
        for name in truth.functions:
            module, qualname = name.split(":")
            found: Any = importlib.import_module(module)
            for part in qualname.split(".<locals>.")[0].split("."):
                found = getattr(found, part)
            assert callable(found)


@pytest.mark.parametrize(
    ("content", "function", "problem"),
    [
        ("def slow(service): pass", "fast", "no function 'fast'"),
        ("import nothing_like_that", "slow", "cannot be imported"),
    ],
)
def test_a_bad_fault_module_is_explained(
    tmp_path: Path, content: str, function: str, problem: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(faults.FaultError, match=problem):
        faults.load(path, function)
    with pytest.raises(faults.FaultError, match="not a file"):
        faults.load(tmp_path / "absent.py", function)
