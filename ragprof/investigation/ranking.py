"""From evidence to findings: what is specific claims its time first, what is left is ranked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ragprof.analysis.significance import benjamini_hochberg
from ragprof.investigation import machine, structure, surroundings, waiting
from ragprof.investigation.case import Case
from ragprof.investigation.evidence import Evidence

# The more specific a mechanism, the earlier it claims the time that it explains.
DETECTORS = (
    surroundings.load,
    surroundings.cache_miss,
    machine.throttled,
    machine.collector,
    machine.slower_everywhere,
    waiting.pool_wait,
    waiting.blocked_loop,
    structure.extra_calls,
    structure.downstream,
    structure.network,
    waiting.local,
)
LEVEL = 0.02
LEAST_SHARE = 0.15


def findings(case: Case) -> list[Evidence]:
    """Evidence that beats its null and explains at least 15 % of the added time, best first."""
    if case.total_ms <= 0:
        return []
    offered = [evidence for detector in DETECTORS for evidence in detector(case)]
    corrected = benjamini_hochberg([evidence.p_value for evidence in offered])
    left = np.maximum(case.compared["added_ms"].to_numpy(), 0)
    kept = []
    for evidence, p_value in zip(offered, corrected, strict=True):
        claims = np.minimum(evidence.claims, left)
        if not p_value <= LEVEL or claims.sum() < LEAST_SHARE * case.total_ms:
            continue
        left = left - claims
        against = list(evidence.against)
        rest = case.total_ms - claims.sum()
        if rest > 0.1 * case.total_ms:
            against.append(
                f"{rest:.1f} ms of the {case.total_ms:.1f} ms added are not explained by it"
            )
        if min(case.slow.sum(), case.baseline.sum()) < 20:
            against.append("fewer than 20 requests on a side: not enough to be sure")
        if case.selected:
            against.append(
                "the slow requests were chosen by duration: p-values describe, they do not prove"
            )
        kept.append(
            replace(
                evidence,
                claims=claims,
                score=min(float(claims.sum()), case.total_ms),
                p_value=float(p_value),
                against=against,
            )
        )
    return sorted(kept, key=lambda evidence: (evidence.follows, -evidence.score))
