"""Faults that wait: in the event loop, for a lock, for another service, once in a while."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence

import httpx

from ragprof.demo.embedder import Embedding
from ragprof.demo.generation import Answer
from ragprof.demo.index import Hit
from ragprof.demo.service import Service
from ragprof.demo.store import Passage

LONGEST = 1900.0  # seconds: what a fault starts in the background ends by itself

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


# --- a global lock around the encoder ------------------------------------------------------------


class SharedEncoder:
    """One encoder for questions and for documents that are indexed anew, behind one lock."""

    def __init__(self, embed: Callable[[str], Embedding]) -> None:
        self.encode = embed
        self.lock = threading.Lock()

    def embed(self, text: str) -> Embedding:
        """Encode a question when nobody else encodes."""
        with self.lock:
            return self.encode(text)

    def index_again(self, texts: Sequence[str]) -> None:
        """Encode documents one after the other; the lock is held until each is stored."""
        end = time.monotonic() + LONGEST
        for text in itertools.cycle(texts):
            if time.monotonic() > end:
                return
            with self.lock:
                self.encode(text)
                time.sleep(0.13)  # the remote store takes its time
            time.sleep(0.05)


def encoder_lock(service: Service) -> None:
    """The encoder gets a global lock, which a background job holds while it stores documents."""
    shared = SharedEncoder(service.embed)  # type: ignore[arg-type]  # the default is synchronous
    texts = [f"A short text about {word}." for word in itertools.islice(service.index.idf, 50)]
    threading.Thread(target=shared.index_again, args=(texts,), daemon=True).start()
    service.embed = shared.embed


# --- a slow downstream service, and one that refuses ---------------------------------------------

REMOTE_MS = 75
SLOW_MS = 195


async def slow_downstream(service: Service) -> None:
    """rag-reference takes 120 ms longer to reach its remote store."""
    await tell_reference(service, f"delay?milliseconds={SLOW_MS}")


async def tell_reference(service: Service, what: str) -> None:
    """Change rag-reference by one of its admin calls."""
    request = urllib.request.Request(  # noqa: S310 - our own loopback URL; not a traced client
        f"{service.reference_url}/admin/{what}",
        method="POST",
        headers={"Authorization": f"Bearer {os.environ.get('RAGPROF_DEMO_TOKEN', '')}"},
    )
    with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10):
        pass


class Retrying:
    """Calls again after an error, and waits twice as long each time."""

    def __init__(self, tries: int, seconds: float) -> None:
        self.tries = tries
        self.seconds = seconds

    async def back_off(self, tried: int) -> None:
        """Wait before another try."""
        await asyncio.sleep(self.seconds * 2**tried)


async def retry_storm(service: Service) -> None:
    """rag-reference refuses two of three calls, and the client tries again with back-off."""
    fetch = service.http
    policy = Retrying(tries=7, seconds=0.03)

    async def fetch_again_and_again(subjects: Sequence[str]) -> dict[str, str]:
        for tried in range(policy.tries - 1):
            try:
                return await fetch(subjects)
            except httpx.HTTPStatusError:
                await policy.back_off(tried)
        return await fetch(subjects)

    service.http = fetch_again_and_again
    await tell_reference(service, "refuse?every=3")


# --- one request in twenty -----------------------------------------------------------------------

ONE_IN = 15  # of the searches, which are three quarters of the requests


class SearchStatistics:
    """Counts searches, and writes the counts to a slow disk once in a while."""

    def __init__(self, every: int, seconds: float) -> None:
        self.numbers = itertools.count(1)
        self.every = every
        self.seconds = seconds

    def count(self) -> None:
        """One more search."""
        if next(self.numbers) % self.every == 0:
            self.flush()

    def flush(self) -> None:
        """Write them, in the request that happens to be there."""
        time.sleep(self.seconds)


def one_in_twenty(service: Service) -> None:
    """Each fifteenth search writes the statistics of all: one request in twenty waits 0.4 s."""
    search = service.search
    statistics = SearchStatistics(ONE_IN, 0.4)

    def search_and_count(query: Embedding, text: str, limit: int, strategy: str) -> list[Hit]:
        statistics.count()
        return search(query, text, limit, strategy)  # type: ignore[return-value]

    service.search = search_and_count


# --- two at once ---------------------------------------------------------------------------------

BOTH_MS = 70


def look_up_synonyms(text: str) -> str:
    """Ask a remote dictionary, and wait for it."""
    time.sleep(BOTH_MS / 1000)
    return text


async def two_at_once(service: Service) -> None:
    """Each search asks a dictionary first, and rag-reference becomes slower by as much."""
    search = service.search

    def search_with_synonyms(query: Embedding, text: str, limit: int, strategy: str) -> list[Hit]:
        return search(query, look_up_synonyms(text), limit, strategy)  # type: ignore[return-value]

    service.search = search_with_synonyms
    await tell_reference(service, f"delay?milliseconds={REMOTE_MS + BOTH_MS}")
