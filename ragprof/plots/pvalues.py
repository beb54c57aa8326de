"""Are tests calibrated? Their p-values where nothing changed, against the diagonal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ragprof.plots.picture import Picture, empty, keys, label, line
from ragprof.plots.scales import linear

STYLES = ("slow", "baseline", "less")
BAND = 1.358
"""Of the Kolmogorov-Smirnov statistic times the root of the count, at 5 % (Smirnov 1948)."""


def p_values(groups: Mapping[str, NDArray[np.float64]], title: str) -> Picture:
    """Cumulative shares of up to three groups of p-values.

    The diagonal is a calibrated test; between the dotted lines lie 95 % of calibrated tests with
    as many independent p-values as the first group has.
    """
    known = {name: np.sort(values[np.isfinite(values)]) for name, values in groups.items()}
    known = {name: values for name, values in known.items() if len(values)}
    if not known:
        return empty(title, "There are no p-values.")
    first = next(iter(known.values()))
    band = BAND / np.sqrt(len(first))
    text = "; ".join(
        f"{name}: {len(values)} p-values, {np.mean(values <= 0.05):.0%} of them at most 0.05"
        for name, values in known.items()
    )

    def draw(width: int) -> tuple[str, float]:
        left, top = 52.0, 62.0
        size = min(width - left - 14.0, 380.0)
        right, bottom = left + size, top + size
        x, y = linear(0, 1, left, right), linear(0, 1, bottom, top)
        out = [
            label(12, 24, title, "t"),
            label(12, 44, "share of p-values that are at most …", "m"),
        ]
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            out.append(line(left, y(share), right, y(share), "s-grid"))
            out.append(label(left - 8, y(share) + 4, f"{share:.0%}", "m n e"))
            out.append(label(x(share), bottom + 18, f"{share:g}", "m n c"))
        out.append(line(x(0), y(0), x(1), y(1), "s-line"))
        for shift in (band, -band):
            low, high = max(0.0, -shift), min(1.0, 1.0 - shift)
            ends = x(low), y(low + shift), x(high), y(high + shift)
            out.append(line(*ends, "s-line", 'stroke-dasharray="2 4"'))
        for style, values in zip(STYLES, known.values(), strict=False):
            shares = np.arange(1, len(values) + 1) / len(values)
            path = [f"M{x(0):.1f} {y(0):.1f}"]
            for value, share in zip(values.tolist(), shares.tolist(), strict=True):
                path.append(f"H{x(value):.1f}V{y(share):.1f}")
            path.append(f"H{right:.1f}")
            out.append(f'<path d="{"".join(path)}" class="s-{style}" stroke-width="2.2"/>')
        entries = [
            (f"f-{style}", f"{name} ({len(values)})")
            for style, (name, values) in zip(STYLES, known.items(), strict=False)
        ]
        markup, last = keys(left, bottom + 44, entries, width)
        return "".join([*out, markup]), last + 16

    return Picture(title, text + ".", draw)
