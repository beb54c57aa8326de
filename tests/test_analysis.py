"""Critical path, self time, damage in traces, significance, logs, stages: invariants."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragprof.analysis import (
    critical_path,
    forest,
    functions,
    load,
    log_templates,
    onset,
    self_time,
    significance,
)
from ragprof.analysis.columns import ordered
from ragprof.analysis.stages import stage_of_name

SPAN = st.tuples(st.integers(-1, 12), st.integers(0, 60), st.integers(0, 60))


def table(spans, traces=None, kinds=None, services=None):
    """Spans as (parent number or -1, start, duration); keys are numbers + 1."""
    count = len(spans)
    return pa.table(
        {
            "trace_key": pa.array(traces or [1] * count, pa.int64()),
            "span_key": pa.array(range(1, count + 1), pa.int64()),
            "parent_key": pa.array([parent + 1 for parent, _, _ in spans], pa.int64()),
            "start": pa.array([start for _, start, _ in spans], pa.int64()),
            "duration_ns": pa.array([took for _, _, took in spans], pa.int64()),
            "service": services or ["a"] * count,
            "name": [f"s{n}" for n in range(count)],
            "kind": kinds or ["internal"] * count,
            "status": ["unset"] * count,
        }
    )


def owner_by_the_rule(tree: forest.Forest, span: int, instant: int) -> int:
    """The definition itself, one instant at a time: of the children that run and were waited for
    the one that ends last, else an outliving one after the last that was waited for."""
    children = np.flatnonzero(tree.parent == span)
    runs = [c for c in children if tree.start[c] <= instant < tree.end[c]]
    waited = [c for c in runs if tree.end[c] <= tree.end[span]]
    if not waited:
        last = [tree.end[c] for c in children if tree.end[c] <= tree.end[span]]
        after = max(last, default=-1)
        waited = [c for c in runs if tree.end[c] > tree.end[span] and instant >= after]
    if not waited:
        return span
    best = min(waited, key=lambda c: (-tree.end[c], -tree.start[c], c))
    return owner_by_the_rule(tree, best, instant)


@given(st.lists(SPAN, min_size=1, max_size=14))
@example([(-1, 0, 12), (0, 0, 11), (0, 10, 60), (0, 11, 59)])  # both outlive, one end
@settings(max_examples=150, deadline=None)
def test_the_sections_are_the_partition_of_the_definition(spans):
    tree = forest.build(table(spans))
    if not len(tree):
        return
    found = critical_path.sections(tree, critical_path.windows(tree, tolerance_ns=0))
    root = int(np.flatnonzero(tree.parent < 0)[0])
    assert (found.end - found.start).sum() == tree.end[root] - tree.start[root]
    assert (found.start[1:] == found.end[:-1]).all()
    for section in range(len(found.span)):
        for instant in range(found.start[section], found.end[section]):
            owner = owner_by_the_rule(tree, root, instant)
            # Twins (equal start and end) may stand for each other.
            same = (tree.start[owner], tree.end[owner])
            assert same == (tree.start[found.span[section]], tree.end[found.span[section]])


@given(st.lists(st.tuples(st.integers(0, 3), SPAN), min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_every_trace_sums_to_its_root_exactly(rows):
    tree = forest.build(table([span for _, span in rows], [trace for trace, _ in rows]))
    found = critical_path.sections(tree)
    total = np.zeros(len(tree), dtype=np.int64)
    np.add.at(total, tree.root[found.span], found.end - found.start)
    roots = np.flatnonzero(tree.parent < 0)
    assert (total[roots] == (tree.end - tree.start)[roots]).all()
    own = self_time.self_time(tree)
    assert (own >= 0).all()
    assert (own <= tree.end - tree.start).all()


def test_parallel_children_tail_and_edge():
    tree = forest.build(
        table(
            [(-1, 0, 100_000_000), (0, 10_000_000, 30_000_000), (0, 20_000_000, 40_000_000),
             (0, 90_000_000, 50_000_000), (2, 25_000_000, 30_000_000)],
            kinds=["server", "internal", "client", "internal", "server"],
            services=["a", "a", "a", "a", "b"],
        )
    )  # fmt: skip
    owned = critical_path.windows(tree)
    assert owned.tail_ns.tolist() == [0, 0, 0, 40_000_000, 0]
    found = critical_path.sections(tree, owned)
    took = {(int(s), int(p)): 0 for s, p in zip(found.span, found.part, strict=True)}
    for span, part, length in zip(found.span, found.part, found.end - found.start, strict=True):
        took[int(span), int(part)] += int(length) // 1_000_000
    assert took == {(0, 0): 40, (1, 0): 10, (2, 1): 10, (4, 0): 30, (3, 0): 10}


def test_damage_is_repaired_and_counted():
    spans = table([(-1, 0, 100), (0, 10, -5), (7, 20, 10), (4, 0, 9), (3, 0, 9)])
    tree = forest.build(pa.concat_tables([spans, spans.slice(0, 1)]))
    assert tree.problems == {
        "duplicate_ids": 1, "negative_durations": 1, "missing_parents": 1, "cycles": 2,
    }  # fmt: skip
    assert tree.parent.tolist() == [-1, 0, 0]


def test_a_skewed_clock_is_set_right_with_all_below():
    tree = forest.build(
        table(
            [(-1, 0, 100), (0, 10, 40), (1, 1000, 20), (2, 1005, 5)],
            kinds=["server", "client", "server", "internal"],
            services=["a", "a", "b", "b"],
        )
    )
    assert tree.start.tolist() == [0, 10, 20, 25]
    assert tree.problems == {"clock_skew": 1}


def test_a_chain_of_many_spans_needs_no_recursion():
    count = 20_000
    tree = forest.build(table([(n - 1, n, 2 * count - 2 * n) for n in range(count)]))
    found = critical_path.sections(tree)
    assert (found.end - found.start).sum() == 2 * count
    assert tree.depth.max() == count - 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_is_monotone_and_not_below_p(p_values):
    adjusted = significance.benjamini_hochberg(p_values)
    assert (adjusted >= np.array(p_values) - 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p_values)]) >= -1e-12).all()


def test_permutation_p_values_are_uniform_without_a_difference():
    draw = np.random.default_rng(4)
    values = draw.exponential(size=(200, 300))
    slow = np.arange(200) >= 100
    block = significance.blocks(np.arange(200), slow)
    _, p_values = significance.difference_p_values(values, slow, block)
    assert 0.4 < p_values.mean() < 0.6
    assert (p_values < 0.05).mean() < 0.1


def test_onset_is_found_and_noise_is_not():
    draw = np.random.default_rng(1)
    calm = draw.lognormal(3, 0.5, 300)
    late = calm * np.where(np.arange(300) >= 170, 1.8, 1)
    assert onset.find_onset(calm).p_value > 0.01
    found = onset.find_onset(late)
    assert found.p_value < 0.01
    assert abs(found.begin - 170) < 10
    assert found.end == 300
    passing = calm * np.where((np.arange(300) >= 120) & (np.arange(300) < 190), 2.5, 1)
    found = onset.find_onset(passing)
    assert abs(found.begin - 120) < 12
    assert abs(found.end - 190) < 20
    assert onset.find_onset(calm[:30]) is None


def test_equal_latencies_have_no_onset():
    assert onset.find_onset(np.ones(200)).p_value > 0.5


def test_log_templates():
    assert log_templates.template("took 12.5 ms for 'secret' 3f2a9bc1d0") == (
        "took <n> ms for <text> <id>"
    )
    at = pd.to_datetime(range(100), unit="s", utc=True)
    logs = pa.table(
        {"time": at, "service": ["a"] * 100, "severity": ["info"] * 100,
         "body": [f"step {n}" if n < 50 else f"retry {n}" for n in range(100)]}
    )  # fmt: skip
    found = log_templates.changes(logs, (at[50], at[99]), (at[0], at[50])).set_index("template")
    assert found.loc["retry <n>", "change"] == "new"
    assert found.loc["step <n>", "change"] == "vanished"


@pytest.mark.parametrize(
    ("name", "stage"),
    [("embedding_generation", "embed"), ("RerankDocuments", "rerank"), ("llm.generate", "generate"),
     ("GuardrailCheck", "guardrail"), ("vector_search", "retrieve"), ("compute", "")],
)  # fmt: skip
def test_stage_of_plain_names(name, stage):
    assert stage_of_name(name) == stage


def test_comprehensions_count_as_their_function():
    names = ["app:X", "app:X.<locals>.<listcomp>", "app:Y.<locals>.<genexpr>", "app:<lambda>"]
    frames = pa.table(
        {
            "frame_id": [1, 2, 3, 4],
            "function": names,
            "file": ["app.py"] * 4,
            "origin": ["app"] * 4,
            "line": [10, 12, 30, 40],
        }
    )
    stacks = pa.table({"stack_id": [1, 2, 3], "frame_ids": [[1], [1, 2], [1, 3]]})
    _, telling, _, table = functions.telling_frames(stacks, frames)
    named = [(table["function"][row], table["line"][row]) for row in telling]
    assert named == [("app:X", 10), ("app:X", 10), ("app:Y", 30)]
    assert table["function"][3] == "app:<lambda>"


def test_load_claims_what_its_attribute_explains():
    draw = np.random.default_rng(2)
    slow = np.arange(200) >= 100
    length = draw.normal(50, 10, 200) + 60 * slow
    own, code = 0.5 * length + draw.normal(0, 1, 200), 40.0 * slow + draw.normal(0, 1, 200)
    most = load.explained_at_most(pd.Series(length), np.stack([own, code], axis=1), slow, ~slow)
    assert most[0] == pytest.approx(30, abs=2)
    assert most[1] < 4


def test_what_counts_up_with_time_is_no_load():
    """Latencies grow with a queue, and so do the numbers of ports and offsets."""
    draw = np.random.default_rng(3)
    slow = np.arange(120) >= 60
    queue = 80 * slow + 3.0 * np.clip(np.arange(120) - 60, 0, 40) + draw.normal(0, 2, 120)
    length = draw.normal(50, 5, 120) + 30 * slow
    numeric = pd.DataFrame(
        {
            ("GET /", "port"): 40_000 + 200 * np.arange(120) + draw.integers(0, 300, 120),
            ("GET /", "words"): length,
        }
    )
    found = load.load_shifts(numeric, queue + length, slow, ~slow)
    assert [one.attribute for one in found] == ["words"]


@pytest.mark.parametrize("largest", [2, 10, 2**40])
@pytest.mark.parametrize("count", [0, 1, 2, 3000])
def test_ordered_is_lexsort(count: int, largest: int) -> None:
    draw = np.random.default_rng(count + largest)
    keys = [draw.integers(-largest, largest, count) for _ in range(3)]
    assert (ordered(*keys) == np.lexsort(keys[::-1])).all()
