"""OTLP metrics -> points of the table `metrics` and their series.

Histograms of both kinds become one struct of upper bounds and counts per bucket. The bounds of
an exponential histogram follow the data model: bucket i holds (base^i, base^(i+1)] with
base = 2^(2^-scale).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from ragprof.sources.otlp import LATEST_NS, _get, _id, pairs, paused_gc, table
from ragprof.sources.series import Series, SeriesDictionary, labels
from ragprof.tables import METRICS

TEMPORALITY = ("", "delta", "cumulative")
NO_RECORDED_VALUE = 1  # DataPointFlags: the series has a gap here
MAX_BUCKETS = 2000  # beyond the 160 of any SDK; guards against absurd offsets

Point = dict[str, Any]


def metrics(
    message: ExportMetricsServiceRequest, series: SeriesDictionary, process: str = ""
) -> tuple[pa.Table, Counter[str]]:
    """Rows of `metrics`, and what was refused: reason -> points.

    `process` is the label for points whose resource has no `process.pid`. A gap that the SDK
    marked is a point with the value NaN.
    """
    found: list[tuple[Series, Point]] = []
    refused: Counter[str] = Counter()
    with paused_gc():
        for group in message.resource_metrics:
            resource = pairs(group.resource.attributes)
            common = {
                "service": _get(resource, "service.name"),
                "process": _get(resource, "process.pid") or process,
            }
            for scoped in group.scope_metrics:
                for metric in scoped.metrics:
                    _read(metric, common, found, refused)
        ids = series.ids(description for description, _ in found)
        points = [point for _, point in found]
        return table(
            METRICS,
            {
                "series_id": ids,
                "time": [point["time"] for point in points],
                "value": [point["value"] for point in points],
                "histogram": [point.get("histogram") for point in points],
                "exemplars": [point.get("exemplars") for point in points],
            },
        ), refused


def _read(
    metric: Any,
    common: dict[str, str],
    found: list[tuple[Series, Point]],
    refused: Counter[str],
) -> None:
    which = metric.WhichOneof("data")
    if which is None:
        refused["metric without data"] += 1
        return
    data = getattr(metric, which)
    temporality = ""
    if which in ("sum", "histogram", "exponential_histogram"):
        number = data.aggregation_temporality
        temporality = TEMPORALITY[number] if 0 <= number < len(TEMPORALITY) else ""
    if which == "sum":
        type_ = "counter" if data.is_monotonic else "gauge"
    else:
        type_ = {"gauge": "gauge", "summary": "summary"}.get(which, "histogram")
    read = _READERS[which]
    for point in data.data_points:
        if not 0 < point.time_unix_nano <= LATEST_NS:
            refused["metric point without a usable time"] += 1
            continue
        own = dict(pairs(point.attributes))
        try:
            rows = read(point)
        except (ValueError, OverflowError) as error:
            refused[f"metric point: {error}"] += 1
            continue
        for extra, row in rows:
            row["time"] = point.time_unix_nano
            key = Series(metric.name, labels(extra, own, common), type_, metric.unit, temporality)
            found.append((key, row))


def _number(point: Any) -> list[tuple[dict[str, str], Point]]:
    if point.flags & NO_RECORDED_VALUE:
        return [({}, {"value": math.nan})]
    which = point.WhichOneof("value")
    if which is None:
        raise ValueError("no value")
    value = float(getattr(point, which))
    return [({}, {"value": value, "exemplars": _exemplars(point.exemplars)})]


def _histogram(point: Any) -> list[tuple[dict[str, str], Point]]:
    if point.flags & NO_RECORDED_VALUE:
        return [({}, {"value": math.nan})]
    bounds = [*point.explicit_bounds]
    counts = [float(count) for count in point.bucket_counts]
    if counts:
        if len(counts) != len(bounds) + 1:
            raise ValueError("histogram whose counts do not fit its bounds")
        bounds.append(math.inf)
    elif bounds:
        raise ValueError("histogram whose counts do not fit its bounds")
    return [({}, _buckets(point, bounds, counts))]


def _exponential(point: Any) -> list[tuple[dict[str, str], Point]]:
    if point.flags & NO_RECORDED_VALUE:
        return [({}, {"value": math.nan})]
    negative, positive = point.negative, point.positive
    if len(negative.bucket_counts) + len(positive.bucket_counts) > MAX_BUCKETS:
        raise ValueError("exponential histogram with too many buckets")
    bounds: list[float] = []
    counts: list[float] = []

    def add(bound: float, count: float) -> None:
        if not bounds or bound > bounds[-1]:
            bounds.append(bound)
            counts.append(count)
        else:  # neighbouring bounds that a float cannot tell apart
            counts[-1] += count

    if any(negative.bucket_counts):
        add(-_power(negative.offset + len(negative.bucket_counts), point.scale), 0.0)
        for index in reversed(range(len(negative.bucket_counts))):
            add(-_power(negative.offset + index, point.scale), negative.bucket_counts[index])
    if point.zero_count or bounds:
        add(point.zero_threshold, float(point.zero_count))
    if any(positive.bucket_counts):
        add(_power(positive.offset, point.scale), 0.0)
        for index, count in enumerate(positive.bucket_counts):
            add(_power(positive.offset + index + 1, point.scale), float(count))
    return [({}, _buckets(point, bounds, counts))]


def _power(index: int, scale: int) -> float:
    try:
        return float(2.0 ** (index * 2.0**-scale))
    except OverflowError:
        return math.inf


def _summary(point: Any) -> list[tuple[dict[str, str], Point]]:
    if point.flags & NO_RECORDED_VALUE:
        return [({}, {"value": math.nan})]
    rows: list[tuple[dict[str, str], Point]] = [({}, _buckets(point, [], []))]
    for quantile in point.quantile_values:
        rows.append(({"quantile": repr(quantile.quantile)}, {"value": quantile.value}))
    return rows


def _buckets(point: Any, bounds: list[float], counts: list[float]) -> Point:
    return {
        "value": point.sum,
        "histogram": {
            "count": float(point.count),
            "sum": point.sum,
            "bounds": bounds,
            "counts": counts,
        },
        "exemplars": _exemplars(getattr(point, "exemplars", ())),
    }


def _exemplars(exemplars: Any) -> list[dict[str, Any]] | None:
    rows = [
        {
            "time": exemplar.time_unix_nano if exemplar.time_unix_nano <= LATEST_NS else None,
            "value": float(getattr(exemplar, exemplar.WhichOneof("value") or "as_double")),
            "trace_id": _id(exemplar.trace_id, 16),
            "span_id": _id(exemplar.span_id, 8),
        }
        for exemplar in exemplars
    ]
    return rows or None


_READERS: dict[str, Callable[[Any], list[tuple[dict[str, str], Point]]]] = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "summary": _summary,
}
