"""The series dictionary: one id for each distinct name, labels, type, unit and temporality."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Series(NamedTuple):
    """What identifies one series; `labels` is sorted by key."""

    name: str
    labels: tuple[tuple[str, str], ...]
    type: str  # gauge, counter, histogram, summary, event, unknown
    unit: str = ""
    temporality: str = ""  # cumulative, delta or empty


def labels(*parts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Labels as a sorted tuple; earlier parts win, empty values are left out."""
    merged: dict[str, str] = {}
    for part in reversed(parts):
        merged.update(part)
    return tuple(sorted((key, value) for key, value in merged.items() if value != ""))


class SeriesDictionary:
    """Numbers series from 0; a new one is written before its id is given out. Thread-safe."""

    def __init__(self, write: Callable[[list[dict[str, Any]]], None]) -> None:
        self._write = write
        self._ids: dict[Series, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, wanted: Iterable[Series]) -> list[int]:
        """The id of each series, in order. A failing write leaves the dictionary unchanged."""
        wanted = list(wanted)
        with self._lock:
            new: dict[Series, int] = {}
            for series in wanted:
                if series not in self._ids and series not in new:
                    new[series] = len(self._ids) + len(new)
            if new:
                self._write(
                    [
                        {"series_id": number, **series._asdict(), "labels": list(series.labels)}
                        for series, number in new.items()
                    ]
                )
                self._ids.update(new)
            return [self._ids[series] for series in wanted]
