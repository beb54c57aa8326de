"""Traces that cross a queue: what is done with a message is a request of its own."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from planted import ASK, Tree, record

from ragprof.analysis import critical_path, forest, populations
from ragprof.investigation.run import investigate


def tree_of(spans: list[tuple[int, int, int, str]]) -> forest.Forest:
    """Of (parent's number, -1: none, 99: one that is missing; start; duration; kind)."""
    count = len(spans)
    return forest.build(
        pa.table(
            {
                "trace_key": pa.array([1] * count, pa.int64()),
                "span_key": pa.array(range(1, count + 1), pa.int64()),
                "parent_key": pa.array([parent + 1 for parent, *_ in spans], pa.int64()),
                "start": pa.array([start for _, start, _, _ in spans], pa.int64()),
                "duration_ns": pa.array([took for _, _, took, _ in spans], pa.int64()),
                "service": ["a"] * count,
                "name": [f"s{n}" for n in range(count)],
                "kind": [kind for *_, kind in spans],
                "status": ["unset"] * count,
            }
        )
    )


def test_a_message_that_was_sent_is_a_request_of_its_own():
    tree = tree_of(
        [(-1, 0, 50, "server"), (0, 10, 5, "producer"), (1, 40, 200, "consumer"),
         (2, 60, 100, "internal")]
    )  # fmt: skip
    assert tree.parent.tolist() == [-1, 0, -1, 2]
    assert tree.root.tolist() == [0, 0, 2, 2]
    assert tree.depth.tolist() == [0, 1, 0, 1]
    assert {name: roots.tolist() for name, roots in populations.operations(tree).items()} == {
        "s0": [0],
        "s2": [2],
    }
    found = critical_path.sections(tree)
    own = tree.root[found.span] == 2
    assert (found.end - found.start)[own].sum() == 200
    assert (found.end - found.start)[~own].sum() == 50


def test_a_message_that_is_waited_for_belongs_to_who_waits():
    tree = tree_of([(-1, 0, 50, "server"), (0, 10, 30, "producer"), (1, 15, 20, "consumer")])
    assert tree.parent.tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("kind", "parents"), [("consumer", [-1, -1, 1]), ("internal", [-1, 0, 1])]
)  # fmt: skip
def test_messages_whose_sender_was_not_recorded_are_apart(kind, parents):
    tree = tree_of([(99, 0, 50, "consumer"), (99, 100, 30, kind), (1, 105, 5, "client")])
    assert tree.parent.tolist() == parents
    assert tree.problems == {"missing_parents": 2}


def work_on_message(tree: Tree, draw, faulty: bool) -> None:
    """A web request puts a message on a queue; a worker spends its time on it later."""
    asked = tree.span(ASK, 0, 8 + draw.random(), kind="server")
    sent = tree.span("letters publish", 2, 1, asked, kind="producer")
    took = 30 + 8 * draw.random() + 40 * faulty
    root = tree.span("letters process", 60, took + 5, sent, kind="consumer", service="worker")
    step = tree.span("step", 62, took, root, service="worker")
    tree.sample(step, 62 + took / 2, took, 2, service="worker")


def test_a_slow_worker_is_found_behind_the_queue(tmp_path: Path):
    found = investigate(record(tmp_path / "worker.ragprof", work_on_message))
    assert found.verdict == "cause_found"
    assert found.operation == "letters process"
    first = found.findings.iloc[0]
    assert (first["kind"], first["service"], first["function"]) == ("cpu", "worker", "app:f2")
    assert first["added_ms"] == pytest.approx(40, abs=4)
    trace = found.requests["trace_id"].iloc[0]
    assert found.waterfall(trace)["name"].tolist() == [
        ASK, "letters publish", "letters process", "step"
    ]  # fmt: skip
    path = found.critical_path(trace)
    assert set(path["name"]) == {"letters process", "step"}
