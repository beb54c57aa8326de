"""What a detector hands over: how much it explains, how sure that is, and the rows behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from ragprof.analysis import functions
from ragprof.analysis.columns import Floats
from ragprof.investigation.case import Case

KINDS = (
    "cpu", "blocked_loop", "lock_wait", "pool_wait", "downstream", "network", "retry",
    "cache_miss", "extra_calls", "io", "gc", "throttled", "load",
)  # fmt: skip
SHADOWS = ("executor", "task", "future")
NOT_THE_CODE = ("load", "cache_miss", "gc", "throttled")
"""Kinds for which no function is named: what it ran is not why it was slow."""


@dataclass(frozen=True)
class Evidence:
    """kind: of KINDS. claims: added ms per request for each path element that it explains.
    score: their sum. p_value: how often exchanging blocks of requests gives as much. follows: it
    is seen, but what else is seen explains it; such evidence comes after the rest."""

    kind: str
    stage: str
    service: str
    span: str
    claims: Floats
    score: float
    p_value: float
    resource: str = ""
    function: str = ""
    file: str = ""
    line: int = 0
    support: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    sql: str = ""
    follows: bool = False


def make(
    case: Case,
    kind: str,
    claimed: Floats,
    *,
    element: int | None = None,
    states: tuple[str, ...] = (),
    resource: str = "",
    stage: str = "",
    spans_wide: bool = False,
    measured: Floats | None = None,
    **more: object,
) -> Evidence:
    """Evidence for path elements (`claimed`: ms each, or 0), told by its largest element.

    `states`: those samples name the function. `spans_wide`: look at all claimed elements for it.
    `measured`: what the mechanism itself took per request, when that is seen: the p-value is of
    it, since the time of those that suffered from it is noisier. Else it is of the claimed time.
    """
    top = int(np.argmax(claimed)) if element is None else element
    row = case.path.elements.iloc[top]
    of = claimed > 0
    direct = case.path.milliseconds[:, of].sum(axis=1) if measured is None else measured
    # A few very long requests hide a shift from the mean, not from the ranks: both are tried.
    p_values = [case.p_value(values)[1] for values in (direct, stats.rankdata(direct))]
    p_value = min(1.0, 2 * min(p_values))
    where = np.flatnonzero(of) if spans_wide else np.array([top])
    name, file, line, rows = culprit(case, where, states)
    if kind in NOT_THE_CODE:
        name, file, line = "", "", 0
    return Evidence(
        kind=kind,
        stage=stage or str(row["stage"]),
        service=str(row["service"]),
        span=str(row["span"]),
        claims=claimed,
        score=float(claimed.sum()),
        p_value=p_value,
        resource=resource,
        function=name,
        file=file,
        line=line,
        rows=rows,
        sql=span_query(str(row["service"]), str(row["span"])),
        **more,  # type: ignore[arg-type]
    )


def culprit(
    case: Case, elements: np.ndarray, states: tuple[str, ...] = ()
) -> tuple[str, str, int, pd.DataFrame]:
    """Function with the largest added time on these elements: name, file, line, all rows."""
    samples = case.samples
    on = np.isin(case.path.of_span[samples.span], elements)
    table = pd.DataFrame()
    for wanted in (states, ()):
        keep = on & np.isin(samples.state, wanted) if wanted else on
        table = functions.difference(samples, case.slow, case.baseline, keep)
        table = table[table["added_ms"] > 0]
        if len(table):
            break
    if not len(table):
        return "", "", 0, table
    # A task that awaits a thread is the shadow of what that thread does, if that was seen.
    direct = table[~table["wait"].isin(SHADOWS)]
    for rows in (direct, table):
        named = ~rows["function"].str.endswith("<lambda>") & ~rows["file"].str.startswith("<")
        own = rows[(rows["origin"] == "app") & named]
        if own["added_ms"].sum() >= 0.2 * table["added_ms"].sum():
            break
    else:
        own = table
    chosen = own.groupby(["function", "file", "line"], as_index=False)["added_ms"].sum()
    best = chosen.sort_values("added_ms", ascending=False).iloc[0]
    return str(best["function"]), str(best["file"]), int(best["line"]), table


def span_query(service: str, span: str) -> str:
    """SQL that shows the spans in question over time."""
    one, two = (text.replace("'", "''") for text in (service, span))
    wanted = f"service = '{one}' AND name = '{two}'"
    columns = (
        "time_bucket(INTERVAL 1 SECOND, start) AS second, count(*) AS spans, "
        "avg(duration_ns) / 1e6 AS mean_ms, quantile_cont(duration_ns, 0.95) / 1e6 AS p95_ms"
    )
    return " ".join(["SELECT", columns, "FROM spans WHERE", wanted, "GROUP BY 1 ORDER BY 1"])
