"""What removing a cause would bring: the p95 of the slow requests, were this as before.

The own time of the spans that a finding claims is taken back to what it was: each slow request's
time on an element becomes the baseline's at the same quantile (so that a fault of the tail is
taken from the tail), by the share that the finding claims. The traces are then replayed, so what
becomes critical in its place counts. The interval is a bootstrap over requests (Efron 1979).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragprof.analysis.columns import Floats
from ragprof.analysis.counterfactual import replay
from ragprof.investigation.case import Case

MOST_REQUESTS, MOST_SPANS = 2000, 100_000
"""Slow requests and their spans that are replayed; of more, so many drawn at random."""
ROUNDS = 1000
QUANTILE = 0.95


class Gain(NamedTuple):
    """p95 of the slow requests in ms: as it is, without the cause, and the 95 % interval of that.

    NaN when there are no slow requests.
    """

    p95_ms: float
    without_ms: float
    low_ms: float
    high_ms: float


def gain(case: Case, claims: Floats) -> Gain:
    """The gain of taking back `claims`, ms per request of each path element."""
    slow = np.flatnonzero(case.slow)
    if not len(slow):
        return Gain(*[float("nan")] * 4)
    draw = np.random.default_rng(0)
    spans = np.bincount(case.request_of_span[case.request_of_span >= 0], minlength=len(case.roots))
    most = max(20, min(MOST_REQUESTS, int(MOST_SPANS / max(1.0, float(spans[slow].mean())))))
    if len(slow) > most:
        slow = np.sort(draw.choice(slow, most, replace=False))
    factor = np.ones(len(case.forest))
    of_span = case.path.of_span
    scale = _factors(case, claims, slow)
    number = np.full(len(case.roots), -1, dtype=np.int64)
    number[slow] = np.arange(len(slow))
    at = np.where(case.request_of_span >= 0, number[case.request_of_span], -1)
    inside = (at >= 0) & (of_span >= 0)
    factor[inside] = scale[at[inside], of_span[inside]]
    took = replay(case.forest, case.roots[slow], factor) / 1e6
    rounds = draw.integers(0, len(slow), (ROUNDS, len(slow)))
    again = np.quantile(took[rounds], QUANTILE, axis=1)
    return Gain(
        float(np.quantile(case.duration_ms[slow], QUANTILE)),
        float(np.quantile(took, QUANTILE)),
        float(np.quantile(again, 0.025)),
        float(np.quantile(again, 0.975)),
    )


def _factors(case: Case, claims: Floats, slow: np.ndarray) -> Floats:
    """By how much own time shrinks: slow requests x elements."""
    milliseconds = case.path.milliseconds
    factors = np.ones((len(slow), milliseconds.shape[1]))
    added = case.compared["added_ms"].to_numpy()
    for element in np.flatnonzero(claims > 0):
        now = milliseconds[slow, element]
        share = min(1.0, claims[element] / max(added[element], 1e-9))
        rank = np.argsort(np.argsort(now, kind="stable"), kind="stable")
        quantile = (rank + 0.5) / len(now)
        before = (
            np.quantile(milliseconds[case.baseline, element], quantile)
            if case.baseline.any()
            else np.zeros(len(now))
        )
        kept = np.minimum(1.0, before / np.maximum(now, 1e-9))
        factors[:, element] = 1 - share * (1 - kept)
    return factors
