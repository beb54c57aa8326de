"""The samples of counters over a window, from a Prometheus or from a Recording."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from ragprof.errors import RagprofError
from ragprof.monitoring.promql import Selector, quoted
from ragprof.slo.counters import Floats, Series, scrape_interval
from ragprof.slo.prometheus import Prometheus, Row

if TYPE_CHECKING:
    from ragprof.recording import Recording

LEAD = 3600.0
"""Seconds read before a window, so that its first increments have a sample before them."""
CHUNK = 86_400.0  # seconds of stored points asked for at once
MOST_POINTS = 20_000_000
COARSE = 60.0  # seconds between points when there are more than that


@dataclass(frozen=True)
class Samples:
    """What was read: the series of each selector, and the times of the scrapes.

    `interval` is the usual distance of scrapes in seconds; `note` says what is not exact.
    """

    series: Mapping[Selector, list[Series]]
    scrapes: list[Floats]
    interval: float
    note: str = ""


class Source(Protocol):
    """Where samples come from."""

    def window(self) -> tuple[float, float] | None:
        """First and last instant when the data itself has them (s since 1970); else None."""
        ...

    def samples(self, selectors: Sequence[Selector], since: float, until: float) -> Samples:
        """The samples of counters from `since` to `until` and a while before."""
        ...


def source_of(where: str | Recording) -> Source:
    """The source behind a URL or a Recording."""
    return PrometheusSource(where) if isinstance(where, str) else RecordingSource(where)


class PrometheusSource:
    """Stored points of a Prometheus, day by day."""

    def __init__(self, url: str) -> None:
        self.prometheus = Prometheus(url)

    def window(self) -> tuple[float, float] | None:
        return None

    def samples(self, selectors: Sequence[Selector], since: float, until: float) -> Samples:
        begin = since - LEAD
        rows, coarse = self._read([str(each) for each in selectors], begin, until)
        # Only of the targets that have these counters: a server may scrape thousands of others.
        jobs = {labels.get("job", "") for found in rows.values() for labels, _, _ in found}
        own = f"{{job=~{quoted('|'.join(sorted(map(re.escape, jobs))))}}}"
        facts, _ = self._read([f"up{own}", f"process_start_time_seconds{own}"], begin, until)
        ups, starts = (_by_target(found) for found in facts.values())
        interval = scrape_interval([times for times, _ in ups.values()])
        return Samples(
            {
                each: [_series(row, ups, starts, interval) for row in rows[str(each)]]
                for each in selectors
            },
            [times[values > 0] for times, values in ups.values()],
            interval,
            f"too many points: resolved to {COARSE:g} s" if coarse else "",
        )

    def _read(
        self, texts: Sequence[str], begin: float, until: float
    ) -> tuple[dict[str, list[Row]], bool]:
        """The rows of each selector, day by day; whether they were too many for every point."""
        coarse = False
        joined: dict[str, list[Row]] = {}
        for text in texts:
            found: dict[str, tuple[dict[str, str], list[Floats], list[Floats]]] = {}
            taken, at = 0, until
            while at > begin:
                low = max(begin, at - CHUNK)
                if coarse:
                    rows = self.prometheus.query_range(text, low, at, COARSE)
                else:
                    rows = self.prometheus.stored(text, low, at)
                for labels, times, values in rows:
                    key = repr(sorted(labels.items()))
                    _, all_times, all_values = found.setdefault(key, (labels, [], []))
                    all_times.append(times)
                    all_values.append(values)
                    taken += len(times)
                coarse = coarse or taken * (until - begin) / (until - low) > MOST_POINTS
                at = low
            joined[text] = [
                (labels, np.concatenate(times[::-1]), np.concatenate(values[::-1]))
                for labels, times, values in found.values()
            ]
        return joined, coarse


class RecordingSource:
    """The scraped points of a Recording; cumulative counters, as Prometheus has them."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def window(self) -> tuple[float, float] | None:
        begin, end = self.recording.window
        return begin.value / 1e9, end.value / 1e9

    def samples(self, selectors: Sequence[Selector], since: float, until: float) -> Samples:
        wanted = [*selectors, Selector("up"), Selector("process_start_time_seconds")]
        joined = recorded(self.recording, wanted, since - LEAD, until)
        ups = _by_target(joined[Selector("up")])
        starts = _by_target(joined[Selector("process_start_time_seconds")])
        interval = scrape_interval([times for times, _ in ups.values()], default=1.0)
        return Samples(
            {
                each: [_series(row, ups, starts, interval) for row in joined[each]]
                for each in selectors
            },
            [times[values > 0] for times, values in ups.values()],
            interval,
        )


