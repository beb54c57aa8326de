"""Clock skew is told beside the original times."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ragprof.analysis.clock_skew import clock_skews, with_clock_skew
from ragprof.rows import conform

START, SECOND = 1_790_000_000_000_000_000, 1_000_000_000


def trace(number: int, skew: int) -> list[dict[str, Any]]:
    """A client calls a server whose clock is ahead by `skew`; the server has a span below."""
    start = START + number * 10 * SECOND

    def span(n: int, parent: int, service: str, kind: str, at: int, length: int) -> dict[str, Any]:
        return {
            "trace_id": f"{number + 1:032x}",
            "span_id": f"{n:016x}",
            "parent_span_id": f"{parent:016x}" if parent else "",
            "service": service,
            "name": f"step {n}",
            "kind": kind,
            "start": at,
            "duration_ns": length,
        }

    return [
        span(1, 0, "front", "client", start, 100_000_000),
        span(2, 1, "back", "server", start + 10_000_000 + skew, 80_000_000),
        span(3, 2, "back", "internal", start + 20_000_000 + skew, 5_000_000),
    ]


def spans(*skews: int) -> pa.Table:
    rows = [row for number, skew in enumerate(skews) for row in trace(number, skew)]
    return conform("spans", rows)


def test_a_clock_two_seconds_ahead_is_said_and_the_original_is_kept() -> None:
    table = spans(2 * SECOND, 2 * SECOND, 0)
    adjusted = with_clock_skew(table)
    assert adjusted.drop_columns(["clock_skew_ns"]).equals(table)
    skew = adjusted["clock_skew_ns"].to_pylist()
    assert skew == [0, -2 * SECOND, -2 * SECOND] * 2 + [0, 0, 0]
    (row,) = clock_skews(table).to_dict("records")
    assert row == {
        "service": "back",
        "caller": "front",
        "calls": 3,
        "adjusted": 2,
        "skew_ms": -2000.0,
    }


def test_clocks_that_agree_are_left_alone() -> None:
    table = spans(0, 0)
    assert set(with_clock_skew(table)["clock_skew_ns"].to_pylist()) == {0}
    assert clock_skews(table).empty


def test_spans_that_no_trace_holds_have_no_adjustment() -> None:
    table = spans(0)
    twice = pa.concat_tables([table, table]).unify_dictionaries()
    assert with_clock_skew(twice)["clock_skew_ns"].to_pylist() == [0, 0, 0, None, None, None]
