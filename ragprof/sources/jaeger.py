"""Traces out of Jaeger: the query API of v2 (`/api/v3`, OTLP), or the UI's (`/api/traces`).

Of the two, v3 keeps nanoseconds, scopes and resources; the other is asked where v3 is not there.
Searches are made complete by halving the window (see `trace_search`).
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from ragprof.manifest import iso
from ragprof.sources import jaeger_spans, otlp_decode, trace_search
from ragprof.sources.http import Connection, Garbled, Refused, connection, parse_json
from ragprof.sources.otlp import BadPayload
from ragprof.sources.settings import Settings
from ragprof.sources.source import (
    OK,
    WARNING,
    Check,
    Piece,
    Query,
    SourceError,
    Tables,
    Window,
    failed,
)
from ragprof.sources.span_rows import SpanRows
from ragprof.sources.trace_api import LIMIT, MINUTE, Read, TraceApi

APIS = ("v3", "ui")


def connect(settings: Settings) -> Jaeger:
    """The source that a section describes; raises ConfigError.

    Fields besides those of `http.connection`: api ("v3" or "ui"; without it v3, else ui), limit.
    """
    to = connection(settings, "http://localhost:16686")
    api = settings.text("api", "")
    if api not in ("", *APIS):
        raise settings.wrong("api", 'must be "v3" or "ui"')
    return Jaeger(settings.name, to, api=api, limit=int(settings.number("limit", LIMIT)))


class Jaeger(TraceApi):
    """A Jaeger as a source of spans (see `source.TraceSource`)."""

    kind = "jaeger"

    def __init__(self, name: str, to: Connection, *, api: str = "", limit: int = LIMIT) -> None:
        super().__init__(name, to, limit=limit)
        self._api = api

    def paths(self, trace: str) -> tuple[str, ...]:
        above = "/api/v3/traces" if self.api() == "v3" else "/api/traces"
        return (f"{above}/{quote(trace, safe='{,}')}",)

    def reader(self) -> Read:
        return _read_v3 if self.api() == "v3" else _read_ui

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "api": self._api or "v3"}

    def check(self, window: Window) -> list[Check]:
        try:
            services = self.services()
            reachable = Check(self.name, "reachable", OK, f"{self.client.to.address} answers")
            if not services:
                empty = "it knows no service"
                step = "look at the exporter of the services"
                return [reachable, Check(self.name, "spans", WARNING, empty, step)]
            text = f"{len(services)} services: {', '.join(services[:8])}"
            found = self.search(window, Query(services=(services[0],)), 2)
        except SourceError as error:
            return [failed(self, "reachable", error)]
        if not found.num_rows:
            text += f"; none of {services[0]} in the window"
        return [reachable, Check(self.name, "spans", OK, text)]

    def services(self) -> list[str]:
        """The names of all services. Raises SourceError."""
        if self.api() == "v3":
            answer = self.client.json("GET", "/api/v3/services")
            return sorted(answer.get("services") or [])
        return sorted(self.client.json("GET", "/api/services").get("data") or [])

    def api(self) -> str:
        """Which of the two APIs is asked."""
        if not self._api:
            try:
                self.client.json("GET", "/api/v3/services")
                self._api = "v3"
            except Refused as error:
                if error.status not in (404, 405, 501):
                    raise
                self._api = "ui"
        return self._api

    def plan(self, window: Window, query: Query) -> list[Piece]:
        """A piece per minute, or per some trace ids. Jaeger does not tell how many rows."""
        if query.trace_ids:
            return self.pieces_of(query.trace_ids, window)
        # One service after the other in each piece; the same trace may have spans of several.
        services = list(query.services) or self.services()
        asked = {
            "services": services,
            "restricted": bool(query.services),
            "operations": list(query.operations),
            "tags": dict(query.tags),
            "min_duration": query.min_duration,
            "limit": query.limit,
        }
        return [
            Piece(
                key=f"spans:{part.start}-{part.end}",
                window=part,
                text=f"/api/traces?{self._parameters(part, query, self._limit, said=True)}",
                request=asked,
            )
            for part in window.cut(MINUTE)
        ]

    def fetch_piece(self, piece: Piece) -> Tables:
        """All spans of the traces of a piece, each once. Raises SourceError."""
        request = piece.request
        if "traces" in request:
            yield from self.of_piece(piece)
            return
        query = _query(request)
        anchor = replace(
            query, services=tuple(request["services"] if request["restricted"] else ())
        )
        taken: set[str] = set()
        for rows in self._found(piece.window, request["services"], query):
            # v3 of the Jaeger that the tests run takes no notice of attributes
            exact = bool(query.tags) and self.api() == "v3"
            rows = trace_search.anchored(rows, piece.window, anchor, exact=exact)
            rows = trace_search.new_traces(rows, taken, int(request["limit"] or 0))
            if rows.num_rows:
                yield "spans", rows

    def search(self, window: Window, query: Query, limit: int) -> pa.Table:
        """Whole traces with a span in the window that fulfils the query, of one service."""
        path = "/api/v3/traces" if self.api() == "v3" else "/api/traces"
        try:
            return self.ask(path, self._parameters(window, query, limit))
        except Refused as error:
            if error.status == 404:  # v3 says so when nothing is found
                return SpanRows().table()
            raise

    def _found(self, window: Window, services: list[str], query: Query) -> Iterator[pa.Table]:
        operations = query.operations or ("",)
        for service in services:
            for operation in operations:
                one = replace(
                    query, services=(service,), operations=(operation,) if operation else ()
                )
                search = functools.partial(self._search_one, one)
                yield from trace_search.complete(search, window, self._limit, self.name)

    def _search_one(self, query: Query, window: Window, limit: int) -> pa.Table:
        return self.search(window, query, limit)

    def _parameters(
        self, window: Window, query: Query, limit: int, *, said: bool = False
    ) -> dict[str, str]:
        # Both edges belong to a search; what lies outside of the window is left out afterwards.
        service = ",".join(query.services) if said else next(iter(query.services), "")
        operation = ",".join(query.operations) if said else next(iter(query.operations), "")
        if not said and self.api() == "v3":
            params = {
                "query.service_name": service,
                "query.operation_name": operation,
                "query.start_time_min": iso(window.start),
                "query.start_time_max": iso(window.end),
                "query.duration_min": _seconds(query.min_duration),
                "query.search_depth": str(limit),
                "query.num_traces": str(limit),
                "query.attributes": json.dumps(dict(query.tags)) if query.tags else "",
            }
        else:
            params = {
                "service": service,
                "operation": operation,
                "start": str(window.start // 1000),
                "end": str(-(-window.end // 1000)),
                "minDuration": f"{query.min_duration // 1000}us" if query.min_duration else "",
                "limit": str(limit),
                "tags": json.dumps(dict(query.tags)) if query.tags else "",
            }
        return {key: value for key, value in params.items() if value}


def _read_v3(body: bytes) -> tuple[pa.Table, Counter[str]]:
    """OTLP within `result`, in one JSON object or in several behind one another."""
    tables, refused = [SpanRows().table()], Counter[str]()
    contents = list(_objects(body))
    if not contents:  # no trace is a 404, never silence
        raise Garbled("no answer")
    for content in contents:
        result = content.get("result")
        if not isinstance(result, dict):
            raise Garbled("no result of spans")
        try:
            decoded = otlp_decode.decode_json("traces", result)
        except BadPayload as error:
            raise Garbled(str(error)) from None
        tables.append(decoded.rows)
        refused.update(decoded.refused)
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries(), refused


def _objects(body: bytes) -> Iterator[dict[str, Any]]:
    text, decoder, at = body.decode("utf-8", "strict"), json.JSONDecoder(), 0
    while at < len(text):
        content, at = decoder.raw_decode(text, at)
        if not isinstance(content, dict):
            raise Garbled("not an object")
        yield content
        while at < len(text) and text[at] in " \r\n\t,":
            at += 1


def _read_ui(body: bytes) -> tuple[pa.Table, Counter[str]]:
    return read_ui(parse_json(body))


def read_ui(content: Any) -> tuple[pa.Table, Counter[str]]:
    """Rows of traces in the JSON of Jaeger's UI (also as it saves them), and what was refused.

    Raises Garbled for anything else.
    """
    made = SpanRows()
    traces = content.get("data") if isinstance(content, Mapping) else content
    if not isinstance(traces, list):
        raise Garbled("no list of traces")
    for trace in traces:
        if not isinstance(trace, Mapping):
            raise Garbled("a trace that is no object")
        processes = trace.get("processes") or {}
        for span in trace.get("spans") or []:
            try:
                process = span.get("process") or processes.get(span.get("processID")) or {}
                jaeger_spans.add(made, span, process)
            except (TypeError, ValueError, KeyError, AttributeError):
                made.refused["span that is not in Jaeger's form"] += 1
    return made.table(), made.refused


def _query(request: Mapping[str, Any]) -> Query:
    return Query(
        operations=tuple(request["operations"]),
        tags=dict(request["tags"]),
        min_duration=int(request["min_duration"]),
    )


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000 / 1e6:.6f}s" if nanoseconds else ""
