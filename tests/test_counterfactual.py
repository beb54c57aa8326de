"""A trace replayed with less own time: exact when nothing changes, never longer, new paths seen."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragprof.analysis.counterfactual import replay
from ragprof.analysis.forest import Forest, build
from ragprof.tables import SCHEMAS

MS = 1_000_000


def forest(spans: list[tuple[int, int, int]]) -> Forest:
    """Spans as (parent, start, duration in ms) of one trace; the parent of the root is -1."""
    rows = [
        {
            "trace_id": "a" * 32, "span_id": f"{n + 1:016x}", "trace_key": 1, "span_key": n + 1,
            "parent_span_id": f"{above + 1:016x}" if above >= 0 else "",
            "parent_key": above + 1 if above >= 0 else 0, "service": "api", "name": f"s{n}",
            "kind": "internal", "start": 1_800_000_000 * 10**9 + at * MS, "duration_ns": took * MS,
            "status": "unset",
        }
        for n, (above, at, took) in enumerate(spans)
    ]  # fmt: skip
    return build(pa.Table.from_pylist(rows, schema=SCHEMAS["spans"]))


def without(spans: list[tuple[int, int, int]], *gone: int) -> float:
    """ms of the trace when these spans had no own time."""
    found = forest(spans)
    factor = np.ones(len(found))
    factor[[int(np.flatnonzero(found.span_key == one + 1)[0]) for one in gone]] = 0
    return float(replay(found, np.flatnonzero(found.parent < 0), factor)[0] / MS)


def test_one_after_the_other():
    spans = [(-1, 0, 100), (0, 10, 30), (0, 50, 40)]
    assert without(spans, 1) == 70
    assert without(spans, 1, 2) == 30
    assert without(spans, 0) == 70
    assert without(spans, 0, 1, 2) == 0


def test_what_ran_beside_it_becomes_critical():
    spans = [(-1, 0, 100), (0, 10, 80), (0, 10, 50)]
    assert without(spans, 1) == 70  # 10 + 50 + 10
    assert without(spans, 2) == 100


def test_what_began_after_both_waits_for_the_later():
    spans = [(-1, 0, 100), (0, 0, 40), (0, 0, 30), (0, 50, 50)]
    assert without(spans, 1) == 90


def test_outliving_child_counts_to_the_end_of_its_parent():
    spans = [(-1, 0, 100), (0, 50, 200)]
    assert without(spans) == pytest.approx(100)
    assert without(spans, 1) == pytest.approx(50)


@st.composite
def traces(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    spans = [(-1, 0, draw(st.integers(1, 500)))]
    for n in range(draw(st.integers(0, 14))):
        above = draw(st.integers(0, n))
        at = draw(st.integers(spans[above][1], spans[above][1] + spans[above][2]))
        spans.append((above, at, draw(st.integers(0, spans[above][1] + spans[above][2] - at))))
    return spans


@given(traces(), st.integers(0, 2**32 - 1))
def test_unchanged_is_exact_and_less_is_never_longer(
    spans: list[tuple[int, int, int]], seed: int
) -> None:
    found = forest(spans)
    roots = np.flatnonzero(found.parent < 0)
    whole = (found.end - found.start)[roots]
    same = replay(found, roots, np.ones(len(found)))
    assert same == pytest.approx(whole)
    draw = np.random.default_rng(seed)
    some = draw.random(len(found))
    less = replay(found, roots, some)
    assert (less <= same + 1e-3).all()
    assert (replay(found, roots, some * draw.random(len(found))) <= less + 1e-3).all()
    assert replay(found, roots, np.zeros(len(found))) == pytest.approx(0)
