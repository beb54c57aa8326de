"""Suspended tasks: their stacks, what they wait on, and the span in their context."""

from __future__ import annotations

import gc
import sys
import time
import types
import weakref
from collections.abc import Callable, Iterable
from contextvars import Context
from types import CodeType, FrameType
from typing import Any

from .blocking import function_code
from .spans import UNKNOWN, Label, SpanReader
from .stacks import MAX_DEPTH, StackTable

# Coroutine functions that wait: (module, function, what it waits on). anyio's are primitives as
# well: what is written for it waits on nothing else.
_PRIMITIVES = [
    ("asyncio.locks", "Lock.acquire", "lock"),
    ("asyncio.locks", "Condition.wait", "lock"),
    ("asyncio.locks", "Semaphore.acquire", "lock"),
    ("asyncio.locks", "Event.wait", "future"),
    ("asyncio.locks", "Barrier.wait", "future"),
    ("asyncio.queues", "Queue.get", "queue"),
    ("asyncio.queues", "Queue.put", "queue"),
    ("asyncio.queues", "Queue.join", "queue"),
    ("asyncio.tasks", "sleep", "sleep"),
    ("asyncio.tasks", "_wait", "task"),
    ("asyncio.taskgroups", "TaskGroup.__aexit__", "task"),
    ("asyncio.streams", "StreamReader._wait_for_data", "io"),
    ("asyncio.streams", "FlowControlMixin._drain_helper", "io"),
    ("asyncio.streams", "StreamWriter.wait_closed", "io"),
    ("asyncio.selector_events", "BaseSelectorEventLoop.sock_recv", "io"),
    ("asyncio.selector_events", "BaseSelectorEventLoop.sock_recv_into", "io"),
    ("asyncio.selector_events", "BaseSelectorEventLoop.sock_recvfrom", "io"),
    ("asyncio.selector_events", "BaseSelectorEventLoop.sock_sendall", "io"),
    ("asyncio.selector_events", "BaseSelectorEventLoop.sock_sendto", "io"),
    ("asyncio.selector_events", "BaseSelectorEventLoop.sock_connect", "io"),
    ("asyncio.selector_events", "BaseSelectorEventLoop.sock_accept", "io"),
    ("asyncio.base_events", "BaseEventLoop.create_connection", "io"),
    ("asyncio.base_events", "Server.serve_forever", "io"),
    ("asyncio.base_events", "BaseEventLoop.getaddrinfo", "io"),
    ("asyncio.base_subprocess", "BaseSubprocessTransport._wait", "io"),
    ("anyio._backends._asyncio", "SocketStream.receive", "io"),
    ("anyio._backends._asyncio", "SocketStream.send", "io"),
    ("anyio._backends._asyncio", "UNIXSocketStream.receive", "io"),
    ("anyio._backends._asyncio", "UNIXSocketStream.send", "io"),
    ("anyio._backends._asyncio", "StreamReaderWrapper.receive", "io"),
    ("anyio._backends._asyncio", "Event.wait", "future"),
    ("anyio._backends._asyncio", "Lock.acquire", "lock"),
    ("anyio._backends._asyncio", "Semaphore.acquire", "lock"),
    ("anyio._backends._asyncio", "CapacityLimiter.acquire_on_behalf_of", "lock"),
    ("anyio._backends._asyncio", "TaskGroup.__aexit__", "task"),
    ("anyio._backends._asyncio", "AsyncIOBackend.run_sync_in_worker_thread", "executor"),
    ("anyio.streams.memory", "MemoryObjectReceiveStream.receive", "queue"),
    ("anyio.streams.memory", "MemoryObjectSendStream.send", "queue"),
]
if sys.version_info < (3, 12):  # later it awaits the coroutine itself, not a task
    _PRIMITIVES.append(("asyncio.tasks", "wait_for", "task"))


Keep = Callable[[int, int, int, str, Label], list[Any] | None]
"""Takes weight, stack, task, wait and label of a sample; returns its row."""


def task_context(task: Any) -> Context | None:
    """The context of a task; None when it cannot be had.

    `Task.get_context()` is new in 3.12. On 3.11 the collector's traversal of a task shows its
    context before all else that it refers to (`TaskObj_traverse`), with nothing to install.
    """
    if sys.version_info >= (3, 12):
        found = task.get_context()
    else:
        found = getattr(task, "_context", None)  # a task written in Python
        if found is None:
            found = next(iter(gc.get_referents(task)), None)
    return found if isinstance(found, Context) else None


def suspended_frames(coroutine: Any) -> tuple[list[FrameType], Any]:
    """Frames of a suspended coroutine, the outermost first, and what the innermost awaits."""
    frames: list[FrameType] = []
    found: Any = coroutine
    while found is not None and len(frames) < MAX_DEPTH:
        if isinstance(found, types.CoroutineType):
            frame, inner = found.cr_frame, found.cr_await
        elif isinstance(found, types.AsyncGeneratorType):
            frame, inner = found.ag_frame, found.ag_await
        elif isinstance(found, types.GeneratorType):
            frame, inner = found.gi_frame, found.gi_yieldfrom
        else:
            inside = _wrapped(found)
            if inside is None:
                return frames, found
            found = inside
            continue
        if frame is None:
            return frames, inner
        frames.append(frame)
        found = inner
    return frames, None


