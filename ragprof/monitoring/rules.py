"""Alert rules for Prometheus: one source for the plain file and the PrometheusRule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragprof.monitoring import names, promql, shell
from ragprof.monitoring.catalogue import SAMPLES
from ragprof.monitoring.catalogue_alerts import ALERTS, INTERVAL, RULE_NAME, Alert

RUNBOOKS = "https://github.com/ragprof/ragprof/blob/main/docs/alerts.md"


def rule(alert: Alert, runbooks: str = RUNBOOKS) -> dict[str, Any]:
    """One alerting rule as Prometheus reads it."""
    labels = {"severity": alert.severity, "service": alert.service}
    if alert.objective:
        labels["slo"] = alert.objective
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.wait,
        "labels": labels,
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{runbooks}#{alert.runbook}",
            "investigate": shell.annotation(alert.name, alert.by),
        },
    }


def groups(alerts: Sequence[Alert] = ALERTS, interval: str = INTERVAL) -> dict[str, Any]:
    """The content of a rule file. Raises UnknownName for names that the catalogue lacks."""
    names.check((f"alert {alert.name}", alert.expression) for alert in alerts)
    for alert in alerts:
        unknown = set(alert.by) - {
            label
            for name in (each.metric for each in promql.references(alert.expression))
            for label in (*SAMPLES.get(name, ()), *names.TARGET_LABELS)
        }
        if unknown:
            raise names.UnknownName(
                f"alert {alert.name}: its labels {', '.join(sorted(unknown))} are of none of its "
                "metrics; correct `by`"
            )
    order = list(dict.fromkeys(alert.group for alert in alerts))
    return {
        "groups": [
            {
                "name": group,
                "interval": interval,
                "rules": [rule(alert) for alert in alerts if alert.group == group],
            }
            for group in order
        ]
    }


def prometheus_rule(alerts: Sequence[Alert] = ALERTS) -> dict[str, Any]:
    """The same as a custom resource of the Prometheus operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": RULE_NAME, "labels": {"app": "rag-system", "role": "alert-rules"}},
        "spec": groups(alerts),
    }
