"""What a Recording lacks, table by table, in words: ids, exemplars, stacks, points, common clocks.

A hole is a time in which no series of a service has a point: Prometheus, or the target, was away.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from ragprof.analysis.clock_skew import clock_skews
from ragprof.analysis.columns import Ints, attribute, integers, texts
from ragprof.analysis.forest import Forest

LEAST_POINTS = 5  # distinct times of a service, from which its pace is known
HOLE_STEPS = 3  # times the usual distance of two points is a hole, when it is HOLE_NS as well
HOLE_NS = 5_000_000_000
MOST_NAMED = 3


def words(
    spans: pa.Table,
    forest: Forest,
    samples: pa.Table,
    logs: pa.Table,
    metrics: pa.Table,
    series: pa.Table,
    window: tuple[int, int],
) -> dict[str, str]:
    """Table -> what is missing in it; empty where nothing is. `window` is in ns since 1970, UTC."""
    services = [name for name in forest.services if name]
    return {
        "spans": "; ".join([*_clocks(spans, forest), *_damage(forest)]),
        "samples": _stacks(samples, services),
        "logs": _ids(logs),
        "metrics": "; ".join([*_exemplars(metrics), *_holes(metrics, series, window)]),
    }


def holes(metrics: pa.Table, series: pa.Table, window: tuple[int, int]) -> pd.DataFrame:
    """Times in which a service has no point of any series, though it has some in the window.

    Columns: service, start, end (UTC), seconds; the longest first. The time from the window's
    start to a service's first point is none: it may have begun then.
    """
    names = attribute(series["labels"], "service")
    known = dict(zip(integers(series["series_id"]).tolist(), names.tolist(), strict=True))
    ids, of = np.unique(integers(metrics["series_id"]), return_inverse=True)
    owners = np.array([known.get(int(each), "") for each in ids], dtype=object)
    times = integers(metrics["time"])
    rows = []
    for service in sorted(set(owners.tolist())):
        at = np.unique(times[(owners == service)[of]])
        at = at[(at >= window[0]) & (at < window[1])]
        if len(at) >= LEAST_POINTS:
            rows += [(service, *hole) for hole in _between(at, window[1])]
    table = pd.DataFrame(rows, columns=["service", "start", "end"])
    table["seconds"] = (table["end"] - table["start"]).astype(float) / 1e9
    for edge in ("start", "end"):
        table[edge] = pd.to_datetime(table[edge].astype("int64"), unit="ns", utc=True)
    return table.sort_values(["seconds", "service"], ascending=[False, True], ignore_index=True)


def _between(at: Ints, end: int) -> list[tuple[int, int]]:
    distances = np.diff(at)
    least = max(HOLE_NS, HOLE_STEPS * float(np.median(distances)))
    edges = np.append(at, end)
    return [
        (int(edges[place]), int(edges[place + 1]))
        for place in np.flatnonzero(np.diff(edges) > least)
    ]


def _clocks(spans: pa.Table, forest: Forest) -> list[str]:
    if not forest.problems.get("clock_skew"):
        return []
    return [
        f"the clock of {row.service} is {abs(row.skew_ms) / 1000:.3g} s "
        f"{'behind' if row.skew_ms > 0 else 'ahead of'} that of {row.caller} (aligned for "
        f"{row.adjusted} of {row.calls} calls)"
        for row in clock_skews(spans, forest).head(MOST_NAMED).itertuples()
    ]


def _damage(forest: Forest) -> list[str]:
    said = {
        "missing_parents": "{} spans without their parent",
        "cycles": "{} spans on a cycle (left out)",
    }
    return [text.format(forest.problems.get(name, 0)) for name, text in said.items()
            if forest.problems.get(name, 0)]  # fmt: skip


def _stacks(samples: pa.Table, services: list[str]) -> str:
    if not samples.num_rows:
        return "no stacks"
    without = sorted(set(services) - set(texts(samples["service"]).tolist()))
    return f"no stacks of {_listed(without)}" if without else ""


def _ids(logs: pa.Table) -> str:
    if not logs.num_rows:
        return "no log records"
    without = int((integers(logs["trace_key"]) == 0).sum())
    if without == logs.num_rows:
        return "no record has a trace id"
    return f"{without} of {logs.num_rows} records have no trace id" if without else ""


def _exemplars(metrics: pa.Table) -> list[str]:
    if not metrics.num_rows:
        return ["no points"]
    lengths = pa.compute.list_value_length(metrics["exemplars"])
    return [] if pa.compute.any(pa.compute.greater(lengths, 0)).as_py() else ["no exemplars"]


def _holes(metrics: pa.Table, series: pa.Table, window: tuple[int, int]) -> list[str]:
    found = holes(metrics, series, window)
    said = [
        f"no point{f' of {row.service}' if row.service else ''} for {row.seconds:.0f} s from "
        f"{row.start:%H:%M:%S}"
        for row in found.head(MOST_NAMED).itertuples()
    ]
    more = len(found) - len(said)
    return [*said, f"{more} more holes"] if more else said


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
