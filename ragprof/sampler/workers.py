"""Worker threads: which span each works for, and their stacks.

The label comes from the hand-over, never from the thread: an executor's `submit` and anyio's
queue are wrapped, so that a worker is known by the context that it was given. That context is
read while the worker runs in it, so spans opened inside the worker count as well. Where a callable
came without a context, spans are learnt from OpenTelemetry's attach and detach in that thread.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
import types
from collections.abc import Callable
from contextvars import Context
from queue import Queue
from types import FrameType
from typing import Any

from .blocking import function_code
from .loops import running_loop
from .spans import UNKNOWN, Label, SpanReader

_NEEDS_GC_PAUSE = sys.version_info < (3, 12)


class Work:
    """What one worker thread works for: a context, or at least the label of who handed it over."""

    __slots__ = ("attached", "context", "label")

    def __init__(self, context: Context | None, label: Label) -> None:
        self.context = context
        self.label = label
        self.attached: list[tuple[Any, Label]] = []  # spans that the worker itself has opened


class Workers:
    """Knows the work of each thread; wraps the hand-overs and takes the wrappers off again."""

    def __init__(self, spans: SpanReader) -> None:
        self.work: dict[int, Work] = {}  # by thread identifier
        self._spans = spans
        self._undo: list[Callable[[], None]] = []
        self._wrappers: dict[str, Callable[[Any], bool]] = {
            "concurrent.futures.thread": self._wrap_executor,
            "anyio._backends._asyncio": self._wrap_anyio,
            "opentelemetry.context": self._wrap_attach,
        }
        self._pending = list(self._wrappers)
        self._idle_codes: set[int] = set()

    def wrap(self) -> None:
        """Wrap the hand-overs of the modules that are loaded; called again when more are."""
        if not self._pending:
            return
        for name in self._pending:
            module = sys.modules.get(name)
            if module is not None and self._wrappers[name](module):
                self._pending = [other for other in self._pending if other != name]

    @property
    def complete(self) -> bool:
        """Whether every hand-over is wrapped."""
        return not self._pending

    def unwrap(self) -> None:
        """Take all wrappers off, where nobody has wrapped them once more."""
        while self._undo:
            self._undo.pop()()
        self._pending = []

    def forget(self) -> None:
        """After a fork only the thread that forked is left."""
        self.work.clear()

    def label(self, ident: int) -> Label:
        """Label of what a thread does now; unknown when it has no work that we know."""
        work = self.work.get(ident)
        if work is None:
            return UNKNOWN
        if work.context is not None:
            return self._spans.in_context(work.context)
        return work.attached[-1][1] if work.attached else work.label

    def now(self, ident: int) -> tuple[Work | None, Label]:
        """The work of a thread and its label: two of them are equal only within one hand-over."""
        return self.work.get(ident), self.label(ident)

    def _wrap_executor(self, module: Any) -> bool:
        class_ = getattr(module, "ThreadPoolExecutor", None)
        worker = function_code(module.__name__, "_worker")
        if class_ is None:
            return False
        if worker is not None:
            self._idle_codes.add(id(worker))
        original = class_.submit
        spans, works = self._spans, self.work

        @functools.wraps(original)
        def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            context = _context_of(fn)
            label = UNKNOWN if context is not None else spans.current()
            return original(self, _Handed(fn, Work(context, label), works), *args, **kwargs)

        class_.submit = submit
        self._undo.append(lambda: _restore(class_, "submit", submit, original))
        return True

    def _wrap_anyio(self, module: Any) -> bool:
        class_ = getattr(module, "WorkerThread", None)
        if class_ is None or not hasattr(module, "AsyncIOBackend"):  # still being imported
            return False
        original = class_.__init__
        works = self.work

        @functools.wraps(original)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            _observe_queue(self, works)

        class_.__init__ = init
        self._undo.append(lambda: _restore(class_, "__init__", init, original))
        for thread in threading.enumerate():  # those that started before we looked
            if isinstance(thread, class_):
                _observe_queue(thread, works)
        return True

    def _wrap_attach(self, module: Any) -> bool:
        if not self._spans.ready():  # still being imported
            return False
        runtime = self._spans.runtime
        attach, detach = runtime.attach, runtime.detach
        works, spans, main = self.work, self._spans, threading.main_thread().ident
        get_ident = threading.get_ident

        @functools.wraps(attach)
        def observed_attach(context: Any) -> Any:
            token = attach(context)
            ident = get_ident()
            # In a thread with an event loop the label belongs to the task, not to the thread.
            if ident != main and running_loop() is None:
                work = works.get(ident)
                if work is None:
                    work = works[ident] = Work(None, UNKNOWN)
                if work.context is None:
                    work.attached.append((token, spans.current()))
            return token

        @functools.wraps(detach)
        def observed_detach(token: Any) -> None:
            ident = get_ident()
            work = works.get(ident)
            if work is not None and work.attached:
                work.attached = [entry for entry in work.attached if entry[0] is not token]
                if not work.attached and work.label is UNKNOWN and work.context is None:
                    works.pop(ident, None)
            detach(token)

        runtime.attach, runtime.detach = observed_attach, observed_detach

        def undo() -> None:
            for name, ours in (("attach", observed_attach), ("detach", observed_detach)):
                if runtime.__dict__.get(name) is ours:
                    del runtime.__dict__[name]

        self._undo.append(undo)
        return True

    def is_idle(self, frame: FrameType) -> bool:
        """Whether a thread waits for work: its innermost frame is an executor's own loop."""
        return id(frame.f_code) in self._idle_codes


