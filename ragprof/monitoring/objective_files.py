"""The objectives for other tools: OpenSLO and sloth. Only those made of events have a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragprof.monitoring import indicators
from ragprof.monitoring.catalogue_objectives import OBJECTIVES, Objective

SERVICE = "rag-api"


def openslo(objectives: Sequence[Objective] = OBJECTIVES) -> list[dict[str, Any]]:
    """One OpenSLO v1 document per objective; its queries are the counters, as OpenSLO wants."""
    return [_openslo(each) for each in objectives if each.has_budget]


def _openslo(objective: Objective) -> dict[str, Any]:
    window = f"{objective.window_days}d"
    counted = indicators.counters(objective.indicator)
    queries = {"bad": counted.bad, "good": counted.good, "total": counted.total}
    return {
        "apiVersion": "openslo/v1",
        "kind": "SLO",
        "metadata": {"name": objective.name.replace("_", "-"), "displayName": objective.name},
        "spec": {
            "description": objective.description,
            "service": SERVICE,
            "indicator": {
                "metadata": {"name": f"{objective.name.replace('_', '-')}-ratio"},
                "spec": {
                    "ratioMetric": {
                        "counter": True,
                        **{
                            kind: _prometheus(f"sum({selector})")
                            for kind, selector in queries.items()
                            if selector is not None
                        },
                    }
                },
            },
            "timeWindow": [{"duration": window, "isRolling": True}],
            "budgetingMethod": "Occurrences",
            "objectives": [{"displayName": objective.name, "target": objective.target}],
        },
    }


def _prometheus(query: str) -> dict[str, Any]:
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}


def sloth(objectives: Sequence[Objective] = OBJECTIVES) -> dict[str, Any]:
    """One sloth specification (prometheus/v1); sloth fills the window in and writes the rules."""
    return {
        "version": "prometheus/v1",
        "service": SERVICE,
        "slos": [
            {
                "name": objective.name.replace("_", "-"),
                "objective": round(objective.target * 100, 6),
                "description": objective.description,
                "sli": {
                    "events": {
                        "error_query": objective.indicator.bad_events("{{.window}}"),
                        "total_query": objective.indicator.total_events("{{.window}}"),
                    }
                },
                "alerting": {
                    "name": "".join(part.capitalize() for part in objective.name.split("_")),
                    "page_alert": {"labels": {"severity": "critical"}},
                    "ticket_alert": {"labels": {"severity": "warning"}},
                },
            }
            for objective in objectives
            if objective.has_budget
        ],
    }
