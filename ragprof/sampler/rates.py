"""The rates of a sampler: asked, delivered, and what the budget left of them."""

from __future__ import annotations

import time
from typing import Any


class Rates:
    """Counts looks against the clock that makes them: the process's CPU time, or wall time.

    Ticks that do not come at the period that was set are told as coalesced, whatever the cause:
    the thread was in C code or without the interpreter, or the kernel accounted its CPU time
    otherwise. The next sample carries their time. The effective rate leaves them out, so that it
    tells what the budget takes away and nothing else.
    """

    def __init__(self, hz: float, by_cpu: bool) -> None:
        self.hz = hz
        self.looks = 0
        self.cpu_looks = 0
        self._by_cpu = by_cpu
        self._period = 1 / hz
        self._started = time.monotonic_ns()
        self._since = self._clock()
        self._ticks_before = 0
        self._clock_ns = 0  # of the clock that makes ticks, in the periods that are over
        self._expected = 0.0  # ticks of these periods

    def begin(self, by_cpu: bool, period: float) -> None:
        """From now on ticks come every `period` seconds of CPU time, or of wall time."""
        self._close()
        if by_cpu is not self._by_cpu:
            self._ticks_before = self._ticks()
            self._by_cpu = by_cpu
            self._ticks_before -= self.cpu_looks if by_cpu else self.looks
        self._period = period
        self._since = self._clock()

    def told(self, now: int) -> dict[str, Any]:
        """For the stats of the spool; rates by seconds of the clock that makes ticks."""
        self._close()
        seconds = max(self._clock_ns / 1e9, 1e-9)
        ticks = self._ticks()
        due = max(seconds * self.hz, ticks)
        coalesced = min(max(self._expected - ticks, 0.0), due - ticks)
        return {
            "clock": "cpu" if self._by_cpu else "wall",
            "asked_hz": self.hz,
            "effective_hz": round(self.hz * ticks / max(due - coalesced, 1.0), 3),
            "delivered_hz": round(ticks / seconds, 3),
            "looks": self.looks,
            "missed": round(due - ticks),
            "coalesced": round(coalesced),
            "elapsed_seconds": round((now - self._started) / 1e9, 6),
        }

    def _ticks(self) -> int:
        return self._ticks_before + (self.cpu_looks if self._by_cpu else self.looks)

    def _clock(self) -> int:
        return time.process_time_ns() if self._by_cpu else time.monotonic_ns()

    def _close(self) -> None:
        now = self._clock()
        passed, self._since = now - self._since, now
        self._clock_ns += passed
        self._expected += passed / 1e9 / self._period