def _wrapped(awaitable: Any) -> Any:
    """The coroutine or generator inside `coroutine.__await__()` and a step of a generator."""
    if type(awaitable).__name__ not in (
        "coroutine_wrapper",
        "async_generator_asend",
        "async_generator_athrow",
        "anext_awaitable",
    ):
        return None
    inside = (types.CoroutineType, types.AsyncGeneratorType, types.GeneratorType)
    for referent in gc.get_referents(awaitable):
        if isinstance(referent, inside):
            return referent
        if type(referent).__name__.startswith(("coroutine_wrapper", "async_generator_a")):
            return _wrapped(referent)
    return None


class _Seen:
    """A suspended task at the last walk."""

    __slots__ = ("flushes", "future", "label", "number", "row", "stack", "task", "wait")

    def __init__(
        self,
        task: Callable[[], Any],
        future: Callable[[], Any],
        number: int,
        stack: int,
        wait: str,
        label: Label,
    ) -> None:
        self.task = task
        self.future = future
        self.number = number
        self.stack = stack
        self.wait = wait
        self.label = label
        self.row: list[Any] | None = None
        self.flushes = 0


class Suspended:
    """Walks the suspended tasks of a loop; a task that still waits on the same is not walked."""

    def __init__(self, stacks: StackTable, spans: SpanReader) -> None:
        self._stacks = stacks
        self._spans = spans
        self._seen: dict[int, _Seen] = {}
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._next_number = 1
        self._codes: dict[int, tuple[str, CodeType]] = {}
        self._executor: set[int] = set()
        self._task_type: Any = ()
        self._gathering: Any = None
        self._modules = 0

    def refresh(self) -> None:
        """Take in the primitives of modules that have been loaded since."""
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        for module, path, wait in _PRIMITIVES:
            code = function_code(module, path)
            if code is not None:
                self._codes[id(code)] = (wait, code)
        self._executor = _inner_codes("asyncio.futures", "_chain_future")
        tasks = sys.modules.get("asyncio.tasks")
        self._task_type = getattr(tasks, "Task", ())
        self._gathering = getattr(tasks, "_GatheringFuture", None)

    def number(self, task: Any) -> int:
        """A number for a task, unique in the process."""
        known = self._seen.get(id(task))
        if known is not None and known.task() is task:
            return known.number
        number = self._numbers.get(task)
        if number is None:
            number = self._numbers[task] = self._next_number
            self._next_number += 1
        return number

    def walk(self, tasks: Iterable[Any], elapsed: int, fresh: int, flushes: int, keep: Keep) -> int:
        """Give each suspended task's sample to `keep`; returns how many rows were prolonged.

        A sample weighs `elapsed` ns, that of a task not seen before `fresh`. A task that goes on
        waiting has its last row prolonged here, unless that was stored since: `flushes` counts.
        """
        last, seen = self._seen, {}
        now = time.time_ns()
        prolonged = 0
        for task in tasks:
            known = last.get(id(task))
            before = known is not None and known.task() is task
            future = getattr(task, "_fut_waiter", None)
            if known is not None and before and future is not None and known.future() is future:
                seen[id(task)] = known
                if future.done():  # woken: it waits for its turn on the loop
                    keep(elapsed, known.stack, known.number, "", known.label)
                    continue
                row = known.row
                if row is not None and known.flushes == flushes:
                    row[0] = now
                    row[1] += elapsed
                    prolonged += 1
                    continue
            else:
                if task.done():
                    continue
                frames, innermost = suspended_frames(task.get_coro())
                if not frames:
                    continue
                known = seen[id(task)] = _Seen(
                    weakref.ref(task),
                    weakref.ref(future) if future is not None else _nothing,
                    self.number(task),
                    self._stacks.of_chain(frames),
                    self._wait(frames, future, innermost),
                    self._spans.in_context(task_context(task)),
                )
            known.flushes = flushes
            known.row = keep(
                elapsed if before else fresh, known.stack, known.number, known.wait, known.label
            )
        self._seen = seen
        return prolonged

    @property
    def labelled(self) -> bool:
        """Whether a task of the last walk has a span."""
        return any(one.label is not UNKNOWN for one in self._seen.values())

    def forget(self) -> None:
        """Drop what was kept about tasks and stacks."""
        self._seen = {}

    def _wait(self, frames: list[FrameType], future: Any, innermost: Any) -> str:
        if future is None or future.done():
            return ""
        wait = ""
        for frame in reversed(frames):  # the outermost of the primitives at the end
            found = self._codes.get(id(frame.f_code))
            if found is None:
                break
            wait = found[0]
        if wait:
            return wait
        if isinstance(future, self._task_type):
            return "task"
        for callback in getattr(future, "_callbacks", None) or ():
            code = getattr(callback[0], "__code__", None)
            if id(code) in self._executor:
                return "executor"
        if type(future) is self._gathering:
            return "task"
        return "future"


def _nothing() -> None:
    return None


def _inner_codes(module: str, function: str) -> set[int]:
    """Ids of the code objects of the functions inside a function."""
    code = function_code(module, function)
    if code is None:
        return set()
    return {id(constant) for constant in code.co_consts if isinstance(constant, CodeType)}
