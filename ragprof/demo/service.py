"""The RAG service itself: a question in, an answer with sources out, through replaceable parts.

`Service` is the seam for faults: its attributes `embed`, `search`, `rerank`, `generate`, `http`,
`db`, `pool`, `cache` and `jobs` are looked up at every use, so replacing or wrapping one changes
the running service. docs/demo.md documents their signatures.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog
from opentelemetry import trace

from ragprof.demo import corpus
from ragprof.demo.cache import Cache
from ragprof.demo.embedder import Embedder, Embedding, load_embedder
from ragprof.demo.generation import EXTRACTIVE, Answer, ask_model, extract_answer
from ragprof.demo.index import Hit, Index, build_index
from ragprof.demo.jobs import Jobs
from ragprof.demo.minilm import Floats
from ragprof.demo.rerank import late_interaction
from ragprof.demo.store import Database, Passage, Pool, fill
from ragprof.service import metrics
from ragprof.service.logging import EventLogger, get_logger
from ragprof.service.metrics import BusinessMetrics, size_category

tracer = trace.get_tracer("ragprof.demo")
log = get_logger(__name__)

MIN_CANDIDATES = 48
CANDIDATES_PER_RESULT = 4
TEXT_LIMIT = 100  # characters of a query kept in attributes


@dataclass
class Service:
    """A running service. Sync parts run in worker threads, coroutine functions in the loop."""

    embed: Callable[[str], Embedding | Awaitable[Embedding]]
    search: Callable[[Embedding, str, int, str], list[Hit] | Awaitable[list[Hit]]]
    rerank: Callable[[Embedding, Sequence[Floats]], list[float] | Awaitable[list[float]]]
    generate: Callable[[str, Sequence[Passage]], Awaitable[Answer]]
    http: Callable[[Sequence[str]], Awaitable[dict[str, str]]]
    db: Database
    pool: Pool
    cache: Cache
    jobs: Jobs
    index: Index
    embedder: Embedder
    client: httpx.AsyncClient
    reference_url: str
    events: EventLogger

    async def close(self) -> None:
        """Let queued jobs end, then give everything back."""
        await self.jobs.drain()
        await self.client.aclose()
        self.db.close()


def open_service(database: Path, reference_url: str) -> Service:
    """Load the model, the corpus and its index, and wire the parts together."""
    embedder = load_embedder()
    documents = corpus.documents()
    pool = Pool(database)
    texts = fill(pool.engine, documents)
    index = build_index(texts, embedder, corpus.fingerprint(documents))
    client = httpx.AsyncClient(timeout=10)
    return Service(
        embed=functools.partial(embed_query, embedder),
        search=functools.partial(search_index, index),
        rerank=rerank_passages,
        generate=functools.partial(generate_answer, client, index, embedder),
        http=functools.partial(fetch_definitions, client, reference_url),
        db=Database(pool),
        pool=pool,
        cache=Cache("answers"),
        jobs=Jobs(),
        index=index,
        embedder=embedder,
        client=client,
        reference_url=reference_url,
        events=EventLogger("ragprof.demo"),
    )


def embed_query(embedder: Embedder, text: str) -> Embedding:
    """The default `embed`: one text through the model."""
    return embedder.embed([text])[0]


def search_index(index: Index, query: Embedding, text: str, limit: int, strategy: str) -> list[Hit]:
    """The default `search`: hybrid, vector or keyword."""
    return index.search(query.vector, text, limit, strategy)


def rerank_passages(query: Embedding, passages: Sequence[Floats]) -> list[float]:
    """The default `rerank`: late interaction, one product per passage."""
    return late_interaction(query.tokens, passages)


async def generate_answer(
    client: httpx.AsyncClient,
    index: Index,
    embedder: Embedder,
    question: str,
    passages: Sequence[Passage],
) -> Answer:
    """The default `generate`: extractive, or the model behind `RAGPROF_DEMO_LLM_URL`."""
    texts = [passage.text for passage in passages]
    if os.environ.get("RAGPROF_DEMO_LLM_URL"):
        return await ask_model(client, question, texts)
    return extract_answer(question, texts, index.idf, embedder.count_tokens)


async def fetch_definitions(
    client: httpx.AsyncClient, reference_url: str, subjects: Sequence[str]
) -> dict[str, str]:
    """The default `http`: what rag-reference says about the cited subjects."""
    response = await client.get(
        f"{reference_url}/api/v1/definitions", params={"subject": list(subjects)}
    )
    response.raise_for_status()
    found: dict[str, str] = response.json()
    return found


async def call(part: Callable[..., Any], *arguments: Any) -> Any:
    """Call a replaceable part: a coroutine function in the loop, any other in a worker thread."""
    function = part.func if isinstance(part, functools.partial) else part
    if inspect.iscoroutinefunction(function):
        return await part(*arguments)
    result = await asyncio.to_thread(part, *arguments)
    return await result if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    """What `generate` and `http` gave: both are called in the loop, also when they are sync."""
    return await result if inspect.isawaitable(result) else result


async def answer(
    service: Service, question: str, top_k: int, strategy: str, user_type: str = "api"
) -> dict[str, Any]:
    """Answer one question with sources."""
    key = f"{strategy}:{top_k}:{question.strip().lower()}"
    span = trace.get_current_span()
    span.set_attributes({"query.length": len(question), "query.max_results": top_k})
    cached = service.cache.get(key)
    span.set_attribute("cache.hit", cached is not None)
    if cached is not None:
        return {**cached, "cached": True}
    async with service.db.session() as session:
        ranked = await retrieve(service, session, question, top_k, strategy, user_type)
        passages = [passage for passage, _ in ranked]
        subjects = list(dict.fromkeys(passage.slug for passage in passages))
        definitions: dict[str, str] = await _awaited(service.http(subjects))
        generated = await _generate(service, question, passages)
    request_id = str(structlog.contextvars.get_contextvars().get("request_id", ""))
    service.jobs.put(
        "query_log", service.db.add_query, request_id, question[:TEXT_LIMIT], len(passages)
    )
    result = {
        "answer": generated.text,
        "model": generated.model,
        "sources": [_source(passage, score) for passage, score in ranked],
        "definitions": definitions,
        "cached": False,
    }
    service.cache.set(key, result)
    return result


def _source(passage: Passage, score: float) -> dict[str, Any]:
    return {
        "document": passage.slug,
        "title": passage.title,
        "author": passage.author,
        "chunk": passage.chunk,
        "score": round(score, 4),
        "text": passage.text,
    }


async def retrieve(
    service: Service, session: Any, question: str, top_k: int, strategy: str, user_type: str
) -> list[tuple[Passage, float]]:
    """The best `top_k` passages with their scores: embed, search, load, rerank."""
    started = time.perf_counter()
    limit = max(MIN_CANDIDATES, CANDIDATES_PER_RESULT * top_k)
    with tracer.start_as_current_span(
        "rag.retrieval.search",
        attributes={
            "openinference.span.kind": "RETRIEVER",
            "query.text": question[:TEXT_LIMIT],
            "query.strategy": strategy,
            "query.length": len(question),
            "query.max_results": top_k,
        },
    ) as span:
        query = await _embed(service, question)
        with tracer.start_as_current_span(
            "vector_search", attributes={"query.strategy": strategy, "query.max_results": limit}
        ) as search_span:
            hits: list[Hit] = await call(service.search, query, question, limit, strategy)
            search_span.set_attribute("results.count", len(hits))
        candidates = await service.db.passages(session, [hit.chunk for hit in hits])
        ranked = await _rerank(service, query, candidates, top_k)
        scores = [score for _, score in ranked]
        mean = sum(scores) / len(scores) if scores else 0.0
        span.set_attributes({"results.count": len(ranked), "results.avg_score": mean})
        seconds = time.perf_counter() - started
        BusinessMetrics.record_search_performed(
            strategy,
            size_category(len(question), 60, 300),
            seconds,
            user_type=user_type,
            results=len(ranked),
            relevance=mean,
        )
        service.events.log_search_performed(
            f"{span.get_span_context().span_id:016x}",
            question,
            strategy,
            len(ranked),
            mean,
            seconds * 1000,
        )
        return ranked


async def _embed(service: Service, question: str) -> Embedding:
    name = service.embedder.name
    with tracer.start_as_current_span(
        "embedding_generation",
        attributes={
            "openinference.span.kind": "EMBEDDING",
            "gen_ai.operation.name": "embeddings",
            "gen_ai.request.model": name,
            "embedding.model_name": name,
            "embedding.dimensions": service.embedder.dimensions,
            "query.length": len(question),
        },
    ) as span:
        started = time.perf_counter()
        query: Embedding = await call(service.embed, question)
        metrics.embedding_generation_duration.labels(
            model=name, batch_size_category="single"
        ).observe(time.perf_counter() - started)
        span.set_attribute("gen_ai.usage.input_tokens", len(query.tokens))
        return query


async def _rerank(
    service: Service, query: Embedding, candidates: list[Passage], top_k: int
) -> list[tuple[Passage, float]]:
    with tracer.start_as_current_span(
        "reranking",
        attributes={
            "openinference.span.kind": "RERANKER",
            "reranker.model_name": service.embedder.name,
            "reranker.top_k": top_k,
            "rerank.candidates": len(candidates),
        },
    ) as span:
        tokens = [service.index.tokens[candidate.chunk] for candidate in candidates]
        scores: list[float] = await call(service.rerank, query, tokens)
        ranked = sorted(
            zip(candidates, scores, strict=True), key=lambda pair: pair[1], reverse=True
        )[:top_k]
        observed = metrics.reranking_scores.labels(
            model=service.embedder.name, query_type="question"
        )
        for _, score in ranked:
            observed.observe(score)
        span.set_attribute("reranked.count", len(ranked))
        return ranked


async def _generate(service: Service, question: str, passages: list[Passage]) -> Answer:
    with tracer.start_as_current_span(
        "generation",
        attributes={
            "openinference.span.kind": "LLM",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": EXTRACTIVE,
        },
    ) as span:
        started = time.perf_counter()
        generated: Answer = await _awaited(service.generate(question, passages))
        span.set_attributes(
            {
                "gen_ai.response.model": generated.model,
                "gen_ai.usage.input_tokens": generated.prompt_tokens,
                "gen_ai.usage.output_tokens": generated.completion_tokens,
            }
        )
        metrics.observe(
            metrics.generation_latency,
            time.perf_counter() - started,
            model=generated.model,
            prompt_size_category=size_category(generated.prompt_tokens, 500, 2000),
        )
        for direction, count in (
            ("prompt", generated.prompt_tokens),
            ("completion", generated.completion_tokens),
        ):
            metrics.tokens.labels(model=generated.model, direction=direction).inc(count)
        return generated
