"""Budget arithmetic: counters to events, events to budgets and burn rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragprof.slo import budget, counters
from ragprof.slo.counters import Events, Series

STEPS = st.lists(st.integers(0, 1000), min_size=1, max_size=30)


@st.composite
def counted(draw: st.DrawFn) -> tuple[Series, list[int]]:
    """A counter with resets and gaps, and the events that it saw between its samples."""
    steps = draw(STEPS)
    gaps = draw(
        st.lists(st.sampled_from([1, 1, 1, 7, 40]), min_size=len(steps), max_size=len(steps))
    )
    resets = draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps)))
    value, at = draw(st.integers(0, 10_000)), draw(st.integers(0, 2_000_000_000))
    times, values, seen = [float(at)], [float(value)], []
    for step, gap, reset in zip(steps, gaps, resets, strict=True):
        if reset and step < value:  # it begins anew; what it shows after counts from zero
            value = step
        else:
            value += step
        at += gap
        times.append(float(at))
        values.append(float(value))
        seen.append(step)
    return Series(np.array(times), np.array(values)), seen


@given(counted())
def test_every_event_is_counted_once_across_resets_and_gaps(case: tuple[Series, list[int]]) -> None:
    series, seen = case
    found = counters.events([series])
    assert found.total == sum(seen)
    begin, end = float(series.times[0]), float(series.times[-1])
    assert found.between(begin - 1, end + 1) == pytest.approx(sum(seen))
    for at, step in enumerate(seen):
        low, high = float(series.times[at]), float(series.times[at + 1])
        assert found.between(low, high) == pytest.approx(step, abs=1e-6)


@given(counted(), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_windows_add_up_and_none_is_negative(
    case: tuple[Series, list[int]], shares: list[float]
) -> None:
    series, seen = case
    found = counters.events([series])
    begin, end = float(series.times[0]), float(series.times[-1])
    edges = sorted({begin, end, *(begin + share * (end - begin) for share in shares)})
    parts = found.in_windows(edges)
    assert parts.sum() == pytest.approx(sum(seen), abs=1e-6)
    assert (parts > -1e-6).all()


@given(counted(), counted())
def test_counters_of_several_targets_add(
    one: tuple[Series, list[int]], other: tuple[Series, list[int]]
) -> None:
    found = counters.events([one[0], other[0]])
    assert found.total == sum(one[1]) + sum(other[1])


@given(counted())
def test_fewer_samples_of_a_counter_without_resets_change_nothing(
    case: tuple[Series, list[int]],
) -> None:
    series, _ = case
    values = np.maximum.accumulate(series.values)
    whole = counters.events([Series(series.times, values)])
    thin = counters.events([Series(series.times[::3], values[::3])])
    last = float(series.times[::3][-1])
    assert thin.between(float(series.times[0]), last) == pytest.approx(
        whole.between(float(series.times[0]), last), abs=1e-6
    )


@given(STEPS, st.integers(0, 500))
def test_good_and_bad_events_make_the_whole(steps: list[int], share: int) -> None:
    times = np.arange(len(steps) + 1, dtype=float)
    total = np.concatenate([[0.0], np.cumsum(steps)])
    good = np.concatenate([[0.0], np.cumsum([step * share // 1000 for step in steps])])
    all_, fine = (counters.events([Series(times, values)]) for values in (total, good))
    bad = counters.without(all_, fine)
    assert bad.between(0, len(steps)) == pytest.approx(total[-1] - good[-1], abs=1e-6)


def test_the_first_error_is_counted_when_the_target_was_seen_before() -> None:
    """A series of errors appears with its first error; `increase` would miss it."""
    times, values = np.array([100.0, 110.0]), np.array([3.0, 4.0])
    assert counters.events([Series(times, values, zero_at=90.0)]).total == 4
    assert counters.events([Series(times, values)]).total == 1
    assert counters.events([Series(times, values, zero_at=90.0)]).between(90, 100) == pytest.approx(
        3
    )


def test_a_partial_window_gets_its_share_of_an_increment() -> None:
    found = counters.events([Series(np.array([0.0, 10.0]), np.array([0.0, 100.0]))])
    assert found.between(2.5, 5.0) == pytest.approx(25)
    assert found.between(-50, 5.0) == pytest.approx(50)
    assert found.between(20, 30) == 0


def test_no_samples_are_no_events() -> None:
    none = counters.events([])
    assert none.total == 0
    assert none.between(0, 100) == 0
    assert none.until(np.array([1.0, 2.0])).tolist() == [0, 0]


def test_gaps_and_coverage() -> None:
    times = np.array([0.0, 1, 2, 3, 20, 21, 22])
    seconds, gaps = counters.covered([times], 1.0, 0.0, 23.0)
    assert seconds == pytest.approx(7.0)
    assert gaps == [(3.0, 19.0)]
    assert counters.covered([], 1.0, 0.0, 10.0) == (0.0, [(0.0, 10.0)])
    assert counters.covered([np.array([50.0])], 1.0, 0.0, 10.0)[0] == 0.0
    half, _ = counters.covered([np.arange(0.0, 50.0)], 1.0, 0.0, 100.0)
    assert half == pytest.approx(50.0)


def even(events: float, bad: float, length: float = 1000.0) -> tuple[Events, Events]:
    def spread(count: float) -> Events:
        return Events(np.array([0.0]), np.array([length]), np.array([count]))

    return spread(events), spread(bad)


@given(
    st.integers(1, 10**7),
    st.floats(0, 1),
    st.sampled_from([0.9, 0.95, 0.99, 0.999, 0.9999]),
)
def test_a_budget_by_events_and_in_minutes_agree(total: int, share: float, target: float) -> None:
    bad = math.floor(total * share)
    found = budget.error_budget("one", target, *even(total, bad), 0.0, 1000.0).to_dict()
    assert found["actual"] == pytest.approx(1 - bad / total)
    assert found["budget_total_events"] == pytest.approx((1 - target) * total)
    assert found["budget_used_events"] == pytest.approx(bad, abs=1e-6)
    minutes = 1000.0 / 60
    assert found["budget_total_minutes"] == pytest.approx((1 - target) * minutes)
    assert found["budget_used_minutes"] == pytest.approx((1 - found["actual"]) * minutes, abs=1e-9)
    left = found["budget_remaining_minutes"] / found["budget_total_minutes"]
    assert found["budget_remaining_percentage"] == pytest.approx(100 * left, abs=1e-6)
    by_events = found["budget_remaining_events"] / found["budget_total_events"]
    assert found["budget_remaining_percentage"] == pytest.approx(
        100 * by_events, rel=1e-6, abs=1e-4
    )
    assert found["burn_rate"] == pytest.approx(bad / total / (1 - target), abs=1e-9)


def test_no_traffic_leaves_the_budget_whole_and_no_data_leaves_it_unknown() -> None:
    quiet = budget.error_budget("one", 0.999, *even(0, 0), 0.0, 1000.0).to_dict()
    assert quiet["actual"] is None
    assert quiet["budget_used_minutes"] == 0
    assert quiet["budget_remaining_percentage"] == 100
    assert quiet["burn_rate"] == 0
    assert "no events" in quiet["reason"]
    unknown = budget.error_budget("one", 0.999, *even(0, 0), 0.0, 1000.0, coverage=0.0).to_dict()
    assert unknown["actual"] is None
    assert unknown["budget_remaining_percentage"] is None
    assert unknown["burn_rate"] is None
    assert "no data" in unknown["reason"]


def test_burn_rates_over_windows_with_and_without_traffic() -> None:
    total = Events(np.array([0.0, 5000.0]), np.array([1000.0, 6000.0]), np.array([1000.0, 1000.0]))
    bad = Events(np.array([5000.0]), np.array([6000.0]), np.array([20.0]))
    rates = budget.burn_rates(total, bad, 0.99, 1000.0, np.array([1000.0, 3000.0, 5500.0, 6000.0]))
    assert rates.tolist() == pytest.approx([0, 0, 2, 2])
    assert budget.burn_rate(100, 0, 1.0) == 0
    assert budget.burn_rate(100, 1, 1.0) == math.inf


def test_time_to_exhaustion_is_that_of_the_last_hour() -> None:
    length = 30 * 86_400.0
    steady = budget.error_budget("one", 0.99, *even(1e6, 5000, length), 0.0, length)
    assert steady.used == pytest.approx(0.5)
    assert steady.burn_rates["1h"] == pytest.approx(0.5)
    # Half is left, and half a budget goes in a whole window.
    assert steady.seconds_to_exhaustion == pytest.approx(length)
    gone = budget.error_budget("one", 0.99, *even(1e6, 20_000, length), 0.0, length)
    assert gone.seconds_to_exhaustion == 0
    assert gone.to_dict()["budget_remaining_percentage"] == pytest.approx(-100)


def test_the_burn_down_ends_at_what_is_left() -> None:
    at, left = budget.burn_down(*even(1000, 5), 0.99, 0.0, 1000.0, points=11)
    assert at[[0, -1]].tolist() == [0, 1000]
    assert left[0] == 1
    assert left[-1] == pytest.approx(0.5)
    assert (np.diff(left) <= 1e-12).all()
