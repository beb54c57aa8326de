"""What the query APIs of Jaeger, Tempo and Zipkin have in common: traces by id, and their roots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from ragprof.sources import trace_search
from ragprof.sources.http import Client, Connection, Refused
from ragprof.sources.source import Piece, Query, Tables, Window
from ragprof.sources.span_rows import SpanRows

LIMIT = 500  # traces of one search
MINUTE = 60_000_000_000  # ns: a piece of a search
TRACES = 20  # of a piece that asks by id

Read = Callable[[bytes], tuple[pa.Table, Counter[str]]]
"""An answer as rows of spans, and what was refused: reason -> spans."""


class TraceApi:
    """A backend that gives whole traces by id; `plan`, `fetch_piece` and `check` are its own."""

    kind: str
    tables: tuple[str, ...] = ("spans",)

    def __init__(self, name: str, to: Connection, *, limit: int = LIMIT) -> None:
        self.name, self.refused = name, Counter[str]()
        self.client = Client(name, to)
        self._limit = max(2, limit)

    def paths(self, trace: str) -> tuple[str, ...]:
        """Where a trace may be, the first place that has it counts."""
        raise NotImplementedError

    def reader(self) -> Read:
        """Reads an answer; it raises Garbled."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "address": self.client.to.address}

    def close(self) -> None:
        self.client.close()

    def plan(self, window: Window, query: Query) -> list[Piece]:
        raise NotImplementedError

    def fetch_piece(self, piece: Piece) -> Tables:
        raise NotImplementedError

    def trace(self, trace: str) -> pa.Table:
        """The spans of one trace; none when the backend does not have it. Raises SourceError."""
        for path in self.paths(trace):
            try:
                return self.ask(path)
            except Refused as error:
                if error.status != 404:
                    raise
        return SpanRows().table()

    def ask(self, path: str, params: Any = None) -> pa.Table:
        """The spans of an answer; what was refused is counted. Raises SourceError."""
        rows, refused = self.client.call(
            "GET", path, self.reader(), params=params, headers={"Accept": "application/json"}
        )
        self.refused.update(refused)
        return rows

    def pieces_of(self, ids: Iterable[str], window: Window, said: str = "") -> list[Piece]:
        """Some traces per piece. `said`: how they were found, for the manifest."""
        ids = sorted(set(ids))
        pieces = []
        for first in range(0, len(ids), TRACES):
            some = ids[first : first + TRACES]
            text = self.paths("{" + ",".join(some) + "}")[-1] + (f"; {said}" if said else "")
            pieces.append(
                Piece(f"spans:{some[0]}+{len(some)}", window, text, request={"traces": some})
            )
        return pieces

    def of_piece(self, piece: Piece) -> Tables:
        """The traces of a piece of `pieces_of`. Raises SourceError."""
        for trace in piece.request["traces"]:
            rows = self.trace(trace)
            if rows.num_rows:
                yield "spans", rows

    def roots(self, window: Window, query: Query) -> pa.Table:
        """One row per trace whose root began in the window: see `source.TraceSource`.

        Where there is no cheaper list than the traces themselves; they are read piece by piece.
        """
        tables = [trace_search.ROOTS.empty_table()]
        for piece in self.plan(window, query):
            tables += [trace_search.roots(rows, window) for _, rows in self.fetch_piece(piece)]
        return pa.concat_tables(tables)
