"""Faults for the running demo: what people really ship, each with the truth about it.

A fault is a function of the running `Service`; it replaces or wraps one of its parts. Nothing of
the truth reaches the telemetry: investigation has to find it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session, joinedload

from ragprof.demo.embedder import Embedding
from ragprof.demo.generation import Answer
from ragprof.demo.minilm import Floats
from ragprof.demo.service import Service
from ragprof.demo.store import Chunk, Passage, passage
from ragprof.errors import RagprofError

OPERATION = "POST /api/v1/ask"


class FaultError(RagprofError):
    """A fault that cannot be started."""


@dataclass(frozen=True)
class Truth:
    """What an investigation should find; a hit is one of `functions` or the `resource`."""

    stage: str
    kind: str
    functions: tuple[str, ...] = ()
    resource: str = ""
    service: str = "rag-api"
    operation: str = OPERATION


@dataclass(frozen=True)
class Fault:
    """A fault by name: `apply` changes the service, `load` names the mix of its window."""

    name: str
    summary: str
    apply: Callable[[Service], object]
    truth: Truth | None
    load: str = "normal"
    seams: tuple[str, ...] = ()


# --- a blocking call in the event loop -----------------------------------------------------------


class RateLimiter:
    """At most one call per `interval` seconds, by waiting: right in a thread, wrong in a loop."""

    def __init__(self, interval: float) -> None:
        self.interval = interval

    def acquire(self) -> None:
        """Wait for the next turn."""
        time.sleep(self.interval)


def blocking_call(service: Service) -> None:
    """A synchronous rate limiter before generation: while one request waits, all wait."""
    generate = service.generate
    limiter = RateLimiter(0.07)

    async def generate_limited(question: str, passages: Sequence[Passage]) -> Answer:
        limiter.acquire()
        return await generate(question, passages)

    service.generate = generate_limited


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


# --- N+1 look-ups through the ORM ----------------------------------------------------------------


def load_passages_one_by_one(session: Session, chunks: Sequence[int]) -> list[Passage]:
    """The same passages, each asked for alone, and its document loaded lazily after it."""
    found = []
    for chunk_id in chunks:
        chunk = session.get(Chunk, chunk_id, options=[joinedload(Chunk.tags)])
        if chunk is not None:
            found.append(passage(chunk))
    return found


def n_plus_one(service: Service) -> None:
    """Passages are asked for one by one, and the ORM loads their relations one by one."""
    database = service.db

    async def passages(session: Session, chunks: Sequence[int]) -> list[Passage]:
        return await database.run(load_passages_one_by_one, session, chunks)

    database.passages = passages  # type: ignore[method-assign]


# --- a connection pool of one --------------------------------------------------------------------


def pool_of_one(service: Service) -> None:
    """The pool holds one connection, and each request keeps its connection to the end."""
    service.pool.resize(1)


# --- a slow downstream service -------------------------------------------------------------------


async def slow_downstream(service: Service) -> None:
    """rag-reference takes 120 ms longer to reach its remote store."""
    request = urllib.request.Request(  # noqa: S310 - our own loopback URL; not a traced client
        f"{service.reference_url}/admin/delay?milliseconds=195",
        method="POST",
        headers={"Authorization": f"Bearer {os.environ.get('RAGPROF_DEMO_TOKEN', '')}"},
    )
    with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10):
        pass


def unchanged(service: Service) -> None:
    """No change in the service."""


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("none", "nothing changes", unchanged, None),
        Fault(
            "blocking_call",
            "a synchronous rate limiter blocks the event loop before generation",
            blocking_call,
            Truth(
                "generate",
                "blocked_loop",
                (
                    "ragprof.demo.faults:RateLimiter.acquire",
                    "ragprof.demo.faults:blocking_call.<locals>.generate_limited",
                ),
                resource="event_loop",
            ),
            seams=("generate",),
        ),
        Fault(
            "padded_batch",
            "the reranker pads its batch to the longest passage",
            padded_batch,
            Truth(
                "rerank",
                "cpu",
                ("ragprof.demo.faults:score_padded_batch",),
            ),
            seams=("rerank",),
        ),
        Fault(
            "n_plus_one",
            "passages and their relations are loaded one by one through the ORM",
            n_plus_one,
            Truth(
                "retrieve",
                "extra_calls",
                (
                    "ragprof.demo.faults:load_passages_one_by_one",
                    "ragprof.demo.store:passage",
                    "ragprof.demo.faults:n_plus_one.<locals>.passages",
                ),
                resource="rag",
            ),
            seams=("db",),
        ),
        Fault(
            "pool_of_one",
            "the database connection pool holds one connection",
            pool_of_one,
            Truth(
                "database",
                "pool_wait",
                ("ragprof.demo.store:Database.session",),
                resource="rag",
            ),
            seams=("pool",),
        ),
        Fault(
            "slow_downstream",
            "the service rag-reference answers 120 ms later",
            slow_downstream,
            Truth(
                "http",
                "downstream",
                (
                    "ragprof.demo.reference:Shelf.fetch",
                    "ragprof.demo.reference:create_app.<locals>.definitions",
                    "ragprof.demo.service:fetch_definitions",
                ),
                resource="rag-reference",
                service="rag-reference",
            ),
            seams=("http",),
        ),
        Fault(
            "heavier_traffic",
            "people ask longer questions and want more results; the service is unchanged",
            unchanged,
            Truth("request", "load", resource="query.length"),
            load="heavy",
        ),
    )
}


def named(name: str) -> Fault:
    """A fault by name; FaultError names those that exist."""
    try:
        return FAULTS[name]
    except KeyError:
        raise FaultError(
            f"There is no fault {name!r}; choose one of {', '.join(FAULTS)}."
        ) from None


def foreign(module: str) -> Fault:
    """Somebody's own fault: applied by `load`, its truth is what it returns."""
    return Fault(module, "somebody's own fault", unchanged, None)


def load(path: Path, function: str) -> Callable[[Service], object]:
    """`FUNCTION` of somebody's own Python file, imported under the file's name."""
    if not path.is_file():
        raise FaultError(f"{path} is not a file: --fault-module takes PATH:FUNCTION.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FaultError(f"{path} is not a Python file: its name should end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise FaultError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise FaultError(f"{path} has no function {function!r}.")
    result: Callable[[Service], object] = found
    return result


async def start(
    apply: Callable[[Service], object | Awaitable[object]], service: Service
) -> dict[str, Any] | None:
    """Apply a fault in the running service; the truth that it returned, if any, as plain data."""
    try:
        result = apply(service)
        if inspect.isawaitable(result):
            result = await result
    except Exception as error:
        raise FaultError(f"The fault failed: {type(error).__name__}: {error}") from error
    if is_dataclass(result) and not isinstance(result, type):
        return asdict(result)
    return dict(result) if isinstance(result, Mapping) else None
