"""What an expression names, told from its tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragprof.monitoring import indicators, promql
from ragprof.monitoring.catalogue_objectives import OBJECTIVES
from ragprof.monitoring.promql import Selector


def named(expression: str) -> dict[str, set[str]]:
    return {each.metric: each.labels for each in promql.references(expression)}


def test_metrics_with_the_labels_that_they_need() -> None:
    assert named('sum by (a, b) (rate(x_total{c="1", d=~"2|3"}[5m])) / on (e) y') == {
        "x_total": {"a", "b", "c", "d", "e"},
        "y": {"e"},
    }
    assert named("sum(x) by (a) / sum(y)") == {"x": {"a"}, "y": set()}
    assert named(
        "histogram_quantile(0.9, sum(rate(h_bucket[1m])) by (le)) > bool 2 or absent(z)"
    ) == {
        "h_bucket": {"le"},
        "z": set(),
    }
    assert named('{__name__="x", a="b"}') == {"x": {"a"}}
    assert named("x offset 5m and ignoring (p) y unless time() > 3") == {
        "x": {"p"},
        "y": {"p"},
    }


def test_words_inside_of_strings_and_comments_are_none() -> None:
    assert named("x{a=\"y{b='z'}\"} # and w\n > 1") == {"x": {"a"}}


@pytest.mark.parametrize("bad", ["x{a='b'", "sum by (a", "x ~ y", "x{a='b}"])
def test_what_is_no_expression_is_refused(bad: str) -> None:
    with pytest.raises(promql.ExpressionError):
        promql.references(bad)


def test_thresholds_in_order_and_another_in_their_place() -> None:
    expression = '(rate(x{a="> 3"}[5m]) > 14.4) and y > 14.4 and z < -1'
    assert [each.value for each in promql.thresholds(expression)] == [14.4, 14.4, -1]
    assert (
        promql.with_threshold(expression, 1.5)
        == '(rate(x{a="> 3"}[5m]) > 1.5) and y > 1.5 and z < -1'
    )
    with pytest.raises(promql.ExpressionError, match="no comparison"):
        promql.with_threshold("x > y", 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b_1"]), st.sampled_from(["=", "!="]), st.text(max_size=20)
        ),
        max_size=3,
    )
)
def test_a_selector_reads_back_as_it_was(matchers: list[tuple[str, str, str]]) -> None:
    one = Selector("x_total", tuple(matchers))
    assert promql.selector(str(one)) == one


def test_matchers_are_those_of_prometheus() -> None:
    one = promql.selector('x{a=~"5..", b!="2", c=""}')
    assert one.matches("x", {"a": "503"})
    assert not one.matches("x", {"a": "5033"})
    assert not one.matches("x", {"a": "503", "b": "2"})
    assert not one.matches("x", {"a": "503", "c": "3"})
    assert not one.matches("y", {"a": "503"})


def test_counters_are_found_behind_the_queries_of_the_catalogue() -> None:
    by_name = {each.name: each.indicator for each in OBJECTIVES}
    assert indicators.counters(by_name["api_availability"]).bad == promql.selector(
        'rag_http_requests_total{status_code=~"5.."}'
    )
    assert indicators.counters(by_name["api_latency"]).good == promql.selector(
        'rag_http_request_duration_seconds_bucket{le="0.5"}'
    )
    over, under = indicators.mean_counters(by_name["search_quality"])
    assert (over.metric, under.metric) == (
        "rag_search_relevance_score_sum",
        "rag_search_relevance_score_count",
    )
    for counted in (
        indicators.Counters(Selector("t"), bad=Selector("b", (("x", "=", "1"),))),
        indicators.Counters(Selector("t"), good=Selector("g")),
    ):
        assert indicators.counters(indicators.of_counters("one", counted)) == counted
