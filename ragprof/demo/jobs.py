"""Background jobs: a queue in memory and one worker that runs them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from opentelemetry import context

from ragprof.service import metrics
from ragprof.service.logging import get_logger

log = get_logger(__name__)
Job = Callable[..., Awaitable[None]]


class Jobs:
    """`put` a coroutine function with its arguments; it runs soon, after what was put before."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, context.Context, Job, tuple[Any, ...]]] = (
            asyncio.Queue()
        )

    def put(self, job_type: str, job: Job, *arguments: Any) -> None:
        """Queue a job; its spans belong to the trace of the caller."""
        self._queue.put_nowait((job_type, context.get_current(), job, arguments))
        metrics.background_jobs_queued.labels(job_type=job_type).inc()

    async def run(self) -> None:
        """Work until cancelled; a job that fails is logged and the next one runs."""
        while True:
            job_type, origin, job, arguments = await self._queue.get()
            metrics.background_jobs_queued.labels(job_type=job_type).dec()
            token = context.attach(origin)
            try:
                await job(*arguments)
            except Exception:
                log.exception("job_failed", job_type=job_type)
            finally:
                context.detach(token)
                self._queue.task_done()

    async def drain(self) -> None:
        """Wait until every queued job has run."""
        await self._queue.join()
