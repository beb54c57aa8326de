"""A Prometheus that answers expressions: the user's own, or one started on a Recording's data.

Stored points come from range selectors: `query_range` resamples and fills gaps, so it is for
expressions only. Nothing here needs Prometheus 3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np

from ragprof.errors import RagprofError
from ragprof.slo.counters import Floats
from ragprof.sources import prometheus_matrix
from ragprof.sources.http import Client, Connection

MOST_STEPS = 10_000  # of one range query; Prometheus refuses more than 11,000
Row = tuple[dict[str, str], Floats, Floats]
"""Labels, times (s since 1970) and values of one series."""


class PrometheusError(RagprofError):
    """An address that is not that of a Prometheus."""


class Prometheus:
    """Asks a Prometheus at `url` (which may hold user and password).

    Every method raises SourceError (a RagprofError) when it does not answer or refuses.
    """

    def __init__(self, url: str, retries: int = 2) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PrometheusError(
                f"{url!r} is not the address of a Prometheus; give one like http://127.0.0.1:9090"
            )
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        if parts.username:
            import httpx

            user, password = unquote(parts.username), unquote(parts.password or "")
            header = {"Authorization": httpx.BasicAuth(user, password)._auth_header}
        else:
            header = {}
        self._client = Client("Prometheus", Connection(self.url, headers=header, retries=retries))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(self, path: str, form: Mapping[str, str] | None = None) -> Any:
        """`data` of the answer of ``/api/v1/PATH``: a GET, or a POST of a form."""

        def data(body: bytes) -> Any:
            try:
                return json.loads(body)["data"]
            except (KeyError, TypeError, ValueError):
                raise ValueError("not the answer of a Prometheus") from None

        return self._client.call("POST" if form else "GET", f"/api/v1/{path}", data, form=form)

    def query(self, expression: str, at: float) -> list[tuple[dict[str, str], float]]:
        """The value of an expression at an instant (s since 1970), by labels. NaN stays NaN."""
        data = self.call("query", {"query": expression, "time": f"{at:.3f}"})
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(row["metric"], float(row["value"][1])) for row in data["result"]]

    def stored(self, selector: str, since: float, until: float) -> list[Row]:
        """The stored points of a selector in ``(since, until]``, s since 1970, without NaN."""
        window = math.ceil((until - since) * 1000)
        form = {"query": f"{selector}[{window}ms]", "time": f"{until:.3f}"}
        found = []
        for labels, times, values in self._matrix("query", form):
            inside = (times > since) & (times <= until) & ~np.isnan(values)
            if inside.any():
                found.append((labels, times[inside], values[inside]))
        return found

    def query_range(
        self,
        expression: str,
        since: float,
        until: float,
        step: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Row]:
        """An expression at `since`, `since + step`, … up to `until`: the rows that exist.

        `progress` is told how many of how many requests are done.
        """
        count = math.floor((until - since) / step + 1e-9) + 1
        parts: dict[str, tuple[dict[str, str], list[Floats], list[Floats]]] = {}
        starts = range(0, count, MOST_STEPS)
        for done, first in enumerate(starts, 1):
            last = min(first + MOST_STEPS, count) - 1
            form = {
                "query": expression,
                "start": f"{since + first * step:.3f}",
                "end": f"{since + last * step:.3f}",
                "step": f"{step:.3f}",
            }
            for labels, times, values in self._matrix("query_range", form):
                key = json.dumps(labels, sort_keys=True)
                _, all_times, all_values = parts.setdefault(key, (labels, [], []))
                all_times.append(times)
                all_values.append(values)
            if progress:
                progress(done, len(starts))
        return [
            (labels, np.concatenate(times), np.concatenate(values))
            for labels, times, values in parts.values()
        ]

    def _matrix(self, path: str, form: Mapping[str, str]) -> list[Row]:
        matrix = self._client.call("POST", f"/api/v1/{path}", prometheus_matrix.parse, form=form)
        return [
            (labels, matrix.times[rows] / 1000.0, matrix.values[rows])
            for labels, rows in zip(matrix.labels, matrix.slices(), strict=True)
        ]
