"""Is it the load? How much of the added latency the requests' own attributes explain.

Analysis of covariance: the slope of latency over an attribute is fitted within both groups (so
that it cannot take over the difference between them), and the difference of the groups' attribute
means times that slope is what the load explains. The rest is the residual shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ragprof.analysis.columns import Bools, Floats

LEAST_EFFECT = 0.75
"""P(slow > baseline) of an attribute that counts as changed load (0.5: no change)."""
COUNTS_UP = 0.8
"""Rank correlation with time in both groups from which a number is a counter or a clock."""


@dataclass(frozen=True)
class LoadShift:
    """attribute, span: what changed. before, after: its means. effect: P(slow > baseline).
    relative: ratio of the means. slope: ms per unit within groups. explained_ms: slope times
    shift. p_value: of the rank test."""

    span: str
    attribute: str
    before: float
    after: float
    effect: float
    relative: float
    slope: float
    explained_ms: float
    p_value: float


def load_shifts(
    numeric: pd.DataFrame, duration_ms: Floats, slow: Bools, baseline: Bools
) -> list[LoadShift]:
    """Attributes with a clear upward shift on most requests that cost time within the groups.

    Requests are numbered by time. What only counts up with it (the client's port, an offset in a
    queue) is larger later, and so are latencies where a queue builds up: that is not a load.
    """
    found = []
    for column in numeric.columns:
        series = numeric[column].dropna()
        index = series.index.to_numpy()
        groups = slow[index].astype(np.int64) - baseline[index]
        after, before = series.to_numpy()[groups == 1], series.to_numpy()[groups == -1]
        covered = min(len(after) / max(1, slow.sum()), len(before) / max(1, baseline.sum()))
        if covered < 0.5 or min(len(after), len(before)) < 10 or before.mean() <= 0:
            continue
        test = stats.mannwhitneyu(after, before, alternative="greater")
        effect = float(test.statistic) / (len(after) * len(before))
        relative = float(after.mean() / before.mean())
        if effect < LEAST_EFFECT or relative < 1.2:
            continue
        if _counts_up(series, slow) and _counts_up(series, baseline):
            continue
        inner = np.concatenate([after - after.mean(), before - before.mean()])
        times = [duration_ms[index[groups == side]] for side in (1, -1)]
        spread = np.concatenate([side - side.mean() for side in times])
        variance = float(inner @ inner)
        slope = float(inner @ spread) / variance if variance > 0 else 0.0
        explained = slope * float(after.mean() - before.mean())
        found.append(
            LoadShift(
                str(column[0]), str(column[1]), float(before.mean()), float(after.mean()),
                effect, relative, slope,
                explained, float(test.pvalue),
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: -one.relative)


def _counts_up(series: pd.Series, group: Bools) -> bool:
    """Whether the values of a group of requests follow their order in time."""
    values = series[group[series.index]]
    if values.nunique() < 3:
        return False
    return bool(stats.spearmanr(values.index, values).statistic > COUNTS_UP)


def explained_at_most(
    values: pd.Series, milliseconds: Floats, slow: Bools, baseline: Bools
) -> Floats:
    """ms per request of each column that a shift of an attribute can explain, within its error.

    values: the attribute, by request. milliseconds: requests x columns. The slope within the
    groups and two of its standard errors, times the shift: only what goes beyond is not the load.
    """
    series = values.dropna()
    index = series.index.to_numpy()
    sides = [index[group[index]] for group in (slow, baseline)]
    given = [values.loc[side].to_numpy(dtype=np.float64) for side in sides]
    inner = np.concatenate([one - one.mean() for one in given])
    times = np.concatenate([milliseconds[side] - milliseconds[side].mean(axis=0) for side in sides])
    variance = float(inner @ inner)
    if variance <= 0 or len(inner) < 4:
        return np.zeros(milliseconds.shape[1])
    slope = inner @ times / variance
    rest = times - inner[:, None] * slope
    error = np.sqrt((rest**2).sum(axis=0) / (len(inner) - 3) / variance)
    most: Floats = (slope + 2 * error) * (given[0].mean() - given[1].mean())
    return most
