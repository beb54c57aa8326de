"""One time axis for everything: latencies, metrics, log rate, stack states, changes, windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ragprof.plots.picture import Picture, box, empty, fit, keys, label, line, text_width
from ragprof.plots.scales import (
    Scale,
    linear,
    log_ticks,
    logarithmic,
    ms_text,
    number_text,
    ticks,
    time_ticks,
)

Window = tuple[pd.Timestamp, pd.Timestamp]

_LEFT, _GAP = 58.0, 34.0
_BINS = 60
_DOTS = 3000
_SEVERITIES = (
    ("error", "f-ink"),
    ("warn", "f-warn"),
    ("info", "f-other"),
    ("debug", "f-grid"),
)
_STATES = (("running", "f-muted"), ("waiting", "f-warn"), ("awaiting", "f-other"))


@dataclass(frozen=True)
class _Panel:
    """A panel: what it shows, its legend, and how it draws into x, top, bottom, left, right."""

    title: str
    entries: list[tuple[str, str]]
    height: float
    draw: Callable[[Scale, float, float, float, float], str]


def timeline(
    requests: pd.DataFrame,
    *,
    metrics: pd.DataFrame | None = None,
    logs: pd.DataFrame | None = None,
    samples: pd.DataFrame | None = None,
    changes: pd.DataFrame | None = None,
    window: Window | None = None,
    baseline_window: Window | None = None,
    title: str = "What happened when",
) -> Picture:
    """Aligned panels on one UTC time axis.

    ``requests``: start, duration_ms, group (slow, baseline, other). ``metrics``: name, time, value
    and perhaps unit and series (lines of one panel), one panel per name. ``logs``: time, severity.
    ``samples``: time, weight_ns, state. ``changes``: time, text, drawn as vertical lines.
    ``window`` (the slow one) and ``baseline_window`` are shaded. All times are UTC timestamps.
    """
    requests = requests[np.isfinite(requests["duration_ms"].to_numpy(dtype=float))]
    span = _span(requests, window, baseline_window, metrics, logs, samples)
    if span is None:
        return empty(title, "Nothing was recorded in this window.")
    low, high = span
    panels = [_latencies(requests)] if len(requests) else []
    if metrics is not None and len(metrics):
        times = _ns(metrics["time"])
        inside = metrics[(times >= low) & (times <= high)]
        for name, rows in inside.groupby("name", sort=False, observed=True):
            panels.append(_metric(str(name), rows))
    if logs is not None and len(logs):
        panels.append(_log_rate(logs, low, high))
    if samples is not None and len(samples):
        panels.append(_states(samples, low, high))
    marks = [] if changes is None or not len(changes) else _changes(changes, low, high)
    text = _words(requests, marks, low, high)

    def draw(width: int) -> tuple[str, float]:
        wide = width > 600
        left, right = (_LEFT if wide else 44.0), width - 16.0
        x = linear(low, high, left, right)
        day = pd.Timestamp(low, tz="UTC").strftime("%Y-%m-%d, UTC")
        out = [label(12, 24, title, "t"), label(right, 24, day, "m n e")]
        shades = _shades(window, baseline_window, low, high)
        legend, y = keys(12, 45, [(style, name) for _, _, style, name in shades], width)
        out.append(legend if shades else "")
        top = (y if shades else 30) + 10.0 + (18 * min(3, len(marks)) if marks else 0)
        spans: list[tuple[float, float]] = []
        at = top
        body: list[str] = []
        for panel in panels:
            body.append(label(12, at + 14, panel.title, "h"))
            beside = 12 + text_width(panel.title) * 1.05 + 16
            below = beside + sum(30 + text_width(name) for _, name in panel.entries) > width
            begin = 12 if below else beside
            entries, after = keys(begin, at + (31 if below else 14), panel.entries, width)
            body.append(entries)
            head = after + 8 if panel.entries else at + 22
            spans.append((head, head + panel.height))
            body.append(panel.draw(x, head, head + panel.height, left, right))
            at = head + panel.height + _GAP - 16
        bottom = at - 2
        for begin, end, style, _ in shades:
            for head, foot in spans:
                size = x(end) - x(begin)
                out.append(box(x(begin), head, size, foot - head, style, more='opacity=".55"'))
        out.extend(body)
        out.append(_marks(marks, x, top, right, spans))
        for time, shown in time_ticks(int(low), int(high), 8 if wide else 4):
            out.append(line(x(time), bottom - 8, x(time), bottom - 4, "s-line"))
            out.append(label(x(time), bottom + 9, shown, "m n c"))
        out.append(line(left, bottom - 8, right, bottom - 8, "s-line"))
        return "".join(out), bottom + 24

    return Picture(title, text, draw)


def _ns(times: pd.Series) -> NDArray[np.int64]:
    stamps = pd.to_datetime(times, utc=True).dt.as_unit("ns")
    return np.asarray(stamps.astype("int64"), dtype=np.int64)


def _span(requests: pd.DataFrame, *others: Window | pd.DataFrame | None) -> tuple[int, int] | None:
    """The times that hold the windows and the requests; without them, everything else."""
    edges: list[int] = []
    if len(requests):
        starts = _ns(requests["start"])
        ends = starts + requests["duration_ms"].to_numpy(dtype=float) * 1e6
        edges += [int(starts.min()), int(ends.max())]
    for other in others:
        if isinstance(other, tuple):
            edges += [stamp.as_unit("ns").value for stamp in other]
    if not edges:
        for other in others:
            if isinstance(other, pd.DataFrame) and len(other):
                times = _ns(other["time"])
                edges += [int(times.min()), int(times.max())]
    if not edges:
        return None
    return min(edges), max(max(edges), min(edges) + 1)


def _words(requests: pd.DataFrame, marks: list[tuple[int, str]], low: int, high: int) -> str:
    text = f"{len(requests):,} requests over {ms_text((high - low) / 1e6)}"
    for group in ("slow", "baseline"):
        part = requests[requests["group"] == group] if len(requests) else requests
        if len(part):
            text += f"; {group} median {ms_text(float(part['duration_ms'].median()))}"
    if marks:
        text += "; changes: " + ", ".join(name for _, name in marks[:5])
    return text + "."


def _shades(
    window: Window | None, baseline: Window | None, low: int, high: int
) -> list[tuple[int, int, str, str]]:
    shades = []
    for edges, style, name in (
        (baseline, "f-baseline-soft", "baseline window"),
        (window, "f-slow-soft", "slow window"),
    ):
        if edges is not None:
            begin, end = (stamp.as_unit("ns").value for stamp in edges)
            shades.append((max(begin, low), min(end, high), style, name))
    return shades


def _changes(changes: pd.DataFrame, low: int, high: int) -> list[tuple[int, str]]:
    times = _ns(changes["time"])
    texts = changes["text"].astype(str).tolist()
    return [
        (time, text)
        for time, text in sorted(zip(times.tolist(), texts, strict=True))
        if low <= time <= high
    ]


def _marks(
    marks: list[tuple[int, str]],
    x: Scale,
    top: float,
    right: float,
    spans: list[tuple[float, float]],
) -> str:
    """Vertical lines with their texts in up to three rows above the panels."""
    rows = min(3, len(marks))
    ends = [0.0] * rows
    out = []
    for time, text in marks:
        at = x(time)
        for begin, end in spans:  # inside the panels, so that no title is crossed
            out.append(line(at, begin, at, end, "s-ink", 'stroke-width="1" stroke-dasharray="3 3"'))
        shown = fit(text, min(260.0, right - 12))
        size = text_width(shown) * 0.95
        begin = max(12.0, min(at + 4, right - size))
        free = next((row for row in range(rows) if begin >= ends[row] + 8), None)
        if free is None:
            continue  # the line stays; the texts of crowded changes are in the table
        ends[free] = begin + size
        height = top - 8 - 18 * free
        out.append(line(at, height - 10, at, height + 2, "s-ink", 'stroke-width="1.5"'))
        out.append(label(begin, height, shown, "n halo"))
    return "".join(out)


def _axis(
    y: Scale, marks: list[float], right: float, left: float, form: Callable[[float], str]
) -> str:
    out = []
    for mark in marks:
        out.append(line(left, y(mark), right, y(mark), "s-grid"))
        out.append(label(left - 6, y(mark) + 4, form(mark), "m n e"))
    return "".join(out)


def _dots(
    x: Scale, y: Scale, times: NDArray[np.int64], values: NDArray[np.float64], group: str
) -> str:
    size = 5 if group == "slow" else 4
    path = "".join(
        f"M{x(time):.1f} {y(value):.1f}h0"
        for time, value in zip(times.tolist(), values.tolist(), strict=True)
    )
    return f'<path d="{path}" class="s-{group}" stroke-width="{size}" stroke-linecap="round"/>'


def _latencies(requests: pd.DataFrame) -> _Panel:
    times = _ns(requests["start"])
    values = requests["duration_ms"].to_numpy(dtype=float)
    groups = requests["group"].astype(str).to_numpy()
    positive = values[values > 0]
    top_value = float(values.max()) if len(values) else 1.0
    log = len(positive) > 0 and top_value / float(np.median(positive)) > 20
    least = float(positive.min()) if len(positive) else 1.0
    edges = np.linspace(times.min(), times.max() + 1, 25)
    bins = np.digitize(times, edges) - 1
    line_points = [
        ((edges[index] + edges[index + 1]) / 2, float(np.quantile(values[bins == index], 0.95)))
        for index in range(24)
        if (bins == index).sum() >= 3
    ]
    present = [group for group in ("other", "baseline", "slow") if (groups == group).any()]

    def draw(x: Scale, top: float, bottom: float, left: float, right: float) -> str:
        scale = logarithmic if log else linear
        first = least * 0.9 if log else 0.0
        y = scale(first, top_value * 1.05, bottom, top)
        marks = log_ticks(first, top_value * 1.05) if log else ticks(0, top_value * 1.05, 4)
        out = [_axis(y, marks, right, left, number_text)]
        for group in present:
            mine = np.flatnonzero(groups == group)
            if len(mine) > _DOTS:  # more dots than pixels: the extremes of each column stay
                mine = _extremes(mine, times, values)
            out.append(_dots(x, y, times[mine], values[mine], group))
        if len(line_points) > 1:
            path = "L".join(f"{x(time):.1f} {y(value):.1f}" for time, value in line_points)
            out.append(
                f'<path d="M{path}" class="s-ink" stroke-width="1.6" stroke-linejoin="round"/>'
            )
        return "".join(out)

    entries = [(f"f-{group}", group) for group in reversed(present)]
    unit = "ms, logarithmic" if log else "ms"
    return _Panel(f"Request latency, {unit}", [*entries, ("f-ink", "p95")], 150.0, draw)


def _extremes(
    mine: NDArray[np.int64], times: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.int64]:
    columns = np.digitize(times[mine], np.linspace(times.min(), times.max(), 600))
    rows = np.round(values[mine] / (values.max() or 1) * 150).astype(int)
    _, pick = np.unique(columns * 1000 + rows, return_index=True)
    return mine[pick]


def _metric(name: str, rows: pd.DataFrame) -> _Panel:
    unit = str(rows["unit"].iloc[0]) if "unit" in rows and rows["unit"].notna().any() else ""
    groups = [
        (str(series), part.sort_values("time"))
        for series, part in (
            rows.groupby("series", sort=False, observed=True)
            if "series" in rows
            else [(name, rows)]
        )
    ]
    finite = rows["value"].to_numpy(dtype=float)
    finite = finite[np.isfinite(finite)]
    unit = "" if unit == "1" else unit  # UCUM's way to say "a plain number"
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if (low > 0 and (high - low) > 0.2 * high) or low == high:
        low = min(0.0, low)
    if low == high:
        high = low + 1.0
    styles = ("ink", "baseline", "less", "other")

    def draw(x: Scale, top: float, bottom: float, left: float, right: float) -> str:
        y = linear(low, high + (high - low) * 0.06, bottom, top)
        out = [_axis(y, ticks(low, high, 2), right, left, number_text)]
        for index, (_, part) in enumerate(groups):
            times, values = _ns(part["time"]), part["value"].to_numpy(dtype=float)
            path, pen = [], "M"
            for time, value in zip(times.tolist(), values.tolist(), strict=True):
                if not np.isfinite(value):
                    pen = "M"  # a gap stays a gap
                    continue
                path.append(f"{pen}{x(time):.1f} {y(value):.1f}")
                pen = "L"
            style = styles[min(index, len(styles) - 1)]
            out.append(f'<path d="{"".join(path)}" class="s-{style}" stroke-width="1.5"/>')
        return "".join(out)

    entries = [
        (f"f-{styles[min(index, len(styles) - 1)]}", series)
        for index, (series, _) in enumerate(groups[:4])
        if len(groups) > 1
    ]
    return _Panel(f"{name}, {unit}" if unit else name, entries, 58.0, draw)


def _log_rate(logs: pd.DataFrame, low: int, high: int) -> _Panel:
    edges = np.linspace(low, high, _BINS + 1)
    seconds = (high - low) / _BINS / 1e9
    times = _ns(logs["time"])
    severity = logs["severity"].astype(str).str.lower().replace({"fatal": "error", "": "info"})
    names = severity.where(severity.isin([name for name, _ in _SEVERITIES]), "debug").to_numpy()
    counts = {
        name: np.histogram(times[names == name], bins=edges)[0] / seconds for name, _ in _SEVERITIES
    }
    return _stacked("Log records per second, by severity", counts, dict(_SEVERITIES), edges)


def _states(samples: pd.DataFrame, low: int, high: int) -> _Panel:
    edges = np.linspace(low, high, _BINS + 1)
    width = (high - low) / _BINS
    times = _ns(samples["time"])
    weights = samples["weight_ns"].to_numpy(dtype=float)
    states = samples["state"].astype(str).to_numpy()
    sums = {
        name: np.histogram(times[states == name], bins=edges, weights=weights[states == name])[0]
        / width
        for name, _ in _STATES
    }
    return _stacked("Stacks by state, at the same time", sums, dict(_STATES), edges)


def _stacked(
    title: str,
    parts: dict[str, NDArray[np.float64]],
    styles: dict[str, str],
    edges: NDArray[np.float64],
) -> _Panel:
    """Bars stacked in the order of ``parts``, the first at the bottom."""
    parts = {name: values for name, values in parts.items() if values.any()}
    peak = float(np.sum(list(parts.values()), axis=0).max()) if parts else 1.0

    def draw(x: Scale, top: float, bottom: float, left: float, right: float) -> str:
        y = linear(0, peak * 1.05, bottom, top)
        out = [_axis(y, ticks(0, peak, 2), right, left, number_text)]
        base = np.zeros(len(edges) - 1)
        for name, values in parts.items():
            bars = "".join(
                f"M{x(edges[index]):.1f} {y(base[index]):.1f}V{y(base[index] + values[index]):.1f}"
                f"H{x(edges[index + 1]) - 0.6:.1f}V{y(base[index]):.1f}z"
                for index in np.flatnonzero(values).tolist()
            )
            out.append(f'<path d="{bars}" class="{styles[name]}"/>')
            base = base + values
        return "".join(out)

    return _Panel(title, [(styles[name], name) for name in parts], 58.0, draw)
