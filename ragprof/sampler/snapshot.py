"""Every task of a loop and every thread of this process, as they are now, with stack and span."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

from .awaiting import Suspended, suspended_frames
from .sharing import running
from .spans import UNKNOWN, Label, SpanReader
from .stacks import MAX_DEPTH, StackTable, is_sampler
from .workers import current_frames

Place = dict[str, Any]
"""function (`module:qualname`), file, line."""


def tasks(loop: Any) -> list[dict[str, Any]]:
    """The tasks of `loop` that are not done; called in the thread of the loop.

    Each: task (number in the process), name, state (running, awaiting), wait, trace_id, span_id,
    stack (outermost first; empty for the running one, whose stack is that of its thread).
    """
    module: Any = sys.modules["asyncio"]
    spans = SpanReader()
    spans.ready()
    sampler = running()
    table = StackTable()
    walker = Suspended(table, spans)
    walker.refresh()
    numbers = walker if sampler is None else sampler.suspended
    current = module.current_task(loop)
    found = []
    for task in module.all_tasks(loop):
        seen: list[tuple[str, Label]] = []

        def keep(weight: int, stack: int, number: int, wait: str, label: Label) -> None:
            seen.append((wait, label))  # noqa: B023  # called at once

        if task is not current:
            walker.walk([task], 0, 0, 0, keep)
        wait, label = seen[0] if seen else ("", spans.current() if task is current else UNKNOWN)
        frames = [] if task is current else suspended_frames(task.get_coro())[0]
        found.append(
            {
                "task": numbers.number(task),
                "name": task.get_name(),
                "state": "running" if task is current else "awaiting",
                "wait": wait,
                "trace_id": label[0],
                "span_id": label[1],
                "stack": _places(frames),
            }
        )
    found.sort(key=lambda one: int(one["task"]))
    return found


def threads() -> list[dict[str, Any]]:
    """The threads of this process.

    Each: thread (id of the system), name, main (whether it is the main one), trace_id and span_id
    (of the work that it was handed; in the main thread that of the running task), stack.
    """
    spans = SpanReader()
    spans.ready()
    sampler = running()
    own = threading.get_ident()
    frames = current_frames()
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread.ident == own:
            label = spans.current()
        else:
            label = UNKNOWN if sampler is None else sampler.thread_label(thread.ident or 0)
        found.append(
            {
                "thread": thread.native_id or 0,
                "name": thread.name,
                "main": thread is threading.main_thread(),
                "trace_id": label[0],
                "span_id": label[1],
                "stack": _places(_callers(frame)),
            }
        )
    return found


def _callers(frame: FrameType | None) -> list[FrameType]:
    """A frame and its callers, the outermost first."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < MAX_DEPTH:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _places(frames: Iterable[FrameType]) -> list[Place]:
    places = []
    for frame in frames:
        code = frame.f_code
        if is_sampler(code):
            continue
        module = frame.f_globals.get("__name__")
        name = f"{module}:{code.co_qualname}" if isinstance(module, str) else code.co_qualname
        places.append({"function": name, "file": code.co_filename, "line": frame.f_lineno or 0})
    return places
