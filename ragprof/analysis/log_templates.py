"""Log templates: messages with numbers and ids masked, and how their rates changed.

Masking alone, as the first step of Drain (He et al., ICWS 2017): enough where events have names.
"""

from __future__ import annotations

import re

import pandas as pd
from scipy import stats

from ragprof.analysis.significance import benjamini_hochberg

_MASKS = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<id>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b", re.I), "<id>"),
    (re.compile(r"(['\"]).*?\1"), "<text>"),
    (re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.I), "<n>"),
)
LONGEST = 200


def template(body: str) -> str:
    """The message with ids, quoted texts and numbers masked, cut to 200 characters."""
    for pattern, mask in _MASKS:
        body = pattern.sub(mask, body)
    return body[:LONGEST]


def changes(
    logs: pd.DataFrame,
    window: tuple[pd.Timestamp, pd.Timestamp],
    baseline: tuple[pd.Timestamp, pd.Timestamp],
) -> pd.DataFrame:
    """Templates by window: service, severity, template, baseline, slow (counts), change (new,
    vanished, more, fewer, same), ratio of rates, p_value (binomial, corrected)."""
    names = ["service", "severity", "template"]
    columns = [*names, "baseline", "slow", "change", "ratio", "p_value"]
    if logs.empty:
        return pd.DataFrame(columns=columns)
    texts = {body: template(body or "") for body in logs["body"].unique()}
    table = logs.assign(template=logs["body"].map(texts))
    seconds = [(end - begin).total_seconds() for begin, end in (baseline, window)]
    inside = [(table["time"] >= a) & (table["time"] < b) for a, b in (baseline, window)]
    counts = table.assign(baseline=inside[0], slow=inside[1]).groupby(names)[["baseline", "slow"]]
    result = counts.sum().reset_index()
    result = result[(result["baseline"] + result["slow"]) > 0]
    share = seconds[1] / max(sum(seconds), 1e-9)
    p_values = [
        stats.binomtest(int(row.slow), int(row.slow + row.baseline), share).pvalue
        for row in result.itertuples()
    ]
    result["p_value"] = benjamini_hochberg(p_values)
    rate = (result["slow"] / seconds[1]) / (result["baseline"] / seconds[0]).replace(
        0, float("nan")
    )
    result["ratio"] = rate
    significant = result["p_value"] < 0.01
    result["change"] = "same"
    result.loc[significant & (rate > 1), "change"] = "more"
    result.loc[significant & (rate < 1), "change"] = "fewer"
    result.loc[significant & (result["baseline"] == 0), "change"] = "new"
    result.loc[significant & (result["slow"] == 0), "change"] = "vanished"
    return result.sort_values("p_value", ignore_index=True, kind="stable")[columns]
