"""Prometheus, and what answers like it: Thanos, Mimir, VictoriaMetrics.

Stored points come from range selectors, expressions from `query_range`; the latter's series carry
the labels `expression` and `resampled`, because `query_range` fills gaps. Stale markers are not in
the answers of the API: a series that went away has no more points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from ragprof.rows import conform
from ragprof.sources import prometheus_changes as changes
from ragprof.sources import prometheus_selectors as selectors
from ragprof.sources import prometheus_series as series
from ragprof.sources.http import Client, Connection, Refused, connection
from ragprof.sources.prometheus_api import MS, Api, edges, seconds, too_large
from ragprof.sources.prometheus_matrix import Matrix
from ragprof.sources.prometheus_selectors import Selector
from ragprof.sources.settings import ConfigError, Settings
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

PIECE_POINTS = 200_000  # stored points of one request
PIECE_NAMES = 200  # metrics of one request
LOOK = 300_000  # ms that the plan looks at, in three places of the window
PACE_NAMES = 4  # metrics whose points are counted for it
STEPS = 10_000  # of one query_range; the server refuses more than 11,000
POINT_BYTES = 34  # of an answer
SERVICE_LABELS = ("service", "service_name", "app", "job")
EVERYTHING = '{__name__!=""}'
GAP_PARTS = 10  # of a window; the fullest shows a target's pace
SKEW = 2.0  # seconds of difference between clocks that are worth a word


class Prometheus:
    """A source (see `ragprof.sources.source`).

    `match` are selectors of stored points, `expressions` PromQL by name, evaluated every `step`
    seconds; the first of `service_labels` that a series has names its service. Raises
    ConfigError for a selector that cannot be.
    """

    kind = "prometheus"
    tables: tuple[str, ...] = ("metrics", "changes")

    def __init__(
        self,
        client: Client,
        *,
        match: tuple[str, ...] = (EVERYTHING,),
        expressions: Mapping[str, str] | None = None,
        step: float = 15.0,
        service_labels: tuple[str, ...] = SERVICE_LABELS,
        params: Mapping[str, str] | None = None,
    ) -> None:
        self.name = client.name
        self.api = Api(client, params)
        self.expressions, self.step = dict(expressions or {}), max(1, round(step * 1000))  # ms
        self._selectors = [selectors.parse(text) for text in match]
        self._service_labels = service_labels
        self._version = ""

    # The interface of sources

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "address": self.api.client.to.address,
            "version": self._version,
            "match": [str(each) for each in self._selectors],
            "expressions": self.expressions,
            "warnings": dict(self.api.warnings),
        }

    def check(self, window: Window) -> list[Check]:
        try:
            self._version = self.api.version()
        except SourceError as error:
            return [failed(self, "reachable", error)]
        address = self.api.client.to.address
        found = [Check(self.name, "reachable", OK, f"{address} answers ({self._version or '?'})")]
        for subject, look in (
            ("metrics", self._check_points),
            ("gaps", self._check_gaps),
            ("exemplars", self._check_exemplars),
            ("clock", self._check_clock),
        ):
            try:
                found.append(look(window))
            except SourceError as error:
                found.append(failed(self, subject, error))
        return found

    def plan(self, window: Window, query: Query) -> list[Piece]:
        first, last = edges(window)
        if first > last:
            return []
        self._version = self._version or self.api.version()
        pieces: list[Piece] = []
        for number, selector in enumerate(self._selectors):
            for names, rate in self._batches(selector, first, last):
                pieces += self._stored_pieces(number, names, rate, window, query)
        for name in self.expressions:
            pieces += self._resampled_pieces(name, window)
        pieces.append(Piece("changes", window, "alerts, restarts, versions", {"is": "changes"}))
        return pieces

    def fetch_piece(self, piece: Piece) -> Tables:
        kind = piece.request["is"]
        if kind == "changes":
            yield "changes", conform("changes", changes.rows(self, piece.window))
        elif kind == "expression":
            yield from self._expression(piece)
        else:
            yield from self._points(piece)

    def close(self) -> None:
        self.api.client.close()

    # What the changes need too

    def service_of(self, labels: Mapping[str, str]) -> str:
        """The service that a label set names, or empty."""
        return next((labels[key] for key in self._service_labels if labels.get(key)), "")

    def selectors_of(self, op: str, name: str) -> list[Selector]:
        """The configured selectors with their matchers of the name replaced by this one."""
        others = {
            Selector(tuple(each for each in selector.matchers if each[0] != "__name__"))
            for selector in self._selectors
        }
        if Selector(()) in others:
            others = {Selector(())}
        return [each.also("__name__", op, name) for each in sorted(others, key=str)]

    # Planning

    def _batches(
        self, selector: Selector, first: int, last: int
    ) -> Iterator[tuple[list[str], float]]:
        """Names that are fetched together, and their points per ms.

        The parts of a histogram stay together, so that they become one series.
        """
        counts = dict.fromkeys(self.api.names(selector, first, last), 0.0)
        look = min(LOOK, last - first + 1)
        for end in sorted({first + look - 1, (first + last) // 2, last}):
            for labels, count in self._estimate(f"count by (__name__) ({selector})", end):
                name = labels.get("__name__", "")
                counts[name] = max(counts.get(name, 0.0), count)
        pace = self._pace(selector, sorted(counts), look, last)
        rates = {name: count * pace for name, count in counts.items()}
        families: dict[str, list[str]] = {}
        for name in sorted(rates):
            families.setdefault(_family(name), []).append(name)
        batch, rate, span = list[str](), 0.0, last - first + 1
        for members in families.values():
            more = sum(rates[name] for name in members)
            if batch and ((rate + more) * span > PIECE_POINTS or len(batch) >= PIECE_NAMES):
                yield batch, rate
                batch, rate = [], 0.0
            batch, rate = batch + members, rate + more
        if batch:
            yield batch, rate

    def _pace(self, selector: Selector, names: list[str], look: int, last: int) -> float:
        """Points per ms of one series, the mean of a few metrics."""
        points = series_seen = 0.0
        for name in names[:: max(1, len(names) // PACE_NAMES)]:
            one = selector.named([name])
            for _, count in self._estimate(f"sum(count_over_time({one}[{look}ms]))", last):
                points += count
            for _, count in self._estimate(f"count(last_over_time({one}[{look}ms]))", last):
                series_seen += count
        return points / series_seen / look if series_seen else 0.0

    def _estimate(self, expression: str, at: int) -> list[tuple[dict[str, str], float]]:
        """A vector for the plan; empty where the server finds even that too large."""
        try:
            return self.api.vector(expression, at)
        except Refused as error:
            if too_large(error):
                return []
            raise

    def _stored_pieces(
        self, number: int, names: list[str], rate: float, window: Window, query: Query
    ) -> Iterator[Piece]:
        length = round(PIECE_POINTS / rate) * MS if rate else window.end - window.start
        selector = self._selectors[number].named(names)
        for cut in window.cut(max(length, 1000 * MS)):
            points = round(rate * cut.seconds * 1000)
            first, last = edges(cut)
            yield Piece(
                key=f"points-{number}-{names[0]}-{cut.start}",
                window=cut,
                text=f"{selector}[{last - first + 1}ms] at {seconds(last)}",
                request={
                    "is": "points",
                    "selector": number,
                    "names": names,
                    "services": list(query.services),
                },
                rows=points,
                bytes=points * POINT_BYTES,
            )

    def _resampled_pieces(self, name: str, window: Window) -> Iterator[Piece]:
        start = -(-window.start // (self.step * MS)) * self.step * MS
        if start >= window.end:
            return
        for cut in Window(start, window.end).cut(STEPS * self.step * MS):
            steps = -(-(cut.end - cut.start) // (self.step * MS))
            yield Piece(
                key=f"expression-{name}-{cut.start}",
                window=cut,
                text=f"{self.expressions[name]} every {self.step / 1000:g} s",
                request={"is": "expression", "name": name},
                rows=steps,
                bytes=steps * POINT_BYTES,
            )

    # Fetching

    def _points(self, piece: Piece) -> Tables:
        number, services = piece.request["selector"], set(piece.request["services"])
        selector = self._selectors[number].named(piece.request["names"])
        earlier = self._selectors[:number]
        base = 0

        def wanted(labels: Mapping[str, str]) -> bool:
            return not any(each.matches(labels) for each in earlier) and (
                not services or self.service_of(labels) in services
            )

        for found, first, last in self.api.stored(selector, *edges(piece.window)):
            exemplars = self.api.exemplars(selector, first, last)
            exemplars = [(labels, rows) for labels, rows in exemplars if wanted(labels)]
            kept = _kept(found, [wanted(labels) for labels in found.labels])
            rows, points = series.tables(kept, exemplars, self.api.metadata(), self.service_of)
            yield "series", _shifted(rows, base)
            yield "metrics", _shifted(points, base)
            base += rows.num_rows

    def _expression(self, piece: Piece) -> Tables:
        name = piece.request["name"]
        first, last = edges(piece.window)
        found = self.api.matrix(
            "/api/v1/query_range",
            {
                "query": self.expressions[name],
                "start": seconds(first),
                "end": seconds(last),
                "step": seconds(self.step),
            },
        )
        own = {
            "__name__": name,
            "expression": self.expressions[name],
            "resampled": f"{self.step / 1000:g} s",
        }
        found.labels = [{**labels, **own} for labels in found.labels]
        yield from zip(
            ("series", "metrics"),
            series.tables(found, [], series.Metadata(), self.service_of),
            strict=True,
        )

    # Checks

    def _check_points(self, window: Window) -> Check:
        _, last = edges(window)
        counts = [self.api.vector(f"count({each})", last) for each in self._selectors]
        total = int(sum(value for vector in counts for _, value in vector))
        if total:
            return Check(self.name, "metrics", OK, f"{total:,} series at the window's end")
        return Check(
            self.name,
            "metrics",
            WARNING,
            "no series match at the window's end",
            "check match in the configuration, and that the targets are scraped",
        )

    def _check_gaps(self, window: Window) -> Check:
        first, last = edges(window)
        span = last - first + 1
        part = max(1, span // GAP_PARTS)
        worst, least = "", 1.0
        for selector in self.selectors_of("=", "up"):
            points = self.api.vector(f"count_over_time({selector}[{span}ms])", last)
            fullest = f"max_over_time(count_over_time({selector}[{part}ms])[{span}ms:{part}ms])"
            # Both edges may count, so one point less is the pace.
            pace = {
                _key(labels): (value - 1) / part for labels, value in self.api.vector(fullest, last)
            }
            for labels, value in points:
                share = value / (pace.get(_key(labels), 0.0) * span or value)
                if share < least:
                    least, worst = share, labels.get("instance", "")
        if least < 0.9:
            return Check(
                self.name,
                "gaps",
                WARNING,
                f"{worst or 'a target'} has {least:.0%} of the points that its pace gives",
                "expect holes: Prometheus or the target was away for a part of the window",
            )
        return Check(self.name, "gaps", OK, "no target has large gaps")

    def _check_exemplars(self, window: Window) -> Check:
        for selector in self._selectors:
            for _, rows in self.api.exemplars(selector, *edges(window)):
                if any(row["trace_id"] for row in rows):
                    return Check(self.name, "exemplars", OK, "exemplars carry trace ids")
        return Check(
            self.name,
            "exemplars",
            WARNING,
            "no exemplars with trace ids: metrics join spans by service and time only",
            "start Prometheus with --enable-feature=exemplar-storage, expose OpenMetrics",
        )

    def _check_clock(self, window: Window) -> Check:
        ahead = self.api.client.clock_ahead or 0.0
        if abs(ahead) <= SKEW:
            return Check(self.name, "clock", OK, f"its clock agrees within {SKEW:g} s")
        return Check(
            self.name,
            "clock",
            WARNING,
            f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours",
            "synchronise the clocks, or widen the window",
        )


def connect(settings: Settings) -> Prometheus:
    """The source that a section describes; raises ConfigError.

    Fields beside those of `http.connection`: match, expressions, step (s), service_labels, params.
    """
    to = connection(settings)
    try:
        return Prometheus(
            Client(settings.name, to),
            match=settings.texts("match", (EVERYTHING,)),
            expressions=_texts(settings, "expressions"),
            step=settings.number("step", 15.0),
            service_labels=settings.texts("service_labels", SERVICE_LABELS),
            params=_texts(settings, "params"),
        )
    except ConfigError as error:
        raise ConfigError(f"{settings.where}: {error}") from None


def from_connect(connect: Any, **options: Any) -> Prometheus:
    """The source on the connection of a `prometheus_api_client.PrometheusConnect`.

    Its session with TLS, authentication, proxies and headers is used as it is; `options` are
    those of `Prometheus`.
    """
    from ragprof.sources.prometheus_client_library import SessionTransport  # needs requests

    to = Connection(url=connect.url.rstrip("/"))
    return Prometheus(Client("prometheus", to, transport=SessionTransport(connect)), **options)


def _texts(settings: Settings, field: str) -> dict[str, str]:
    table = settings.table(field)
    if not all(isinstance(value, str) for value in table.values()):
        raise settings.wrong(field, 'must hold texts only, such as {name = "…"}')
    return table


def _family(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in labels.items() if key != "__name__"))


def _kept(found: Matrix, wanted: list[bool]) -> Matrix:
    if all(wanted):
        return found
    rows = np.repeat(np.array(wanted, bool), found.lengths)
    return Matrix(
        [labels for labels, keep in zip(found.labels, wanted, strict=True) if keep],
        found.lengths[np.array(wanted, bool)],
        found.times[rows],
        found.values[rows],
        [each for each, keep in zip(found.histograms, wanted, strict=True) if keep],
        found.warnings,
    )


def _shifted(rows: pa.Table, by: int) -> pa.Table:
    if not by:
        return rows
    at = rows.column_names.index("series_id")
    shifted = pa.array(rows.column("series_id").to_numpy() + by)
    return rows.set_column(at, rows.field(at), shifted)
