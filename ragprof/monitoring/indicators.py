"""The counters behind an indicator's queries."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ragprof.errors import RagprofError
from ragprof.monitoring import promql
from ragprof.monitoring.catalogue_objectives import WINDOW, Indicator
from ragprof.monitoring.promql import Selector


class IndicatorError(RagprofError):
    """An indicator whose queries are not of counters."""


@dataclass(frozen=True)
class Counters:
    """The counters of an indicator of events: `total`, and either `bad` or `good` ones."""

    total: Selector
    bad: Selector | None = None
    good: Selector | None = None


def counters(indicator: Indicator) -> Counters:
    """The counters of an indicator of events. Raises IndicatorError when its queries have others.

    Understood are ``sum(increase(X[$window]))`` for `total`, and for `bad` the same (with
    ``or … * 0`` after it), or the total minus the same, which makes X the good ones.
    """
    total, bad = _selectors(indicator.total), _selectors(indicator.bad)
    minus = re.match(r"\s*sum\s*\(.*?\)\s*\)\s*-\s*sum", indicator.bad, re.DOTALL)
    if len(total) != 1 or not bad or (minus and len(bad) != 2):
        raise IndicatorError(
            f"indicator {indicator.name!r}: its queries are not of counters; write total and bad "
            "as sum(increase(COUNTER[$window]))"
        )
    return Counters(total[0], good=bad[1]) if minus else Counters(total[0], bad=bad[0])


def mean_counters(indicator: Indicator) -> tuple[Selector, Selector]:
    """Sum and count behind an indicator that is a mean. Raises IndicatorError otherwise."""
    found = _selectors(indicator.mean)
    if len(found) != 2:
        raise IndicatorError(
            f"indicator {indicator.name!r}: its mean is not sum(increase(X_sum[$window])) / "
            "sum(increase(X_count[$window])); write it so"
        )
    return found[0], found[1]


def increase(selector: Selector) -> str:
    """The query for the events of a counter."""
    return f"sum(increase({selector}[{WINDOW}]))"


def of_counters(name: str, counted: Counters, description: str = "") -> Indicator:
    """An indicator over counters, with the queries that rules and dashboards use."""
    total = increase(counted.total)
    if counted.bad is not None:
        bad = f"{increase(counted.bad)} or {total} * 0"
    elif counted.good is not None:
        bad = f"{total} - {increase(counted.good)}"
    else:
        raise IndicatorError(f"objective {name!r} counts neither bad nor good events; add one")
    return Indicator(name, description, "percentunit", total=total, bad=bad)


_INCREASE = re.compile(r"increase\(\s*(?P<selector>[^\[\]]*(?:\{.*?\})?)\s*\[\$window\]", re.DOTALL)


def _selectors(query: str) -> list[Selector]:
    found: list[Selector] = []
    for match in _INCREASE.finditer(query):
        selector = promql.selector(match["selector"])
        if selector not in found:
            found.append(selector)
    return found
