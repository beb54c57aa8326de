"""Stored points of Prometheus -> rows of `metrics` and `series`.

The buckets, sum and count of a classic histogram become one series with counts per bucket, as a
scrape gives it; native histograms become the same struct. A series is labelled with its service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ragprof.sources.exposition import SPAN_LABELS, TRACE_LABELS
from ragprof.sources.http import Garbled
from ragprof.sources.prometheus_matrix import Floats, Integers, Matrix
from ragprof.sources.series import Series, labels
from ragprof.tables import ATTRIBUTES, METRICS, TEXT

MS = 1_000_000  # ns
SUFFIXES = ("_bucket", "_sum", "_count", "_total", "_created", "_info")
TYPES = {
    "counter": "counter",
    "gauge": "gauge",
    "histogram": "histogram",
    "gaugehistogram": "histogram",
    "summary": "summary",
    "info": "gauge",
    "stateset": "gauge",
}
_HISTOGRAM = METRICS.field("histogram").type
_EXEMPLARS = METRICS.field("exemplars").type

Offsets = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Metadata:
    """Type and unit of metric families, as the server's targets exposed them."""

    families: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[str, str]:
        """(type, unit) of a sample's name."""
        found = self.families.get(name)
        for suffix in SUFFIXES:
            if found is None and name.endswith(suffix):
                found = self.families.get(name.removesuffix(suffix))
        return found or ("unknown", "")


@dataclass
class _Points:
    """The points of one series of the output."""

    series: Series
    times: Integers  # ms
    values: Floats
    histograms: Histograms | None = None
    exemplars: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # by row
    bare: bool = False  # exemplars alone, without points


@dataclass
class Histograms:
    """One histogram per row, by columns: row i has the buckets offsets[i] to offsets[i + 1]."""

    count: Floats
    sum: Floats
    offsets: Offsets
    bounds: Floats
    counts: Floats

    def array(self) -> pa.Array:
        lists = [
            pa.ListArray.from_arrays(pa.array(self.offsets, pa.int32()), pa.array(column))
            for column in (self.bounds, self.counts)
        ]
        columns = [pa.array(self.count), pa.array(self.sum), *lists]
        return pa.StructArray.from_arrays(columns, fields=list(_HISTOGRAM))


def tables(
    matrix: Matrix,
    exemplars: Sequence[tuple[dict[str, str], list[dict[str, Any]]]],
    metadata: Metadata,
    service_of: Callable[[Mapping[str, str]], str],
) -> tuple[pa.Table, pa.Table]:
    """(series, metrics) of one answer; ids count from 0. Raises Garbled for odd histograms.

    `exemplars` are pairs of a series' labels and its exemplars (time in ns).
    """
    found = list(_points(matrix, metadata, service_of))
    _attach(found, exemplars, metadata, service_of)
    return _series_table([each.series for each in found]), _metrics_table(found)


def _points(
    matrix: Matrix, metadata: Metadata, service_of: Callable[[Mapping[str, str]], str]
) -> Iterable[_Points]:
    families = {
        own["__name__"].removesuffix("_bucket")
        for own in matrix.labels
        if "le" in own and own.get("__name__", "").endswith("_bucket")
    }
    families |= {name for name, (type_, _) in metadata.families.items() if type_ == "summary"}
    groups: dict[Series, dict[str, tuple[Integers, Floats]]] = {}
    for own, rows, native in zip(matrix.labels, matrix.slices(), matrix.histograms, strict=True):
        times, values = matrix.times[rows], matrix.values[rows]
        part = _part(own, families)
        if part is not None:
            series = describe(own, metadata, service_of, family=part[0])
            groups.setdefault(series, {})[part[1]] = (times, values)
        elif len(times):
            yield _Points(describe(own, metadata, service_of), times, values)
        if native:
            series = describe(own, metadata, service_of, family=own.get("__name__", ""))
            yield _native(series._replace(type="histogram", temporality="cumulative"), native)
    for series, parts in groups.items():
        yield _classic(series, parts)


def _part(own: Mapping[str, str], families: set[str]) -> tuple[str, str] | None:
    """(family, which part of it) for a series of a classic histogram or a summary."""
    name = own.get("__name__", "")
    for suffix in ("_bucket", "_sum", "_count"):
        family = name.removesuffix(suffix)
        if family != name and family in families:
            if suffix != "_bucket":
                return family, suffix
            return (family, own["le"]) if "le" in own else None
    return None


