"""A sub-second heatmap as a static picture: bursts that an average hides are bright cells."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ragprof.flamegraph.units import weight_text
from ragprof.plots.picture import NARROW, Picture, box, label
from ragprof.profiles.model import Profile
from ragprof.profiles.subseconds import SECOND, Subseconds, subseconds

STRENGTHS = 5
_TOP, _LEFT, _HIGH = 44, 46, 3


def heatmap(profile: Profile, title: str = "") -> Picture:
    """Weight by second (columns) and by the moment within it (rows, upwards).

    Every column and row of `ragprof.profiles.subseconds.subseconds` is drawn; the page of a flame
    graph has the same heatmap with cells to select. Raises `ProfileError` when the samples have no
    times.
    """
    cells = subseconds(profile)
    kind = profile.value_types[0]
    most = float(cells.weights.max())
    column, row = np.unravel_index(int(cells.weights.argmax()), cells.weights.shape)
    busiest = _clock(cells, profile, int(column), int(row))
    text = (
        f"{cells.columns} columns of {cells.seconds} s, {1000 // cells.rows} ms a row; the busiest "
        f"cell, {busiest}, has {weight_text(most, kind)}."
    )

    def draw(width: int) -> tuple[str, float]:
        return _drawn(cells, profile, title or f"{profile.name}: sub-second heatmap", text, width)

    return Picture(title or "Sub-second heatmap", text, draw)


def _drawn(
    cells: Subseconds, profile: Profile, title: str, text: str, width: int
) -> tuple[str, float]:
    broad = min(32.0, (width - _LEFT - 12) / cells.columns)
    bottom = _TOP + cells.rows * _HIGH
    most = float(cells.weights.max()) or 1.0
    level = np.ceil(STRENGTHS * cells.weights / most - 1e-9).astype(int)
    parts = [label(12, 20, title, "t")]
    if width > NARROW:
        parts.append(label(12, 36, text, "m n"))
    parts.append(box(_LEFT, _TOP, cells.columns * broad, cells.rows * _HIGH, "f-grid"))
    for strength in range(1, STRENGTHS + 1):  # one path per strength keeps the picture small
        columns, rows = np.nonzero(level == strength)
        path = "".join(
            f"M{_LEFT + column * broad:.1f} {bottom - (row + 1) * _HIGH}"
            f"h{max(0.5, broad - 0.4):.1f}v{_HIGH - 0.3:.1f}h-{max(0.5, broad - 0.4):.1f}z"
            for column, row in zip(columns.tolist(), rows.tolist(), strict=True)
        )
        if path:
            opacity = (0.18, 0.36, 0.55, 0.78, 1.0)[strength - 1]
            parts.append(f'<path class="f-slow" fill-opacity="{opacity}" d="{path}"/>')
    for share, words in ((0.0, "0"), (0.5, "500 ms"), (1.0, "1 s")):
        parts.append(label(_LEFT - 4, bottom - share * cells.rows * _HIGH + 4, words, "m n e"))
    for at in sorted({0, cells.columns // 2, cells.columns - 1}):
        place = "e" if at == cells.columns - 1 and at else ""
        x = _LEFT + (at + (1 if place else 0)) * broad
        parts.append(label(x, bottom + 14, _clock(cells, profile, at, 0), f"m n {place}"))
    return "".join(parts), bottom + 24


def _clock(cells: Subseconds, profile: Profile, column: int, row: int) -> str:
    since = column * cells.seconds * SECOND + row * SECOND // cells.rows
    if profile.clock == "utc":
        return str(pd.Timestamp(cells.start + since, tz="UTC").strftime("%H:%M:%S.%f"))[:-3]
    return f"{since / SECOND:.2f} s"