def current_frames() -> dict[int, FrameType]:
    """Innermost frame of each thread, by thread identifier.

    Before 3.12 a collection may start inside `sys._current_frames`, while it holds a lock of the
    interpreter that a finalizer can want (gh-106883): the collector is paused, as the fix does.
    """
    if not _NEEDS_GC_PAUSE or not gc.isenabled():
        return sys._current_frames()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        gc.enable()


class _Handed:
    """A callable on its way to a worker thread, with what it works for."""

    __slots__ = ("_fn", "_work", "_works")

    def __init__(self, fn: Any, work: Work, works: dict[int, Work]) -> None:
        self._fn = fn
        self._work = work
        self._works = works

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ident = threading.get_ident()
        before = self._works.get(ident)
        self._works[ident] = self._work
        try:
            return self._fn(*args, **kwargs)
        finally:
            if before is None:
                self._works.pop(ident, None)
            else:
                self._works[ident] = before


class _ObservedQueue(Queue[Any]):
    """anyio's queue of one worker thread: each item begins with the context to run in."""

    works: dict[int, Work]

    def get(self, *args: Any, **kwargs: Any) -> Any:
        self.works.pop(threading.get_ident(), None)
        item = super().get(*args, **kwargs)
        if isinstance(item, tuple) and item and isinstance(item[0], Context):
            self.works[threading.get_ident()] = Work(item[0], UNKNOWN)
        return item


def _observe_queue(thread: Any, works: dict[int, Work]) -> None:
    queue = getattr(thread, "queue", None)
    if type(queue) is Queue:
        queue.__class__ = _ObservedQueue
        queue.works = works  # type: ignore[attr-defined]


def _context_of(fn: Any) -> Context | None:
    """The context that a callable enters: `Context.run` itself, or a partial with it inside."""
    while True:
        owner = getattr(fn, "__self__", None) if isinstance(fn, types.BuiltinMethodType) else None
        if isinstance(owner, Context):
            return owner
        if not isinstance(fn, functools.partial):
            return None
        for argument in fn.args:
            if isinstance(argument, types.BuiltinMethodType) and isinstance(
                argument.__self__, Context
            ):
                return argument.__self__
        fn = fn.func


def _restore(owner: Any, name: str, ours: Any, original: Any) -> None:
    if owner.__dict__.get(name) is ours:
        setattr(owner, name, original)