def describe(
    own: Mapping[str, str],
    metadata: Metadata,
    service_of: Callable[[Mapping[str, str]], str],
    family: str | None = None,
) -> Series:
    """The series of a label set; `family` is its name when it is a part of a histogram."""
    name = own.get("__name__", "") if family is None else family
    type_, unit = metadata.of(name)
    type_ = TYPES.get(type_, "unknown")
    if family is not None and type_ != "summary":
        type_ = "histogram"
    dropped = ("__name__", "le") if family is not None else ("__name__",)
    kept = {key: value for key, value in own.items() if key not in dropped}
    cumulative = type_ in ("counter", "histogram") or (family is not None and type_ == "summary")
    return Series(
        name,
        labels(kept, {"service": service_of(own)}),
        type_,
        unit,
        "cumulative" if cumulative else "",
    )


def _classic(series: Series, parts: dict[str, tuple[Integers, Floats]]) -> _Points:
    """One series of a classic histogram from the series of its buckets, sum and count."""
    buckets = sorted((_bound(le), le) for le in parts if le not in ("_sum", "_count"))
    every = [times for times, _ in parts.values()]
    times = every[0]
    same = all(len(other) == len(times) and (other == times).all() for other in every[1:])
    if not same:
        times = np.unique(np.concatenate(every))
    columns = {
        le: values if same else _placed(at, values, times) for le, (at, values) in parts.items()
    }
    present = {
        le: np.ones(len(times), bool) if same else np.isin(times, at)
        for le, (at, _) in parts.items()
    }
    nothing = np.full(len(times), np.nan)
    total, count = columns.get("_sum", nothing), columns.get("_count", nothing)
    if buckets:
        cumulative = np.stack([columns[le] for _, le in buckets], axis=1)
        there = np.stack([present[le] for _, le in buckets], axis=1)
        bounds = np.array([bound for bound, _ in buckets])
        if there.all():
            counts = np.diff(cumulative, axis=1, prepend=0.0).ravel()
            kept = np.tile(bounds, len(times))
        else:
            counts, kept = _ragged(cumulative, there, bounds)
        sizes = there.sum(axis=1)
        if "_count" not in parts:
            count = cumulative[:, -1]
    else:
        counts = kept = np.empty(0)
        sizes = np.zeros(len(times), np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return _Points(series, times, total, Histograms(count, total, offsets, kept, counts))


def _ragged(
    cumulative: Floats, there: npt.NDArray[np.bool_], bounds: Floats
) -> tuple[Floats, Floats]:
    counts, kept = [], []
    for row, has in zip(cumulative, there, strict=True):
        counts.append(np.diff(row[has], prepend=0.0))
        kept.append(bounds[has])
    return np.concatenate(counts), np.concatenate(kept)


def _placed(at: Integers, values: Floats, times: Integers) -> Floats:
    """Values at their places among `times`, NaN elsewhere."""
    column = np.full(len(times), np.nan)
    column[np.searchsorted(times, at)] = values
    return column


def _bound(le: str) -> float:
    try:
        return float(le)
    except ValueError:
        raise Garbled(f"a bucket whose bound is {le[:40]!r}") from None


def _native(series: Series, rows: list[Any]) -> _Points:
    """Native histograms as the API gives them; only buckets that hold something are listed."""
    times, counts, sums, sizes = [], [], [], [0]
    bounds: list[float] = []
    held: list[float] = []
    try:
        for seconds, row in rows:
            times.append(round(float(seconds) * 1000))
            counts.append(float(row["count"]))
            sums.append(float(row["sum"]))
            begin = len(bounds)
            for _, left, right, count in row.get("buckets") or []:
                low, high = float(left), float(right)
                if len(bounds) == begin or low > bounds[-1]:
                    bounds.append(low)  # the buckets below hold nothing
                    held.append(0.0)
                bounds.append(high)
                held.append(float(count))
            sizes.append(len(bounds))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Garbled(f"a native histogram that cannot be read ({error!r})"[:200]) from None
    histograms = Histograms(
        np.array(counts),
        np.array(sums),
        np.array(sizes, np.int32),
        np.array(bounds, np.float64),
        np.array(held, np.float64),
    )
    return _Points(series, np.array(times, np.int64), np.array(sums), histograms)


# Exemplars


def exemplars(answer: Any) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
    """The data of `query_exemplars`: (labels, exemplars with time in ns); raises Garbled."""
    found = []
    try:
        for series in answer:
            rows = []
            for each in series["exemplars"]:
                own = each["labels"]
                rows.append(
                    {
                        "time": round(float(each["timestamp"]) * 1000) * MS,
                        "value": float(each["value"]),
                        "trace_id": _id(own, TRACE_LABELS),
                        "span_id": _id(own, SPAN_LABELS),
                    }
                )
            found.append((dict(series["seriesLabels"]), rows))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Garbled(f"exemplars that cannot be read ({error!r})"[:200]) from None
    return found


def _id(own: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((own[name] for name in names if name in own), "").replace("-", "").lower()


def _attach(
    found: list[_Points],
    exemplars: Sequence[tuple[dict[str, str], list[dict[str, Any]]]],
    metadata: Metadata,
    service_of: Callable[[Mapping[str, str]], str],
) -> None:
    """Each exemplar goes to the first point at or after it: the scrape that brought it.

    One after the last point goes to the last; one of a series without points gets a row of its
    own, without a value.
    """
    by_series = {each.series: each for each in found}
    families = {each.series.name for each in found if each.histograms is not None}
    for own, rows in exemplars:
        part = _part(own, families)
        family = part[0] if part else None
        points = by_series.get(describe(own, metadata, service_of, family=family))
        if points is None and family is None:  # of a native histogram
            named = describe(own, metadata, service_of, family=own.get("__name__", ""))
            points = by_series.get(named._replace(type="histogram", temporality="cumulative"))
        if points is None:
            series = describe(own, metadata, service_of, family=family)
            times = np.array(sorted({row["time"] // MS for row in rows}), np.int64)
            points = _Points(series, times, np.full(len(times), np.nan), bare=True)
            by_series[series] = points
            found.append(points)
        for row in sorted(rows, key=lambda row: row["time"]):
            at = int(np.searchsorted(points.times, -(-row["time"] // MS)))
            points.exemplars.setdefault(min(at, len(points.times) - 1), []).append(row)


# Columns


def _series_table(series: list[Series]) -> pa.Table:
    return pa.table(
        {
            "series_id": pa.array(range(len(series)), pa.int64()),
            "name": pa.array([each.name for each in series], pa.string()).cast(TEXT),
            "labels": pa.array([each.labels for each in series], ATTRIBUTES),
            "type": pa.array([each.type for each in series], pa.string()).cast(TEXT),
            "unit": pa.array([each.unit for each in series], pa.string()).cast(TEXT),
            "temporality": pa.array([each.temporality for each in series], pa.string()).cast(TEXT),
        }
    )


def _metrics_table(found: list[_Points]) -> pa.Table:
    plain = [
        (number, each)
        for number, each in enumerate(found)
        if each.histograms is None and not each.exemplars
    ]
    parts = [
        _rows(number, each)
        for number, each in enumerate(found)
        if each.histograms is not None or each.exemplars
    ]
    if plain:
        lengths = [len(each.times) for _, each in plain]
        parts.append(
            _table(
                np.repeat(np.array([number for number, _ in plain], np.int64), lengths),
                np.concatenate([each.times for _, each in plain]),
                pa.array(np.concatenate([each.values for _, each in plain])),
            )
        )
    return pa.concat_tables(parts) if parts else METRICS.empty_table()


def _rows(number: int, points: _Points) -> pa.Table:
    count = len(points.times)
    listed: list[list[dict[str, Any]] | None] = [None] * count
    for row, rows in points.exemplars.items():
        listed[row] = rows
    return _table(
        np.full(count, number, np.int64),
        points.times,
        pa.nulls(count, pa.float64()) if points.bare else pa.array(points.values),
        None if points.histograms is None else points.histograms.array(),
        pa.array(listed, _EXEMPLARS) if points.exemplars else None,
    )


def _table(
    ids: Integers,
    times: Integers,
    values: pa.Array,
    histograms: pa.Array | None = None,
    exemplars: pa.Array | None = None,
) -> pa.Table:
    return pa.table(
        [
            pa.array(ids),
            pa.array(times * MS).cast(METRICS.field("time").type),
            values,
            pa.nulls(len(ids), _HISTOGRAM) if histograms is None else histograms,
            pa.nulls(len(ids), _EXEMPLARS) if exemplars is None else exemplars,
        ],
        schema=METRICS,
    )
