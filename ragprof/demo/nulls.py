"""How often a cause is named where there is none: one fault-free Recording cut into many pairs.

Each pair of neighbouring windows is investigated twice: as an onset that is looked for, and with
the second window called slow. A test that is calibrated gives p-values that are uniform.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from ragprof.analysis.onset import MIN_REQUESTS
from ragprof.errors import RagprofError
from ragprof.investigation.result import Investigation
from ragprof.investigation.run import investigate
from ragprof.plots.picture import Picture
from ragprof.plots.pvalues import p_values as picture_of
from ragprof.recording import Recording

LEAST_SHARE = 0.02
"""Places on the critical path with a smaller share of the requests' time are not tested."""

Pair = tuple[pd.Timestamp, pd.Timestamp, pd.Timestamp]
"""Begin, middle and end of two windows of equal length."""


def pairs(recording: Recording, count: int) -> list[Pair]:
    """`count` pairs of neighbouring windows that cover the requests and do not overlap.

    Raises RagprofError when a window would hold fewer than 20 requests.
    """
    spans = recording.to_pandas("spans", ["start", "kind", "parent_span_id"])
    start = spans.loc[(spans["parent_span_id"] == "") | spans["parent_span_id"].isna(), "start"]
    if not len(start) or len(start) / (2 * count) < MIN_REQUESTS:
        raise RagprofError(
            f"{len(start)} requests are too few for {count} pairs: record longer "
            "(ragprof demo --fault none --record-only --seconds 960), or ask for fewer --pairs."
        )
    edges = pd.date_range(start.min(), start.max() + pd.Timedelta(1, "ns"), periods=2 * count + 1)
    return [(edges[at], edges[at + 1], edges[at + 2]) for at in range(0, 2 * count, 2)]


def measure(
    recording: Recording, count: int = 40, step: Callable[[str], None] = lambda _: None
) -> pd.DataFrame:
    """One row per pair: begin (UTC), requests of both windows, onset and given (what was named
    first, "" when no cause was), p_value (of the duration of the commonest operation), places (of
    each of its places on the critical path)."""
    cut = pairs(recording, count)
    operation = str(investigate(recording).operation)
    rows = []
    for number, (begin, middle, end) in enumerate(cut, 1):
        step(f"pair {number} of {len(cut)}")
        part = recording.slice(begin, end)
        given = investigate(part, window=(middle, end), baseline=(begin, middle))
        tested = investigate(
            part, window=(middle, end), baseline=(begin, middle), operation=operation
        )
        case = tested._case
        spent = case.path.milliseconds
        large = spent.mean(axis=0) >= LEAST_SHARE * case.duration_ms.mean()
        rows.append(
            {
                "begin": begin,
                "baseline_requests": int(case.baseline.sum()),
                "slow_requests": int(case.slow.sum()),
                "onset": _named(investigate(part)),
                "given": _named(given),
                "p_value": case.p_value(case.duration_ms)[1],
                "places": [case.p_value(column)[1] for column in spent[:, large].T],
            }
        )
    return pd.DataFrame(rows)


def _named(found: Investigation) -> str:
    if found.verdict == "no_cause_found":
        return ""
    first = found.findings.iloc[0]
    what = first["function"] or first["resource"] or first["span"]
    return f"{first['stage']}/{first['kind']} {what}"


def summary(measured: pd.DataFrame) -> dict[str, object]:
    """Pairs, false causes of both kinds, and how far the p-values are from uniform.

    uniform_p_value: of a Kolmogorov-Smirnov test of the durations' p-values, one per pair.
    """
    test = stats.kstest(measured["p_value"], "uniform")
    return {
        "pairs": len(measured),
        "requests": int(measured[["baseline_requests", "slow_requests"]].to_numpy().sum()),
        "false_onsets": int((measured["onset"] != "").sum()),
        "false_causes": int((measured["given"] != "").sum()),
        "farthest_from_uniform": float(test.statistic),
        "uniform_p_value": float(test.pvalue),
    }


def table(measured: pd.DataFrame) -> str:
    """Markdown: the summary, and each pair in which a cause was named."""
    told = summary(measured)
    lines = [
        f"{told['pairs']} pairs, {told['requests']} requests: a cause was named in "
        f"{told['false_onsets']} when the onset was looked for, and in {told['false_causes']} "
        "when the second window was called slow.",
        f"p-values of the durations against uniform: D = {told['farthest_from_uniform']:.2f}, "
        f"p = {told['uniform_p_value']:.2f} (Kolmogorov-Smirnov).",
    ]
    wrong = measured[(measured["onset"] != "") | (measured["given"] != "")]
    if len(wrong):
        lines += ["", "| begin | onset looked for | window given |", "|---|---|---|"]
        lines += [
            f"| {row.begin:%H:%M:%S} | {row.onset or '-'} | {row.given or '-'} |"
            for row in wrong.itertuples()
        ]
    return "\n".join(lines)


def picture(measured: pd.DataFrame) -> Picture:
    """The p-values against those of a calibrated test."""
    places = np.concatenate([np.asarray(row, dtype=float) for row in measured["places"]])
    return picture_of(
        {"durations": measured["p_value"].to_numpy(dtype=float), "places on the path": places},
        "p-values where nothing changed",
    )
