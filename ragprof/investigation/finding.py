"""One finding with the rows behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ragprof.analysis.columns import texts
from ragprof.investigation.case import Case
from ragprof.investigation.evidence import Evidence
from ragprof.investigation.gain import Gain
from ragprof.investigation.source import Source


@dataclass(frozen=True)
class Finding:
    """What was found at one rank; fields as in findings.json.

    text: two or three sentences. advice: what to do about it. gain: the p95 without it. source: its
    hot lines and commits, when a checkout was given. sql: a query that shows it on the Recording.
    """

    rank: int
    kind: str
    stage: str
    service: str
    span: str
    function: str
    file: str
    line: int
    resource: str
    added_ms: float
    p_value: float
    text: str
    advice: str
    gain: Gain
    source: Source
    support: list[str]
    against: list[str]
    sql: str
    _case: Case = field(repr=False)
    _evidence: Evidence = field(repr=False)

    def evidence(self) -> dict[str, pd.DataFrame]:
        """The rows behind it, by table.

        requests: trace_id, start (UTC), group, duration_ms, claimed_ms (critical path time on what
        the finding claims). spans: trace_id, span_id, service, name, start, own_ms. samples:
        function, file, line, origin, state, wait, baseline_ms, slow_ms, added_ms per request.
        metrics: those series that shifted (see `Investigation.metrics`), the surest first.
        """
        case, forest = self._case, self._case.forest
        claimed = np.flatnonzero(self._evidence.claims > 0)
        compared = case.slow | case.baseline
        ids = texts(case.spans["trace_id"].take(forest.row[case.roots[compared]]))
        requests = pd.DataFrame(
            {
                "trace_id": ids,
                "start": pd.to_datetime(forest.start[case.roots[compared]], utc=True, unit="ns"),
                "group": np.where(case.slow[compared], "slow", "baseline"),
                "duration_ms": case.duration_ms[compared],
                "claimed_ms": case.path.milliseconds[compared][:, claimed].sum(axis=1),
            }
        )
        own = (case.sections.end - case.sections.start) / 1e6
        per_span = np.bincount(case.sections.span, weights=own, minlength=len(forest))
        inside = np.isin(case.path.of_span, claimed) & (case.request_of_span >= 0)
        inside &= np.append(compared, False)[case.request_of_span] & (per_span > 0)
        spans = np.flatnonzero(inside)
        table = case.spans.take(forest.row[spans])
        rows = pd.DataFrame(
            {
                "trace_id": texts(table["trace_id"]),
                "span_id": texts(table["span_id"]),
                "service": [forest.services[code] for code in forest.service[spans]],
                "name": [forest.names[code] for code in forest.name[spans]],
                "start": pd.to_datetime(forest.start[spans], utc=True, unit="ns"),
                "own_ms": per_span[spans],
            }
        ).sort_values("own_ms", ascending=False, ignore_index=True)
        metrics = case.metrics[case.metrics["p_value"] < 0.01]
        return {
            "requests": requests,
            "spans": rows,
            "samples": self._evidence.rows,
            "metrics": metrics.reset_index(drop=True),
        }
