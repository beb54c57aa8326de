"""Ticks while the main thread waits for a lock: `Thread.join`, `Event.wait`, a queue, the exit.

System calls are restarted after our signal, for the sake of C libraries that do not expect EINTR,
and so the wait for a lock is: its handler would run only at the end, and other threads would go
unseen. The interpreter's own lock waits do serve signals when they are interrupted. So in the
main thread, to which the kernel gives the timer's signal, interrupting is allowed just there.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any


class LockWaits:
    """Wraps the waits of `threading`; `unwrap` takes the wrappers off again."""

    def __init__(self) -> None:
        self.codes: list[CodeType] = []  # of our wrappers: no frames of the application
        self._on = False
        self._undo: list[Callable[[], None]] = []

    def wrap(self) -> None:
        """Called in the main thread, once the handler is installed."""
        self._on = True
        for owner, name in (
            (threading.Condition, "wait"),
            (threading.Thread, "join"),
            (threading, "_shutdown"),
        ):
            self._wrap(owner, name)

    def unwrap(self) -> None:
        """Allow nothing any more, and take the wrappers off where nobody wrapped them again."""
        self._on = False
        while self._undo:
            self._undo.pop()()

    def _wrap(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)
        waits, main = self, threading.main_thread().ident
        get_ident = threading.get_ident
        interrupt = functools.partial(signal.siginterrupt, signal.SIGALRM)

        @functools.wraps(original)
        def observed(*args: Any, **kwargs: Any) -> Any:
            if not waits._on or get_ident() != main:
                return original(*args, **kwargs)
            interrupt(True)
            try:
                return original(*args, **kwargs)
            finally:
                if waits._on:
                    interrupt(False)

        self.codes.append(observed.__code__)  # type: ignore[attr-defined]
        setattr(owner, name, observed)
        self._undo.append(functools.partial(_restore, owner, name, observed, original))


def _restore(owner: Any, name: str, ours: Any, original: Any) -> None:
    if getattr(owner, name) is ours:
        setattr(owner, name, original)
