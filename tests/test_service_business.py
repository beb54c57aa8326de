"""Recorders, active users, streamed answers, and the spans of RAG operations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import REGISTRY

from ragprof.monitoring.catalogue import METRICS
from ragprof.service import operations
from ragprof.service.business import ActiveUsers, BusinessMetrics, timed_stream
from ragprof.service.exposition import exposition, refresh
from ragprof.service.operations import embedding, generation, reranking, retrieval, vector_search

DAY = 24 * 3600.0


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_the_process_has_every_metric_of_the_catalogue_as_the_catalogue_says() -> None:
    families = {family.name: family for family in REGISTRY.collect()}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)


def test_every_recorder_feeds_its_metrics() -> None:
    before = value("rag_documents_processed_total", file_type="md", status="other",
                   processing_strategy="default")  # fmt: skip
    BusinessMetrics.record_document_processed("md", "half-done", 0)
    after = value("rag_documents_processed_total", file_type="md", status="other",
                  processing_strategy="default")  # fmt: skip
    assert after == before + 1  # a status that is not in the catalogue
    assert value("rag_document_chunks_created_count", file_type="md") == 0
    BusinessMetrics.record_cache_access("recorded", "get", hit=True)
    BusinessMetrics.record_cache_access("recorded", "get", hit=False)
    assert value("rag_cache_hits_total", cache_type="recorded", operation="get") == 1
    assert value("rag_cache_misses_total", cache_type="recorded", operation="get") == 1
    BusinessMetrics.record_embedding_generated("e5", 1, 0.25)
    labels = {"model": "e5", "batch_size_category": "single"}
    assert value("rag_embedding_generation_duration_seconds_sum", **labels) == 0.25
    BusinessMetrics.record_reranking("cross", "question", [0.2, 0.9])
    labels = {"model": "cross", "query_type": "question"}
    assert value("rag_reranking_scores_sum", **labels) == pytest.approx(1.1)
    BusinessMetrics.record_generation("llm", 1.5, 700, 40)
    labels = {"model": "llm", "prompt_size_category": "medium"}
    assert value("rag_generation_latency_seconds_sum", **labels) == 1.5
    assert value("rag_tokens_total", model="llm", direction="prompt") == 700
    assert value("rag_tokens_total", model="llm", direction="completion") == 40


def test_active_users_are_distinct_forgotten_after_a_day_and_never_stored_by_name() -> None:
    users = ActiveUsers()
    for user in ("ann@example.com", "bob@example.com", "ann@example.com"):
        users.seen(user, now=1000.0)
    users.seen("cy@example.com", now=1000.0 + DAY / 2)
    assert value("rag_active_users", window="24h") == 3
    users.update(now=1000.0 + DAY + 1)
    assert value("rag_active_users", window="24h") == 1
    assert "example" not in repr(vars(users))
    # The same user has another hash in every process.
    digests = []
    for _ in range(2):
        other = ActiveUsers()
        other.seen("ann@example.com", now=0.0)
        digests.append(next(iter(other._last_seen)))
        refresh.remove(other.update)
    assert digests[0] != digests[1]
    refresh.remove(users.update)


def test_active_users_stay_bounded_and_are_brought_up_to_date_by_the_scrape() -> None:
    users = ActiveUsers(capacity=10)
    for number in range(50):
        users.seen(f"user-{number}", now=-2 * DAY)
    assert len(users._last_seen) == 10
    assert b'rag_active_users{window="24h"} 0.0' in exposition()[0]  # nobody for two days
    refresh.remove(users.update)


def test_a_stream_is_unchanged_and_its_first_token_timed() -> None:
    async def made() -> AsyncIterator[int]:
        await asyncio.sleep(0.05)
        for number in range(3):
            yield number

    async def consume() -> list[int]:
        return [item async for item in timed_stream(made(), "streamed")]

    assert asyncio.run(consume()) == [0, 1, 2]
    assert value("rag_time_to_first_token_seconds_count", model="streamed") == 1
    assert value("rag_time_to_first_token_seconds_sum", model="streamed") >= 0.05


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(operations, "tracer", provider.get_tracer("test"))
    return exporter


def by_name(spans: InMemorySpanExporter) -> dict[str, Any]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_a_retrieval_has_its_steps_as_children_in_three_vocabularies(
    spans: InMemorySpanExporter,
) -> None:
    with retrieval("why? " * 100, "hybrid", 5) as search:
        with embedding("minilm", 384) as step:
            step.tokens(7)
        with vector_search("hybrid", 50) as step:
            step.results(50)
        with reranking("cross", candidates=50, top_k=5) as step:
            step.results(5, [0.9, 0.5])
        search.results(5, [0.9, 0.5, float("nan")])
        search.set(tenant="acme")
    found = by_name(spans)
    root = found["rag.retrieval.search"]
    for name in ("embedding_generation", "vector_search", "reranking"):
        assert found[name].parent.span_id == root.context.span_id
    attributes = root.attributes
    assert len(attributes["query.text"]) == 100
    assert attributes["input.value"] == attributes["query.text"]
    assert (attributes["query.strategy"], attributes["query.max_results"]) == ("hybrid", 5)
    assert (attributes["results.count"], attributes["tenant"]) == (5, "acme")
    assert attributes["results.avg_score"] == pytest.approx(0.7)
    assert attributes["openinference.span.kind"] == "RETRIEVER"
    embedded = found["embedding_generation"].attributes
    assert embedded["embedding.dimensions"] == 384
    assert embedded["gen_ai.operation.name"] == "embeddings"
    assert embedded["gen_ai.usage.input_tokens"] == embedded["llm.token_count.prompt"] == 7
    assert found["reranking"].attributes["reranked.count"] == 5


def test_the_text_of_a_query_can_be_left_out(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with retrieval("my illness", "hybrid", 5, keep_text=False):
        pass
    monkeypatch.setenv("RAGPROF_QUERY_TEXT", "off")
    with retrieval("my illness", "hybrid", 5):
        pass
    for span in spans.get_finished_spans():
        assert span.attributes is not None
        assert "illness" not in repr(dict(span.attributes))
        assert span.attributes["query.length"] == 10


def test_a_generation_knows_tokens_model_and_first_token(spans: InMemorySpanExporter) -> None:
    with generation("gpt", provider="openai", streamed=True) as answer:
        answer.first_token()
        answer.first_token()
        answer.tokens(120, 30)
        answer.answered("gpt-2026", "stop")
    with pytest.raises(TimeoutError), generation("gpt"):
        raise TimeoutError("slow")
    good, bad = spans.get_finished_spans()
    assert good.attributes is not None
    assert good.attributes["gen_ai.provider.name"] == "openai"
    assert good.attributes["gen_ai.usage.output_tokens"] == 30
    assert good.attributes["llm.token_count.total"] == 150
    assert good.attributes["gen_ai.response.model"] == "gpt-2026"
    assert good.attributes["gen_ai.response.time_to_first_chunk"] >= 0
    assert [event.name for event in good.events] == ["first_token"]
    assert value("rag_time_to_first_token_seconds_count", model="gpt") == 1
    assert bad.status.status_code is StatusCode.ERROR