def recorded(
    recording: Recording, selectors: Sequence[Selector], since: float, until: float
) -> dict[Selector, list[Row]]:
    """The series of a Recording that selectors mean; histograms are read by their sample names.

    Raises RecordingError for a damaged table.
    """
    import pyarrow.dataset as ds

    dictionary = recording.table("series", ["series_id", "name", "labels", "type"]).to_pylist()
    found: dict[Selector, list[Row]] = {each: [] for each in selectors}
    plans: dict[int, list[tuple[Selector, dict[str, str], str]]] = {}
    for entry in dictionary:
        labels = dict(entry["labels"] or [])
        for each in selectors:
            part = _part(each, str(entry["name"]), str(entry["type"]), labels)
            if part is not None:
                plans.setdefault(entry["series_id"], []).append((each, labels, part))
    if not plans:
        return found
    rows: dict[int, list[dict[str, Any]]] = {}
    for batch in recording.scan("metrics", ds.field("series_id").isin(list(plans))):
        for row in batch.select(["series_id", "time", "value", "histogram"]).to_pylist():
            rows.setdefault(row["series_id"], []).append(row)
    for series_id, points in rows.items():
        times = np.array([pd.Timestamp(point["time"]).value for point in points]) / 1e9
        inside = (times >= since) & (times <= until)
        for each, labels, part in plans[series_id]:
            for more, values in _values(points, part, each):
                good = inside & ~np.isnan(values)
                order = np.argsort(times[good], kind="stable")
                if len(order):
                    row_of = ({**labels, **more}, times[good][order], values[good][order])
                    found[each].append(row_of)
    return found


def _part(selector: Selector, name: str, type_: str, labels: dict[str, str]) -> str | None:
    """Which part of a series a selector means: value, count, sum or bucket; None: not this one."""
    without_le = Selector(name, tuple(each for each in selector.matchers if each[0] != "le"))
    if not without_le.matches(name, labels):
        return None
    if type_ in ("histogram", "summary"):
        rest = selector.metric.removeprefix(name)
        parts = {"_count": "count", "_sum": "sum", "_bucket": "bucket"}
        return parts.get(rest) if selector.metric.startswith(name) else None
    return "value" if selector.metric == name else None


def _values(
    points: list[dict[str, Any]], part: str, selector: Selector
) -> Iterable[tuple[dict[str, str], Floats]]:
    if part == "value":
        yield {}, np.array([_number(point["value"]) for point in points])
        return
    histograms = [point["histogram"] or {} for point in points]
    if part in ("count", "sum"):
        yield {}, np.array([_number(each.get(part)) for each in histograms])
        return
    bounds = {bound for each in histograms for bound in each.get("bounds") or ()}
    for bound in sorted(bounds):
        text = go_number(bound)
        matchers = tuple(each for each in selector.matchers if each[0] == "le")
        if _le_matches(matchers, bound, text):
            yield {"le": text}, np.array([_cumulative(each, bound) for each in histograms])


def _le_matches(matchers: tuple[tuple[str, str, str], ...], bound: float, text: str) -> bool:
    """Bounds are compared as numbers: le="1" and le="1.0" are the same."""
    for _, operator, value in matchers:
        if operator == "=":
            try:
                if float(value) != bound:
                    return False
            except ValueError:
                return False
        elif not Selector("", (("le", operator, value),)).matches("", {"le": text}):
            return False
    return True


def go_number(value: float) -> str:
    """A bucket's bound as prometheus_client writes it."""
    from prometheus_client.utils import floatToGoString

    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _cumulative(histogram: dict[str, Any], bound: float) -> float:
    bounds, counts = histogram.get("bounds") or [], histogram.get("counts") or []
    if bound not in bounds:
        return math.nan
    return float(sum(counts[: bounds.index(bound) + 1]))


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _target(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get("job", labels.get("service", "")), labels.get("instance", "")


def _by_target(rows: Iterable[Row]) -> dict[tuple[str, str], tuple[Floats, Floats]]:
    return {_target(labels): (times, values) for labels, times, values in rows}


def _series(
    row: Row,
    ups: Mapping[tuple[str, str], tuple[Floats, Floats]],
    starts: Mapping[tuple[str, str], tuple[Floats, Floats]],
    interval: float,
) -> Series:
    """A counter with the moment at which it stood at zero, when the target's history tells it."""
    labels, times, values = row
    zero: float | None = None
    first = float(times[0])
    target = _target(labels)
    if target in ups:
        when, up = ups[target]
        before = when[(up > 0) & (when < first - interval / 2)]
        if len(before):  # the target was scraped and did not have this series yet
            zero = float(before[-1])
    if target in starts:
        when, began = starts[target]
        known = np.searchsorted(when, first, side="right") - 1
        if known >= 0 and began[known] < first and (zero is None or began[known] > zero):
            zero = float(began[known])
    return Series(times, values, zero, labels)


def whole_window(source: Source, days: float, now: float) -> tuple[float, float]:
    """The window of so many days that ends now, or at the end of a Recording."""
    own = source.window()
    end = own[1] if own else now
    if days <= 0:
        raise RagprofError("a window has more than 0 days; correct it")
    return end - days * 86_400.0, end
