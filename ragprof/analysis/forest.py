"""Spans as trees: parents resolved, damage repaired and counted, clocks of services aligned.

Everything else in `analysis` reads spans through a `Forest`, so that missing parents, cycles,
duplicate ids, negative durations and skewed clocks are dealt with in one place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ragprof.analysis.columns import Bools, Ints, codes, integers, places

ENTRY_KINDS = ("server", "consumer")
EXIT_KINDS = ("client", "producer")


@dataclass(frozen=True)
class Forest:
    """One row per span, the arrays equally long; `row` points into the table it was built from.

    parent: index of the parent, -1 at the root of a trace. root: index of the root of its trace.
    start, end: ns since 1970, clocks aligned. depth: 0 at the root. service, name: codes into
    `services` and `names`. exit, entry: kind is client or producer, server or consumer. error: the
    status is an error. problems: how many spans were repaired or left out, by reason.
    """

    row: Ints
    trace_key: Ints
    span_key: Ints
    parent: Ints
    root: Ints
    depth: Ints
    start: Ints
    end: Ints
    service: Ints
    name: Ints
    exit: Bools
    entry: Bools
    error: Bools
    services: list[str]
    names: list[str]
    problems: dict[str, int]

    def __len__(self) -> int:
        return len(self.row)


def build(spans: pa.Table) -> Forest:
    """The forest of a spans table (see `ragprof.tables.SPANS`).

    Of spans with the same id the first is kept. A span whose parent is not in the table hangs
    below the root of its trace (the earliest span without a parent, else the earliest whose parent
    is missing). Spans on a cycle are left out. A consumer span is a root of its own where its
    parent is missing, or is a producer span that ends before it: nobody waits for what is done with
    a message (OpenTelemetry specification, SpanKind). A server span that begins outside of the
    client span that called it, from another service, is moved into its middle with all below it,
    as Jaeger's clock skew adjuster does.
    """
    span_key = integers(spans["span_key"])
    row = _first_of_each(span_key)
    problems = {"duplicate_ids": len(span_key) - len(row)}
    span_key = span_key[row]
    trace_key = integers(spans["trace_key"])[row]
    parent_key = integers(spans["parent_key"])[row]
    start = integers(spans["start"])[row]
    duration = integers(spans["duration_ns"])[row]
    problems["negative_durations"] = int((duration < 0).sum())
    duration = np.maximum(duration, 0)

    parent = places(span_key, parent_key)
    problems["missing_parents"] = int(((parent < 0) & (parent_key != 0)).sum())
    top, depth = _ancestry(parent)
    on_cycle = parent[top] >= 0  # following parents never ends at one without a parent
    problems["cycles"] = int(on_cycle.sum())
    if on_cycle.any():
        keep = ~on_cycle
        renumbered = np.cumsum(keep) - 1
        row, span_key, trace_key = row[keep], span_key[keep], trace_key[keep]
        parent_key, start, duration = parent_key[keep], start[keep], duration[keep]
        parent = np.where(parent[keep] < 0, -1, renumbered[parent[keep]])
        top, depth = _ancestry(parent)
    service, services = codes(spans["service"])
    name, names = codes(spans["name"])
    kind, kinds = codes(spans["kind"])
    status, statuses = codes(spans["status"])
    service, name, kind, status = service[row], name[row], kind[row], status[row]
    entry, exit_ = _is(kind, kinds, ENTRY_KINDS), _is(kind, kinds, EXIT_KINDS)
    consumer, producer = _is(kind, kinds, ("consumer",)), _is(kind, kinds, ("producer",))
    sent = producer[parent] & (start + duration > (start + duration)[parent])
    received = consumer & (sent | (parent < 0))
    parent = _one_root(trace_key, parent, parent_key, start)
    if received.any():
        parent[received] = -1
        root, depth = _ancestry(parent)
    else:
        above = parent[top]
        root, depth = np.where(above >= 0, above, top), depth + (above >= 0)
    start, moved = _align(parent, depth, start, duration, service, entry, exit_)
    problems["clock_skew"] = moved
    return Forest(
        row=row,
        trace_key=trace_key,
        span_key=span_key,
        parent=parent,
        root=root,
        depth=depth,
        start=start,
        end=start + duration,
        service=service,
        name=name,
        exit=exit_,
        entry=entry,
        error=_is(status, statuses, ("error",)),
        services=services,
        names=names,
        problems={reason: count for reason, count in problems.items() if count},
    )


def _is(numbers: Ints, values: list[str], wanted: tuple[str, ...]) -> Bools:
    lookup = np.array([value.lower() in wanted for value in values] + [False])
    found: Bools = lookup[numbers]
    return found


def _first_of_each(keys: Ints) -> Ints:
    """Where each key stands first, ascending."""
    in_order = np.sort(keys)
    if not (in_order[1:] == in_order[:-1]).any():
        return np.arange(len(keys))
    _, first = np.unique(keys, return_index=True)
    return np.sort(first)


def _one_root(trace_key: Ints, parent: Ints, parent_key: Ints, start: Ints) -> Ints:
    """Hang all but one of the parentless spans of a trace below that one."""
    roots = np.flatnonzero(parent < 0)
    order = roots[np.lexsort((start[roots], parent_key[roots] != 0, trace_key[roots]))]
    keys = trace_key[order]
    leads = np.ones(len(order), dtype=bool)
    leads[1:] = keys[1:] != keys[:-1]
    leader = order[np.maximum.accumulate(np.where(leads, np.arange(len(order)), 0))]
    result = parent.copy()
    result[order] = np.where(leads, -1, leader)
    return result


def _ancestry(parent: Ints) -> tuple[Ints, Ints]:
    """Root and depth of each node, by pointer jumping with distances."""
    top = np.where(parent < 0, np.arange(len(parent)), parent)
    depth = (parent >= 0).astype(np.int64)
    for _ in range(len(parent).bit_length()):
        step = depth[top]
        if not step.any():
            break
        depth, top = depth + step, top[top]
    return top, depth


def _align(
    parent: Ints,
    depth: Ints,
    start: Ints,
    duration: Ints,
    service: Ints,
    entry: Bools,
    exit_: Bools,
) -> tuple[Ints, int]:
    """Starts with skewed server spans, and all below them, moved into their client spans."""
    above = np.maximum(parent, 0)
    remote = (parent >= 0) & entry & exit_[above] & (service != service[above])
    outside = (start < start[above]) | (start > start[above] + duration[above])
    skewed = remote & outside & (duration <= duration[above])
    own = np.where(skewed, start[above] + (duration[above] - duration) // 2 - start, 0)
    moved = int((own != 0).sum())
    if not moved:
        return start, 0
    # The shift of a span is the sum of the shifts on its way up.
    shift, top = own.copy(), np.where(parent < 0, np.arange(len(parent)), parent)
    shift[parent < 0] = 0
    for _ in range(len(parent).bit_length()):
        shift, top = shift + shift[top], top[top]
    return start + shift, moved
