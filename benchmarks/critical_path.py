"""Critical path: spans per second and growth with size. `python benchmarks/critical_path.py`.

Traces of 20 spans, drawn at random; each child lies somewhere in its parent, some outlive it. The
best of three runs; building the forest (ids resolved, trees checked) and the partition apart.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pyarrow as pa

from ragprof.analysis import critical_path, forest

PER_TRACE = 20


def spans(count: int, seed: int = 1) -> pa.Table:
    """`count` spans in traces of PER_TRACE."""
    draw = np.random.default_rng(seed)
    place = np.arange(count) % PER_TRACE
    first = np.arange(count) - place
    parent = first + (draw.random(count) * np.maximum(place, 1)).astype(np.int64)
    start, took = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for step in range(PER_TRACE):
        here = np.flatnonzero(place == step)
        if step == 0:
            took[here] = draw.integers(10**6, 10**9, len(here))
            continue
        above = parent[here]
        start[here] = start[above] + (draw.random(len(here)) * took[above]).astype(np.int64)
        took[here] = (draw.random(len(here)) * took[above]).astype(np.int64)
    empty = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["x"]))
    return pa.table(
        {
            "trace_key": first + 1,
            "span_key": np.arange(1, count + 1),
            "parent_key": np.where(place == 0, 0, parent + 1),
            "start": start,
            "duration_ns": took,
            **dict.fromkeys(("service", "name", "kind", "status"), empty),
        }
    )


def best(function: object, *arguments: object) -> tuple[float, object]:
    """Seconds of the best of three runs, and the result."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        result = function(*arguments)  # type: ignore[operator]
        times.append(time.perf_counter() - began)
    return min(times), result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6])
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
                "sections": len(sections.span),  # type: ignore[attr-defined]
                "forest_seconds": round(building, 4),
                "partition_seconds": round(owning, 4),
                "spans_per_second": round(size / owning),
                "spans_per_second_with_forest": round(size / (owning + building)),
            }
        )
    if args.json:
        print(json.dumps(rows))
        return 0
    print(f"{'spans':>9} {'forest s':>9} {'partition s':>12} {'spans/s':>11} {'with forest':>11}")
    for row in rows:
        print(
            f"{row['spans']:>9,} {row['forest_seconds']:>9} {row['partition_seconds']:>12} "
            f"{row['spans_per_second']:>11,} {row['spans_per_second_with_forest']:>11,}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
