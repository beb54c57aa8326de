"""OTLP metrics -> points and series."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragprof.sources import otlp, otlp_metrics
from ragprof.sources.series import Series, SeriesDictionary, labels

AT = 1_700_000_000_000_000_000
CUMULATIVE, DELTA = 2, 1


class Written:
    """A series dictionary and what it wrote."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.series = SeriesDictionary(self.rows.extend)


def request() -> tuple[Any, Any]:
    message = otlp.REQUESTS["metrics"]()
    group = message.resource_metrics.add()
    for key, value in (("service.name", "rag"), ("process.pid", "42")):
        item = group.resource.attributes.add()
        item.key, item.value.string_value = key, value
    metric = group.scope_metrics.add().metrics.add()
    metric.name, metric.unit = "m", "s"
    return message, metric


def points(message: Any, written: Written | None = None) -> list[dict[str, Any]]:
    table, refused = otlp_metrics.metrics(message, (written or Written()).series)
    assert not refused
    return table.to_pylist()


def test_sums_are_counters_or_gauges_with_their_temporality() -> None:
    for monotonic, type_ in ((True, "counter"), (False, "gauge")):
        message, metric = request()
        metric.sum.is_monotonic, metric.sum.aggregation_temporality = monotonic, CUMULATIVE
        metric.sum.data_points.add(time_unix_nano=AT, as_int=7)
        written = Written()
        (point,) = points(message, written)
        assert point["value"] == 7.0
        assert point["time"].value == AT
        assert written.rows == [
            {
                "series_id": 0,
                "name": "m",
                "labels": [("process", "42"), ("service", "rag")],
                "type": type_,
                "unit": "s",
                "temporality": "cumulative",
            }
        ]


def test_a_marked_gap_is_nan_and_infinities_survive() -> None:
    message, metric = request()
    metric.gauge.data_points.add(time_unix_nano=AT, flags=1)
    metric.gauge.data_points.add(time_unix_nano=AT + 1, as_double=math.inf)
    metric.gauge.data_points.add(time_unix_nano=AT + 2, as_double=math.nan)
    values = [point["value"] for point in points(message)]
    assert math.isnan(values[0])
    assert values[1] == math.inf
    assert math.isnan(values[2])


def test_an_explicit_histogram_keeps_buckets_and_exemplars() -> None:
    message, metric = request()
    metric.histogram.aggregation_temporality = DELTA
    point = metric.histogram.data_points.add(
        time_unix_nano=AT, count=6, sum=9.0, explicit_bounds=[1, 2], bucket_counts=[1, 2, 3]
    )
    point.exemplars.add(
        time_unix_nano=AT - 5, as_double=1.5, trace_id=b"\x01" * 16, span_id=b"\x02" * 8
    )
    (row,) = points(message)
    assert row["value"] == 9.0
    assert row["histogram"] == {
        "count": 6.0,
        "sum": 9.0,
        "bounds": [1.0, 2.0, math.inf],
        "counts": [1.0, 2.0, 3.0],
    }
    (exemplar,) = row["exemplars"]
    assert exemplar["trace_id"] == "01" * 16
    assert exemplar["span_id"] == "02" * 8
    assert exemplar["time"].value == AT - 5


def test_counts_that_do_not_fit_the_bounds_are_refused() -> None:
    message, metric = request()
    metric.histogram.data_points.add(time_unix_nano=AT, explicit_bounds=[1], bucket_counts=[1])
    table, refused = otlp_metrics.metrics(message, Written().series)
    assert table.num_rows == 0
    assert refused.total() == 1


def exponential(scale: int, values: list[float]) -> Any:
    """The point that an SDK would make of `values`: bucket i holds (base^i, base^(i+1)]."""
    message, metric = request()
    point = metric.exponential_histogram.data_points.add(
        time_unix_nano=AT, scale=scale, count=len(values), sum=sum(values)
    )
    base = 2.0 ** (2.0**-scale)
    for buckets, signed in (
        (point.positive, [value for value in values if value > 0]),
        (point.negative, [-value for value in values if value < 0]),
    ):
        indexes = [math.ceil(math.log(value, base) - 1e-9) - 1 for value in signed]
        if indexes:
            buckets.offset = min(indexes)
            counts = [0] * (max(indexes) - min(indexes) + 1)
            for index in indexes:
                counts[index - min(indexes)] += 1
            buckets.bucket_counts.extend(counts)
    point.zero_count = sum(value == 0 for value in values)
    return message


@given(
    st.integers(-2, 5),
    st.lists(
        st.floats(0.01, 1000) | st.floats(-1000, -0.01) | st.just(0.0), min_size=1, max_size=30
    ),
)
def test_exponential_buckets_hold_what_was_put_in(scale: int, values: list[float]) -> None:
    (row,) = points(exponential(scale, values))
    bounds, counts = row["histogram"]["bounds"], row["histogram"]["counts"]
    assert bounds == sorted(set(bounds))
    assert sum(counts) == len(values)
    for bound in bounds:
        below = sum(count for upper, count in zip(bounds, counts, strict=True) if upper <= bound)
        expected = sum(value <= bound * (1 + math.copysign(1e-6, bound)) for value in values)
        strictly = sum(value < bound * (1 - math.copysign(1e-6, bound)) for value in values)
        assert strictly <= below <= expected or bound == 0


def test_absurd_exponential_histograms_are_refused_or_bounded() -> None:
    message, metric = request()
    point = metric.exponential_histogram.data_points.add(time_unix_nano=AT, scale=0)
    point.positive.bucket_counts.extend([1] * 5000)
    table, refused = otlp_metrics.metrics(message, Written().series)
    assert (table.num_rows, refused.total()) == (0, 1)
    message, metric = request()
    point = metric.exponential_histogram.data_points.add(time_unix_nano=AT, scale=-10)
    point.positive.offset = 2**31 - 10
    point.positive.bucket_counts.extend([1, 2, 3])
    (row,) = points(message)
    assert row["histogram"]["bounds"][-1] == math.inf
    assert sum(row["histogram"]["counts"]) == 6


def test_a_summary_is_one_series_per_quantile_and_one_for_the_sum() -> None:
    message, metric = request()
    point = metric.summary.data_points.add(time_unix_nano=AT, count=3, sum=6.0)
    point.quantile_values.add(quantile=0.5, value=2.0)
    written = Written()
    rows = points(message, written)
    assert [row["value"] for row in rows] == [6.0, 2.0]
    assert ("quantile", "0.5") in written.rows[1]["labels"]


def test_series_are_numbered_once() -> None:
    written = Written()
    for _ in range(3):
        message, metric = request()
        for shard in "abc":
            item = metric.gauge.data_points.add(time_unix_nano=AT, as_double=1).attributes.add()
            item.key, item.value.string_value = "shard", shard
        assert [row["series_id"] for row in points(message, written)] == [0, 1, 2]
    assert len(written.rows) == 3


def test_a_failed_write_gives_no_id_away() -> None:
    fails = [True]

    def write(rows: list[dict[str, Any]]) -> None:
        if fails.pop():
            raise OSError("disk full")

    series = SeriesDictionary(write)
    key = Series("m", labels({"a": "b"}), "gauge")
    with pytest.raises(OSError, match="disk full"):
        series.ids([key])
    assert len(series) == 0
    fails.append(False)
    assert series.ids([key, key]) == [0, 0]


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_are_a_bad_payload(body: bytes) -> None:
    try:
        message = otlp.parse("metrics", body)
    except otlp.BadPayload:
        return
    otlp_metrics.metrics(message, Written().series)
