"""What changed, told from stored points: alerts that fired, processes that started, new versions.

Alerts are intervals of `ALERTS{alertstate="firing"}`; `ALERTS_FOR_STATE` holds since when the
condition was met. Starts are values of `process_start_time_seconds` within the window. Versions
are labels of `target_info` and `*build_info`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ragprof.manifest import iso
from ragprof.sources.prometheus_api import MS, edges
from ragprof.sources.prometheus_selectors import Selector
from ragprof.sources.source import Window

if TYPE_CHECKING:
    from ragprof.sources.prometheus import Prometheus

GAP = 3.0  # times the usual distance of points: the alert was resolved in between
LONGEST_STEP = 120_000  # ms between points of an alert when there is but one
VERSION_NAMES = "target_info|(.+_)?build_info"
VERSION_LABELS = ("service_version", "version")
CUT = 6 * 3600 * 1000  # ms of one request
FIRING = Selector((("__name__", "=", "ALERTS"), ("alertstate", "=", "firing")))

Row = dict[str, Any]
Key = tuple[tuple[str, str], ...]


def rows(source: Prometheus, window: Window) -> list[Row]:
    """Rows of `changes` of one window, in the order of time. Raises SourceError."""
    found = [*_alerts(source, window), *_starts(source, window), *_versions(source, window)]
    return sorted(found, key=lambda row: row["time"])


def _alerts(source: Prometheus, window: Window) -> list[Row]:
    times: dict[Key, list[np.ndarray[Any, Any]]] = {}
    for labels, at, _ in _points(source, FIRING, window):
        own = {k: v for k, v in labels.items() if k not in ("__name__", "alertstate")}
        times.setdefault(tuple(sorted(own.items())), []).append(at)
    found = []
    for key, parts in times.items():
        labels, at = dict(key), np.concatenate(parts)
        steps = np.diff(at)
        usual = float(np.median(steps)) if len(steps) else LONGEST_STEP
        breaks = np.flatnonzero(steps > GAP * usual)
        starts, ends = at[np.concatenate([[0], breaks + 1])], at[np.concatenate([breaks, [-1]])]
        first, last = edges(window)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            firing = last - end < GAP * usual
            began_before = start - first < usual
            found.append(
                alert(
                    labels,
                    source.service_of(labels),
                    start * MS,
                    None if firing else end * MS,
                    began_before=began_before,
                )
            )
    return found


def alert(
    labels: Mapping[str, str],
    service: str,
    start: int,
    end: int | None,
    *,
    began_before: bool = False,
    **more: str,
) -> Row:
    """A row of an alert; times in ns, `end` None while it fires."""
    name = labels.get("alertname", "alert")
    about = ", ".join(f"{k}={v}" for k, v in sorted(labels.items()) if k != "alertname")
    attributes = {**labels, **more}
    if began_before:
        attributes["began"] = "before the window"
    return {
        "time": start,
        "end": end,
        "kind": "alert",
        "service": service,
        "text": f"{name} fires" + (f" ({about})" if about else ""),
        "attributes": attributes,
    }


def _starts(source: Prometheus, window: Window) -> list[Row]:
    found: dict[tuple[str, str, int], Row] = {}
    first, last = edges(window)
    for selector in source.selectors_of("=", "process_start_time_seconds"):
        span = f"[{last - first + 1}ms]"
        late = f"max_over_time({selector}{span}) >= {window.start / 1e9:.3f}"
        for labels, _ in source.api.vector(late, last):
            exact = Selector(
                (
                    ("__name__", "=", "process_start_time_seconds"),
                    *((name, "=", value) for name, value in labels.items()),
                )
            )
            for _, _, values in _points(source, exact, window):
                for value in np.unique(values[np.isfinite(values)]).tolist():
                    at = round(value * 1000) * MS
                    if not window.start <= at < window.end:
                        continue
                    service, instance = source.service_of(labels), labels.get("instance", "")
                    found[service, instance, at] = {
                        "time": at,
                        "end": None,
                        "kind": "restart",
                        "service": service,
                        "text": f"the process behind {instance or service} started",
                        "attributes": {"event": "start", **labels},
                    }
    return list(found.values())


def _versions(source: Prometheus, window: Window) -> list[Row]:
    seen: dict[tuple[str, str], dict[str, int]] = {}  # (service, metric) -> version -> first ms
    for selector in source.selectors_of("=~", VERSION_NAMES):
        for labels, at, _ in _points(source, selector, window):
            version = next((labels[name] for name in VERSION_LABELS if labels.get(name)), "")
            if version and len(at):
                place = seen.setdefault((source.service_of(labels), labels["__name__"]), {})
                place[version] = min(place.get(version, int(at[0])), int(at[0]))
    found: dict[tuple[str, str], Row] = {}
    for (service, metric), versions in seen.items():
        order = sorted(versions, key=lambda version: versions[version])
        for before, after in itertools.pairwise(order):
            text = f"service.version {before} -> {after}"
            found.setdefault(
                (service, text),
                {
                    "time": versions[after] * MS,
                    "end": None,
                    "kind": "deploy",
                    "service": service,
                    "text": text,
                    "attributes": {
                        "before": before,
                        "after": after,
                        "metric": metric,
                        "seen": iso(versions[after] * MS),
                    },
                },
            )
    return list(found.values())


def _points(source: Prometheus, selector: Selector, window: Window) -> Any:
    """(labels, times in ms, values) of every series that has points, part by part of the window."""
    for cut in window.cut(CUT * MS):
        first, last = edges(cut)
        if first > last:
            continue
        for found, _, _ in source.api.stored(selector, first, last):
            for labels, rows_ in zip(found.labels, found.slices(), strict=True):
                if rows_.stop > rows_.start:
                    yield labels, found.times[rows_], found.values[rows_]
