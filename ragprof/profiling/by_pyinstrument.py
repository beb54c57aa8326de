"""The engine `pyinstrument`: wall time of one thread, or of one task when it begins in one."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileBuilder
from ragprof.profiles.quantities import WALL
from ragprof.profiles.read import profiles_of
from ragprof.profiling.engine import SessionError, same_thread
from ragprof.profiling.trimming import trimmed

FORMAT = "pyinstrument_session"


class PyinstrumentEngine:
    """One session at a time in a thread; of tasks, one in each."""

    def __init__(self, hz: float, name: str, task: bool) -> None:
        try:
            from pyinstrument import Profiler
        except ModuleNotFoundError:
            raise SessionError(
                'pyinstrument is not installed: pip install "ragprof[lab]", or use engine="sampler"'
            ) from None
        self._name = name
        self._thread = threading.get_ident()
        self._profiler: Any = Profiler(
            interval=1 / hz, async_mode="enabled" if task else "disabled"
        )

    def start(self) -> None:
        try:
            self._profiler.start()
        except RuntimeError as error:
            raise SessionError(
                "a pyinstrument session runs already in this thread; end it first, or use "
                "engine='sampler', whose sessions nest"
            ) from error

    def stop(self) -> Profile:
        same_thread(self._thread, "pyinstrument")
        session = self._profiler.stop()
        if not session.frame_records:
            return ProfileBuilder([WALL], name=self._name).build()
        return _read(json.dumps(session.to_json()).encode(), self._name)

    def abandon(self) -> None:
        if self._profiler.is_running and threading.get_ident() == self._thread:
            self._profiler.stop()


def read(file: Path, name: str) -> Profile:
    """A session that `inside.py` has saved."""
    return _read(file.read_bytes(), name)


def _read(data: bytes, name: str) -> Profile:
    (found,) = profiles_of(Content(data, "session.pyisession"), format=FORMAT)
    return trimmed(found).named(name)
