"""Findings in plain words: what was seen, where, what to do, and what that would bring.

Sentences say no more than the statistics: "accounts for" and "would be about", never "is fixed".
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ragprof.investigation.case import Case
from ragprof.investigation.evidence import Evidence
from ragprof.investigation.gain import Gain

WORDS: Mapping[str, str] = {
    "cpu": "computing",
    "blocked_loop": "blocking the event loop",
    "lock_wait": "waiting for a lock",
    "pool_wait": "waiting for a pooled connection",
    "downstream": "a slower downstream service",
    "network": "time between client and server",
    "retry": "repeated calls after errors",
    "cache_miss": "more cache misses",
    "extra_calls": "more calls per request",
    "io": "waiting for I/O",
    "gc": "garbage collection",
    "throttled": "the machine, which withheld CPU",
    "load": "heavier requests, not the code",
}

NO_STACKS = (
    "no stacks of these requests, so that no function can be named; they come with "
    "`ragprof capture --attach PID`, with [sources.stacks], or with `ragprof record -- COMMAND`"
)

ADVICE: Mapping[str, str] = {
    "cpu": "Look at the hot lines of this function and at what it is given; compute less, in "
    "larger batches, or outside of the request.",
    "blocked_loop": "Await an asynchronous version of this call, or run it in a thread "
    "(asyncio.to_thread): while it waits, every other request waits too.",
    "lock_wait": "Hold this lock for less, or not at all: look at who holds it while requests "
    "wait.",
    "pool_wait": "Give connections back earlier, or allow the pool more of them.",
    "downstream": "Open the same window in the recording of this service: the time is spent there.",
    "network": "Look at what lies between the two services: queues, proxies, connection set-up, "
    "name resolution.",
    "retry": "Find the first error of these calls; then bound the number of tries and their waits.",
    "cache_miss": "See why the cache no longer holds the answers: switched off, emptied, "
    "expired, or keyed differently.",
    "extra_calls": "Ask for all of them at once (a join, an IN list, a batch call).",
    "io": "Find out what this call waits for, and whether the request must wait with it.",
    "gc": "Look for what keeps growing (tracemalloc, gc.get_objects); gc.freeze() after start-up "
    "and a higher threshold shorten the pauses.",
    "throttled": "Look at the neighbours and at the CPU limit of this container; the code needs no "
    "more CPU than before.",
    "load": "Limit or price what requests may ask for, or add capacity: the code is as fast as "
    "before for the same request.",
}


def place(one: Evidence) -> str:
    """What a finding points at: for some kinds the resource, else the function."""
    if one.kind in ("load", "pool_wait", "downstream") and one.resource:
        return one.resource
    return one.function or one.resource or one.span


def sentences(case: Case, operation: str, one: Evidence, gain: Gain) -> str:
    """Two or three sentences about a finding."""
    share = one.score / case.total_ms if case.total_ms > 0 else 0.0
    said = [
        f"{WORDS[one.kind].capitalize()} accounts for {one.score:.1f} ms of the "
        f"{case.total_ms:.1f} ms ({share:.0%}) that {operation} takes longer on average "
        f"({one.stage}, {place(one)})."
    ]
    if one.support:
        said.append(f"{one.support[0][0].upper()}{one.support[0][1:]}.")
    if math.isfinite(gain.without_ms):
        said.append(
            f"Were this as before, the p95 of these requests would be about {gain.without_ms:.0f} "
            f"ms ({gain.low_ms:.0f} to {gain.high_ms:.0f}) instead of {gain.p95_ms:.0f} ms."
        )
    return " ".join(said)


def summary(case: Case, operation: str, changed: bool, evidence: list[Evidence]) -> str:
    """The verdict in one sentence."""
    if not changed:
        return f"No cause found: the latency of {operation} did not change."
    added = case.total_ms
    if not evidence:
        return f"No cause found for {added:+.1f} ms per {operation}: nothing beats the null."
    top = evidence[0]
    return (
        f"{operation} takes {added:.1f} ms longer: {WORDS[top.kind]} "
        f"({top.stage}, {place(top)}) accounts for {top.score:.1f} ms."
    )
