"""Traces out of Grafana Tempo: search by TraceQL, traces by id.

A search gives the first N that are found, in no order. So that a listing is complete, its window
is halved until fewer than N come back, and below Tempo's second the range of durations is. The
slowest N are found by halving the range of durations alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from ragprof.sources import otlp_decode, trace_search
from ragprof.sources.http import Garbled, connection, parse_json
from ragprof.sources.ids import trace_id
from ragprof.sources.otlp import BadPayload
from ragprof.sources.settings import Settings
from ragprof.sources.source import OK, Check, Piece, Query, SourceError, Tables, Window, failed
from ragprof.sources.trace_api import LIMIT, Read, TraceApi

SECOND = 1_000_000_000  # ns: what a search's window is cut to
LONGEST = 1 << 46  # ns, some 19 hours: durations are looked for below it
FINEST = 1_000_000  # ns: what a search tells durations apart by
MOST_SEARCHES = 400  # of one listing; after them only the slowest are looked for


def connect(settings: Settings) -> Tempo:
    """The source that a section describes; raises ConfigError. Fields besides those of
    `http.connection`: limit (traces of one search).
    """
    to = connection(settings, "http://localhost:3200")
    return Tempo(settings.name, to, limit=int(settings.number("limit", LIMIT)))


class Tempo(TraceApi):
    """A Tempo as a source of spans (see `source.TraceSource`)."""

    kind = "tempo"

    def paths(self, trace: str) -> tuple[str, ...]:
        # Before 2.7 there is no v2, and 404 is what it says.
        return tuple(f"/api/{v2}traces/{quote(trace, safe='{,}')}" for v2 in ("v2/", ""))

    def reader(self) -> Read:
        return read_trace

    def check(self, window: Window) -> list[Check]:
        try:
            self.client.call("GET", "/api/echo", bytes)
            found = self.search(window, Query(), 1)
        except SourceError as error:
            return [failed(self, "reachable", error)]
        text = "has traces in the window" if found else "answers, but has no trace in the window"
        return [Check(self.name, "reachable", OK, f"{self.client.to.address} {text}")]

    def plan(self, window: Window, query: Query) -> list[Piece]:
        """Some traces per piece, listed by search where the query does not name them."""
        ids = sorted(set(query.trace_ids) or set(self.roots(window, query)["trace_id"].to_pylist()))
        return self.pieces_of(ids[: query.limit or None], window, traceql(query))

    def fetch_piece(self, piece: Piece) -> Tables:
        """All spans of the traces of a piece, each once. Raises SourceError."""
        yield from self.of_piece(piece)

    def roots(self, window: Window, query: Query) -> pa.Table:
        """One row per trace that began in the window: see `source.TraceSource`.

        Where even MOST_SEARCHES searches do not list them all, the slowest are among the rows.
        """
        found: dict[str, dict[str, Any]] = {}
        budget = _Budget(MOST_SEARCHES)
        complete = True
        for traces in self._listing(window, query, budget):
            if traces is None:
                complete = False
            else:
                found.update((each["trace_id"], each) for each in traces)
        if not complete:
            slow = self.slowest(window, query, self._limit)
            found.update((each["trace_id"], each) for each in slow.to_pylist())
        return _table(found.values(), window)

    def slowest(self, window: Window, query: Query, count: int) -> pa.Table:
        """The slowest traces of the window, at least `count` where it has as many; slowest first.

        Columns as `roots`. Some 20 searches: the least duration is raised until no more than a
        search holds are above it, and lowered until there are enough. Raises SourceError.
        """
        low, high = 0, LONGEST
        best: list[dict[str, Any]] = []
        while high - low >= FINEST:
            middle = (low + high) // 2
            traces = self.search(window, query, self._limit, (middle, LONGEST))
            if len(traces) >= self._limit:
                low = middle  # not all of them: look above
                continue
            best = traces
            if len(traces) >= count:
                break
            high = middle
        if high - low < FINEST and len(best) < count:
            # durations that a search cannot tell apart: as many of them as it gives
            more = self.search(window, query, self._limit, (low, LONGEST))
            known = {each["trace_id"] for each in best}
            best += [each for each in more if each["trace_id"] not in known]
        rows = _table(best, window)
        return rows.sort_by([("duration_ns", "descending"), ("trace_id", "ascending")])

    def search(
        self, window: Window, query: Query, limit: int, durations: tuple[int, int] | None = None
    ) -> list[dict[str, Any]]:
        """Up to `limit` traces: trace_id, service, name, start, duration_ns. Raises SourceError.

        `durations`: of the trace, from the first to before the second, ns.
        """
        params = {
            "q": traceql(query, durations),
            "start": str(window.start // SECOND),
            "end": str(-(-window.end // SECOND)),
            "limit": str(limit),
        }
        return self.client.call("GET", "/api/search", _read_search, params=params)

    def _listing(
        self,
        window: Window,
        query: Query,
        budget: _Budget,
        durations: tuple[int, int] | None = None,
    ) -> Iterator[list[dict[str, Any]] | None]:
        """Answers that are complete; None where one is not and the budget is spent."""
        traces = self.search(window, query, self._limit, durations)
        if len(traces) < self._limit:
            yield traces
            return
        if not budget.spend():
            yield traces
            yield None
            return
        first, last = window.start // SECOND, -(-window.end // SECOND)
        if last - first > 1:
            middle = (first + last) // 2 * SECOND
            yield from self._listing(Window(window.start, middle), query, budget)
            yield from self._listing(Window(middle, window.end), query, budget)
            return
        low, high = durations or (0, LONGEST)
        if high - low <= FINEST:
            yield traces
            yield None
            return
        # Most requests are short: halve by powers first, then evenly.
        between = max(low * 2, FINEST) if low * 2 < high // 2 else (low + high) // 2
        if not low:
            between = max(FINEST, high >> 8)
        yield from self._listing(window, query, budget, (low, between))
        yield from self._listing(window, query, budget, (between, high))


class _Budget:
    """How many more searches a listing may take."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self) -> bool:
        self._left -= 1
        return self._left >= 0


