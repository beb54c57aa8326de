"""`rag-reference`: the downstream service, its own process, which explains cited subjects.

It stands for a remote store: an answer takes `REMOTE_SECONDS` of waiting.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter

from fastapi import FastAPI, Header, HTTPException, Query

from ragprof.demo import corpus
from ragprof.demo.unobserved import UNOBSERVED, unobserved
from ragprof.service import instrument
from ragprof.service.logging import get_logger

SERVICE = "rag-reference"
REMOTE_SECONDS = 0.075
log = get_logger(__name__)


class Shelf:
    """The definitions and how long it takes to reach them."""

    def __init__(self) -> None:
        self.seconds = REMOTE_SECONDS
        self.every = 1  # of how many calls for the same one is answered; the others are refused
        self.refused: Counter[tuple[str, ...]] = Counter()
        self.entries = {
            subject.slug: f"{subject.title}: {subject.facts[0][1]}" for subject in corpus.subjects()
        }

    def refuses(self, asked: tuple[str, ...]) -> bool:
        """Whether this call is refused, as all are until it was made `every` times."""
        self.refused[asked] += 1
        if self.refused[asked] < self.every:
            return True
        del self.refused[asked]
        return False

    async def fetch(self, slug: str) -> str | None:
        """The definition of one subject, or None."""
        await asyncio.sleep(self.seconds)
        return self.entries.get(slug)


def create_app() -> FastAPI:
    """The application, with its own logs, metrics and traces."""
    app = FastAPI(title=SERVICE, telemetry={"exclude": unobserved})
    shelf = Shelf()

    @app.get("/api/v1/definitions")
    async def definitions(subject: list[str] = Query(default=[])) -> dict[str, str]:  # noqa: B008
        if shelf.refuses(tuple(subject)):
            raise HTTPException(503, "Too many calls: try again later.")
        found = await asyncio.gather(*(shelf.fetch(slug) for slug in subject))
        log.info("definitions_fetched", asked=len(subject), found=sum(f is not None for f in found))
        return {slug: text for slug, text in zip(subject, found, strict=True) if text}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/admin/delay", include_in_schema=False)
    async def delay(milliseconds: float, authorization: str = Header(default="")) -> dict[str, str]:
        _check(authorization)
        shelf.seconds = milliseconds / 1000
        return {"status": "ok"}

    @app.post("/admin/refuse", include_in_schema=False)
    async def refuse(
        every: int = Query(ge=1), authorization: str = Header(default="")
    ) -> dict[str, str]:
        _check(authorization)
        shelf.every = every
        return {"status": "ok"}

    instrument(app, SERVICE, exclude=UNOBSERVED, event_loop=False)
    return app


def _check(authorization: str) -> None:
    token = os.environ.get("RAGPROF_DEMO_TOKEN", "")
    if not token or not secrets.compare_digest(authorization, f"Bearer {token}"):
        raise HTTPException(403, "The demo's token is missing or wrong.")
