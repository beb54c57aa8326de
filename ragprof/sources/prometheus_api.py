"""Calls of the Prometheus HTTP API that sources need, by POST, cut in time.

A range selector with the range R at the time T answers T - R <= t <= T in Prometheus 2.x and
T - R < t <= T in 3.x (times are whole ms). `Api.stored` asks such that both hold its window, and
drops the one ms that 2.x adds. API: https://prometheus.io/docs/prometheus/latest/querying/api
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ragprof.sources import prometheus_matrix
from ragprof.sources.http import Client, Garbled, Refused, TooMuch, Unreachable, parse_json
from ragprof.sources.prometheus_matrix import Matrix
from ragprof.sources.prometheus_selectors import Selector
from ragprof.sources.prometheus_series import Metadata, exemplars
from ragprof.sources.source import SourceError, Window

MS = 1_000_000  # ns
SHORTEST = 1000  # ms; a range that is too large is halved down to this
TOO_LARGE = ("too many samples", "timed out", "exceeds the limit", "limit on", "too large")


def edges(window: Window) -> tuple[int, int]:
    """The first and the last ms of a window; the last is before the first when it holds none."""
    return -(-window.start // MS), -(-window.end // MS) - 1


class Api:
    """One server; safe between threads. `params` are added to every call."""

    def __init__(self, client: Client, params: Mapping[str, str] | None = None) -> None:
        self.client, self.params = client, dict(params or {})
        self.warnings: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._metadata: Metadata | None = None

    def data(self, path: str, form: Mapping[str, Any], *, method: str = "POST") -> Any:
        """The `data` of an answer; raises SourceError."""

        def read(body: bytes) -> Any:
            answer = parse_json(body)
            if not isinstance(answer, dict) or answer.get("status") != "success":
                raise Garbled("JSON, but not of the Prometheus API")
            self._warned(answer.get("warnings") or [])
            return answer.get("data")

        whole = {**self.params, **form}
        if method == "GET":
            return self.client.call("GET", path, read, params=whole)
        return self.client.call("POST", path, read, form=whole)

    def matrix(self, path: str, form: Mapping[str, Any]) -> Matrix:
        """An answer of range vectors; raises SourceError."""
        found = self.client.call(
            "POST", path, prometheus_matrix.parse, form={**self.params, **form}
        )
        self._warned(found.warnings)
        return found

    def vector(self, expression: str, at: int) -> list[tuple[dict[str, str], float]]:
        """An instant vector at a time (ms): labels and value. Raises SourceError."""
        data = self.data("/api/v1/query", {"query": expression, "time": seconds(at)})
        try:
            return [(each["metric"], float(each["value"][1])) for each in data["result"]]
        except (KeyError, TypeError, ValueError, IndexError):
            raise self.odd("an instant vector") from None

    def stored(
        self, selector: Selector, first: int, last: int
    ) -> Iterator[tuple[Matrix, int, int]]:
        """All stored points from `first` to `last` (ms, both included), each once.

        Yields parts of the window with their first and last ms: a range that the server finds
        too large is halved. Raises SourceError.
        """
        form = {"query": f"{selector}[{last - first + 1}ms]", "time": seconds(last)}
        try:
            found = self.matrix("/api/v1/query", form)
        except (Refused, TooMuch, Unreachable) as error:
            if last - first < SHORTEST or not too_large(error):
                raise
            middle = (first + last) // 2
            yield from self.stored(selector, first, middle)
            yield from self.stored(selector, middle + 1, last)
            return
        yield _within(found, first, last), first, last

    def names(self, selector: Selector, first: int, last: int) -> list[str]:
        """Names of the metrics that a selector finds in a window (ms)."""
        form = {"match[]": str(selector), "start": seconds(first), "end": seconds(last)}
        found = self.data("/api/v1/label/__name__/values", form, method="GET")
        if not isinstance(found, list):
            raise self.odd("a list of names")
        return [str(name) for name in found]

    def exemplars(
        self, selector: Selector, first: int, last: int
    ) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
        """Exemplars whose time is within the window (ms); none where the server has no such."""
        form = {"query": str(selector), "start": seconds(first), "end": seconds(last)}
        try:
            found = exemplars(self.data("/api/v1/query_exemplars", form) or [])
        except Refused as error:
            if error.status in (404, 405, 501):
                return []
            raise
        except Garbled as error:
            raise SourceError(f"{self.client.name}: {error}.") from None
        within = [
            (labels, [row for row in rows if first <= row["time"] // MS <= last])
            for labels, rows in found
        ]
        return [(labels, rows) for labels, rows in within if rows]

    def metadata(self) -> Metadata:
        """Types and units of all families; empty where the server has none."""
        with self._lock:
            known = self._metadata
        if known is None:
            try:
                known = _metadata(self.data("/api/v1/metadata", {}, method="GET"))
            except Refused:
                known = Metadata()
            with self._lock:
                self._metadata = known
        return known

    def version(self) -> str:
        """The server's version, empty where it does not say. Raises SourceError."""
        try:
            data = self.data("/api/v1/status/buildinfo", {}, method="GET")
            return str(data.get("version", "")) if isinstance(data, dict) else ""
        except Refused as error:
            if error.status not in (404, 405, 501):
                raise
            self.vector("vector(1)", 0)  # at least it answers
            return ""

    def odd(self, wanted: str) -> SourceError:
        return SourceError(
            f"{self.client.name}: {self.client.to.address} does not answer {wanted}; "
            "is it a Prometheus?"
        )

    def _warned(self, warnings: Iterable[Any]) -> None:
        with self._lock:
            self.warnings.update(str(text)[:300] for text in warnings)


def seconds(ms: int) -> str:
    return f"{ms // 1000}.{ms % 1000:03d}"


def too_large(error: SourceError) -> bool:
    """Whether the server said that it was asked for too much at once."""
    if isinstance(error, Refused):
        return error.status == 413 or any(text in error.body for text in TOO_LARGE)
    return isinstance(error, TooMuch)


def _within(found: Matrix, first: int, last: int) -> Matrix:
    inside = (found.times >= first) & (found.times <= last)
    if not inside.all():
        owner = np.repeat(np.arange(len(found.lengths)), found.lengths)
        found.lengths = np.bincount(owner[inside], minlength=len(found.lengths))
        found.times, found.values = found.times[inside], found.values[inside]
    found.histograms = [
        [row for row in rows if first <= round(float(row[0]) * 1000) <= last]
        for rows in found.histograms
    ]
    return found


def _metadata(data: Any) -> Metadata:
    families: dict[str, tuple[str, str]] = {}
    if isinstance(data, dict):
        for name, entries in data.items():
            if isinstance(entries, list) and entries and isinstance(entries[0], dict):
                type_, unit = entries[0].get("type", ""), entries[0].get("unit", "")
                families[name] = (str(type_), str(unit))
    return Metadata(families)
