"""Recorders of what the service did, in the words of its users."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TypeVar

from ragprof.service import exposition
from ragprof.service.collectors import (
    active_users,
    cache_hits,
    cache_misses,
    document_chunks_created,
    document_processing_duration,
    documents_processed,
    embedding_generation_duration,
    generation_latency,
    observe,
    reranking_scores,
    retrieval_latency,
    search_queries,
    search_relevance_score,
    search_results,
    size_category,
    time_to_first_token,
    tokens,
)

T = TypeVar("T")


class BusinessMetrics:
    """One method per thing that a RAG service does; latencies carry the current trace."""

    @staticmethod
    def record_search_performed(
        strategy: str,
        query_complexity: str,
        duration: float,
        *,
        user_type: str = "api",
        results: int | None = None,
        relevance: float | None = None,
    ) -> None:
        """One search: `duration` in seconds, `relevance` (mean of its results) from 0 to 1."""
        search_queries.labels(strategy, user_type).inc()
        observe(retrieval_latency, duration, strategy=strategy, query_complexity=query_complexity)
        if results is not None:
            search_results.labels(strategy).observe(results)
        if relevance is not None:
            search_relevance_score.labels(strategy).observe(relevance)

    @staticmethod
    def record_document_processed(
        file_type: str,
        status: str,
        chunks_created: int,
        *,
        processing_strategy: str = "default",
        duration: float | None = None,
    ) -> None:
        """One document: `status` is success or error, `duration` in seconds.

        A document that failed counts no chunks when it made none.
        """
        documents_processed.labels(file_type, status, processing_strategy).inc()
        if status == "success" or chunks_created:
            document_chunks_created.labels(file_type).observe(chunks_created)
        if duration is not None:
            document_processing_duration.labels(file_type).observe(duration)

    @staticmethod
    def record_cache_access(cache_type: str, operation: str, hit: bool) -> None:
        """One look-up in a cache."""
        (cache_hits if hit else cache_misses).labels(cache_type, operation).inc()

    @staticmethod
    def record_embedding_generated(model: str, batch_size: int, duration: float) -> None:
        """One batch of `batch_size` texts, embedded in `duration` seconds."""
        category = "single" if batch_size == 1 else size_category(batch_size, 16, 128)
        embedding_generation_duration.labels(model, category).observe(duration)

    @staticmethod
    def record_reranking(model: str, query_type: str, scores: Iterable[float]) -> None:
        """The scores, 0 to 1, that a reranker gave to the results of one query."""
        child = reranking_scores.labels(model, query_type)
        for score in scores:
            child.observe(score)

    @staticmethod
    def record_generation(
        model: str, duration: float, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """One generated answer: `duration` in seconds, and its tokens."""
        category = size_category(prompt_tokens, 500, 2000)
        observe(generation_latency, duration, model=model, prompt_size_category=category)
        tokens.labels(model, "prompt").inc(prompt_tokens)
        tokens.labels(model, "completion").inc(completion_tokens)

    @staticmethod
    def record_first_token(model: str, seconds: float) -> None:
        """A streamed answer gave its first token `seconds` after it was asked for."""
        observe(time_to_first_token, seconds, model=model)


async def timed_stream(stream: AsyncIterable[T], model: str) -> AsyncIterator[T]:
    """The items of a streamed answer, unchanged; records the time to the first of them.

    The clock starts with the first request for an item, which is when a generator begins to work.
    """
    started = time.perf_counter()
    first = True
    async for item in stream:
        if first:
            first = False
            BusinessMetrics.record_first_token(model, time.perf_counter() - started)
        yield item


class ActiveUsers:
    """Distinct users of the last 24 hours, in `rag_active_users{window="24h"}`.

    Off until `seen` is called. Ids are hashed with a key that is drawn at every start and never
    stored, so nobody can be found from them; they stay in memory only. At most `capacity` users
    are remembered, the latest first. Each worker counts its own users, and several workers show
    the largest number of one of them: a lower bound, since their keys differ on purpose.
    """

    window = "24h"
    seconds = 24 * 3600.0

    def __init__(self, capacity: int = 100_000) -> None:
        self.capacity = capacity
        self._key = secrets.token_bytes(32)
        self._last_seen: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def seen(self, user_id: str, now: float | None = None) -> None:
        """Somebody used the service; `now` in seconds of a monotonic clock."""
        digest = hashlib.blake2b(user_id.encode(), digest_size=8, key=self._key).digest()
        now = time.monotonic() if now is None else now
        with self._lock:
            self._last_seen[digest] = now
            self._last_seen.move_to_end(digest)
            if len(self._last_seen) > self.capacity:
                self._last_seen.popitem(last=False)
        if self.update not in exposition.refresh:
            exposition.refresh.append(self.update)
        self.update(now)

    def update(self, now: float | None = None) -> None:
        """Forget who was last seen before the window, and set the gauge."""
        now = time.monotonic() if now is None else now
        with self._lock:
            while self._last_seen:
                oldest = next(iter(self._last_seen))
                if now - self._last_seen[oldest] <= self.seconds:
                    break
                del self._last_seen[oldest]
            active_users.labels(self.window).set(len(self._last_seen))
