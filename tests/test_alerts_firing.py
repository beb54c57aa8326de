"""The state machine, rule files, incidents and their scores, thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragprof.errors import RagprofError
from ragprof.monitoring import rules
from ragprof.slo import incidents, replay, rulefile
from ragprof.slo.firing import Episode, episodes
from ragprof.slo.incidents import Incident
from ragprof.slo.rulefile import AlertRule

STEPS = np.arange(0.0, 40.0)


def rule(wait: float = 0.0, keep: float = 0.0, **labels: str) -> AlertRule:
    return AlertRule("A", "x > 1", "g", 1.0, wait, keep, labels)


def run(one: AlertRule, active: list[int], values: list[float] | None = None) -> list[Episode]:
    times = np.array(active, float)
    return episodes(one, [({"e": "1"}, times, np.array(values or [2.0] * len(active)))], STEPS)


def brief(found: list[Episode]) -> list[tuple[float, float | None, float | None]]:
    return [(each.active, each.fired, each.ended) for each in found]


def test_pending_firing_over() -> None:
    assert brief(run(rule(), [3, 4, 5])) == [(3, 3, 6)]
    assert brief(run(rule(wait=2), [3, 4, 5])) == [(3, 5, 6)]
    assert brief(run(rule(wait=3), [3, 4, 5])) == [(3, None, 6)]
    assert brief(run(rule(wait=1), [3, 4, 6, 7, 8])) == [(3, 4, 5), (6, 7, 9)]
    assert brief(run(rule(wait=1), [38, 39])) == [(38, 39, None)]
    assert run(rule(), []) == []


def test_keep_firing_for_holds_an_alert_that_fired() -> None:
    assert brief(run(rule(wait=1, keep=3), [3, 4])) == [(3, 4, 8)]
    assert brief(run(rule(wait=2, keep=3), [3, 4])) == [(3, None, 5)]  # it never fired
    # It comes back while it is kept: the same alert goes on.
    assert brief(run(rule(wait=1, keep=3), [3, 4, 7, 8])) == [(3, 4, 12)]
    assert brief(run(rule(wait=1, keep=3), [3, 4, 8, 9])) == [(3, 4, 13)]
    assert brief(run(rule(wait=1, keep=3), [3, 4, 9, 10])) == [(3, 4, 8), (9, 10, 14)]
    assert brief(run(rule(keep=300), [3])) == [(3, 3, None)]


def prometheus_says(
    active: list[bool], wait: float, keep: float
) -> list[tuple[float, float | None, float | None]]:
    """AlertingRule.Eval of Prometheus 2.42, step by step, for one set of labels."""
    found: list[list[float | None]] = []
    state, since, kept = "inactive", 0.0, None
    for now, there in enumerate(active):
        if there:
            kept = None
            if state == "inactive":
                state, since = "pending", float(now)
                found.append([since, None, None])
        elif state != "inactive":
            keeping = False
            if state == "firing" and keep > 0:
                kept = float(now) if kept is None else kept
                keeping = now - kept < keep
            if not keeping:
                state, kept = "inactive", None
                found[-1][2] = float(now)
                continue
        if state == "pending" and now - since >= wait:
            state = "firing"
            found[-1][1] = float(now)
    return [(each[0], each[1], each[2]) for each in found if each[0] is not None]


@given(
    st.lists(st.booleans(), min_size=1, max_size=40),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_the_state_machine_is_that_of_prometheus(active: list[bool], wait: int, keep: int) -> None:
    steps = np.arange(float(len(active)))
    times = np.flatnonzero(active).astype(float)
    found = episodes(rule(wait, keep), [({}, times, np.ones(len(times)))], steps)
    assert brief(found) == prometheus_says(active, wait, keep)


def test_identity_is_by_labels_with_those_of_the_rule() -> None:
    one = rule(severity="warning", where="{{ $labels.e }}!", __name__="no")
    found = episodes(
        one,
        [
            ({"__name__": "x", "e": "1"}, np.array([1.0]), np.array([2.0])),
            ({"__name__": "x", "e": "2"}, np.array([2.0]), np.array([-9.0])),
        ],
        STEPS,
    )
    assert [each.labels["where"] for each in found] == ["1!", "2!"]
    assert all(each.labels["alertname"] == "A" for each in found)
    assert [each.worst for each in found] == [2.0, -9.0]


def test_two_rows_of_one_alert_are_refused_as_by_prometheus() -> None:
    row = ({"e": "1"}, np.array([1.0]), np.array([2.0]))
    with pytest.raises(RagprofError, match="two rows"):
        episodes(rule(), [row, row], STEPS)


def test_rule_files_of_all_kinds(tmp_path: Path) -> None:
    found = rulefile.of_content(rules.groups(), "the catalogue")
    assert {each.name for each in found} >= {"HighLatency", "HighErrorRate"}
    latency = next(each for each in found if each.name == "HighLatency")
    assert (latency.interval, latency.wait) == (30, 300)
    assert "> 1.5" in latency.with_threshold(1.5).expression
    resource = rules.prometheus_rule()
    import yaml

    (tmp_path / "rule.yml").write_text(yaml.safe_dump(resource))
    (tmp_path / "other.yaml").write_text("just: text\n")
    assert rulefile.read(tmp_path / "rule.yml") == found
    assert rulefile.read(tmp_path) == found
    assert rulefile.seconds("1h30m") == 5400
    assert replay.longest_window("rate(x[5m]) offset 1h and y[3d]") == 259_200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groups: [", "not YAML"),
        ("a: 1", "'groups'"),
        ("groups: [{rules: []}]", "'name'"),
        ("groups: [{name: g, rules: [{alert: A}]}]", "'expr'"),
        ("groups: [{name: g, rules: [{record: a, expr: b}]}]", "no alerting rule"),
        ("groups: [{name: g, rules: [{alert: A, expr: x, for: soon}]}]", "for"),
        ("groups: [{name: g, interval: 5, rules: [{alert: A, expr: x}]}]", "interval"),
        (
            "groups: [{name: g, rules: [{alert: A, expr: x, labels: {v: '{{ $value }}'}}]}]",
            "'v'",
        ),
        ("groups: [{name: g, rules: [{alert: A, expr: 'x ~ 1'}]}]", "not PromQL"),
    ],
)
def test_a_bad_rule_file_is_refused_by_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(text)
    with pytest.raises(RagprofError, match=said):
        rulefile.read(path)


def test_precision_and_recall_against_incidents() -> None:
    def fired(begin: float, end: float | None) -> Episode:
        return Episode("A", {}, begin, begin, end, 1.0)

    labelled = [Incident(0, 10), Incident(50, 60, "A"), Incident(70, 80), Incident(0, 99, "B")]
    one = incidents.score("A", [fired(4, 12), fired(20, 30), fired(58, None)], labelled, 65)
    assert (one.true_alarms, one.false_alarms, one.found, one.missed) == (2, 1, 2, 1)
    assert one.precision == pytest.approx(2 / 3)
    assert one.recall == pytest.approx(2 / 3)
    assert one.delays == (4, 8)
    none = incidents.score("A", [], [], 65)
    assert (none.precision, none.recall) == (None, None)


def test_incidents_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "incidents.toml"
    path.write_text(
        "[[incident]]\nstart = 1970-01-01T00:00:10Z\nend = '1970-01-01T01:00:20+01:00'\n"
        "alert = 'HighLatency'\n"
    )
    assert incidents.read(path) == [Incident(10, 20, "HighLatency")]
    for text, said in (
        ("[[incident]]\nstart = 1970-01-01T00:00:10\nend = 1970-01-01T00:00:20Z", "time zone"),
        ("[[incident]]\nstart = 1970-01-01T00:00:10Z", "'end'"),
        ("[[incident]]\nstart = 1970-01-01T00:00:10Z\nend = 1970-01-01T00:00:01Z", "swap"),
        ("[[incident]]\nbegin = 1", "'begin'"),
        ("x = 1", "incident"),
    ):
        path.write_text(text)
        with pytest.raises(RagprofError, match=said):
            incidents.read(path)
