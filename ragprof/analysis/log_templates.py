"""Log templates: messages with numbers and ids masked, and how their rates changed.

Masking alone, as the first step of Drain (He et al., ICWS 2017): enough where events have names.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from ragprof.analysis.columns import Ints, codes, integers
from ragprof.analysis.significance import benjamini_hochberg

# Hex of eight digits or more with a decimal digit among them, wherever that stands.
_HEX = "|".join(
    [*(f"[a-f]{{{n}}}[0-9][0-9a-f]{{{7 - n},}}" for n in range(8)), "[a-f]{8,}[0-9][0-9a-f]*"]
)
_MASKS = (
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>"),
    (rf"\b(?:{_HEX})\b", "<id>"),
    (r"'.*?'|" + '".*?"', "<text>"),
    (r"[-+]?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?", "<n>"),
)
"""Regular expressions in the common ground of RE2 and Python, letters in both cases."""
LONGEST = 200


def templates(bodies: pa.Array) -> pa.Array:
    """Messages with ids, quoted texts and numbers masked, cut to 200 characters."""
    for pattern, mask in _MASKS:
        bodies = pc.replace_substring_regex(bodies, f"(?i){pattern}", mask)
    return pc.utf8_slice_codeunits(bodies, 0, LONGEST)


def template(body: str) -> str:
    """The template of one message."""
    return str(templates(pa.array([body], pa.string()))[0].as_py())


def changes(
    logs: pa.Table,
    window: tuple[pd.Timestamp, pd.Timestamp],
    baseline: tuple[pd.Timestamp, pd.Timestamp],
) -> pd.DataFrame:
    """Templates by window, of a table of logs (time, service, severity, body): service, severity,
    template, baseline, slow (counts), change (new, vanished, more, fewer, same), ratio of rates,
    p_value (binomial, corrected)."""
    names = ["service", "severity", "template"]
    columns = [*names, "baseline", "slow", "change", "ratio", "p_value"]
    time = integers(logs["time"])
    inside = [(time >= a.value) & (time < b.value) for a, b in (baseline, window)]
    seen = inside[0] | inside[1]
    if not seen.any():
        return pd.DataFrame(columns=columns)
    rows = logs.filter(pa.array(seen))
    service, services = codes(rows["service"])
    severity, severities = codes(rows["severity"])
    text, texts = _template_codes(rows["body"])
    shape = len(services), len(severities), len(texts)
    present, kind = np.unique(
        np.ravel_multi_index((service, severity, text), shape), return_inverse=True
    )
    of = np.unravel_index(present, shape)
    counts = [np.bincount(kind, side[seen], len(present)).astype(np.int64) for side in inside]
    values = [
        np.array(every, dtype=object)[number]
        for every, number in zip((services, severities, texts), of, strict=True)
    ]
    data = {**dict(zip(names, values, strict=True)), "baseline": counts[0], "slow": counts[1]}
    result = pd.DataFrame(data).sort_values(names, ignore_index=True)
    seconds = [(end - begin).total_seconds() for begin, end in (baseline, window)]
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


def _template_codes(bodies: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Each body's template as a code, every distinct body masked once."""
    body = pc.fill_null(bodies, "").dictionary_encode().unify_dictionaries()
    of_body, texts = codes(templates(body.chunk(0).dictionary))
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in body.chunks])
    return of_body[numbers], texts
