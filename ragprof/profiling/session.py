"""`rp.profile`: a context manager, an async one and a decorator; what it yields is a Profile."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from ragprof.profiles.model import Profile
from ragprof.profiling.engine import Engine, NotEnded, SessionError

EngineName = Literal["sampler", "pyinstrument", "cprofile"]
ENGINES: tuple[EngineName, ...] = ("sampler", "pyinstrument", "cprofile")
BUDGET = 0.05
"""Share of one core that a session's sampler may take; a service's own takes 0.01."""

F = TypeVar("F", bound=Callable[..., Any])


class Session(Profile):
    """A Profile that fills itself: empty until the session ends, a Profile from then on.

    A session may be used again once it has ended; its content is that of the last time. It does
    not hide an exception of the program: what was seen until then is kept.
    """

    def __init__(self, engine: EngineName, hz: float, budget: float, name: str) -> None:
        object.__setattr__(self, "_options", (engine, hz, budget, name))
        object.__setattr__(self, "_lock", threading.Lock())
        object.__setattr__(self, "_running", None)
        object.__setattr__(self, "_unheld", None)

    def __getattr__(self, name: str) -> Any:
        if name not in Profile.__annotations__:
            raise AttributeError(f"a Profile has no {name!r}")
        state = "still runs" if self._running is not None else "has not begun"
        raise NotEnded(f"the session {state}: its profile is there once it has ended")

    def start(self) -> Session:
        """Begin, where no `with` fits. Raises SessionError when it runs already."""
        return self._start(task=False)

    def _start(self, task: bool) -> Session:
        with self._lock:
            if self._running is not None:
                raise SessionError(
                    "this session runs already: end it first, or make another with rp.profile()"
                )
            kind, hz, budget, name = self._options
            engine = make_engine(kind, hz, budget, name, task)
            for part in Profile.__annotations__:
                self.__dict__.pop(part, None)
            engine.start()
            # Dropped without an end, it must not go on measuring.
            unheld = weakref.finalize(self, engine.abandon)
            unheld.atexit = False
            object.__setattr__(self, "_running", engine)
            object.__setattr__(self, "_unheld", unheld)
        return self

    def stop(self) -> Session:
        """End; the session is a whole Profile now. Raises SessionError when it does not run."""
        with self._lock:
            engine: Engine | None = self._running
            if engine is None:
                raise SessionError("this session does not run: begin it with start() or `with`")
            found = engine.stop()
            self._unheld.detach()
            object.__setattr__(self, "_running", None)
            for part in Profile.__annotations__:
                object.__setattr__(self, part, getattr(found, part))
        return self

    def __enter__(self) -> Session:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except SessionError as problem:
            if error is None:
                raise
            error.add_note(f"ragprof: the profile is lost: {problem}")  # not in place of theirs

    async def __aenter__(self) -> Session:
        return self._start(task=True)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Decorate: each call is a session of its own; `function.profile` is the last's Profile."""
        return _decorated(function, *self._options)

    def __repr__(self) -> str:
        if "frames" in self.__dict__:
            return super().__repr__()
        state = "running" if self._running is not None else "not begun"
        return f"<Session {self._options[0]}: {state}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        if "frames" in self.__dict__:
            return super()._repr_mimebundle_(include, exclude)
        return {"text/plain": repr(self)}


@overload
def profile(function: F) -> F: ...


@overload
def profile(
    *, engine: EngineName = ..., hz: float = ..., budget: float = ..., name: str = ...
) -> Session: ...


def profile(
    function: F | None = None,
    *,
    engine: EngineName = "sampler",
    hz: float = 100.0,
    budget: float = BUDGET,
    name: str = "",
) -> Session | F:
    """Profile a block or a function of this process.

    ::

        with rp.profile() as prof: ...          # also `async with`
        prof.flamegraph()

        @rp.profile                              # or @rp.profile(engine="cprofile")
        def answer(question): ...
        answer.profile                           # of the last call that ended

    ``engine``: ``sampler`` (wall time of all threads and suspended tasks, with trace, span, state
    and wait), ``pyinstrument`` (wall time of this thread; of this task with `async with` and on
    coroutine functions) or ``cprofile`` (every call of this thread, by tracing). All give a
    Profile of nanoseconds. ``hz`` is the rate of the two that sample, ``budget`` the share of one
    core that the sampler may take (it lowers its rates to stay there). When a sampler runs in this
    process already, the session joins it and has its rates.

    Sessions of the sampler nest and overlap in any thread; the first one must begin in the main
    thread. Those of pyinstrument nest in a thread and end where they began; cProfile has one in
    the process. Raises SessionError, saying which of these stands in the way.
    """
    if engine not in ENGINES:
        raise SessionError(f"there is no engine {engine!r}: choose one of {', '.join(ENGINES)}")
    if not (math.isfinite(hz) and 0 < hz <= 1000 and 0 < budget <= 1):
        raise SessionError("hz is above 0 and at most 1000, budget above 0 and at most 1")
    if function is None:
        return Session(engine, hz, budget, name)
    return _decorated(function, engine, hz, budget, name)


def make_engine(engine: EngineName, hz: float, budget: float, name: str, task: bool) -> Engine:
    """The engine of that name; what it needs is imported only now. ``task``: it sees one task."""
    if engine == "cprofile":
        from ragprof.profiling.by_cprofile import CProfileEngine

        return CProfileEngine(name)
    if engine == "pyinstrument":
        from ragprof.profiling.by_pyinstrument import PyinstrumentEngine

        return PyinstrumentEngine(hz, name, task)
    from ragprof.profiling.by_sampler import SamplerEngine

    return SamplerEngine(hz, budget, name)


def _decorated(function: F, engine: EngineName, hz: float, budget: float, name: str) -> F:
    title = name or getattr(function, "__qualname__", "")

    def session() -> Session:
        return Session(engine, hz, budget, title)

    wrapped: Any
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            async with session() as seen:
                try:
                    return await function(*args, **kwargs)
                finally:
                    wrapped.profile = seen

    elif inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            async with session() as seen:
                try:
                    async with contextlib.aclosing(function(*args, **kwargs)) as items:
                        async for item in items:
                            yield item
                finally:
                    wrapped.profile = seen

    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with session() as seen:
                try:
                    return (yield from function(*args, **kwargs))
                finally:
                    wrapped.profile = seen

    else:

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with session() as seen:
                try:
                    return function(*args, **kwargs)
                finally:
                    wrapped.profile = seen

    wrapped.profile = None
    result: F = wrapped
    return result
