"""How Prometheus finds the service: a plain configuration, or a ServiceMonitor."""

from __future__ import annotations

from typing import Any

SCRAPE_INTERVAL = "15s"
JOB = "rag-system"


def prometheus_config(rule_file: str, target: str = "rag-api:8000") -> dict[str, Any]:
    """A whole prometheus.yml. Exemplars need ``--enable-feature=exemplar-storage`` beside it."""
    return {
        "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": "30s"},
        "rule_files": [rule_file],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]},
        "scrape_configs": [
            {
                "job_name": JOB,
                "metrics_path": "/metrics",
                "static_configs": [{"targets": [target]}],
            }
        ],
    }


def service_monitor() -> dict[str, Any]:
    """The custom resource of the Prometheus operator, for services labelled app: rag-system."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": JOB, "labels": {"app": "rag-system"}},
        "spec": {
            "selector": {"matchLabels": {"app": "rag-system"}},
            "endpoints": [{"port": "http", "path": "/metrics", "interval": SCRAPE_INTERVAL}],
        },
    }
