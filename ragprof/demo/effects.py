"""How much each fault slows its operation down, measured without recording anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ragprof.demo import faults
from ragprof.demo.stage import open_stage, plain_start, play

MIN_SHARE, MIN_MS = 0.5, 30.0
"""What every fault must add to the p95 of its operation, both."""


def measure(
    names: Iterable[str], seed: int, seconds: float | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row per fault: p50 and p95 (ms) of both windows as the load saw them, and the gain."""
    rows = []
    for name in names:
        say(f"{name}: starting")
        fault = faults.named(name)
        with plain_start() as start:
            truth = play(open_stage(start), fault, seed, seconds or fault.seconds).truth
        rows.append(row(truth))
    return rows


def row(truth: dict[str, Any]) -> dict[str, Any]:
    """The effect of one played fault, from its truth."""
    effect = truth["effect"]
    added = effect["faulty_p95_ms"] - effect["healthy_p95_ms"]
    share = added / effect["healthy_p95_ms"] if effect["healthy_p95_ms"] else 0.0
    return {
        "fault": truth["fault"],
        "seed": truth["seed"],
        "operation": truth["operation"],
        **effect,
        "added_p95_ms": round(added, 1),
        "added_p95_share": round(share, 3),
        "large_enough": added >= MIN_MS and share >= MIN_SHARE,
    }


def table(rows: Iterable[dict[str, Any]]) -> str:
    """A Markdown table of `measure`."""
    lines = [
        "| fault | seed | requests | healthy p50 | healthy p95 | faulty p50 | faulty p95 "
        "| p95 added |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        lines.append(
            f"| {each['fault']} | {each['seed']} "
            f"| {each['healthy_requests']} + {each['faulty_requests']} "
            f"| {each['healthy_p50_ms']:.0f} ms | {each['healthy_p95_ms']:.0f} ms "
            f"| {each['faulty_p50_ms']:.0f} ms | {each['faulty_p95_ms']:.0f} ms "
            f"| {each['added_p95_ms']:+.0f} ms ({each['added_p95_share']:+.0%}) |"
        )
    return "\n".join(lines)
