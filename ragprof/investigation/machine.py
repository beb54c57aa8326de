"""Detectors that read what the process was denied: pauses of the collector, CPU time withheld."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragprof.analysis import functions
from ragprof.analysis.columns import Floats, Ints
from ragprof.investigation.case import Case
from ragprof.investigation.evidence import Evidence, make
from ragprof.investigation.structure import positive

LEAST_MS = 1.0
LEAST_SHARE = 0.3
"""Of the added time; less is left to the code."""

LEAST_ELEMENTS, LEAST_ELEMENT_MS, LEAST_RATIO = 4, 0.5, 1.15
"""Places of the service that must be seen, their time before, and the factor they grew by."""

MORE = 1.3
"""A service that uses this much more CPU than before waits for CPU because of that; a function
that computes this much longer than the collector paused is why it paused."""

WITHHELD = {
    "cgroup.cpu.throttled_time": "the CPU quota of the container held it back",
    "process.cpu.wait_time": "its threads were ready to run and got no CPU",
    "system.cpu.steal": "the host gave the CPU of this machine to others",
}


def collector(case: Case) -> list[Evidence]:
    """Pauses of the garbage collector within the requests grew by as much as the requests."""
    paused = np.zeros(len(case.roots))
    processes = set()
    for row in _series(case, "python.gc.pause"):
        at, seconds = case.points[row.series_id]
        paused += _within(case, at, seconds)
        processes.add(row.labels.get("process", ""))
    paused /= max(1, len(processes))  # which of several workers answered is not known
    own, p_value = case.p_value(paused)
    if not own >= max(LEAST_MS, LEAST_SHARE * case.total_ms) or p_value > 0.01:
        return []
    # Who allocates pays for the collector: the samples of that function hold the pauses.
    table = functions.difference(
        case.samples, case.slow, case.baseline, case.samples.state == "running"
    )
    seconds = sum(row.slow - row.baseline for row in _series(case, "python.gc.pause"))
    if len(table) and table["added_ms"].iloc[0] > MORE * 1000 * seconds / _rate(case):
        return []
    text = (
        f"the garbage collector paused {paused[case.slow].mean():.1f} ms of a request instead of "
        f"{paused[case.baseline].mean():.1f} ms"
    )
    return [
        make(case, "gc", _share(case, own), resource="python.gc.pause", measured=paused,
             support=[text])
    ]  # fmt: skip


def throttled(case: Case) -> list[Evidence]:
    """The machine withheld CPU: by a quota, by its other work, or by its host."""
    if _computes_more(case, MORE):
        return []
    found = []
    for name, words in WITHHELD.items():
        rows = _series(case, name)
        more = sum(_seconds(row.unit) * (row.slow - row.baseline) for row in rows)
        each = 1000 * more / _rate(case)
        if not each >= max(LEAST_MS, LEAST_SHARE * case.total_ms):
            continue
        waited = np.zeros(len(case.roots))
        for row in rows:
            at, rates = case.points[row.series_id]
            waited += _rate_within(case, at, rates * _seconds(row.unit))
        before, after = (
            sum(_seconds(row.unit) * value for row, value in zip(rows, values, strict=True))
            for values in ([row.baseline for row in rows], [row.slow for row in rows])
        )
        text = f"{words}: {after:.3f} s per second instead of {before:.3f}"
        found.append(
            make(case, "throttled", _share(case, each), stage="request", resource=name,
                 measured=waited, support=[text])
        )  # fmt: skip
    return found[:1]


def slower_everywhere(case: Case) -> list[Evidence]:
    """All that the service computes takes longer by about the same factor.

    A change of the code is somewhere. A machine whose caches, memory or clock are shared with a
    busy neighbour is slower everywhere, and no thread need wait for that.
    """
    # Shared caches and clocks make the same work cost more CPU time as well, but not so much.
    if _computes_more(case, 2 * MORE):
        return []
    compared, elements = case.compared, case.path.elements
    own = (elements["part"] == "self") & (elements["service"] == case.forest.services[case.service])
    before, added = (compared[name].to_numpy() for name in ("baseline_ms", "added_ms"))
    looked = np.flatnonzero(own.to_numpy() & (before >= LEAST_ELEMENT_MS))
    if len(looked) < LEAST_ELEMENTS or case.total_ms <= 0:
        return []
    ratio = (before + added)[looked] / before[looked]
    typical = float(np.median(ratio))
    alike = ratio >= 1 + 0.5 * (typical - 1)
    if typical < LEAST_RATIO or alike.mean() < 0.75 or added.max() > 0.5 * added.clip(0).sum():
        return []
    claimed = np.zeros(len(added))
    claimed[looked] = np.clip(added[looked], 0, 1.5 * before[looked] * (typical - 1))
    if claimed.sum() < 0.5 * case.total_ms:
        return []
    text = (
        f"{alike.sum()} of {len(looked)} places that compute take longer alike, "
        f"{typical:.1f} times on average"
    )
    return [make(case, "throttled", claimed, stage="request", resource="system.cpu",
                 support=[text])]  # fmt: skip


def _computes_more(case: Case, factor: float) -> bool:
    """Whether the service itself uses that much more CPU, by more than what else runs, or by an
    amount that matters in any case.

    Its threads then wait for each other, which looks the same as waiting for the machine.
    """
    own, before = _grown(_series(case, "process.cpu.time"))
    everyone, _ = _grown(_series(case, "system.cpu.time"))
    each = 1000 * own / _rate(case)
    least = 0.05 if own > everyone - own else 0.15
    return bool(own > (factor - 1) * before and each > least * case.total_ms)


def _grown(rows: list[Any]) -> tuple[float, float]:
    """How much rates grew in sum, and what they were."""
    return sum(row.slow - row.baseline for row in rows), sum(row.baseline for row in rows)


def _rate(case: Case) -> float:
    """Requests per second in the slow window."""
    seconds = max((case.window[1] - case.window[0]).total_seconds(), 1e-9)
    start = case.forest.start[case.roots]
    inside = (start >= case.window[0].value) & (start < case.window[1].value)
    return float(max(1, inside.sum()) / seconds)


def _series(case: Case, name: str) -> list[Any]:
    """Rows of a metric of the service that was asked, or of the whole machine."""
    service = case.forest.services[case.service] if case.service >= 0 else ""
    rows = case.metrics[case.metrics["metric"] == name].itertuples()
    return [row for row in rows if row.service in ("", service)]


def _seconds(unit: str) -> float:
    return {"ns": 1e-9, "us": 1e-6, "ms": 1e-3}.get(unit, 1.0)


def _share(case: Case, milliseconds: float) -> Floats:
    """The added time of all elements, scaled to what is explained."""
    added = positive(case)
    scaled: Floats = added * min(1.0, milliseconds / max(float(added.sum()), 1e-9))
    return scaled


def _bounds(case: Case) -> tuple[Ints, Ints]:
    start = case.forest.start[case.roots]
    return start, case.forest.end[case.roots]


def _within(case: Case, at: Ints, seconds: Floats) -> Floats:
    """ms of each request that pauses took; a pause of `seconds` ended at `at`."""
    if not len(at):
        return np.zeros(len(case.roots))
    begin = at - (seconds * 1e9).astype(np.int64)
    begin[1:] = np.maximum(begin[1:], at[:-1])
    took = np.maximum(at - begin, 0)
    knots = np.stack([begin, at], axis=1).ravel()
    total = np.stack([np.cumsum(took) - took, np.cumsum(took)], axis=1).ravel()
    low, high = (np.interp(edge, knots, total) for edge in _bounds(case))
    inside: Floats = (high - low) / 1e6
    return inside


def _rate_within(case: Case, at: Ints, rates: Floats) -> Floats:
    """ms within each request of a quantity that grew by `rates` seconds per second until `at`."""
    if len(at) < 2:
        return np.zeros(len(case.roots))
    grown = np.concatenate([[0.0], np.cumsum(rates[1:] * np.diff(at))])
    low, high = (np.interp(edge, at, grown) for edge in _bounds(case))
    inside: Floats = (high - low) / 1e6
    return inside
