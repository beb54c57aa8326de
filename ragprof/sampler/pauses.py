"""Pauses of the whole process that the garbage collector makes."""

from __future__ import annotations

import gc
import time
from collections import deque
from typing import Any

Point = list[Any]  # [time in ns, name, value, labels]

MINIMUM_SECONDS = 100e-6  # shorter pauses of the youngest generations are not told one by one


class Pauses:
    """Times every collection through `gc.callbacks`; at most `limit` are kept until drained."""

    def __init__(self, limit: int = 500) -> None:
        self._points: deque[Point] = deque(maxlen=limit)
        self._began = 0
        self.count = 0

    def start(self) -> None:
        gc.callbacks.append(self._observe)

    def stop(self) -> None:
        if self._observe in gc.callbacks:
            gc.callbacks.remove(self._observe)

    def drain(self) -> list[Point]:
        points = self._points
        return [points.popleft() for _ in range(len(points))]

    def _observe(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter_ns()
            return
        if not self._began:
            return
        seconds = (time.perf_counter_ns() - self._began) / 1e9
        self._began = 0
        self.count += 1
        generation = info.get("generation", 0)
        if generation == 2 or seconds >= MINIMUM_SECONDS:
            labels = {"generation": str(generation)}
            self._points.append([time.time_ns(), "python.gc.pause", seconds, labels])
