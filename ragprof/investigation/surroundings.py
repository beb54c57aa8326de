"""Detectors that read what comes with a request: the load that it is, the cache that it meets."""

from __future__ import annotations

import numpy as np

from ragprof.analysis.load import explained_at_most, load_shifts
from ragprof.investigation.case import Case
from ragprof.investigation.evidence import Evidence, make
from ragprof.investigation.structure import positive


def load(case: Case) -> list[Evidence]:
    """The requests ask for more than before, and asking for more costs time."""
    shifts = load_shifts(case.numeric, case.duration_ms, case.slow, case.baseline)
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
    values = case.numeric[(lead.span, lead.attribute)]
    most = explained_at_most(values, case.path.milliseconds, case.slow, case.baseline)
    claimed = np.clip(most, 0, positive(case))
    explained = claimed.sum() / max(case.total_ms, 1e-9)
    support = [
        f"{lead.attribute} is {lead.after:.4g} instead of {lead.before:.4g} on average "
        f"(larger in {lead.effect:.0%} of comparisons)",
        f"by its cost within each window that explains up to {min(1, explained):.0%} of the "
        "added time",
    ]
    return [make(case, "load", claimed, stage="request", resource=lead.attribute, support=support)]


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
        if ratios[1] - ratios[0] < 0.1 or len(hits) < 3 or len(misses) < 3:
            continue
        explained = (ratios[1] - ratios[0]) * float(misses.mean() - hits.mean())
        _, p_value = case.p_value((~value).astype(np.float64))
        if p_value > 0.01 or explained < 0.5 * case.total_ms:
            continue
        claimed = positive(case)
        text = f"{column[1]} holds for {ratios[0]:.0%} of requests instead of {ratios[1]:.0%}"
        found.append(
            make(case, "cache_miss", claimed, stage="cache", resource=column[1], support=[text])
        )
    return found
