"""Critical path: spans per second and growth with size. `python benchmarks/critical_path.py`.

Traces of 20 spans, drawn at random, one every 50 ms, up to a second long; each child lies
somewhere in its parent, some outlive it. Rows are as a Recording has them: sorted by start, join
keys without order. Best of three, CPU seconds of the whole process: the partition alone, and with
the forest (ids resolved, trees checked) that it needs.

The yardstick is 62,000 spans per second, the figure of CRISP (Zhang et al., USENIX ATC 2022) that
this project set out from; CRISP itself is not run here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from ragprof.analysis import critical_path, forest

PER_TRACE = 20
EVERY_NS, LONGEST_NS = 50_000_000, 1_000_000_000
CRISP = 62_000


def spans(count: int, seed: int = 1) -> pa.Table:
    """`count` spans in traces of PER_TRACE."""
    draw = np.random.default_rng(seed)
    place = np.arange(count) % PER_TRACE
    first = np.arange(count) - place
    parent = first + (draw.random(count) * np.maximum(place, 1)).astype(np.int64)
    start, took = first // PER_TRACE * EVERY_NS, np.zeros(count, np.int64)
    for step in range(PER_TRACE):
        here = np.flatnonzero(place == step)
        if step == 0:
            took[here] = draw.integers(LONGEST_NS // 1000, LONGEST_NS, len(here))
            continue
        above = parent[here]
        start[here] = start[above] + (draw.random(len(here)) * took[above]).astype(np.int64)
        took[here] = (draw.random(len(here)) * took[above]).astype(np.int64)
    # An odd factor permutes the 64-bit integers: distinct keys without order.
    factor = np.uint64(0x9E3779B97F4A7C15)
    key = (np.arange(1, count + 1, dtype=np.uint64) * factor).view(np.int64)
    order = np.argsort(start, kind="stable")
    empty = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["x"]))
    return pa.table(
        {
            "trace_key": key[first][order],
            "span_key": key[order],
            "parent_key": np.where(place == 0, 0, key[parent])[order],
            "start": start[order],
            "duration_ns": took[order],
            **dict.fromkeys(("service", "name", "kind", "status"), empty),
        }
    )


def best(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """CPU seconds of the best of three runs, and the result."""
    times = []
    for _ in range(3):
        began = time.process_time()
        result = function(*arguments)
        times.append(time.process_time() - began)
    return min(times), result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--json", action="store_true")
    rows = []
    args = parser.parse_args()
    for size in args.sizes:
        table = spans(size)
        building, tree = best(forest.build, table)
        owning, sections = best(critical_path.sections, tree)
        rows.append(
            {
                "spans": size,
                "sections": len(sections.span),
                "forest_seconds": round(building, 4),
                "partition_seconds": round(owning, 4),
                "spans_per_second": round(size / owning),
                "times_crisp": round(size / owning / CRISP, 1),
                "spans_per_second_with_forest": round(size / (owning + building)),
                "times_crisp_with_forest": round(size / (owning + building) / CRISP, 1),
            }
        )
    if args.json:
        print(json.dumps(rows))
        return 0
    print(
        f"{'spans':>10} {'forest s':>9} {'partition s':>12} {'spans/s':>11} {'x CRISP':>8} "
        f"{'with forest':>12} {'x CRISP':>8}"
    )
    for row in rows:
        print(
            f"{row['spans']:>10,} {row['forest_seconds']:>9} {row['partition_seconds']:>12} "
            f"{row['spans_per_second']:>11,} {row['times_crisp']:>8} "
            f"{row['spans_per_second_with_forest']:>12,} {row['times_crisp_with_forest']:>8}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
