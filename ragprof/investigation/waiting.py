"""Detectors that read states: what requests computed or waited for while they were slow."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ragprof.analysis import functions
from ragprof.investigation.case import Case
from ragprof.investigation.evidence import Evidence, make
from ragprof.investigation.structure import positive, service_codes

LEAST_MS = 1.0


def pool_wait(case: Case) -> list[Evidence]:
    """Time before database work grew while a pool had no connection left."""
    of, added = case.path.of_span, positive(case)
    fetching = np.unique(of[case.database & ~case.statement & (case.request_of_span >= 0)])
    claimed = np.zeros(len(added))
    claimed[fetching[fetching >= 0]] = added[fetching[fetching >= 0]]
    pool, text, smaller = _saturated(case)
    if not pool or claimed.sum() < LEAST_MS:
        return []
    waited = case.path.milliseconds[:, claimed > 0].sum(axis=1)
    held = [
        float((case.duration_ms - waited)[group].mean()) for group in (case.baseline, case.slow)
    ]
    # Little's law: as many connections that are each held longer are all in use at some point.
    follows = not smaller and held[1] > 1.3 * held[0]
    against = [
        f"the pool has as many connections as before, and requests take {held[1] / held[0]:.1f} "
        "times as long beside this wait: it follows from that"
    ]
    return [
        make(
            case, "pool_wait", claimed, resource=pool, spans_wide=True,
            states=("awaiting", "waiting"), follows=follows, against=against if follows else [],
            support=[text, f"{claimed.sum():.1f} ms per request more to fetch connections"],
        )
    ]  # fmt: skip


_IN_USE = (
    "database_connection_pool_in_use",
    "db.client.connection.count",
    "connection_pool_in_use",
)
_MAX = ("database_connection_pool_max", "db.client.connection.max", "connection_pool_max")


def _saturated(case: Case) -> tuple[str, str, bool]:
    """Name of a pool that was full more often than before, how often, and whether it shrank."""
    window, before = ([edge.value for edge in each] for each in (case.window, case.baseline_window))
    for used in case.metrics[case.metrics["metric"].str.endswith(_IN_USE)].itertuples():
        labels = dict(used.labels)
        state = labels.get("state", labels.get("db.client.connection.state", "used"))
        if state != "used":
            continue
        limits = case.metrics[case.metrics["metric"].str.endswith(_MAX)]
        same = [
            row for row in limits.itertuples()
            if all(row.labels.get(key) == value for key, value in labels.items() if "pool" in key)
        ]  # fmt: skip
        if not same:
            continue
        times, values = case.points[used.series_id]
        at, limit = case.points[same[0].series_id]
        most = limit[np.clip(np.searchsorted(at, times, side="right") - 1, 0, None)]
        full = values >= np.maximum(most, 1)
        shares = [
            float(full[(times >= low) & (times < high)].mean())
            if ((times >= low) & (times < high)).any()
            else 0.0
            for low, high in (window, before)
        ]
        if shares[0] > 0.2 and shares[0] > shares[1] + 0.15:
            name = next((value for key, value in labels.items() if "pool" in key), used.metric)
            text = (
                f"all connections of pool {name} (at most {most[-1]:g}) were in use at "
                f"{shares[0]:.0%} of the points, before {shares[1]:.0%}"
            )
            allowed = [limit[(at >= low) & (at < high)] for low, high in (window, before)]
            smaller = bool(
                all(len(values) for values in allowed)
                and np.median(allowed[0]) < np.median(allowed[1])
            )
            return name, text, smaller
    return "", "", False


def blocked_loop(case: Case) -> list[Evidence]:
    """A task waited without giving way to the event loop: all other tasks waited with it."""
    samples = case.samples
    blocked = samples.loop & (samples.state == "waiting") & (samples.wait != "gil")
    table = functions.difference(samples, case.slow, case.baseline, blocked)
    if not len(table):
        return []
    spent = np.zeros(len(case.roots))
    np.add.at(spent, samples.request[blocked], samples.ms[blocked])
    own, p_value = case.p_value(spent)
    if own < max(LEAST_MS, 0.15 * case.total_ms) or p_value > 0.01:
        return []
    top = table.iloc[0]
    inside = blocked & (
        samples.frames["function"].to_numpy(dtype=object)[samples.frame] == top["function"]
    )
    per_element = np.bincount(
        case.path.of_span[samples.span[inside]].clip(0),
        weights=samples.ms[inside] * case.slow[samples.request[inside]],
        minlength=len(case.compared),
    )  # fmt: skip
    element = int(np.argmax(per_element))
    same = service_codes(case) == service_codes(case)[element]
    edge = (case.path.elements["part"] == "edge").to_numpy()
    claimed = np.where(same | edge, positive(case), 0)
    support = [
        f"the event loop was blocked for {own:.1f} ms per request by {top['function']} itself"
    ]
    lag = case.metrics[case.metrics["metric"].str.contains("event_loop.lag|event_loop_lag")]
    for row in lag.itertuples():
        if row.slow > 1.5 * row.baseline and row.slow > 0:
            support.append(
                f"{row.metric} of {row.service} rose from {row.baseline:.4f} to {row.slow:.4f}"
            )
    return [
        make(
            case, "blocked_loop", claimed, element=element, states=("waiting",),
            resource="event_loop", measured=spent, support=support,
        )
    ]  # fmt: skip


_WAITS = {"lock": "lock_wait", "io": "io", "queue": "lock_wait", "sleep": "io"}


def local(case: Case) -> list[Evidence]:
    """Own time of spans, told by what their samples did: computed, or waited for a lock or I/O.

    Stages that mostly wait for the interpreter lock (GIL) wait for the stage that computes more:
    their time is that stage's.
    """
    codes, added = service_codes(case), positive(case)
    elements, samples = case.path.elements, case.samples
    own = (elements["part"] == "self").to_numpy() & (codes == case.service)
    groups = elements["stage"].to_numpy()
    parts = []
    for stage in np.unique(groups[own]):
        claimed = np.where(own & (groups == stage), added, 0)
        if claimed.sum() < LEAST_MS:
            continue
        members = np.flatnonzero(claimed > 0.1 * claimed.max())
        on = np.isin(case.path.of_span[samples.span], members)
        parts.append((claimed, functions.difference(samples, case.slow, case.baseline, on)))
    ran, stood = (np.array([_added(table, how) for _, table in parts]) for how in ("run", "gil"))
    holder = int(np.argmax(ran)) if len(ran) else -1
    others = stood > 2 * np.maximum(ran, 0)
    others[holder : holder + 1] = False
    spilled = bool(others.any() and ran[holder] > 0.3 * stood[others].sum())
    spilled = spilled and _kind(parts[holder][1])[0] == "cpu"
    found = []
    for number, (claimed, table) in enumerate(parts):
        if spilled and others[number]:
            continue
        kind, text = _kind(table)
        support, element = [text] if text else [], int(np.argmax(claimed))
        if spilled and number == holder:
            claimed = claimed + sum(parts[other][0] for other in np.flatnonzero(others))
            support.append(
                f"{stood[others].sum():.1f} ms per request more of waiting for the interpreter "
                "lock (GIL) in other stages, while this computes"
            )
        states = ("running",) if kind == "cpu" else ("waiting", "awaiting")
        found.append(
            make(
                case, kind, claimed, element=element, spans_wide=True, states=states,
                support=support,
            )
        )  # fmt: skip
    return found


def _added(table: pd.DataFrame, how: str) -> float:
    """Added ms of running, or of waiting for the interpreter lock."""
    chosen = table["state"] == "running" if how == "run" else table["wait"] == "gil"
    return float(table.loc[chosen, "added_ms"].sum())


def _kind(table: pd.DataFrame) -> tuple[str, str]:
    """The kind that most of the added sample time is, and a sentence about it."""
    if not len(table):
        return "cpu", "no samples were taken here: computing is assumed"
    weights: dict[str, float] = {}
    for row in table.itertuples():
        if row.state == "running" or row.wait == "gil":
            kind = "cpu"
        elif row.wait in ("executor", "task", "future", ""):
            continue  # the work is elsewhere: its own samples tell
        else:
            kind = _WAITS.get(row.wait, "io")
        weights[kind] = weights.get(kind, 0.0) + row.added_ms
    if not weights or max(weights.values()) <= 0:
        return "cpu", "its samples only wait for work done elsewhere: computing is assumed"
    kind = max(weights, key=lambda one: weights[one])
    words = {
        "cpu": "running",
        "lock_wait": "waiting for a lock",
        "io": "waiting for I/O or a timer",
    }
    return kind, f"{weights[kind]:.1f} ms per request more of samples {words[kind]}"
