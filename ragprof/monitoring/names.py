"""Every metric and label that a rule or panel names must be in the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from ragprof.errors import RagprofError
from ragprof.monitoring import promql
from ragprof.monitoring.catalogue import SAMPLES

TARGET_LABELS = frozenset({"job", "instance", "cluster", "namespace", "pod", "service"})
"""Labels that the scrape adds to every series."""
SCRAPE_SAMPLES = frozenset({"up"})
"""Samples that Prometheus itself makes."""


class UnknownName(RagprofError):
    """A rule or panel that asks for what the service does not emit."""


def problems(expression: str, where: str) -> list[str]:
    """What an expression names that does not exist; `where` says whose expression it is."""
    found = []
    for reference in promql.references(expression):
        if reference.metric in SCRAPE_SAMPLES:
            labels: Iterable[str] = ()
        elif reference.metric in SAMPLES:
            labels = SAMPLES[reference.metric]
        else:
            found.append(f"{where}: metric {reference.metric!r} is not in the catalogue")
            continue
        unknown = reference.labels - set(labels) - TARGET_LABELS
        found += [
            f"{where}: {reference.metric} has no label {label!r} in the catalogue"
            for label in sorted(unknown)
        ]
    return found


def check(expressions: Iterable[tuple[str, str]]) -> None:
    """Check pairs of (where, expression). Raises UnknownName that names all that is missing."""
    found = [
        problem for where, expression in expressions for problem in problems(expression, where)
    ]
    if found:
        raise UnknownName(f"{'; '.join(found[:5])}; add it to the catalogue or correct the query")
