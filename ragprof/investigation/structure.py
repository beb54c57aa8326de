"""Detectors that read the shape of traces: edges, other services, the number of calls."""

from __future__ import annotations

import numpy as np

from ragprof.analysis.columns import Floats, Ints
from ragprof.investigation.case import Case
from ragprof.investigation.evidence import Evidence, make

LEAST_RATIO = 1.5
"""Calls per request must have grown by this factor."""


def positive(case: Case) -> Floats:
    """Added ms of each path element, 0 where it became faster."""
    added: Floats = np.maximum(case.compared["added_ms"].to_numpy(), 0)
    return added


def service_codes(case: Case) -> Ints:
    """The service of each path element, as in the forest."""
    services = {name: code for code, name in enumerate(case.forest.services)}
    return np.array([services[name] for name in case.path.elements["service"]], dtype=np.int64)


def downstream(case: Case) -> list[Evidence]:
    """Added time inside the server spans of another service than the one that was asked."""
    found = []
    codes, added = service_codes(case), positive(case)
    local = (case.path.elements["part"] == "self").to_numpy()
    for code in np.unique(codes):
        claimed = np.where((codes == code) & local, added, 0)
        if code == case.service or not claimed.any():
            continue
        name = case.forest.services[code]
        found.append(
            make(
                case, "downstream", claimed, resource=name,
                states=("awaiting", "waiting", "running"), spans_wide=True,
                support=[f"{claimed.sum():.1f} ms per request were added inside spans of {name}"],
            )
        )  # fmt: skip
    return found


def network(case: Case) -> list[Evidence]:
    """The gap between client and server spans grew."""
    edge = (case.path.elements["part"] == "edge").to_numpy()
    claimed = np.where(edge, positive(case), 0)
    if not claimed.any():
        return []
    text = f"{claimed.sum():.1f} ms per request were added between client and server spans"
    return [make(case, "network", claimed, support=[text])]


def extra_calls(case: Case) -> list[Evidence]:
    """More calls of the same name below the same span; with more errors among them: retries."""
    forest, found = case.forest, []
    child = np.flatnonzero((case.request_of_span >= 0) & (forest.parent >= 0))
    key = forest.service[child] * len(forest.names) + forest.name[child]
    slow, base = case.slow.sum(), case.baseline.sum()
    for one in np.unique(key):
        spans = child[key == one]
        request = case.request_of_span[spans]
        counts = np.bincount(request, minlength=len(case.roots)).astype(np.float64)
        after, before = counts[case.slow].mean(), counts[case.baseline].mean()
        if after < before + 0.5 or after < LEAST_RATIO * before:
            continue
        took = forest.end[spans] - forest.start[spans]
        in_slow, in_base = case.slow[request], case.baseline[request]
        each = [took[group].mean() / 1e6 if group.any() else 0.0 for group in (in_slow, in_base)]
        _, p_value = case.p_value(counts)
        # What the calls take, and what their caller spends between them.
        claimed = np.zeros(len(case.compared))
        added = positive(case)
        of = case.path.of_span
        parts = np.unique(np.concatenate([of[spans], of[forest.parent[spans[in_slow]]]]))
        parts = parts[parts >= 0]
        claimed[parts] = added[parts]
        if not claimed.any() or p_value > 0.05:
            continue
        errors = [
            float(forest.error[spans][group].sum()) / n
            for group, n in ((in_slow, slow), (in_base, base))
        ]
        kind = "retry" if errors[0] > errors[1] + 0.3 * (after - before) else "extra_calls"
        callee = int(of[spans[in_slow][0]]) if of[spans[in_slow][0]] >= 0 else int(parts[0])
        called = forest.names[forest.name[spans[0]]]
        text = f"{before:.1f} calls of {called} per request became {after:.1f}"
        against = []
        if each[1] and each[0] > 1.5 * each[1]:
            against.append(
                f"a single call takes {each[0]:.2f} ms instead of {each[1]:.2f} ms as well"
            )
        # Calls cost what their caller computes; tries cost what it waits between them.
        states = ("awaiting", "waiting") if kind == "retry" else ("running", "waiting")
        if kind == "retry":
            text = f"{text}, with {errors[0]:.1f} errors instead of {errors[1]:.1f}"
        evidence = make(
            case, kind, claimed, element=callee, spans_wide=True, states=states,
            resource=_resource(case, spans), support=[text], against=against,
        )  # fmt: skip
        found.append(evidence)
    return sorted(found, key=lambda one: -one.score)[:3]


def _resource(case: Case, spans: Ints) -> str:
    """What is called: a database, another service, or the call by its name."""
    forest = case.forest
    service: str = forest.services[forest.service[spans[0]]]
    if case.database[spans[0]]:
        return f"{service} database"
    below = np.flatnonzero(np.isin(forest.parent, spans))
    others = forest.service[below]
    others = others[others != forest.service[spans[0]]]
    if len(others):
        called: str = forest.services[np.bincount(others).argmax()]
        return called
    name: str = forest.names[forest.name[spans[0]]]
    return name
