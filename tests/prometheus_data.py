"""Series for a real Prometheus, with all that is odd in them, and points in one comparable form."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
from backends.remote_write import STALE

from ragprof.sources.http import Client, Connection
from ragprof.sources.prometheus import Prometheus
from ragprof.sources.source import Window

STEP = 15_000  # ms
POINTS = 41
TRACE, SPAN = "ab" * 16, "cd" * 8

Points = dict[tuple[tuple[str, str], ...], dict[int, float]]


def series(start: int, service: str = "rag") -> list[dict[str, Any]]:
    """Counters, gauges, a classic and a native histogram, exemplars, an alert, a restart.

    `start` is in ms; points are STEP apart. Every label set holds `service`.
    """
    times = [start + number * STEP for number in range(POINTS)]
    made: list[dict[str, Any]] = []

    def add(name: str, points: list[tuple[int, float]], **labels: str) -> dict[str, Any]:
        labels = {"__name__": name, "service": service, **labels}
        made.append({"labels": labels, "points": points})
        return made[-1]

    add("up", [(at, 1.0) for at in times], instance="a:1")
    odd = [math.nan, math.inf, -math.inf, 1e300, -0.0, 5e-324, 1.5]
    add("odd", [(at, odd[n % len(odd)]) for n, at in enumerate(times)])
    add("went_stale", [*[(at, 1.0) for at in times[:5]], (times[5], STALE), (times[30], 2.0)])
    add("with_gap", [(at, 1.0) for n, at in enumerate(times) if n < 8 or n > 26])
    for le, share in (("0.1", 1), ("1", 3), ("+Inf", 4)):
        added = add("lat_seconds_bucket", [(at, share * n) for n, at in enumerate(times)], le=le)
        if le == "1":
            labels = {"trace_id": TRACE, "span_id": SPAN}
            added["exemplars"] = [(times[5] - 400, 0.5, labels)]
    add("lat_seconds_sum", [(at, 1.5 * n) for n, at in enumerate(times)])
    add("lat_seconds_count", [(at, 4.0 * n) for n, at in enumerate(times)])
    add("quoted", [(times[3], 3.0)], path='a"b\\c],["values":[[ü\n')
    started = [start / 1000 - 50, times[20] / 1000 - 2]
    starts = [(at, started[n >= 20]) for n, at in enumerate(times)]
    add("process_start_time_seconds", starts, instance="a:1")
    add("target_info", [(at, 1.0) for at in times[:20]], version="1.0")
    add("target_info", [(at, 1.0) for at in times[20:]], version="1.1")
    add("ALERTS", [(at, 1.0) for at in times[10:16]], alertname="Slow", alertstate="firing")
    add("ALERTS", [(at, 1.0) for at in times[5:10]], alertname="Slow", alertstate="pending")
    native = {"count": 6, "sum": 9.5, "schema": 0, "zero_threshold": 0.001, "zero_count": 1}
    native |= {"offset": 0, "counts": [2, 0, 3]}
    made.append(
        {
            "labels": {"__name__": "native", "service": service},
            "histograms": [(at, native) for at in times[:3]],
        }
    )
    return made


def source(url: str, **options: Any) -> Prometheus:
    """A source that hardly waits between tries."""
    to = Connection(url, retries=8)
    return Prometheus(Client("prometheus", to, wait=lambda seconds: None), **options)


def window(start: int, end: int) -> Window:
    return Window(start * 1_000_000, end * 1_000_000)


def flat(tables: list[tuple[str, pa.Table]]) -> Points:
    """What a source gave as Prometheus stores it: histograms taken apart again."""
    names: dict[int, tuple[str, dict[str, str]]] = {}
    found: Points = {}

    def put(name: str, labels: dict[str, str], at: int, value: float) -> None:
        points = found.setdefault(tuple(sorted({"__name__": name, **labels}.items())), {})
        assert at not in points, f"{name} has two points at {at}"
        points[at] = value

    for table, rows in tables:
        if table == "series":
            for row in rows.to_pylist():
                names[row["series_id"]] = (row["name"], dict(row["labels"]))
        elif table == "metrics":
            for row in rows.to_pylist():
                name, labels = names[row["series_id"]]
                at, histogram = row["time"].value // 1_000_000, row["histogram"]
                if histogram is None and row["value"] is None:
                    continue  # an exemplar that no point belongs to
                if histogram is None:
                    put(name, labels, at, row["value"])
                elif name == "native":
                    put(name, labels, at, histogram["count"])
                else:
                    put(f"{name}_sum", labels, at, histogram["sum"])
                    put(f"{name}_count", labels, at, histogram["count"])
                    below = 0.0
                    for bound, count in zip(histogram["bounds"], histogram["counts"], strict=True):
                        below += count
                        le = "+Inf" if math.isinf(bound) else f"{bound:g}"
                        put(f"{name}_bucket", {**labels, "le": le}, at, below)
    return found


def dump(data: Path, first: int, last: int) -> Points:
    """What `promtool tsdb dump` says is stored from `first` to `last` (ms, both included)."""
    text = subprocess.run(
        ["promtool", "tsdb", "dump", f"--min-time={first}", f"--max-time={last}", str(data)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    found: Points = {}
    for line in text.splitlines():
        labels, value, at = line.rsplit(" ", 2)
        own = _labels(labels)
        if own["__name__"].endswith("_bucket") and own["le"] != "+Inf":
            own["le"] = f"{float(own['le']):g}"  # 10 and 10.0 are one bound
        key = tuple(sorted(own.items()))
        found.setdefault(key, {})[int(at)] = float(value)
    return found


def _labels(text: str) -> dict[str, str]:
    """`{__name__="up", job="rag"}`, values quoted as in Go."""
    labels: dict[str, str] = {}
    rest = text[1:-1]
    while rest:
        name, _, rest = rest.partition('="')
        end = 0
        while rest[end] != '"':
            end += 2 if rest[end] == "\\" else 1
        value = rest[:end].replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
        labels[name] = value
        rest = rest[end + 1 :].removeprefix(", ")
    return labels


def same(one: dict[int, float], other: dict[int, float]) -> bool:
    """Equal points, NaN equal to NaN."""
    return one.keys() == other.keys() and all(
        one[at] == other[at] or (math.isnan(one[at]) and math.isnan(other[at])) for at in one
    )
