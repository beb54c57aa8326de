"""Where the time of requests went: critical path milliseconds per request and path element.

An element is (service, span name, part, stage). The row of a request sums to its duration, so the
differences of means between slow and baseline sum to the whole difference, by stage as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ragprof.analysis.columns import Bools, Floats, Ints
from ragprof.analysis.critical_path import PARTS, Sections
from ragprof.analysis.forest import Forest
from ragprof.analysis.stages import STAGES


@dataclass(frozen=True)
class Path:
    """elements: service, span, part, stage (one row each) and the codes service_code, name_code.
    of_span: element of each span of the forest. milliseconds: requests x elements."""

    elements: pd.DataFrame
    of_span: Ints
    milliseconds: Floats


def path(forest: Forest, stage: Ints, edge: Bools, sections: Sections, roots: Ints) -> Path:
    """Critical path time of the requests whose root spans are `roots`, by element."""
    sizes = max(1, len(forest.services)), max(1, len(forest.names)), len(PARTS), len(STAGES)
    keys = np.ravel_multi_index((forest.service, forest.name, edge.astype(np.int64), stage), sizes)
    present, of_span = np.unique(keys, return_inverse=True)
    distinct = np.stack(np.unravel_index(present, sizes), axis=1)
    request = np.full(len(forest), -1, dtype=np.int64)
    request[roots] = np.arange(len(roots))
    of_section = request[forest.root[sections.span]]
    inside = of_section >= 0
    cells = of_section[inside] * len(distinct) + of_span[sections.span[inside]]
    took = (sections.end - sections.start)[inside] / 1e6
    shape = len(roots), len(distinct)
    milliseconds = np.zeros(shape)
    milliseconds.ravel()[:] = np.bincount(cells, took, minlength=milliseconds.size)
    used = np.flatnonzero(milliseconds.any(axis=0))
    renumbered = np.full(len(distinct), -1, dtype=np.int64)
    renumbered[used] = np.arange(len(used))
    elements = pd.DataFrame(
        {
            "service": [forest.services[code] for code in distinct[used, 0]],
            "span": [forest.names[code] for code in distinct[used, 1]],
            "part": [PARTS[code] for code in distinct[used, 2]],
            "stage": [STAGES[code] for code in distinct[used, 3]],
        }
    )
    return Path(elements, renumbered[of_span], milliseconds[:, used])


def compare(milliseconds: Floats, slow: Bools, baseline: Bools) -> pd.DataFrame:
    """Per column the means of both groups and their difference: baseline_ms, slow_ms, added_ms."""
    columns = milliseconds.shape[1]
    before = milliseconds[baseline].mean(axis=0) if baseline.any() else np.zeros(columns)
    after = milliseconds[slow].mean(axis=0) if slow.any() else np.zeros(columns)
    return pd.DataFrame({"baseline_ms": before, "slow_ms": after, "added_ms": after - before})


def by_stage(elements: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """The same summed by stage: stage, baseline_ms, slow_ms, added_ms; the largest first."""
    table = compared.groupby(elements["stage"].to_numpy()).sum()
    table.index.name = "stage"
    return table.sort_values("added_ms", ascending=False).reset_index()
