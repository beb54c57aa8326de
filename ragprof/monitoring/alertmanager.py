"""Who is told: the configuration of Alertmanager. Secrets come from files, never inline."""

from __future__ import annotations

from typing import Any

SECRETS = "/etc/alertmanager/secrets"
SLACK_TITLE = "{{ .CommonAnnotations.summary }}"
SLACK_TEXT = (
    "{{ range .Alerts }}*{{ .Labels.severity }}* {{ .Annotations.description }}\n"
    "Runbook: {{ .Annotations.runbook_url }}\n`{{ .Annotations.investigate }}`\n{{ end }}"
)


def config(secrets: str = SECRETS, watch: str = "") -> dict[str, Any]:
    """Routes and receivers; with `watch`, the URL of `ragprof watch`, it is told as well."""
    routes: list[dict[str, Any]] = [
        {"receiver": "critical-alerts", "matchers": ['severity="critical"'], "continue": True},
        {"receiver": "warning-alerts", "matchers": ['severity="warning"']},
    ]
    receivers: list[dict[str, Any]] = [
        {"name": "default", "slack_configs": [_slack("#rag-alerts", secrets)]},
        {
            "name": "critical-alerts",
            "slack_configs": [_slack("#rag-critical", secrets)],
            "pagerduty_configs": [
                {
                    "routing_key_file": f"{secrets}/pagerduty-routing-key",
                    "description": SLACK_TITLE,
                    "details": {"investigate": "{{ .CommonAnnotations.investigate }}"},
                }
            ],
        },
        {"name": "warning-alerts", "slack_configs": [_slack("#rag-warnings", secrets)]},
    ]
    if watch:
        routes.insert(0, {"receiver": "ragprof-watch", "continue": True})
        # A route that matches keeps its alerts from the root's receiver.
        routes.append({"receiver": "default", "matchers": ['severity!~"critical|warning"']})
        receivers.append(
            {
                "name": "ragprof-watch",
                "webhook_configs": [{"url": watch, "send_resolved": True, "max_alerts": 20}],
            }
        )
    return {
        "global": {"resolve_timeout": "5m"},
        "route": {
            "receiver": "default",
            "group_by": ["alertname", "cluster", "service"],
            "group_wait": "10s",
            "group_interval": "10s",
            "repeat_interval": "12h",
            "routes": routes,
        },
        "inhibit_rules": [
            {
                "source_matchers": ['severity="critical"'],
                "target_matchers": ['severity="warning"'],
                "equal": ["cluster", "service"],
            }
        ],
        "receivers": receivers,
    }


def _slack(channel: str, secrets: str) -> dict[str, Any]:
    return {
        "api_url_file": f"{secrets}/slack-webhook-url",
        "channel": channel,
        "send_resolved": True,
        "title": SLACK_TITLE,
        "text": SLACK_TEXT,
    }
