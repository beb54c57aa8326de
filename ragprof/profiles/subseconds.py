"""Samples by second and by the moment within the second: the matrix behind a sub-second heatmap.

A burst that a flame graph of minutes averages away is a bright cell here. The view is FlameScope's
(Gregg and Spier, 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragprof.profiles.model import NO_TIME, Floats, Ints, Profile, ProfileError

SECOND = 1_000_000_000
ROWS = 50
"""Cells per second: 20 ms each."""
MOST_COLUMNS = 600
"""Beyond ten minutes a column stands for several seconds."""


@dataclass(frozen=True)
class Subseconds:
    """The heatmap of a profile with times.

    ``weights`` (columns x rows): the weight of the samples in each cell, in the profile's unit;
    row 0 is the beginning of the second. ``start``: ns since 1970 of the first column, a whole
    second. ``seconds``: what a column stands for. ``cells`` (samples): column * rows + row of every
    sample, -1 without a time.
    """

    profile: Profile
    weights: Floats
    start: int
    seconds: int
    cells: Ints

    @property
    def columns(self) -> int:
        """The number of columns."""
        return int(self.weights.shape[0])

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.weights.shape[1])

    def cell(self, column: int, row: int) -> Profile:
        """The samples of one cell. Raises `ProfileError` outside of the heatmap."""
        return self.between((column, row), (column, row))

    def between(self, first: tuple[int, int], last: tuple[int, int]) -> Profile:
        """The samples from one cell to another (column, row), both included, in time's order."""
        edges = []
        for column, row in (first, last):
            if not (0 <= column < self.columns and 0 <= row < self.rows):
                raise ProfileError(
                    f"cell ({column}, {row}) is outside of the heatmap: columns are "
                    f"0..{self.columns - 1} and rows 0..{self.rows - 1}."
                )
            edges.append(column * self.rows + row)
        low, high = min(edges), max(edges)
        return self.profile.filter((self.cells >= low) & (self.cells <= high))


def subseconds(profile: Profile, rows: int = ROWS) -> Subseconds:
    """The heatmap of the first value type. Raises `ProfileError` when no sample has a time."""
    times = profile.times
    timed = np.zeros(0, dtype=bool) if times is None else times != NO_TIME
    if times is None or not timed.any():
        raise ProfileError(
            "the samples have no times, so there is no heatmap: use a format that keeps them, "
            "such as a Recording or Chrome trace events."
        )
    start = int(times[timed].min()) // SECOND * SECOND
    since = np.where(timed, times - start, 0)
    seconds = -(-(int(since.max()) // SECOND + 1) // MOST_COLUMNS)
    column, row = since // (SECOND * seconds), since % SECOND * rows // SECOND
    cells = np.where(timed, column * rows + row, -1)
    count = int(column.max()) + 1
    weights: Floats = np.bincount(cells[timed], profile.values[timed, 0], count * rows).astype(
        np.float64, copy=False
    )
    return Subseconds(profile, weights.reshape(count, rows), start, seconds, cells)
