"""Span attributes that differ between slow and baseline requests.

Numeric: Mann-Whitney rank test with its effect (the probability that a slow request has the larger
value); categorical: chi-squared on the most frequent values. All p-values are corrected together
(Benjamini and Hochberg).
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from ragprof.analysis.columns import Attributes, Bools, Floats, Ints, codes, grouped
from ragprof.analysis.significance import benjamini_hochberg

MAX_CATEGORIES = 12
PRIVATE = ("query.text", "input.value", "output.value", "db.statement", "db.query.text")
NAMES_SOMETHING = re.compile(r"(?:^|[._-])(?:code|column|id|line|lineno|number|pid|port|tid)$")
"""Attributes whose numbers name something, as the semantic conventions end them (`net.peer.port`,
`thread.id`, `http.status_code`, `code.line.number`): a larger one is not more of it."""


def per_request(
    given: Attributes, request_of_row: Ints, name_of_row: Ints, names: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attributes of requests: numeric (mean over spans) and categorical (first value).

    name_of_row: codes into `names`, the span names. Two frames indexed by request with columns
    (span name, attribute). Attributes with more than `MAX_CATEGORIES` texts (ids, queries) are
    left out, and so are those that hold what people wrote. Numbers that name something count as
    texts.
    """
    request = request_of_row[given.row]
    kept = request >= 0
    for private in PRIVATE:
        kept[given.pairs(private)] = False
    pairs = np.flatnonzero(kept)
    # A stable sort by span name and key leaves the pairs of each in the order of the rows.
    group = name_of_row[given.row[pairs]] * (len(given.names) + 1) + given.key[pairs]
    pairs = pairs[grouped(group)]
    request = request[pairs]
    name, key = name_of_row[given.row[pairs]], given.key[pairs]
    edges = np.flatnonzero((np.diff(name) != 0) | (np.diff(key) != 0)) + 1
    keys = list(given.names)
    numeric: dict[tuple[str, str], pd.Series] = {}
    categories: dict[tuple[str, str], pd.Series] = {}
    for low, high in zip([0, *edges], [*edges, len(pairs)], strict=True):
        if low == high:
            continue
        column = names[name[low]], keys[key[low]]
        values, texts = codes(pa.chunked_array(given.taken(pairs[low:high])))
        numbers = pd.to_numeric(pd.Series(texts, dtype="str"), errors="coerce").to_numpy(float)
        of_pair = numbers[values]
        known = ~np.isnan(of_pair)
        if known.mean() > 0.99 and not NAMES_SOMETHING.search(column[1]):
            numeric[column] = _means(request[low:high][known], of_pair[known])
        elif len(texts) <= MAX_CATEGORIES:
            categories[column] = _first(request[low:high], values, texts)
    return _by_request(numeric), _by_request(categories)


def _means(request: Ints, values: Floats) -> pd.Series:
    """The mean of the values of each request."""
    count = np.bincount(request)
    index = np.flatnonzero(count)
    return pd.Series(np.bincount(request, values)[index] / count[index], index=index)


def _first(request: Ints, values: Ints, texts: list[str]) -> pd.Series:
    """The first value of each request."""
    first = np.full(int(request.max()) + 1, -1)
    first[request[::-1]] = values[::-1]
    index = np.flatnonzero(first >= 0)
    return pd.Series(np.array(texts, dtype=object)[first[index]], index=index, dtype="str")


def _by_request(columns: dict[tuple[str, str], pd.Series]) -> pd.DataFrame:
    """One row for each request that has any of them."""
    ordered = sorted(columns)
    if not ordered:
        empty = pd.MultiIndex.from_tuples([], names=["span", "key"])
        return pd.DataFrame(columns=empty, index=pd.Index([], name="request", dtype=np.int64))
    table = pd.concat([columns[column] for column in ordered], axis=1, sort=True)
    table.columns = pd.MultiIndex.from_tuples(ordered, names=["span", "key"])
    table.index.name = "request"
    return table


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
        number, values = pd.factorize(series[groups >= 0], sort=True)
        cell = 2 * number + groups[groups >= 0]
        counts = np.bincount(cell, minlength=2 * len(values)).reshape(-1, 2)
        if len(counts) < 2 or counts.sum(axis=0).min() < 8:
            continue
        shares = counts / counts.sum(axis=0)
        most = int(np.argmax(np.abs(shares[:, 1] - shares[:, 0])))
        before, after = (float(share) for share in shares[most])
        p_value = stats.chi2_contingency(counts).pvalue
        value = str(values[most])
        rows.append((*column, "categorical", value, before, after, after - before, p_value))
    names = ["span", "attribute", "type", "value", "baseline", "slow", "effect", "p_value"]
    table = pd.DataFrame(rows, columns=names)
    table["p_value"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64))
    return table.sort_values("p_value", ignore_index=True, kind="stable")
