"""The engine `sampler`: the in-process sampler, with spans, tasks, threads and waits."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ragprof.profiles.model import Profile
from ragprof.profiling.engine import SessionError
from ragprof.profiling.spool import SpoolProfile
from ragprof.sampler import sharing

MAX_ROWS = 2_000_000
"""Samples that a session keeps in memory; more are counted and left out."""


class SamplerEngine:
    """All threads and tasks of this process. Sessions nest and overlap: they share one sampler."""

    def __init__(self, hz: float, budget: float, name: str) -> None:
        self._hz, self._budget, self._name = hz, budget, name
        self._lines = _Lines()
        self._sampler: Any = None
        self._began = 0

    def start(self) -> None:
        try:
            self._sampler = sharing.share(self._lines, self._hz, self._budget)
        except sharing.CannotSample as error:
            raise SessionError(
                f"the sampler cannot start: {error}; begin the session in the main thread, have a "
                "sampler run there already, or choose engine='pyinstrument'"
            ) from None
        self._began = time.time_ns()

    def stop(self) -> Profile:
        complete = sharing.unshare(self._sampler, self._lines)
        collected = SpoolProfile(self._name, since=self._began)
        collected.take(self._lines.lines)
        return collected.build().named(self._name, *self._notes(complete))

    def abandon(self) -> None:
        with contextlib.suppress(Exception):
            sharing.unshare(self._sampler, self._lines)

    def _notes(self, complete: bool) -> list[str]:
        notes = []
        if not complete:
            notes.append("the main thread did not answer at the end: its last samples are missing")
        if self._lines.dropped:
            notes.append(f"{self._lines.dropped} samples beyond {MAX_ROWS} were left out")
        return notes


class _Lines:
    """The sink of one session."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.dropped = 0
        self._rows = 0

    def write(self, lines: list[dict[str, Any]]) -> bool:
        for line in lines:
            if line["type"] == "samples":
                count = len(line["columns"]["time"])
                if self._rows + count > MAX_ROWS:
                    self.dropped += count
                    continue
                self._rows += count
            if line["type"] != "points":
                self.lines.append(line)
        return True

    def close(self) -> None:
        return None

    def forked(self) -> bool:
        return False  # the session is the parent's
