"""Who is slow, and against whom: slow and baseline requests of one root operation.

An operation is (service, name of the root span). Without a window the onset is found from the
latencies of each operation; the baseline is the equal time just before it. Without an onset, or
with slow requests chosen by duration or id, the baseline is the fast half of the same window.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from ragprof.analysis.columns import Bools, Floats, Ints, texts
from ragprof.analysis.forest import Forest
from ragprof.analysis.onset import MIN_REQUESTS, find_onset, order
from ragprof.errors import RagprofError

Window = tuple[pd.Timestamp, pd.Timestamp]
LEVEL = 0.01
LEAST_RATIO, LEAST_MS = 1.1, 3.0
"""An onset counts when it adds at least 10 % and 3 ms to the mean."""


class SelectionError(RagprofError):
    """A choice of slow requests, window or operation that fits nothing in the Recording."""


@dataclass(frozen=True)
class Groups:
    """roots: indices of root spans of the operation, by time; slow, baseline: which of them.
    selected: chosen by duration or id. changed: latency rose beyond its null. p_value: of that."""

    operation: str
    roots: Ints
    slow: Bools
    baseline: Bools
    selected: bool
    changed: bool
    p_value: float
    window: Window
    baseline_window: Window
    reason: str


def operations(forest: Forest) -> dict[str, Ints]:
    """Root spans by operation name, each by time. Traces that begin with a client call
    count only when there are no others."""
    roots = np.flatnonzero(forest.parent < 0)
    roots = roots[np.argsort(forest.start[roots], kind="stable")]
    asked = roots[~forest.exit[roots]]
    roots = asked if len(asked) else roots  # own calls at start-up are no requests
    found: dict[str, Ints] = {}
    key = forest.service[roots] * (len(forest.names) + 1) + forest.name[roots]
    for one in np.unique(key):
        members = roots[key == one]
        name = forest.names[forest.name[members[0]]]
        if name in found:
            name = f"{name} ({forest.services[forest.service[members[0]]]})"
        found[name] = members
    return found


def choose(
    forest: Forest,
    slow: str | Sequence[str] = "p95",
    window: Window | None = None,
    baseline: Window | None = None,
    operation: str | None = None,
    trace_ids: pa.ChunkedArray | None = None,
    stage_ms: Floats | None = None,
) -> Groups:
    """The groups to compare. trace_ids: of the rows of the spans table, where `slow` may name some.
    stage_ms: critical path time per span of the forest (root spans count) and stage: a shift of
    one stage stands out from the noise of the others.

    Raises SelectionError for choices that fit nothing.
    """
    found = operations(forest)
    if not found:
        raise SelectionError("The recording has no traces: record with tracing on.")
    if operation is not None:
        if operation not in found:
            raise SelectionError(
                f"There is no operation {operation!r}; choose one of {', '.join(sorted(found))}."
            )
        found = {operation: found[operation]}
    wanted = [slow] if isinstance(slow, str) else list(slow)
    chosen = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", wanted[0]) if len(wanted) == 1 else None
    quantile = re.fullmatch(r"p(\d\d?(?:\.\d+)?)", wanted[0]) if len(wanted) == 1 else None
    if chosen:
        limit = float(chosen[1]) * (1 if chosen[2] == "ms" else 1000)
        return _by_duration(forest, found, limit, window, baseline)
    if not quantile:
        return _by_id(forest, found, wanted, trace_ids, window, baseline)
    if window is not None:
        return _by_window(forest, found, window, baseline)
    best = _onset(forest, found, stage_ms)
    if best is not None:
        return best
    name, roots = max(found.items(), key=lambda item: len(item[1]))
    took = _ms(forest, roots)
    limit = float(np.quantile(took, float(quantile[1]) / 100))
    groups = _by_duration(forest, {name: roots}, limit, None, baseline)
    return Groups(**{**vars(groups), "changed": False, "reason": "no onset"})


def _ms(forest: Forest, roots: Ints) -> Floats:
    took: Floats = (forest.end - forest.start)[roots] / 1e6
    return took


def _onset(forest: Forest, found: dict[str, Ints], stage_ms: Floats | None) -> Groups | None:
    """The operation with an onset that lost most time in all; None without one."""
    candidates = []
    tested = sum(len(roots) >= 2 * MIN_REQUESTS for roots in found.values())
    for name, roots in found.items():
        took, shapes = _ms(forest, roots), _shapes(forest, roots)
        onset = find_onset(took, shapes)
        if onset is None:
            continue
        parts = np.zeros((len(roots), 0)) if stage_ms is None else stage_ms[roots]
        parts = parts[:, parts.mean(axis=0) > 0.02 * took.mean()]
        for part in parts.T:
            found_in_part = find_onset(part, shapes, passing=False)
            # The stage in which the shift is clearest dates it best.
            if found_in_part is not None and order(found_in_part) < order(onset):
                onset = found_in_part
        p_value = min(1.0, onset.p_value * tested * (1 + parts.shape[1]))
        if p_value > LEVEL:
            continue
        inside = np.zeros(len(roots), dtype=bool)
        inside[onset.begin : onset.end] = True
        begin = forest.start[roots[onset.begin]]
        end = forest.start[roots[onset.end - 1]] + 1
        before = forest.start[roots] >= begin - (end - begin)
        before &= ~inside & (np.arange(len(roots)) < onset.begin)
        if before.sum() < MIN_REQUESTS:
            before = np.arange(len(roots)) < onset.begin
        reason = "onset of slowness found from the latencies"
        slow, calm = inside, before
        for share, words in ((0.1, "tenth"), (0.25, "quarter"), (0.5, "half")):
            if _rose(took, slow, calm):
                break
            # A burst in the baseline hides what is slower since: compare without the extremes.
            slow, calm = (_without_slowest(took, group, share) for group in (inside, before))
            reason = (
                f"onset of slowness found from the latencies; the slowest {words} of both groups "
                "is left out, for the baseline had a burst"
            )
        if not _rose(took, slow, calm):
            continue
        lost = float(took[slow].mean() - took[calm].mean()) * int(inside.sum())
        low = forest.start[roots[before]].min()
        candidates.append(
            (lost, Groups(name, roots, slow, calm, False, True, p_value, _window(begin, end),
                          _window(low, begin), reason))
        )  # fmt: skip
    return max(candidates, key=lambda item: item[0])[1] if candidates else None


def _rose(took: Floats, slow: Bools, calm: Bools) -> bool:
    after, base = float(took[slow].mean()), float(took[calm].mean())
    return after >= LEAST_RATIO * base and after >= base + LEAST_MS


def _without_slowest(took: Floats, group: Bools, share: float) -> Bools:
    kept: Bools = group & (took <= np.quantile(took[group], 1 - share))
    return kept


def _shapes(forest: Forest, roots: Ints) -> Ints:
    """1 for requests with many different spans below them, 0 for those that were answered early."""
    pairs = np.unique(forest.root * len(forest.names) + forest.name) // max(1, len(forest.names))
    counts = np.bincount(pairs, minlength=len(forest))[roots]
    many: Ints = (counts > (counts.min() + counts.max()) / 2).astype(np.int64)
    return many


def _window(low: int, high: int) -> Window:
    return pd.Timestamp(int(low), tz="UTC"), pd.Timestamp(int(high), tz="UTC")


def _inside(forest: Forest, roots: Ints, window: Window | None) -> Bools:
    if window is None:
        return np.ones(len(roots), dtype=bool)
    start = forest.start[roots]
    inside: Bools = (start >= window[0].value) & (start < window[1].value)
    return inside


def _by_window(
    forest: Forest, found: dict[str, Ints], window: Window, baseline: Window | None
) -> Groups:
    before = baseline or (window[0] - (window[1] - window[0]), window[0])
    best: tuple[float, Groups] | None = None
    for name, roots in found.items():
        slow, base = _inside(forest, roots, window), _inside(forest, roots, before)
        base &= ~slow
        if not slow.any() or not base.any():
            continue
        took = _ms(forest, roots)
        added = float(took[slow].mean() - took[base].mean()) * int(slow.sum())
        groups = Groups(name, roots, slow, base, False, added > 0, float("nan"), window, before,
                        "window given")  # fmt: skip
        if best is None or added > best[0]:
            best = added, groups
    if best is None:
        raise SelectionError(
            "No operation has requests both in the window and in its baseline: choose other times."
        )
    return best[1]


def _by_duration(
    forest: Forest,
    found: dict[str, Ints],
    limit: float,
    window: Window | None,
    baseline: Window | None,
) -> Groups:
    counts = {
        name: int((_inside(forest, roots, window) & (_ms(forest, roots) >= limit)).sum())
        for name, roots in found.items()
    }
    name = max(counts, key=lambda one: counts[one])
    roots = found[name]
    slow = _inside(forest, roots, window) & (_ms(forest, roots) >= limit)
    if not slow.any():
        raise SelectionError(f"No request took {limit:g} ms or longer: choose a lower limit.")
    return _selected(forest, name, roots, slow, window, baseline, f"at least {limit:g} ms")


def _by_id(
    forest: Forest, found: dict[str, Ints], wanted: Sequence[str],
    trace_ids: pa.ChunkedArray | None,
    window: Window | None, baseline: Window | None,
) -> Groups:  # fmt: skip
    ids = {one.lower() for one in wanted}
    for name, roots in found.items():
        if trace_ids is None:
            break
        known = texts(trace_ids.take(pa.array(forest.row[roots])))
        slow = np.array([one in ids for one in known], dtype=bool)
        if slow.any():
            return _selected(forest, name, roots, slow, window, baseline, "traces given")
    raise SelectionError(
        f"{wanted[0]!r} is neither a percentile (p95), a duration (300ms) nor a trace id of the "
        "recording."
    )


def _selected(
    forest: Forest, name: str, roots: Ints, slow: Bools, window: Window | None,
    baseline: Window | None, reason: str,
) -> Groups:  # fmt: skip
    took = _ms(forest, roots)
    base = _inside(forest, roots, baseline or window) & ~slow
    if baseline is None and base.any():
        base &= took <= np.median(took[_inside(forest, roots, window)])
    start = forest.start[roots]
    whole = _window(start.min(), start.max() + 1)
    return Groups(name, roots, slow, base, True, True, float("nan"), window or whole,
                  baseline or window or whole, reason)  # fmt: skip
