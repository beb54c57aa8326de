"""A FastAPI service with a span per request under continuous profiling, for several workers."""

import asyncio
import os
import time
from typing import Any

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from ragprof.service.profiling import setup_profiling

app = FastAPI()
tracer = TracerProvider().get_tracer("profiled_app")


class Spans:
    """The server span around all middlewares, as instrumentation makes it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with tracer.start_as_current_span("request", kind=trace.SpanKind.SERVER):
            await self.app(scope, receive, send)


def work_of_slow() -> None:
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        sum(range(200))


@app.get("/items/{item}")
async def item(item: str) -> dict[str, int]:
    return {"pid": os.getpid()}


@app.get("/slow")
async def slow() -> dict[str, int]:
    work_of_slow()
    await asyncio.sleep(0.3)
    return {"pid": os.getpid()}


setup_profiling(app, slow=0.25, folder=os.environ["KEPT_FOLDER"], budget=0.5, kept_per_minute=1000)
app.add_middleware(Spans)
