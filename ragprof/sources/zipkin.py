"""Spans in Zipkin's v2 JSON: from its API, and from saved files.

Times are microseconds. A server span that shares the id of the client span that called it (B3's
"shared") gets an id of its own, told from both, because an id names one span in the tables.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from ragprof.manifest import iso
from ragprof.sources import trace_search
from ragprof.sources.http import Garbled, connection, parse_json
from ragprof.sources.ids import span_id, trace_id
from ragprof.sources.settings import Settings
from ragprof.sources.source import OK, Check, Piece, Query, SourceError, Tables, Window, failed
from ragprof.sources.span_rows import SpanRows
from ragprof.sources.trace_api import LIMIT, MINUTE, Read, TraceApi


def connect(settings: Settings) -> Zipkin:
    """The source that a section describes; raises ConfigError. Fields besides those of
    `http.connection`: limit (traces of one search).
    """
    to = connection(settings, "http://localhost:9411")
    return Zipkin(settings.name, to, limit=int(settings.number("limit", LIMIT)))


class Zipkin(TraceApi):
    """A Zipkin as a source of spans (see `source.TraceSource`)."""

    kind = "zipkin"

    def paths(self, trace: str) -> tuple[str, ...]:
        return (f"/api/v2/trace/{quote(trace, safe='{,}')}",)

    def reader(self) -> Read:
        return _read

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "api": "v2"}

    def check(self, window: Window) -> list[Check]:
        try:
            services = self.client.json("GET", "/api/v2/services")
        except SourceError as error:
            return [failed(self, "reachable", error)]
        text = f"{self.client.to.address} answers; it knows {len(services)} services"
        return [Check(self.name, "reachable", OK, text)]

    def plan(self, window: Window, query: Query) -> list[Piece]:
        """A piece per minute, or per some trace ids. Zipkin does not tell how many rows."""
        if query.trace_ids:
            return self.pieces_of(query.trace_ids, window)
        request = {
            "services": list(query.services),
            "operations": list(query.operations),
            "tags": dict(query.tags),
            "min_duration": query.min_duration,
        }
        return [
            Piece(
                key=f"spans:{part.start}-{part.end}",
                window=part,
                text=f"/api/v2/traces from {iso(part.start)} to before {iso(part.end)}: {request}",
                request=request,
            )
            for part in window.cut(MINUTE)
        ]

    def fetch_piece(self, piece: Piece) -> Tables:
        """All spans of the traces of a piece, each once. Raises SourceError."""
        if "traces" in piece.request:
            yield from self.of_piece(piece)
            return
        query = Query(
            services=tuple(piece.request["services"]),
            operations=tuple(piece.request["operations"]),
            tags=dict(piece.request["tags"]),
            min_duration=int(piece.request["min_duration"]),
        )
        taken: set[str] = set()
        for rows in self._found(piece.window, query):
            kept = trace_search.new_traces(trace_search.anchored(rows, piece.window, query), taken)
            if kept.num_rows:
                yield "spans", kept

    def _found(self, window: Window, query: Query) -> Iterator[pa.Table]:
        for service in query.services or ("",):
            for operation in query.operations or ("",):

                def search(
                    part: Window, limit: int, service: str = service, operation: str = operation
                ) -> pa.Table:
                    # Zipkin looks back in milliseconds; both edges belong to the search
                    first, last = part.start // 1_000_000, -(-part.end // 1_000_000)
                    params = {
                        "endTs": str(last),
                        "lookback": str(max(1, last - first)),
                        "limit": str(limit),
                        "serviceName": service,
                        "spanName": operation,
                        "minDuration": str(query.min_duration // 1000 or ""),
                        "annotationQuery": " and ".join(f"{k}={v}" for k, v in query.tags.items()),
                    }
                    given = {key: value for key, value in params.items() if value}
                    return self.ask("/api/v2/traces", given)

                yield from trace_search.complete(search, window, self._limit, self.name, 1_000_000)


def _read(body: bytes) -> tuple[pa.Table, Counter[str]]:
    return read(parse_json(body))


def read(content: Any) -> tuple[pa.Table, Counter[str]]:
    """Rows of a list of spans, or of a list of traces, and what was refused: reason -> spans.

    Raises Garbled for anything else.
    """
    if not isinstance(content, list):
        raise Garbled("no list of spans")
    spans: list[Any] = []
    for item in content:
        spans += item if isinstance(item, list) else [item]
    made = SpanRows()
    shared, owners = _shared(spans)
    for span in spans:
        try:
            _add(made, span, shared, owners)
        except (TypeError, ValueError, KeyError, AttributeError):
            made.refused["span that is not in Zipkin's form"] += 1
    return made.table(), made.refused


def _shared(spans: list[Any]) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """Ids that a client and a server share: (trace, id) -> the id that the server's gets, and the
    service of each such id.
    """
    sides: dict[tuple[str, str], dict[bool, str]] = {}
    for span in spans:
        if isinstance(span, Mapping):
            key = trace_id(span.get("traceId")), span_id(span.get("id"))
            sides.setdefault(key, {})[_is_server(span)] = _service(span)
    ids = {
        key: hashlib.blake2b(f"{key[0]}/{key[1]}/server".encode(), digest_size=8).hexdigest()
        for key, services in sides.items()
        if len(services) == 2
    }
    return ids, {made: sides[key][True] for key, made in ids.items()}


def _is_server(span: Mapping[str, Any]) -> bool:
    return bool(span.get("shared")) or span.get("kind") == "SERVER"


def _add(
    made: SpanRows,
    span: Any,
    shared: Mapping[tuple[str, str], str],
    owners: Mapping[str, str],
) -> None:
    trace, own = trace_id(span["traceId"]), span_id(span["id"])
    parent = span_id(span.get("parentId"))
    kind = str(span.get("kind") or "").lower()
    split, above = shared.get((trace, own)), shared.get((trace, parent))
    if split and _is_server(span):
        own, parent = split, own
    elif above and _service(span) == owners[above]:
        parent = above  # what runs in the server is below its half
    tags = {str(key): str(value) for key, value in (span.get("tags") or {}).items()}
    error = tags.pop("error", None)
    remote = (span.get("remoteEndpoint") or {}).get("serviceName")
    if remote:
        tags.setdefault("peer.service", str(remote))
    duration = span.get("duration")
    service = _service(span)
    made.add(
        trace=trace,
        span=own,
        parent=parent,
        service=service,
        scope=tags.pop("otel.scope.name", tags.pop("otel.library.name", "")),
        name=str(span.get("name") or ""),
        kind=kind or "internal",
        start=_nanoseconds(span.get("timestamp")),
        duration=_nanoseconds(duration),
        status=tags.pop("otel.status_code", "error" if error is not None else "unset").lower(),
        status_message="" if error in (None, "true", "") else str(error),
        attributes=list(tags.items()),
        resource=[("service.name", service)] if service else [],
        events=[
            {
                "time": _nanoseconds(each.get("timestamp")) or 0,
                "name": str(each.get("value") or ""),
                "attributes": {},
            }
            for each in span.get("annotations") or []
        ],
        links=[],
    )


def _service(span: Mapping[str, Any]) -> str:
    return str((span.get("localEndpoint") or {}).get("serviceName") or "")


def _nanoseconds(microseconds: Any) -> int | None:
    return None if microseconds is None else int(microseconds) * 1000
