"""A service with the profiler's endpoint, as a user writes it: `setup_profiling(app)`.

RAGPROF_PROFILING_TOKEN switches the endpoint on.
"""

import asyncio
import contextlib

import uvicorn
from starlette.applications import Starlette

from ragprof.service.profiling import setup_profiling


def busy_hash(count):
    total = 0
    for number in range(count):
        total = (total * 31 + number) & 0xFFFFFFFF
    return total


async def background_worker():
    while True:
        busy_hash(30_000)
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def lifespan(app):
    worker = asyncio.create_task(background_worker())
    yield
    worker.cancel()


app = Starlette(lifespan=lifespan)
setup_profiling(app)
uvicorn.run(app, host="0.0.0.0", port=8080)
