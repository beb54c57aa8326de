"""The engine `cprofile`: every call of one thread, counted and timed by the interpreter."""

from __future__ import annotations

import cProfile
import marshal
import threading
from pathlib import Path

from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile
from ragprof.profiles.read import profiles_of
from ragprof.profiling.engine import SessionError, same_thread
from ragprof.profiling.trimming import trimmed

FORMAT = "pstats"

# From 3.12 on cProfile takes the one profiling tool of the whole process, so one at a time.
_one = threading.Lock()


class CProfileEngine:
    """One session at a time in the process; it sees the thread in which it began."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = threading.get_ident()
        self._profiler = cProfile.Profile()

    def start(self) -> None:
        if not _one.acquire(blocking=False):
            raise SessionError(
                "a cprofile session runs already in this process; end it first, or use "
                "engine='sampler', whose sessions nest"
            )
        try:
            self._profiler.enable()
        except ValueError as error:  # another tool: a debugger, coverage
            _one.release()
            raise SessionError(
                f"cProfile cannot start beside another tool ({error}); end that, or use "
                "engine='sampler'"
            ) from error

    def stop(self) -> Profile:
        same_thread(self._thread, "cprofile")
        self._profiler.disable()
        _one.release()
        self._profiler.create_stats()
        stats = self._profiler.stats
        return _read(marshal.dumps(stats), self._name)

    def abandon(self) -> None:
        if threading.get_ident() == self._thread:
            self._profiler.disable()
        _one.release()


def read(file: Path, name: str) -> Profile:
    """Statistics that `inside.py` has saved: our own, so they are trusted."""
    return _read(file.read_bytes(), name)


def _read(data: bytes, name: str) -> Profile:
    (found,) = profiles_of(Content(data, "session.pstats"), format=FORMAT, trusted=True)
    return trimmed(found).named(name)
