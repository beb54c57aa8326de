"""Event loops: the one that runs in this thread, its tasks, and where its own frames begin.

asyncio is looked up where it is loaded and never imported: a process without it stays without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from .blocking import function_code

# Where the stack of a task or callback ends and the loop that runs it begins.
_LOOPS = [
    ("asyncio.events", "Handle._run"),
    ("asyncio.runners", "Runner.run"),
    ("asyncio.runners", "run"),
    ("asyncio.base_events", "BaseEventLoop._run_once"),
    ("asyncio.base_events", "BaseEventLoop.run_forever"),
    ("asyncio.base_events", "BaseEventLoop.run_until_complete"),
]
_SELECTS = [
    ("selectors", f"{name}.select")
    for name in ("EpollSelector", "_PollLikeSelector", "SelectSelector", "KqueueSelector")
]


def running_loop() -> Any:
    """The event loop that runs in this thread, or None."""
    events = sys.modules.get("asyncio.events")
    get = getattr(events, "_get_running_loop", None)
    return get() if get is not None else None


class Loops:
    """What is known of asyncio, once it is loaded."""

    def __init__(self) -> None:
        self.asyncio: Any = None
        self.boundary: set[int] = set()  # ids of codes: a task's stack ends above them
        self.frame = 0  # id of the frame that runs a loop written in C
        self.running: Callable[[], Any] = _nothing  # the loop that runs in this thread, or None
        self._current: Callable[[Any], Any] = _nothing
        self._selects: set[int] = set()
        self._run_once = 0

    def ready(self) -> bool:
        """Whether asyncio is loaded; looks again as long as it is not."""
        if self.asyncio is not None:
            return True
        module: Any = sys.modules.get("asyncio")
        if not hasattr(module, "SelectorEventLoop"):  # absent, or still being imported
            return False
        self.boundary = _ids(_LOOPS)
        self._selects = _ids(_SELECTS)
        self._run_once = id(function_code("asyncio.base_events", "BaseEventLoop._run_once"))
        tasks: Any = sys.modules["asyncio.tasks"]
        self.running = sys.modules["asyncio.events"]._get_running_loop
        # The function of this name is written in Python before 3.12, and reads this dictionary.
        current = getattr(tasks, "_current_tasks", {}).get
        self._current = current if sys.version_info < (3, 12) else module.current_task
        self.asyncio = module
        return True

    def is_idle(self, frame: FrameType) -> bool:
        """Whether the innermost frame is a running loop's own: it selects, or is C code."""
        if id(frame) == self.frame:
            return True
        caller = frame.f_back
        return (
            id(frame.f_code) in self._selects
            and caller is not None
            and id(caller.f_code) == self._run_once
        )

    def current_task(self, loop: Any) -> Any:
        """The task that a loop of this thread runs, or None in a plain callback."""
        return self._current(loop)

    def tasks(self, loop: Any) -> set[Any]:
        """The tasks of a loop that are not done."""
        found: set[Any] = self.asyncio.all_tasks(loop)
        return found

    def note_frame(self, loop: Any, frame: FrameType | None) -> None:
        """Called in a callback: a loop written in C has the callback's caller as its frame."""
        self.frame = 0 if isinstance(loop, self.asyncio.BaseEventLoop) else id(frame)


def _nothing(*_: Any) -> None:
    return None


def _ids(functions: list[tuple[str, str]]) -> set[int]:
    codes = (function_code(module, path) for module, path in functions)
    return {id(code) for code in codes if code is not None}
