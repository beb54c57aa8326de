"""`rag-api`: the demo's web service, an ordinary FastAPI application."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from ragprof.demo import corpus, faults
from ragprof.demo.generation import EXTRACTIVE
from ragprof.demo.service import Service, answer, open_service, retrieve
from ragprof.demo.unobserved import UNOBSERVED, unobserved
from ragprof.demo.weights import MISSING, find_weights
from ragprof.service import instrument
from ragprof.service.logging import get_logger
from ragprof.service.metrics import BusinessMetrics, timed_stream

SERVICE = "rag-api"
VERSION = "1.0.0"
log = get_logger(__name__)

Strategy = Literal["hybrid", "vector", "keyword"]


class Question(BaseModel):
    """What `/api/v1/ask` and `/api/v1/search` take."""

    question: str = Field(min_length=1, max_length=4000)
    top_k: int = Field(default=5, ge=1, le=50)
    strategy: Strategy = "hybrid"
    user_type: Literal["api", "dashboard", "internal"] = "api"


class FaultRequest(BaseModel):
    """A fault by its name, or by somebody's own file and function."""

    name: str = ""
    path: str = ""
    function: str = ""


def create_app() -> FastAPI:
    """The application. `RAGPROF_DEMO_REFERENCE` is the URL of rag-reference.

    With `RAGPROF_DEMO_PROMETHEUS`, the URL of the Prometheus that scrapes the service, it answers
    `/api/v1/analytics`.
    """
    app = FastAPI(
        title=SERVICE, version=VERSION, lifespan=_lifespan, telemetry={"exclude": unobserved}
    )
    app.add_api_route("/api/v1/ask", ask, methods=["POST"])
    app.add_api_route("/api/v1/ask/stream", ask_stream, methods=["POST"])
    app.add_api_route("/api/v1/search", search, methods=["POST"])
    app.add_api_route("/api/v1/documents/{slug}", document, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"])
    if os.environ.get("RAGPROF_DEMO_TOKEN"):
        app.add_api_route("/admin/fault", start_fault, methods=["POST"], include_in_schema=False)
    prometheus = os.environ.get("RAGPROF_DEMO_PROMETHEUS") or None
    instrument(app, SERVICE, version=VERSION, exclude=UNOBSERVED, analytics=prometheus)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    if find_weights() is None:
        log.warning("weights_missing", hint=MISSING)
    with tempfile.TemporaryDirectory(prefix="rag-api-") as folder:
        began = time.perf_counter()
        service = open_service(
            Path(folder) / "rag.sqlite", os.environ.get("RAGPROF_DEMO_REFERENCE", "")
        )
        _count_documents(time.perf_counter() - began)
        app.state.service = service
        await _warm_up(service)
        jobs = asyncio.create_task(service.jobs.run())
        log.info("service_ready", embedder=service.embedder.name, chunks=len(service.index.tokens))
        yield
        await service.close()
        jobs.cancel()
        with suppress(asyncio.CancelledError):
            await jobs


def _count_documents(seconds: float) -> None:
    """The corpus was taken in, all documents in `seconds` together."""
    documents = corpus.documents()
    for each in documents:
        BusinessMetrics.record_document_processed(
            "text", "success", len(each.chunks), duration=seconds / len(documents)
        )


async def _warm_up(service: Service) -> None:
    """First uses are slow (page faults, statement compilation): not in a user's request."""
    for words in range(1, 6):
        async with service.db.session() as session:
            await retrieve(service, session, "warm up " * words, 5, "hybrid", "internal")


async def ask(request: Request, question: Question) -> dict[str, Any]:
    """An answer with its sources."""
    return await answer(
        request.app.state.service,
        question.question,
        question.top_k,
        question.strategy,
        question.user_type,
    )


async def ask_stream(request: Request, question: Question) -> StreamingResponse:
    """The words of an answer, one by one."""

    async def words() -> AsyncIterator[str]:
        for word in (await ask(request, question))["answer"].split():
            yield f"{word} "

    return StreamingResponse(timed_stream(words(), EXTRACTIVE), media_type="text/plain")


async def search(request: Request, question: Question) -> dict[str, Any]:
    """Only the passages, no answer."""
    service: Service = request.app.state.service
    async with service.db.session() as session:
        ranked = await retrieve(
            service,
            session,
            question.question,
            question.top_k,
            question.strategy,
            question.user_type,
        )
    return {
        "results": [
            {"document": passage.slug, "score": round(score, 4), "text": passage.text}
            for passage, score in ranked
        ]
    }


async def document(request: Request, slug: str) -> dict[str, Any]:
    """What is known about one document."""
    service: Service = request.app.state.service
    async with service.db.session() as session:
        found = await service.db.document(session, slug)
    if found is None:
        raise HTTPException(404, f"There is no document {slug!r}.")
    return found


async def health(request: Request) -> dict[str, Any]:
    """Whether the service is ready, and with which embedder."""
    return {"status": "ok", "embedder": request.app.state.service.embedder.name}


async def start_fault(
    request: Request, fault: FaultRequest, authorization: str = Header(default="")
) -> dict[str, Any]:
    """Change the running service on purpose; only the demo sets the token that allows it."""
    token = os.environ["RAGPROF_DEMO_TOKEN"]
    if not secrets.compare_digest(authorization, f"Bearer {token}"):
        raise HTTPException(403, "The demo's token is missing or wrong.")
    service: Service = request.app.state.service
    try:
        if fault.path:
            apply = faults.load(Path(fault.path), fault.function)
            truth = await faults.start(apply, service)
        else:
            truth = await faults.start(faults.named(fault.name).apply, service)
    except faults.FaultError as error:
        raise HTTPException(400, str(error)) from None
    return {"truth": truth}
