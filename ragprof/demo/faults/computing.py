"""Faults that compute too much: padding, rows instead of matrices, scans of lists, log lines."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ragprof.demo.embedder import Embedding
from ragprof.demo.generation import SENTENCE, Answer
from ragprof.demo.index import RECIPROCAL_RANK_OFFSET, Hit, Index, words
from ragprof.demo.minilm import Floats
from ragprof.demo.service import Service
from ragprof.demo.store import Passage

# --- a reranker that pads its batch to the longest text ------------------------------------------


def score_padded_batch(query: Embedding, passages: Sequence[Floats]) -> list[float]:
    """The same scores as one product per passage, over a batch as long as its longest member.

    As such code often does, it leaves numpy its default of 64 bits a number.
    """
    longest = max(len(tokens) for tokens in passages)
    batch = np.zeros((len(passages), longest, query.tokens.shape[1]))
    mask = np.full((len(passages), longest), -np.inf)
    for row, tokens in enumerate(passages):
        batch[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 0
    batch /= np.maximum(np.linalg.norm(batch, axis=-1, keepdims=True), 1e-9)
    scores = batch @ query.tokens.T + mask[:, :, None]
    return [float(score) for score in scores.max(axis=1).mean(axis=1)]


def padded_batch(service: Service) -> None:
    """The reranker scores one padded batch: a single long passage makes all of them long."""
    service.rerank = score_padded_batch


# --- scores row by row ---------------------------------------------------------------------------


def score_row_by_row(query: Embedding, passages: Sequence[Floats]) -> list[float]:
    """The same scores, each pair of tokens multiplied alone instead of all in one product."""
    scores = []
    for tokens in passages:
        best = [max(float(wanted @ token) for token in tokens) for wanted in query.tokens]
        scores.append(sum(best) / len(best))
    return scores


def row_by_row(service: Service) -> None:
    """The reranker multiplies token by token."""
    service.rerank = score_row_by_row


# --- results merged by scanning ------------------------------------------------------------------


def merge_by_scanning(rankings: Sequence[Sequence[int]]) -> list[Hit]:
    """Reciprocal rank fusion that looks for each result in the whole list made so far."""
    merged: list[Hit] = []
    for ranking in rankings:
        for place, chunk in enumerate(ranking, 1):
            score = 1 / (RECIPROCAL_RANK_OFFSET + place)
            known = [hit for hit in merged if hit.chunk == chunk]
            merged = [hit for hit in merged if hit.chunk != chunk]
            merged.append(Hit(chunk, score + sum(hit.score for hit in known)))
    return sorted(merged, key=lambda hit: -hit.score)


def rank_everything(index: Index, query: Embedding, text: str) -> list[list[int]]:
    """All chunks by the vector, and all by each word of the question."""
    by_word = [index.keyword_scores(word) for word in dict.fromkeys(words(text))]
    scores = [index.vector_scores(query.vector), *by_word[:5]]
    return [np.argsort(-each, kind="stable").tolist() for each in scores]


def quadratic_merge(service: Service) -> None:
    """The rankings of a question's words are merged by searching a list for each result."""
    index = service.index

    def search_each_word(query: Embedding, text: str, limit: int, strategy: str) -> list[Hit]:
        return merge_by_scanning(rank_everything(index, query, text))[:limit]

    service.search = search_each_word


# --- a flood of log lines ------------------------------------------------------------------------

FLOOD = 600  # lines for one answer


def explain(question: str, passages: Sequence[Passage]) -> None:
    """One line for each word of the question in each sentence, at a level that is always on."""
    log = logging.getLogger("rag.explain")
    wanted = words(question)
    pairs = [
        (word, sentence, passage.slug)
        for passage in passages
        for sentence in SENTENCE.split(passage.text)
        for word in wanted
    ]
    for number in range(FLOOD):
        word, sentence, slug = pairs[number % len(pairs)]
        log.info("%r in %s: %s", word, slug, word in sentence.lower())


def log_flood(service: Service) -> None:
    """Each answer is explained by hundreds of log lines, written in the event loop."""
    generate = service.generate

    async def generate_explained(question: str, passages: Sequence[Passage]) -> Answer:
        if passages:
            explain(question, passages)
        return await generate(question, passages)

    service.generate = generate_explained
