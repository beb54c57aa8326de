"""Faults in how data is reached and kept: the ORM, the connection pool, the caches."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session, joinedload

from ragprof.demo.cache import Cache
from ragprof.demo.generation import Answer
from ragprof.demo.service import Service
from ragprof.demo.store import Chunk, Document, Passage, passage

# --- N+1 look-ups through the ORM ----------------------------------------------------------------


def load_passages_one_by_one(session: Session, chunks: Sequence[int]) -> list[Passage]:
    """The same passages, each asked for alone."""
    found = []
    document = joinedload(Chunk.document).joinedload(Document.author)
    for chunk_id in chunks:
        chunk = session.get(Chunk, chunk_id, options=[document, joinedload(Chunk.tags)])
        if chunk is not None:
            found.append(passage(chunk))
    return found


def n_plus_one(service: Service) -> None:
    """Passages are asked for one by one instead of all at once."""
    database = service.db

    async def passages(session: Session, chunks: Sequence[int]) -> list[Passage]:
        return await database.run(load_passages_one_by_one, session, chunks)

    database.passages = passages  # type: ignore[method-assign]


# --- a connection pool of one --------------------------------------------------------------------


def pool_of_one(service: Service) -> None:
    """The pool holds one connection, and each request keeps its connection to the end."""
    service.pool.resize(1)


# --- a cache that is switched off ----------------------------------------------------------------


def cache_off(service: Service) -> None:
    """The cache of answers keeps nothing any more."""
    service.cache = Cache(service.cache.name, capacity=0)


# --- a cache that grows, and is collected --------------------------------------------------------

KEPT_AT_FIRST, KEPT_EACH = 200_000, 1_000
"""Objects in the cache when it is loaded, and what each answer adds."""


class History:
    """Answers with all that led to them; nothing is ever dropped."""

    def __init__(self, kept: int) -> None:
        self.entries: list[Any] = [[number] for number in range(kept)]

    def keep(self, answer: Answer) -> None:
        """Keep an answer with the steps that led to it, and free what can be freed."""
        self.entries.append([answer, [[step] for step in range(KEPT_EACH)]])
        gc.collect()


async def growing_cache(service: Service) -> None:
    """A history of all answers stays in memory, and the collector walks all of it each time."""
    generate = service.generate
    history = await asyncio.to_thread(History, KEPT_AT_FIRST)

    async def generate_and_keep(question: str, passages: Sequence[Passage]) -> Answer:
        answer = await generate(question, passages)
        history.keep(answer)
        return answer

    service.generate = generate_and_keep
