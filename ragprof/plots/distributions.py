"""How long requests took: slow against baseline as cumulative shares."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ragprof.plots.picture import Picture, empty, label, line
from ragprof.plots.scales import linear, log_ticks, logarithmic, ms_text, ticks

GROUPS = (("baseline", "baseline"), ("slow", "slow"))


def distribution(requests: pd.DataFrame, title: str = "How long requests took") -> Picture:
    """Cumulative shares of the durations of the groups slow and baseline, with their medians.

    ``requests``: duration_ms and group (slow, baseline, other). The axis is logarithmic when the
    longest request took more than 30 times the shortest.
    """
    sides: dict[str, NDArray[np.float64]] = {}
    for group, _ in GROUPS:
        values = requests.loc[requests["group"] == group, "duration_ms"].to_numpy(dtype=float)
        values = np.sort(values[np.isfinite(values)])
        if len(values):
            sides[group] = values
    if not sides:
        return empty(title, "There are no slow and no baseline requests.")
    low = float(min(values[0] for values in sides.values()))
    high = float(max(values[-1] for values in sides.values()))
    log = low > 0 and high / low > 30
    text = "; ".join(
        f"{group}: {len(values):,} requests, median {ms_text(float(np.median(values)))}, "
        f"p95 {ms_text(float(np.quantile(values, 0.95)))}"
        for group, values in sides.items()
    )

    def draw(width: int) -> tuple[str, float]:
        wide = width > 600
        left, right, top, bottom = 52.0, width - (150.0 if wide else 14.0), 62.0, 250.0
        first, last = (low * 0.9, high * 1.1) if log else (0.0, high * 1.04)
        x = (logarithmic if log else linear)(first, last, left, right)
        y = linear(0, 1, bottom, top)
        out = [
            label(12, 24, title, "t"),
            label(12, 44, "share of requests that took at most …", "m"),
        ]
        for share in (0, 0.25, 0.5, 0.75, 1):
            out.append(line(left, y(share), right, y(share), "s-grid"))
            out.append(label(left - 8, y(share) + 4, f"{share:.0%}".replace("%", " %"), "m n e"))
        marks = log_ticks(first, last) if log else ticks(first, last, 6 if wide else 3)
        for mark in marks:
            out.append(line(x(mark), bottom, x(mark), bottom + 4, "s-line"))
            out.append(label(x(mark), bottom + 18, ms_text(mark), "m n c"))
        out.append(line(left, bottom, right, bottom, "s-line"))
        axis = "duration" + (", logarithmic" if log else "")
        out.append(label(right, bottom + 36, axis, "m n e"))
        names: list[str] = []
        for group, values in sides.items():
            shares = np.arange(1, len(values) + 1) / len(values)
            if len(values) > 400:  # a pixel holds no more
                pick = np.unique(np.linspace(0, len(values) - 1, 400).astype(int))
                drawn, shares = values[pick], shares[pick]
            else:
                drawn = values
            path = [f"M{x(float(drawn[0])):.1f} {y(0):.1f}"]
            for value, share in zip(drawn.tolist(), shares.tolist(), strict=True):
                path.append(f"H{x(value):.1f}V{y(share):.1f}")
            path.append(f"H{right:.1f}")
            out.append(f'<path d="{"".join(path)}" class="s-{group}" stroke-width="2.2"/>')
            median = float(np.median(values))
            out.append(
                line(x(median), y(0.5), x(median), bottom, f"s-{group}", 'stroke-dasharray="3 3"')
            )
            out.append(f'<circle cx="{x(median):.1f}" cy="{y(0.5):.1f}" r="4" class="f-{group}"/>')
            style = "h f-slow" if group == "slow" else "h f-baseline"
            at = min(x(median) + 9, right - 120 if not wide else right)
            height = y(0.5) + (16 if group == "baseline" else -8)
            names.append(label(at, height, f"{group} {ms_text(median)}", style + " halo"))
        out.extend(names)
        if wide:
            for index, (group, values) in enumerate(sides.items()):
                base = top + 14 + index * 62
                style = "h f-slow" if group == "slow" else "h f-baseline"
                out.append(label(right + 18, base, group, style))
                out.append(label(right + 18, base + 17, f"{len(values):,} requests", "m n"))
                p95 = ms_text(float(np.quantile(values, 0.95)))
                out.append(label(right + 18, base + 33, f"p95 {p95}", "m n"))
        return "".join(out), bottom + 50

    return Picture(title, text + ".", draw)
