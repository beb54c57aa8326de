"""Clocks of services that differ: how far each span is moved, beside the time it was given.

The adjustment is that of Jaeger's clock skew adjuster, as `forest` makes it: a server span that
begins outside of the client span that called it is moved into its middle, with all below it. The
original `start` stays what it is.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from ragprof.analysis import forest
from ragprof.analysis.columns import integers


def with_clock_skew(spans: pa.Table) -> pa.Table:
    """The spans with one more column, `clock_skew_ns`: what to add to `start`, int64 in ns.

    0 where the clocks agree; null for spans that no trace holds (duplicate ids, cycles). Whole
    traces are needed.
    """
    built = forest.build(spans)
    shift = np.zeros(spans.num_rows, np.int64)
    shift[built.row] = built.start - integers(spans["start"])[built.row]
    absent = np.ones(spans.num_rows, bool)
    absent[built.row] = False
    field = pa.field(
        "clock_skew_ns",
        pa.int64(),
        metadata={"meaning": "what to add to start so that clocks agree", "unit": "ns"},
    )
    return spans.append_column(field, pa.array(shift, mask=absent))


def clock_skews(spans: pa.Table, built: forest.Forest | None = None) -> pd.DataFrame:
    """How far the clock of each service is off against the services that call it.

    `built`: the forest of the spans, where there is one.

    Columns: service, caller, calls (remote calls between them), adjusted (of those, how many had
    to be moved), skew_ms (median of these, positive: its clock is behind). Sorted by size of skew;
    no rows when no call had to be moved.
    """
    built = built or forest.build(spans)
    moved = built.start - integers(spans["start"])[built.row]
    above = np.maximum(built.parent, 0)
    remote = (built.parent >= 0) & built.entry & built.exit[above]
    remote &= built.service != built.service[above]
    own = np.where(built.parent >= 0, moved - moved[above], moved)
    calls = pd.DataFrame(
        {
            "service": np.array(built.services, object)[built.service[remote]],
            "caller": np.array(built.services, object)[built.service[above[remote]]],
            "own_ms": own[remote] / 1e6,
        }
    )
    rows = []
    for (service, caller), group in calls.groupby(["service", "caller"], sort=True):
        off = group["own_ms"][group["own_ms"] != 0]
        if len(off):
            rows.append((service, caller, len(group), len(off), float(off.median())))
    table = pd.DataFrame(rows, columns=["service", "caller", "calls", "adjusted", "skew_ms"])
    order = table["skew_ms"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)
