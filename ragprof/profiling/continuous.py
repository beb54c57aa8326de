"""Profile one endpoint, or the whole service, for a while, from its running event loop."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ragprof.profiles.model import Frame, Profile
from ragprof.profiling.engine import SessionError
from ragprof.profiling.session import BUDGET, EngineName, profile
from ragprof.profiling.trimming import rooted


class ContinuousProfiler:
    """Sessions of a service that goes on serving; each gives a Profile, which draws itself.

    `engine`, `hz` and `budget` as in `rp.profile`. With the sampler any number of sessions run at
    once, also beside `ragprof.service.profiling`; the other engines see the thread of the loop.
    """

    def __init__(
        self, engine: EngineName = "sampler", hz: float = 100.0, budget: float = BUDGET
    ) -> None:
        self.engine: EngineName = engine
        self.hz = hz
        self.budget = budget

    async def profile_service(self, duration_seconds: float) -> Profile:
        """All that the process does for `duration_seconds`. Raises SessionError."""
        return await self._profile(duration_seconds, "service")

    async def profile_endpoint(self, func: Callable[..., Any], duration_seconds: float) -> Profile:
        """What happens inside `func` (an endpoint, or any function) for `duration_seconds`.

        The stacks begin at `func`. Work that it hands to a thread is included where the span tells
        that it belongs to the same request. A note says when `func` was not called. Raises
        SessionError.
        """
        code = getattr(inspect.unwrap(func), "__code__", None)
        if code is None:
            raise SessionError(f"{func!r} is not a Python function: give the endpoint's function")
        whole = await self._profile(duration_seconds, func.__qualname__)
        return inside(whole, code.co_filename, code.co_firstlineno, func.__qualname__)

    async def _profile(self, duration_seconds: float, name: str) -> Profile:
        if not (math.isfinite(duration_seconds) and duration_seconds > 0):
            raise SessionError("duration_seconds is above 0; correct it")
        # `with` and not `async with`: pyinstrument then sees the thread and not this task alone.
        with profile(engine=self.engine, hz=self.hz, budget=self.budget, name=name) as seen:
            await asyncio.sleep(duration_seconds)
        return seen.named(name)


def inside(whole: Profile, file: str, line: int, name: str) -> Profile:
    """The samples inside one function, told by its file and first line, or by name.

    With spans, samples of other threads that carry a span seen inside the function belong to it.
    """
    wanted = np.array([_is(frame, file, line, name) for frame in whole.frames], dtype=bool)
    holds = np.zeros(whole.stack_count, dtype=bool)
    owners = np.repeat(np.arange(whole.stack_count), np.diff(whole.stack_offsets))
    holds[owners[wanted[whole.stack_frames]]] = True
    keep = holds[whole.sample_stacks]
    if "span_id" in whole.labels and whole.threads is not None:
        spans = whole.labels["span_id"]
        own = {code for code in spans.codes[keep].tolist() if spans.vocabulary[code]}
        main = set(whole.threads[keep].tolist())
        other = ~np.isin(whole.threads, list(main)) if main else np.zeros(len(whole), dtype=bool)
        keep |= other & np.isin(spans.codes, list(own))
    notes = [] if keep.any() else [f"{name} was not seen in that time: no request reached it"]
    return rooted(whole.filter(keep), wanted).named(name, *notes)


def _is(frame: Frame, file: str, line: int, name: str) -> bool:
    if frame.file != file:
        return False
    if frame.line:
        return frame.line == line
    return frame.function.rpartition(":")[2] in (name, name.rpartition(".")[2])
