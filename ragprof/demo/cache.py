"""A cache in memory: least recently used out first, entries expire."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from ragprof.service import metrics


class Cache:
    """Used by one event loop only; counts its hits and misses."""

    def __init__(self, name: str, capacity: int = 1000, seconds: float = 300) -> None:
        self.name = name
        self.capacity = capacity
        self.seconds = seconds
        self._entries: OrderedDict[str, tuple[float, Any]] = OrderedDict()

    def get(self, key: str) -> Any | None:
        """The value, or None when it is absent or expired."""
        entry = self._entries.get(key)
        if entry is None or entry[0] < time.monotonic():
            self._entries.pop(key, None)
            metrics.cache_misses.labels(cache_type=self.name, operation="get").inc()
            return None
        self._entries.move_to_end(key)
        metrics.cache_hits.labels(cache_type=self.name, operation="get").inc()
        return entry[1]

    def set(self, key: str, value: Any) -> None:
        """Keep a value for `seconds`."""
        self._entries[key] = (time.monotonic() + self.seconds, value)
        self._entries.move_to_end(key)
        while len(self._entries) > self.capacity:
            self._entries.popitem(last=False)
