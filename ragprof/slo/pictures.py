"""The burn-down of an error budget as a picture."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ragprof.plots.picture import Picture, empty, keys, label, line
from ragprof.plots.scales import linear, number_text, ticks, time_ticks

_LEFT, _TOP, _HEIGHT = 58.0, 62.0, 180.0


def burn_down(table: pd.DataFrame, slo: str) -> Picture:
    """`table`: time, remaining (share of the budget). The even pace stands beside it."""
    title = f"Error budget of {slo}"
    left = table["remaining"].to_numpy(float)
    good = np.isfinite(left)
    if good.sum() < 2:
        return empty(title, "There are no events in the window, so the budget is whole.")
    times = table["time"].astype("datetime64[ns, UTC]").astype("int64").to_numpy()[good]
    left = left[good]
    low, high = min(0.0, float(left.min())), 1.0
    text = f"{left[-1]:.1%} of the budget is left at {table['time'].iloc[-1]:%Y-%m-%d %H:%M} UTC."

    def draw(width: int) -> tuple[str, float]:
        x = linear(float(times[0]), float(times[-1]), _LEFT, width - 16.0)
        y = linear(low, high, _TOP + _HEIGHT, _TOP)
        out = [label(12, 24, title, "t"), label(12, 43, text, "m")]
        for mark in ticks(low, high, 4):
            out.append(line(_LEFT, y(mark), width - 16, y(mark), "s-grid"))
            out.append(label(_LEFT - 8, y(mark) + 4, f"{number_text(mark * 100)} %", "m n e"))
        for at, name in time_ticks(int(times[0]), int(times[-1]), 6 if width > 600 else 3):
            out.append(label(x(at), _TOP + _HEIGHT + 18, name, "m n c"))
        out.append(
            line(x(float(times[0])), y(1.0), x(float(times[-1])), y(0.0), "s-baseline",
                 'stroke-dasharray="4 4"')
        )  # fmt: skip
        path = "L".join(
            f"{x(float(at)):.1f} {y(value):.1f}" for at, value in zip(times, left, strict=True)
        )
        out.append(f'<path d="M{path}" class="s-slow" stroke-width="2"/>')
        entries = [("f-slow", "left"), ("f-baseline", "even pace")]
        legend, bottom = keys(_LEFT, _TOP + _HEIGHT + 40, entries, width - 16)
        return "".join([*out, legend]), bottom + 14

    return Picture(title, text, draw)