def traceql(query: Query, durations: tuple[int, int] | None = None) -> str:
    """A query in TraceQL: spans that fulfil all of it."""
    terms = []
    for field, wanted in (
        ("resource.service.name", query.services),
        ("name", query.operations),
    ):
        if wanted:
            either = " || ".join(f"{field} = {_quoted(each)}" for each in wanted)
            terms.append(f"({either})" if len(wanted) > 1 else either)
    terms += [f".{_attribute(key)} = {_quoted(value)}" for key, value in query.tags.items()]
    if query.min_duration:
        terms.append(f"duration >= {query.min_duration}ns")
    if durations:
        terms.append(f"traceDuration >= {durations[0]}ns")
        if durations[1] < LONGEST:
            terms.append(f"traceDuration < {durations[1]}ns")
    return f"{{ {' && '.join(terms)} }}" if terms else "{ }"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _attribute(key: str) -> str:
    plain = all(each.isalnum() or each in "._-" for each in key)
    return key if plain else _quoted(key)


def _read_search(body: bytes) -> list[dict[str, Any]]:
    content = parse_json(body)
    if not isinstance(content, Mapping) or not isinstance(content.get("traces", []), list):
        raise Garbled("no list of traces")
    found = []
    for each in content.get("traces") or []:
        if not isinstance(each, Mapping):
            raise Garbled("a trace that is no object")
        trace = trace_id(each.get("traceID"))
        if trace:
            found.append(
                {
                    "trace_id": trace,
                    "service": str(each.get("rootServiceName") or ""),
                    "name": str(each.get("rootTraceName") or ""),
                    "start": int(each.get("startTimeUnixNano") or 0),
                    "duration_ns": int(each.get("durationMs") or 0) * 1_000_000,
                }
            )
    return found


def read_trace(body: bytes) -> tuple[pa.Table, Counter[str]]:
    """Rows of one trace as either API gives it, and what was refused: reason -> spans.

    Raises Garbled for anything else.
    """
    content = parse_json(body)
    if isinstance(content, Mapping) and isinstance(content.get("trace"), Mapping):
        content = content["trace"]
    if not isinstance(content, Mapping):
        raise Garbled("no trace")
    groups = content.get("resourceSpans", content.get("batches", []))
    if not isinstance(groups, list):
        raise Garbled("no list of spans")
    for group in groups:  # as it was called before OTLP 0.15
        if isinstance(group, dict) and "instrumentationLibrarySpans" in group:
            group["scopeSpans"] = [
                {**old, "scope": old.get("instrumentationLibrary") or {}}
                for old in group.pop("instrumentationLibrarySpans")
            ]
    try:
        decoded = otlp_decode.decode_json("traces", {"resourceSpans": groups})
    except BadPayload as error:
        raise Garbled(str(error)) from None
    return decoded.rows, decoded.refused


def _table(traces: Any, window: Window) -> pa.Table:
    inside = [each for each in traces if window.start <= _ns(each["start"]) < window.end]
    rows = [{**each, "start": _ns(each["start"])} for each in inside]
    columns = {field.name: [row[field.name] for row in rows] for field in trace_search.ROOTS}
    return pa.table(
        [pa.array(columns[field.name], field.type) for field in trace_search.ROOTS],
        schema=trace_search.ROOTS,
    )


def _ns(moment: Any) -> int:
    return moment if isinstance(moment, int) else int(moment.value)
