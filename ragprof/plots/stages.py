"""Stage by stage from the baseline to the slow requests: bars that sum to the whole."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ragprof.plots.picture import Picture, box, empty, fit, label, line
from ragprof.plots.scales import linear, ms_text, ticks

_ROW = 30


def contributions(stages: pd.DataFrame, title: str = "Where the added time is") -> Picture:
    """The way from the baseline's mean to the slow requests' mean.

    ``stages``: stage, baseline_ms, slow_ms, added_ms, one row per stage; added_ms sums to the
    difference of the wholes. Stages that add less than 0.5 % of the slow total are drawn as one.
    """
    if not len(stages):
        return empty(title, "There are no stages to compare.")
    before, after = float(stages["baseline_ms"].sum()), float(stages["slow_ms"].sum())
    rows = stages.sort_values("added_ms", key=lambda added: added.abs(), ascending=False)
    rest = rows["added_ms"].abs() < 0.005 * max(after, before)
    columns = ["stage", "baseline_ms", "slow_ms", "added_ms"]
    steps: list[tuple[Any, ...]] = [tuple(row) for row in rows.loc[~rest, columns].to_numpy()]
    if rest.any():
        other = rows[rest]
        name = str(other["stage"].iloc[0]) if rest.sum() == 1 else f"{int(rest.sum())} others"
        sums = other[["baseline_ms", "slow_ms", "added_ms"]].sum()
        steps.append((name, sums["baseline_ms"], sums["slow_ms"], sums["added_ms"]))
    text = (
        f"Baseline {ms_text(before)}, slow {ms_text(after)}, "
        f"added {ms_text(after - before, sign=True)}: "
        + ", ".join(f"{step[0]} {ms_text(float(step[3]), sign=True)}" for step in steps)
        + "."
    )
    edges = [before]
    for step in steps:
        edges.append(edges[-1] + float(step[3]))

    def draw(width: int) -> tuple[str, float]:
        wide = width > 600
        left, right = (150.0, width - 250.0) if wide else (96.0, width - 86.0)
        x = linear(0.0, max(*edges, after, 1e-9), left, right)
        top = 58.0
        bottom = top + _ROW * (len(steps) + 2)
        out = [label(12, 24, title, "t"), label(12, 43, "mean milliseconds per request", "m")]
        for mark in ticks(0.0, max(*edges, after), 4 if wide else 2):
            out.append(line(x(mark), top - 4, x(mark), bottom, "s-grid"))
            out.append(label(x(mark), bottom + 16, ms_text(mark), "m n c"))
        if wide:
            out.append(label(width - 172, top - 6, "baseline", "m n e"))
            out.append(label(width - 94, top - 6, "slow", "m n e"))
            out.append(label(width - 12, top - 6, "added", "m n e"))

        def row(index: int, name: str, low: float, high: float, style: str, tip: str) -> float:
            y = top + index * _ROW
            out.append(label(left - 10, y + 19, fit(name, left - 16), "e"))
            size = max(1.5, x(max(low, high)) - x(min(low, high)))
            out.append(box(x(min(low, high)), y + 6, size, _ROW - 12, style, tip, 'rx="2"'))
            return y + 19

        y = row(0, "baseline", 0, before, "f-baseline", f"baseline: {ms_text(before)}")
        out.append(label(width - 12, y, ms_text(before), "e"))
        for index, (name, old, new, added) in enumerate(steps):
            low, high = edges[index], edges[index + 1]
            style = "f-slow" if added > 0 else "f-less"
            tip = f"{name}: {ms_text(old)} → {ms_text(new)}, {ms_text(added, sign=True)}"
            out.append(
                line(x(low), top + index * _ROW + 24, x(low), top + index * _ROW + 36, "s-muted")
            )
            y = row(index + 1, str(name), low, high, style, tip)
            if wide:
                out.append(label(width - 172, y, ms_text(float(old)), "m e"))
                out.append(label(width - 94, y, ms_text(float(new)), "m e"))
            large = abs(added) >= 0.05 * max(after, before)
            out.append(
                label(
                    width - 12,
                    y,
                    ms_text(float(added), sign=True),
                    f"e {style + ' h' if large else ''}",
                )
            )
        last = len(steps) + 1
        out.append(
            line(
                x(edges[-1]),
                top + (last - 1) * _ROW + 24,
                x(edges[-1]),
                top + last * _ROW + 6,
                "s-muted",
            )
        )
        y = row(last, "slow", 0, after, "f-slow", f"slow: {ms_text(after)}")
        out.append(label(width - 12, y, ms_text(after), "e h"))
        return "".join(out), bottom + 28

    return Picture(title, text, draw)
