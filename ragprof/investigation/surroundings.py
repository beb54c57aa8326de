"""Detectors that read what comes with a request: the load that it is, the cache that it meets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ragprof.analysis.load import explained_at_most, load_shifts
from ragprof.investigation.case import Case
from ragprof.investigation.evidence import Evidence, make
from ragprof.investigation.structure import positive

TRAFFIC = "requests per second"
SECOND = 1_000_000_000
LEAST_OF_EACH = 3
"""Hits and misses that must be seen for the cost of a miss to be known."""


def load(case: Case) -> list[Evidence]:
    """The requests ask for more than before, or are more, and that costs time."""
    numeric = _with_traffic(case)
    shifts = load_shifts(numeric, case.duration_ms, case.slow, case.baseline)
    if not shifts:
        return []
    names = {name: code for code, name in enumerate(case.forest.names)}
    depth = {
        one.span: int(case.forest.depth[case.forest.name == names[one.span]].min())
        for one in shifts
    }
    costly = [one for one in shifts if one.slope > 0]
    if not costly:
        return []
    first = min(depth[one.span] for one in costly)
    # What the request brought with it stands on its outermost spans; inner ones follow from it.
    lead = max((one for one in costly if depth[one.span] == first), key=lambda one: one.relative)
    if lead.p_value > 1e-4:
        return []
    values = numeric[(lead.span, lead.attribute)]
    most = explained_at_most(values, case.path.milliseconds, case.slow, case.baseline)
    claimed = np.clip(most, 0, positive(case))
    explained = claimed.sum() / max(case.total_ms, 1e-9)
    left = max(0.0, case.total_ms - float(claimed.sum()))
    support = [
        f"{lead.attribute} is {lead.after:.4g} instead of {lead.before:.4g} on average "
        f"(larger in {lead.effect:.0%} of comparisons)",
        f"by its cost within each window that explains up to {min(1, explained):.0%} of the "
        f"added time and leaves {left:.1f} ms per request unexplained",
    ]
    return [make(case, "load", claimed, stage="request", resource=lead.attribute, support=support)]


def _with_traffic(case: Case) -> pd.DataFrame:
    """The numbers that requests carry, and how many began at their service in the second before.

    Arrivals, not requests in flight: those also grow when each takes longer.
    """
    if not len(case.roots):
        return case.numeric
    forest = case.forest
    entries = (forest.parent < 0) & (forest.service == case.service) & ~forest.exit
    started = np.sort(forest.start[entries])
    now = forest.start[case.roots]
    before = np.searchsorted(started, now) - np.searchsorted(started, now - SECOND)
    column = (forest.names[forest.name[case.roots[0]]], TRAFFIC)
    table = case.numeric.reindex(range(len(case.roots)))
    table[column] = before.astype(np.float64)
    return table


def cache_miss(case: Case) -> list[Evidence]:
    """A hit ratio fell: counters of hits and misses, or a boolean attribute of a cache."""
    found = []
    flags = [
        column for column in case.categorical.columns if "cache" in column[1] and "hit" in column[1]
    ]
    for column in flags:
        hit = (case.categorical[column].str.lower() == "true").reindex(range(len(case.roots)))
        known = hit.notna().to_numpy()
        value = hit.fillna(False).to_numpy(dtype=bool)
        ratios = [
            float(value[group & known].mean()) if (group & known).any() else 0.0
            for group in (case.slow, case.baseline)
        ]
        hits, misses = (case.duration_ms[case.baseline & known & side] for side in (value, ~value))
        against = []
        if len(misses) < LEAST_OF_EACH:  # it was nearly always hit
            misses = case.duration_ms[case.slow & known & ~value]
            against = ["what a miss costs is known from the slow window alone"]
        fell = ratios[1] - ratios[0]
        if fell < 0.1 or min(len(hits), len(misses)) < LEAST_OF_EACH:
            continue
        explained = fell * float(misses.mean() - hits.mean())
        _, p_value = case.p_value((~value).astype(np.float64))
        if p_value > 0.01 or explained < 0.5 * case.total_ms:
            continue
        added = positive(case)
        claimed = added * min(1.0, explained / max(float(added.sum()), 1e-9))
        support = [
            f"{column[1]} holds for {ratios[0]:.0%} of requests instead of {ratios[1]:.0%}",
            f"a miss takes {misses.mean() - hits.mean():.1f} ms longer than a hit, which explains "
            f"{explained:.1f} ms of the {case.total_ms:.1f} ms",
        ]
        found.append(
            make(case, "cache_miss", claimed, stage="cache", resource=column[1], support=support,
                 against=against)
        )  # fmt: skip
    return found
