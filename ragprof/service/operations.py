"""Spans of RAG operations, named and attributed so that every tool understands them.

`retrieval` is the parent of `embedding`, `vector_search` and `reranking`; `generation` stands
beside it. Each span has the plain names of this project (`query.text`, `results.count`, ...), the
OpenTelemetry conventions for generative AI (`gen_ai.*`) and those of OpenInference. They are spans
only: metrics and log lines have recorders of their own.

    with retrieval(question, strategy="hybrid", max_results=5) as search:
        with embedding("all-MiniLM-L6-v2", dimensions=384) as step:
            vector = embed(question)
            step.tokens(7)
        with vector_search("hybrid", max_results=50) as step:
            hits = index.search(vector)
            step.results(len(hits))
        with reranking("cross-encoder", candidates=len(hits), top_k=5) as step:
            scores = rerank(question, hits)
            step.results(5, scores)
        search.results(5, scores)
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from ragprof.service.business import BusinessMetrics
from ragprof.service.events import QUERY_TEXT_LIMIT

tracer = trace.get_tracer("ragprof.service")

_KEEP_TEXT = "RAGPROF_QUERY_TEXT"


class Operation:
    """The span of one operation, and what is known of its result."""

    def __init__(self, span: Span) -> None:
        self.span = span

    def set(self, **attributes: AttributeValue) -> None:
        """Attributes of the application's own, under these names."""
        self.span.set_attributes(attributes)

    def results(self, count: int, scores: Sequence[float] = ()) -> None:
        """How many results there are, and the scores of the best of them."""
        self.span.set_attribute("results.count", count)
        finite = [score for score in scores if math.isfinite(score)]
        if finite:
            self.span.set_attributes(
                {
                    "results.avg_score": sum(finite) / len(finite),
                    "results.max_score": max(finite),
                    "results.min_score": min(finite),
                }
            )

    def tokens(self, prompt: int, completion: int | None = None) -> None:
        """Tokens that the model read and, if it writes, wrote."""
        self.span.set_attributes(
            {"gen_ai.usage.input_tokens": prompt, "llm.token_count.prompt": prompt}
        )
        if completion is not None:
            self.span.set_attributes(
                {
                    "gen_ai.usage.output_tokens": completion,
                    "llm.token_count.completion": completion,
                    "llm.token_count.total": prompt + completion,
                }
            )


class Reranking(Operation):
    """The span of a reranking."""

    def results(self, count: int, scores: Sequence[float] = ()) -> None:
        """How many candidates stay, and the scores of those."""
        super().results(count, scores)
        self.span.set_attribute("reranked.count", count)


class Generation(Operation):
    """The span of a generation."""

    def __init__(self, span: Span, model: str) -> None:
        super().__init__(span)
        self._model = model
        self._asked = time.perf_counter()
        self._streaming = False

    def first_token(self) -> None:
        """The first token of a streamed answer is there; later calls change nothing.

        Sets `gen_ai.response.time_to_first_chunk` (seconds) and records
        `rag_time_to_first_token_seconds`.
        """
        if self._streaming:
            return
        self._streaming = True
        seconds = time.perf_counter() - self._asked
        self.span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)
        self.span.add_event("first_token")
        BusinessMetrics.record_first_token(self._model, seconds)

    def answered(self, model: str, finish_reason: str = "") -> None:
        """Which model answered, and why it ended."""
        self.span.set_attribute("gen_ai.response.model", model)
        if finish_reason:
            self.span.set_attribute("gen_ai.response.finish_reasons", [finish_reason])


@contextmanager
def retrieval(
    query: str, strategy: str, max_results: int, *, keep_text: bool | None = None
) -> Iterator[Operation]:
    """The whole retrieval of one query: `rag.retrieval.search`.

    The text is cut to 100 characters. It is left out when `keep_text` is False or, when that is
    None, the environment variable `RAGPROF_QUERY_TEXT` is `off`; its length is always there.
    """
    attributes: dict[str, AttributeValue] = {
        "openinference.span.kind": "RETRIEVER",
        "gen_ai.operation.name": "retrieval",
        "query.strategy": strategy,
        "query.max_results": max_results,
        "query.length": len(query),
        "gen_ai.request.top_k": max_results,
    }
    if keep_text is None:
        keep_text = os.environ.get(_KEEP_TEXT, "on") != "off"
    if keep_text:
        text = query[:QUERY_TEXT_LIMIT]
        for name in ("query.text", "input.value", "gen_ai.retrieval.query.text"):
            attributes[name] = text
    with _span("rag.retrieval.search", attributes) as span:
        yield Operation(span)


@contextmanager
def embedding(model: str, dimensions: int, *, texts: int = 1) -> Iterator[Operation]:
    """Texts become vectors: `embedding_generation`."""
    attributes: dict[str, AttributeValue] = {
        "openinference.span.kind": "EMBEDDING",
        "embedding.model_name": model,
        "embedding.dimensions": dimensions,
        "embedding.texts": texts,
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": model,
        "gen_ai.embeddings.dimension.count": dimensions,
    }
    with _span("embedding_generation", attributes) as span:
        yield Operation(span)


@contextmanager
def vector_search(strategy: str, max_results: int) -> Iterator[Operation]:
    """Candidates are found in the index: `vector_search`."""
    attributes: dict[str, AttributeValue] = {
        "openinference.span.kind": "RETRIEVER",
        "query.strategy": strategy,
        "query.max_results": max_results,
    }
    with _span("vector_search", attributes) as span:
        yield Operation(span)


@contextmanager
def reranking(model: str, candidates: int, top_k: int) -> Iterator[Reranking]:
    """Candidates are put in order: `reranking`."""
    attributes: dict[str, AttributeValue] = {
        "openinference.span.kind": "RERANKER",
        "reranker.model_name": model,
        "reranker.top_k": top_k,
        "rerank.candidates": candidates,
        "gen_ai.request.model": model,
    }
    with _span("reranking", attributes) as span:
        yield Reranking(span)


@contextmanager
def generation(model: str, *, provider: str = "", streamed: bool = False) -> Iterator[Generation]:
    """A model writes an answer: `generation`."""
    attributes: dict[str, AttributeValue] = {
        "openinference.span.kind": "LLM",
        "llm.model_name": model,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": model,
        "gen_ai.request.stream": streamed,
    }
    if provider:
        attributes |= {"gen_ai.provider.name": provider, "llm.provider": provider}
    with _span("generation", attributes) as span:
        yield Generation(span, model)


@contextmanager
def _span(name: str, attributes: Mapping[str, AttributeValue]) -> Iterator[Span]:
    with tracer.start_as_current_span(name, attributes=attributes) as span:
        yield span
