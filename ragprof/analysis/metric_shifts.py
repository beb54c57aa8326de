"""Metrics in the slow window against the baseline window, one number per series and point.

Gauges as they are; counters as rates per second (a reset starts anew); histograms and summaries as
the mean of what was observed between two points; events as their sum per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from ragprof.analysis.columns import Floats, Ints, integers, ordered
from ragprof.analysis.significance import benjamini_hochberg

SECOND = 1_000_000_000


def points(metrics: pa.Table, series: pd.DataFrame) -> dict[int, tuple[Ints, Floats]]:
    """Comparable points of each series: series_id -> (time ns, value)."""
    ids, times = integers(metrics["series_id"]), integers(metrics["time"])
    values = metrics["value"].to_numpy()
    histogram = metrics["histogram"].combine_chunks()
    if isinstance(histogram, pa.ChunkedArray):
        histogram = histogram.chunk(0) if histogram.num_chunks else None
    counts = sums = values
    if histogram is not None:
        counts, sums = (
            pa.compute.struct_field(histogram, name).to_numpy(zero_copy_only=False)
            for name in ("count", "sum")
        )
    order = ordered(ids, times)
    ids, times = ids[order], times[order]
    values, counts, sums = values[order], counts[order], sums[order]
    edges = np.flatnonzero(np.diff(ids)) + 1
    types = series.set_index("series_id")["type"].to_dict()
    found = {}
    for part in np.split(np.arange(len(ids)), edges):
        if not len(part):
            continue
        one = int(ids[part[0]])
        kind = types.get(one, "unknown")
        if kind == "histogram":
            n, s = np.diff(counts[part]), np.diff(sums[part])
            good = n > 0
            found[one] = (times[part][1:][good], s[good] / n[good])
        elif kind == "counter":
            step, gone = np.diff(values[part]), np.diff(times[part]) / SECOND
            good = (step >= 0) & (gone > 0)
            found[one] = (times[part][1:][good], step[good] / gone[good])
        else:
            found[one] = (times[part], values[part])
    return found


def shifts(
    found: Mapping[int, tuple[Ints, Floats]],
    series: pd.DataFrame,
    window: tuple[pd.Timestamp, pd.Timestamp],
    baseline: tuple[pd.Timestamp, pd.Timestamp],
) -> pd.DataFrame:
    """metric, service, labels, type, unit, baseline, slow (means; events: sum per second), p_value
    (rank test, corrected), series_id; the most significant first."""
    rows: list[tuple[Any, ...]] = []
    for one in series.itertuples():
        times, values = found.get(one.series_id, (np.zeros(0, np.int64), np.zeros(0)))
        groups = [
            values[(times >= begin.value) & (times < end.value)]
            for begin, end in (baseline, window)
        ]
        groups = [group[np.isfinite(group)] for group in groups]
        if one.type == "event":
            spans = [(end - begin).total_seconds() for begin, end in (baseline, window)]
            means = [
                group.sum() / max(length, 1e-9) for group, length in zip(groups, spans, strict=True)
            ]
            if not len(values):
                continue
        elif min(len(group) for group in groups) < 4:
            continue
        else:
            means = [group.mean() for group in groups]
        joined = np.concatenate(groups)
        enough = min(len(group) for group in groups) >= 4 and np.ptp(joined) > 0
        p_value = stats.mannwhitneyu(groups[1], groups[0]).pvalue if enough else np.nan
        labels = dict(one.labels or {})
        rows.append(
            (
                one.name,
                labels.get("service", ""),
                labels,
                one.type,
                one.unit,
                *means,
                p_value,
                one.series_id,
            )
        )
    columns = [
        "metric",
        "service",
        "labels",
        "type",
        "unit",
        "baseline",
        "slow",
        "p_value",
        "series_id",
    ]
    table = pd.DataFrame(rows, columns=columns)
    table["p_value"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64))
    return table.sort_values("p_value", ignore_index=True, kind="stable")
