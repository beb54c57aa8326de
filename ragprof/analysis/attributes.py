"""Span attributes that differ between slow and baseline requests.

Numeric: Mann-Whitney rank test with its effect (the probability that a slow request has the larger
value); categorical: chi-squared on the most frequent values. All p-values are corrected together
(Benjamini and Hochberg).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from ragprof.analysis.columns import Bools, Ints, attribute_rows
from ragprof.analysis.significance import benjamini_hochberg

MAX_CATEGORIES = 12
PRIVATE = ("query.text", "input.value", "output.value", "db.statement", "db.query.text")


def per_request(
    spans: pa.Table, request_of_row: Ints, name_of_row: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attributes of requests: numeric (mean over spans) and categorical (first value).

    Two frames indexed by request with columns (span name, attribute). Attributes with more than
    `MAX_CATEGORIES` texts (ids, queries) are left out, and so are those that hold what people
    wrote.
    """
    rows, keys, values = attribute_rows(spans["attributes"])
    request = request_of_row[rows]
    inside = request >= 0
    table = pd.DataFrame(
        {
            "request": request[inside],
            "span": np.array([*name_of_row, ""], dtype=object)[rows[inside]],
            "key": keys.filter(pa.array(inside)).to_pylist(),
            "value": values.filter(pa.array(inside)).to_pylist(),
        }
    )
    table = table[~table["key"].isin(PRIVATE)]
    number = pd.to_numeric(table["value"], errors="coerce")
    share = number.notna().groupby([table["span"], table["key"]]).transform("mean")
    numeric = table.assign(value=number)[share > 0.99]
    counts = numeric.pivot_table(
        index="request", columns=["span", "key"], values="value", aggfunc="mean"
    )
    rest = table[share <= 0.99]
    few = rest.groupby(["span", "key"])["value"].transform("nunique") <= MAX_CATEGORIES
    categories = rest[few].pivot_table(
        index="request", columns=["span", "key"], values="value", aggfunc="first"
    )
    return counts, categories


def differences(
    numeric: pd.DataFrame, categorical: pd.DataFrame, slow: Bools, baseline: Bools
) -> pd.DataFrame:
    """span, attribute, type, baseline, slow (mean or share of the value named), value, effect
    (numeric: P(slow > baseline); categorical: difference of shares), p_value (corrected)."""
    rows = []
    for column in numeric.columns:
        series = numeric[column].dropna()
        after = series[slow[series.index]].to_numpy()
        before = series[baseline[series.index]].to_numpy()
        if min(len(after), len(before)) < 8 or series.nunique() < 2:
            continue
        test = stats.mannwhitneyu(after, before)
        effect = test.statistic / (len(after) * len(before))
        rows.append((*column, "numeric", "", before.mean(), after.mean(), effect, test.pvalue))
    for column in categorical.columns:
        series = categorical[column].dropna()
        groups = np.where(slow[series.index], 1, np.where(baseline[series.index], 0, -1))
        kept = series[groups >= 0]
        counts = pd.crosstab(kept.to_numpy(), groups[groups >= 0])
        if counts.shape[0] < 2 or counts.shape[1] < 2 or counts.to_numpy().sum(axis=0).min() < 8:
            continue
        shares = counts / counts.sum()
        value = (shares[1] - shares[0]).abs().idxmax()
        p_value = stats.chi2_contingency(counts).pvalue
        before, after = float(shares.loc[value, 0]), float(shares.loc[value, 1])
        rows.append((*column, "categorical", str(value), before, after, after - before, p_value))
    names = ["span", "attribute", "type", "value", "baseline", "slow", "effect", "p_value"]
    table = pd.DataFrame(rows, columns=names)
    table["p_value"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64))
    return table.sort_values("p_value", ignore_index=True, kind="stable")
