"""Logs and spans out of Elasticsearch 8 and 9 (elasticsearch-py 8.15 to 9).

The window is cut in time by the number of documents, each piece is read at one point in time by
`search_after`, in slices that run beside each other. Pieces do not overlap, so nothing is there
twice, and a piece whose point in time expires is read anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ragprof.manifest import iso
from ragprof.sources import elasticsearch_checks, elasticsearch_logs, elasticsearch_spans
from ragprof.sources.elasticsearch_client import Elastic, Expired
from ragprof.sources.elasticsearch_logs import EMBEDDED, ROLES, WORKLOADS, FieldNames
from ragprof.sources.elasticsearch_pages import Document, Page, PageReader, page
from ragprof.sources.elasticsearch_plan import Counted, cut_by_count, page_size
from ragprof.sources.elasticsearch_spans import KINDS_OF_SPANS, Kind
from ragprof.sources.http import Connection, connection
from ragprof.sources.ids import trace_id, written_forms
from ragprof.sources.settings import Secret, Settings
from ragprof.sources.source import Check, Piece, Query, SourceError, Tables, Window, failed

LOGS, SPANS = "rag-system-*,logs-*", "traces-*,jaeger-span-*"
PIECE = 50_000  # documents; they are held in memory as columns
PARALLEL = 2  # slices of a piece
TRACES = 200  # traces asked for at once
MOST_TRACES = 50_000  # found by a query
TRIES = 3  # of a piece whose point in time expired


def connect(settings: Settings) -> Elasticsearch:
    """The source that a section describes; raises ConfigError.

    Fields besides those of `http.connection`: api_key; logs and spans (index patterns, empty: not
    wanted); time (the date field of logs); fields (column -> names of fields, see
    `elasticsearch_logs.ROLES`); embedded (fields with unparsed JSON lines); piece; parallel.
    """
    to = connection(settings)
    api_key = settings.secret("api_key")
    if api_key is not None and (to.token is not None or to.password is not None):
        raise settings.wrong("api_key", "is given beside token or password; give one of them")
    given = settings.table("fields")
    roles = dict(ROLES)
    for column in given:
        if column not in ROLES:
            raise settings.wrong(f"fields.{column}", f"is no column; it knows {', '.join(ROLES)}")
        roles[column] = Settings(settings.name, given, f"{settings.where}.fields").texts(column)
    fields = FieldNames(roles, settings.texts("embedded", EMBEDDED))
    return Elasticsearch(
        settings.name,
        to,
        api_key,
        logs=",".join(settings.texts("logs", (LOGS,))),
        spans=",".join(settings.texts("spans", (SPANS,))),
        time=settings.text("time", "@timestamp"),
        fields=fields,
        piece=int(settings.number("piece", PIECE)),
        parallel=int(settings.number("parallel", PARALLEL)),
    )


class Elasticsearch:
    """A cluster as a source of logs and spans (see `source.TraceSource`).

    A pattern that matches no index is no error when both patterns are the defaults, as not every
    cluster has both.
    """

    kind = "elasticsearch"

    def __init__(
        self,
        name: str,
        to: Connection,
        api_key: Secret | None = None,
        *,
        logs: str = LOGS,
        spans: str = SPANS,
        time: str = "@timestamp",
        fields: FieldNames | None = None,
        piece: int = PIECE,
        parallel: int = PARALLEL,
    ) -> None:
        self.name = name
        self.tables = tuple(table for table, index in (("logs", logs), ("spans", spans)) if index)
        self.logs, self.spans, self.time = logs, spans, time
        self.fields = fields or FieldNames()
        self.refused: Counter[str] = Counter()
        self.client = Elastic(name, to, api_key)
        self._piece, self._parallel = max(1, piece), max(1, parallel)
        self._logs_page = PageReader()

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "address": self.client.address,
            "logs": self.logs,
            "spans": self.spans,
            "time": self.time,
        }

    def close(self) -> None:
        self.client.close()

    def check(self, window: Window) -> list[Check]:
        try:
            return elasticsearch_checks.checks(self, window)
        except SourceError as error:
            return [failed(self, "reachable", error)]

    def plan(self, window: Window, query: Query) -> list[Piece]:
        """Pieces of logs and of spans. Raises SourceError when neither pattern has an index, when
        logs have no time field, or when a query finds more traces than can be asked for.
        """
        logs = self._log_pieces(window, query)
        spans = self._span_pieces(window, query)
        if logs is None and spans is None:
            raise SourceError(
                f"{self.name}: no index of {self.client.address} matches "
                f"{' or '.join(filter(None, (self.logs, self.spans)))}; give logs and spans the "
                "patterns of your indices (GET _cat/indices lists them)."
            )
        return [*(logs or []), *(spans or [])]

    def fetch_piece(self, piece: Piece) -> Tables:
        """All rows of a piece. Raises SourceError."""
        for left in range(TRIES - 1, -1, -1):
            refused: Counter[str] = Counter()
            try:
                tables = list(self._tables(piece, refused))
            except Expired as error:
                if not left:
                    raise SourceError(
                        f"{error} It expired {TRIES} times; ask for smaller pieces (piece = "
                        f"{self._piece // 4})."
                    ) from None
                continue
            self.refused.update(refused)
            yield from tables
            return

    def roots(self, window: Window, query: Query) -> pa.Table:
        """One row per trace whose root began in the window: see `source.TraceSource`."""
        tables = [pa.table({name: pa.array([], type_) for name, type_ in _ROOT_TYPES.items()})]
        for kind in self._kinds():
            found = {**self._filter(kind, window, query, traces=None)}
            rootless = {"bool": {"must_not": [{"exists": {"field": kind.parent}}]}}
            both = {"bool": {"filter": [found, rootless]}}
            wanted = [kind.trace, kind.time, *kind.service, *kind.operation, *kind.duration]
            wanted += [kind.exists, "startTime", "spanID", "span_id", "transaction.id", "span.id"]
            for documents in self.client.pages(self.spans, both, 5000, _source=wanted):
                made, _ = elasticsearch_spans.rows(kind, documents)
                made = made.filter(_within(made["start"], window))
                tables.append(made.select(list(_ROOT_TYPES)).cast(pa.schema(_ROOT_TYPES.items())))
        return pa.concat_tables(tables)

    # logs

    def _log_pieces(self, window: Window, query: Query) -> list[Piece] | None:
        if not self.logs:
            return None
        caps = self.field_types(self.logs)
        if not caps:
            return None
        if self.time not in caps:
            dates = [name for name, types in caps.items() if types & {"date", "date_nanos"}]
            raise SourceError(
                f"{self.name}: the indices {self.logs} have no field {self.time}; set time to one "
                f"of their dates ({', '.join(sorted(dates)[:8]) or 'they have none'})."
            )
        if not caps[self.time] & {"date", "date_nanos"}:
            raise SourceError(
                f"{self.name}: {self.time} of {self.logs} is mapped as "
                f"{', '.join(sorted(caps[self.time]))}, not as a date, so it cannot be searched by "
                "time; map it as date_nanos in the index template."
            )
        searched = {"bool": {"filter": [_range(self.time, window), *self._log_terms(query, caps)]}}
        counted = Counted(self.client, self.logs, self.time, searched)
        return [
            Piece(
                key=f"logs:{part.window.start}-{part.window.end}",
                window=part.window,
                text=f"{self.logs}: {self.time} from {iso(part.window.start)} to before "
                f"{iso(part.window.end)}{_said(query)}",
                request={
                    "table": "logs",
                    "services": list(query.services),
                    "traces": list(query.trace_ids),
                    "limit": query.limit,
                    "page": page_size(part.average),
                },
                rows=part.count,
                bytes=int(part.count * part.average),
            )
            for part in cut_by_count(counted, window, self._piece)
        ]

    def _log_terms(self, query: Query, caps: Mapping[str, set[str]]) -> list[dict[str, Any]]:
        """Filters that leave at least what is wanted; the exact ones follow on the rows."""
        terms = []
        if query.services:
            names = [*self.fields.roles["service"], *WORKLOADS]
            terms.append(_any_of(names, list(query.services), caps))
        if query.trace_ids:
            forms = [form for trace in query.trace_ids for form in _spellings(trace)]
            terms.append(_any_of(self.fields.roles["trace_id"], forms, caps))
        return [term for term in terms if term]

    # spans

    def _kinds(self) -> list[Kind]:
        """The kinds of span documents that the indices hold."""
        if not self.spans:
            return []
        caps = self.field_types(self.spans)
        return [
            kind for kind in KINDS_OF_SPANS if {kind.time, kind.exists, kind.trace} <= set(caps)
        ]

    def _span_pieces(self, window: Window, query: Query) -> list[Piece] | None:
        if not self.spans or not self.field_types(self.spans):
            return None
        pieces = []
        for kind in self._kinds():
            traces: list[str] | None = list(query.trace_ids) or None
            restricted = query.operations or query.tags or query.min_duration or query.services
            if traces is None and restricted:
                traces = self._matching(kind, window, query)
            if traces is not None:
                pieces += self._by_trace(kind, window, traces)
                continue
            searched = self._filter(kind, window, query, traces=None)
            counted = Counted(self.client, self.spans, kind.time, searched)
            pieces += [
                Piece(
                    key=f"spans:{kind.name}:{part.window.start}-{part.window.end}",
                    window=part.window,
                    text=f"{self.spans}: spans of {kind.name}, {kind.time} from "
                    f"{iso(part.window.start)} to before {iso(part.window.end)}",
                    request={
                        "table": "spans",
                        "kind": kind.name,
                        "limit": query.limit,
                        "page": page_size(part.average),
                    },
                    rows=part.count,
                    bytes=int(part.count * part.average),
                )
                for part in cut_by_count(counted, window, self._piece)
            ]
        return pieces

    def _by_trace(self, kind: Kind, window: Window, traces: list[str]) -> list[Piece]:
        """Whole traces, wherever in time their spans lie."""
        traces = sorted(set(traces))
        return [
            Piece(
                key=f"spans:{kind.name}:{traces[first]}+{len(traces[first : first + TRACES])}",
                window=window,
                text=f"{self.spans}: spans of {kind.name} of "
                f"{len(traces[first : first + TRACES])} traces from {traces[first]} on",
                request={
                    "table": "spans",
                    "kind": kind.name,
                    "traces": traces[first : first + TRACES],
                    "page": 1000,
                },
            )
            for first in range(0, len(traces), TRACES)
        ]

    def _matching(self, kind: Kind, window: Window, query: Query) -> list[str]:
        """Traces that have a span for each of the conditions."""
        found: set[str] | None = None
        conditions = [
            *([Query(services=query.services, operations=query.operations, tags=query.tags)]),
            *([Query(min_duration=query.min_duration)] if query.min_duration else []),
        ]
        for condition in conditions:
            searched = self._filter(kind, window, condition, traces=None)
            traces: set[str] = set()
            for documents in self.client.pages(self.spans, searched, 5000, _source=[kind.trace]):
                for document in documents:
                    content = elasticsearch_spans.decoded(document)
                    traces.add(trace_id(elasticsearch_spans.field_of(content, kind.trace)))
                if len(traces) > MOST_TRACES:
                    raise SourceError(
                        f"{self.name}: more than {MOST_TRACES:,} traces match; ask for a shorter "
                        "window, a longer minimum duration, or one operation."
                    )
            traces.discard("")
            found = traces if found is None else found & traces
        matching = sorted(found or ())
        return matching[: query.limit] if query.limit else matching

    def _filter(
        self, kind: Kind, window: Window, query: Query, traces: list[str] | None
    ) -> dict[str, Any]:
        filters: list[dict[str, Any]] = [{"exists": {"field": kind.exists}}]
        if traces is None:
            filters.append(_range(kind.time, window))
        else:
            forms = [form for trace in traces for form in _spellings(trace)]
            filters.append(_any_of([kind.trace], forms, self.field_types(self.spans)))
        caps = self.field_types(self.spans)
        if query.services:
            filters.append(_any_of(kind.service, list(query.services), caps))
        if query.operations:
            filters.append(_any_of(kind.operation, list(query.operations), caps))
        for key, value in query.tags.items():
            names = [f"{prefix}{key}" for prefix in kind.tags]
            names += [f"{prefix}{key.replace('.', '@')}" for prefix in kind.tags]
            filters.append(_tag(names, key, value, caps))
        if query.min_duration:
            least = -(-query.min_duration // kind.unit)
            filters.append(_should([{"range": {name: {"gte": least}}} for name in kind.duration]))
        return {"bool": {"filter": filters}}

    # both

    def field_types(self, index: str) -> dict[str, set[str]]:
        """Field -> its types in the indices of a pattern; empty when no index matches."""
        answer: dict[str, Any] = self.client.ask(
            "GET", f"/{index}/_field_caps", fields="*", allow_no_indices="true",
            ignore_unavailable="false",
        )  # fmt: skip
        if not answer.get("indices"):
            return {}
        return {name: set(types) - {"unmapped"} for name, types in answer["fields"].items()}

    def _tables(self, piece: Piece, refused: Counter[str]) -> Iterator[tuple[str, pa.Table]]:
        request = piece.request
        table, limit = request["table"], int(request.get("limit") or 0)
        if table == "logs":
            index, kind = self.logs, None
            caps = self.field_types(index) if request["services"] or request["traces"] else {}
            wanted = Query(tuple(request["services"]), trace_ids=tuple(request["traces"]))
            searched: dict[str, Any] = {
                "bool": {
                    "filter": [_range(self.time, piece.window), *self._log_terms(wanted, caps)]
                }
            }
        else:
            index = self.spans
            kind = next(each for each in KINDS_OF_SPANS if each.name == request["kind"])
            searched = self._filter(kind, piece.window, Query(), request.get("traces"))
        taken = 0
        read = self._logs_page if kind is None else page
        for documents in self._documents(index, searched, int(request["page"]), piece.rows, read):
            if kind is None:
                rows, why = elasticsearch_logs.rows(documents, self.fields)
                rows = _wanted_logs(rows, piece)
                if self.fields.roles["time"][:1] in ((self.time,), ()):
                    rows = rows.filter(_within(rows["time"], piece.window))
            else:
                rows, why = elasticsearch_spans.rows(kind, documents)
                if request.get("traces") is None:
                    rows = rows.filter(_within(rows["start"], piece.window))
            refused.update(why)
            if limit:
                rows = rows.slice(0, limit - taken)
            taken += rows.num_rows
            if rows.num_rows:
                yield table, rows
            if limit and taken >= limit:
                return

    def _documents(
        self,
        index: str,
        query: Mapping[str, Any],
        size: int,
        expected: int | None,
        read: Callable[[bytes], Page],
    ) -> Iterator[list[Document]]:
        """Pages of one point in time, from several slices at once."""
        slices = self._parallel if (expected or 0) > size else 1
        with self.client.point_in_time(index) as pit:
            if slices == 1:
                yield from self.client.pages_at(pit, query, size, read)
                return
            with ThreadPoolExecutor(slices) as pool:
                readers = [
                    self.client.pages_at(
                        pit, query, size, read, slice={"id": number, "max": slices}
                    )
                    for number in range(slices)
                ]
                # One page of each slice is on its way while another is made into rows.
                waiting = [(reader, pool.submit(next, reader, None)) for reader in readers]
                while waiting:
                    reader, promise = waiting.pop(0)
                    documents = promise.result()
                    if documents is not None:
                        waiting.append((reader, pool.submit(next, reader, None)))
                        yield documents


_ROOT_TYPES: dict[str, pa.DataType] = {
    "trace_id": pa.string(),
    "service": pa.string(),
    "name": pa.string(),
    "start": pa.timestamp("ns", tz="UTC"),
    "duration_ns": pa.int64(),
}


def _range(field: str, window: Window) -> dict[str, Any]:
    """Documents of a window by a date field of milliseconds or finer; some more at its edges."""
    first, last = window.start // 1_000_000, -(-window.end // 1_000_000)
    return {"range": {field: {"gte": first, "lt": last, "format": "epoch_millis"}}}


def _within(times: pa.ChunkedArray, window: Window) -> pa.ChunkedArray:
    number = times.cast(pa.int64())
    return pc.and_(pc.greater_equal(number, window.start), pc.less(number, window.end))


def _wanted_logs(rows: pa.Table, piece: Piece) -> pa.Table:
    for column, wanted in (("service", "services"), ("trace_id", "traces")):
        if piece.request[wanted]:
            allowed = pa.array(piece.request[wanted], pa.string())
            rows = rows.filter(pc.is_in(rows[column].cast(pa.string()), value_set=allowed))
    return rows


def _spellings(trace: str) -> list[str]:
    return [each for form in written_forms(trace) for each in (form, form.upper())]


def _should(terms: list[dict[str, Any]]) -> dict[str, Any]:
    return {"bool": {"should": terms, "minimum_should_match": 1}}


def _any_of(names: Any, values: list[str], caps: Mapping[str, set[str]]) -> dict[str, Any]:
    """Documents of which one of some fields has one of some values; by text, if it must be."""
    terms: list[dict[str, Any]] = []
    for name in names:
        for each in (name, f"{name}.keyword"):
            types = caps.get(each, set())
            if types & {"keyword", "constant_keyword", "wildcard"}:
                terms.append({"terms": {each: values}})
            elif "text" in types and f"{each}.keyword" not in caps:
                terms += [{"match_phrase": {each: value}} for value in values]
    return _should(terms) if terms else {"match_none": {}}


def _tag(names: list[str], key: str, value: str, caps: Mapping[str, set[str]]) -> dict[str, Any]:
    found = [_any_of([name], [value], caps) for name in names if name in caps]
    numbers = {"long", "integer", "short", "byte", "double", "float", "boolean", "unsigned_long"}
    found += [{"term": {name: value}} for name in names if caps.get(name, set()) & numbers]
    if "tags" in caps or "tags.key" in caps:  # Jaeger keeps what it does not index by name
        inside = {
            "bool": {"filter": [{"term": {"tags.key": key}}, {"term": {"tags.value": value}}]}
        }
        nested = "nested" in caps.get("tags", set())
        found.append({"nested": {"path": "tags", "query": inside}} if nested else inside)
    return _should(found) if found else {"match_none": {}}


def _said(query: Query) -> str:
    parts = [f"service {', '.join(query.services)}" if query.services else ""]
    parts.append(f"{len(query.trace_ids)} traces" if query.trace_ids else "")
    return "".join(f"; {part}" for part in parts if part)
