"""Samples of one function by the line that ran in it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from ragprof.analysis.columns import Bools, integers
from ragprof.analysis.functions import RequestSamples

NO_LINES = pd.DataFrame(
    {name: pd.Series(dtype=float) for name in ("line", "baseline_ms", "slow_ms", "added_ms")}
)


def by_line(
    samples: RequestSamples,
    stacks: pa.Table,
    frames: pa.Table,
    function: str,
    file: str,
    slow: Bools,
    baseline: Bools,
) -> pd.DataFrame:
    """ms per request on each line of `function` in `file` with what it called; by added ms.

    Columns: line, baseline_ms, slow_ms, added_ms. A stack in which the function stands more than
    once counts for the innermost.
    """
    names, files = frames["function"].to_pylist(), frames["file"].to_pylist()
    inner = function + ".<locals>.<"  # comprehensions and lambdas of the function are its lines
    ids = integers(frames["frame_id"])
    own = {
        int(ids[row])
        for row, name in enumerate(names)
        if files[row] == file and (name == function or str(name).startswith(inner))
    }
    line_of: dict[int, int] = {}
    for stack, frame_ids, lines in zip(
        integers(stacks["stack_id"]).tolist(),
        stacks["frame_ids"].to_pylist(),
        stacks["lines"].to_pylist(),
        strict=True,
    ):
        for frame, line in zip(reversed(frame_ids or []), reversed(lines or []), strict=False):
            if frame in own:
                line_of[stack] = int(line or 0)
                break
    at = np.array([line_of.get(int(stack), -1) for stack in samples.stack], dtype=np.int64)
    chosen = at > 0
    if not chosen.any():
        return NO_LINES.copy()
    request, ms = samples.request[chosen], samples.ms[chosen]
    table = (
        pd.DataFrame(
            {
                "line": at[chosen],
                "baseline_ms": ms * baseline[request] / max(1, baseline.sum()),
                "slow_ms": ms * slow[request] / max(1, slow.sum()),
            }
        )
        .groupby("line", as_index=False)
        .sum()
    )
    table["added_ms"] = table["slow_ms"] - table["baseline_ms"]
    return table.sort_values("added_ms", ascending=False, ignore_index=True)
