"""How well the tables join to requests: trace id > request id > exemplar > service and time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ragprof.analysis.columns import Ints, codes, integers

GRADES = ("trace_id", "request_id", "exemplar", "service_time", "none")


def coverage(
    trace_keys: Ints,
    request_ids: pa.Array,
    samples: pa.Table,
    logs: pa.Table,
    metrics: pa.Table,
) -> pd.DataFrame:
    """table, rows and, per grade, how many rows join to a known trace at that grade.

    `trace_keys` are those of the spans.
    """
    known = np.unique(trace_keys)
    rows = [("spans", len(trace_keys), len(trace_keys), 0, 0, 0, 0)]
    for name, table in (("samples", samples), ("logs", logs)):
        key = integers(table["trace_key"])
        by_trace = np.isin(key, known) & (key != 0)
        by_request = np.zeros(len(key), dtype=bool)
        if name == "logs" and len(request_ids):
            ids = pc.is_in(table["request_id"], value_set=request_ids)
            by_request = ~by_trace & np.asarray(ids, dtype=bool)
        number, services = codes(table["service"])
        service = np.array([text != "" for text in services], dtype=bool)[number]
        rest = ~by_trace & ~by_request
        rows.append(
            (name, len(key), int(by_trace.sum()), int(by_request.sum()), 0,
             int((rest & service).sum()), int((rest & ~service).sum()))
        )  # fmt: skip
    exemplars = pc.list_value_length(metrics["exemplars"])
    with_exemplar = int(pc.sum(pc.greater(exemplars, 0)).as_py() or 0)
    count = metrics.num_rows
    rows.append(("metrics", count, 0, 0, with_exemplar, count - with_exemplar, 0))
    return pd.DataFrame(rows, columns=["table", "rows", *GRADES])
