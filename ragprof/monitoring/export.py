"""What the cluster loads, written into a folder: plain files, or Kubernetes resources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError
from ragprof.monitoring import (
    alertmanager,
    collector,
    dashboards,
    fluentd,
    index_template,
    objective_files,
    rsyslog,
    rule_tests,
    rules,
    scraping,
)
from ragprof.monitoring.catalogue_alerts import RULE_NAME

PLAIN, KUBERNETES = "plain", "kubernetes"
NAMESPACE = "rag-system"


class ExportError(RagprofError):
    """A folder that cannot be written."""


def contents(form: str, watch: str = "") -> dict[str, str]:
    """File name -> text of one form. Raises UnknownName for names that the catalogue lacks.

    `watch` is the URL of a `ragprof watch` for Alertmanager to tell. The index template is the
    same file in both forms: Elasticsearch takes it, not Kubernetes.
    """
    index = {"elasticsearch/index-template.json": _json(index_template.template())}
    return {**(_plain(watch) if form == PLAIN else _kubernetes(watch)), **index}


def export(
    folder: Path, forms: tuple[str, ...] = (PLAIN, KUBERNETES), watch: str = ""
) -> list[Path]:
    """Write the forms into `folder/plain` and `folder/kubernetes`, or into `folder` for one alone.

    Files of an earlier export are replaced, others are left alone. Returns what was written.
    """
    texts: dict[Path, str] = {}
    for form in forms:
        base = folder if len(forms) == 1 else folder / form
        texts |= {base / name: text for name, text in contents(form, watch).items()}
    write_texts(texts)
    return list(texts)


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write files, with their folders. Raises ExportError."""
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ExportError(
                f"{path} cannot be written: {error.strerror}; choose another folder"
            ) from None


def rule_file() -> str:
    """The plain rule file."""
    return _yaml(rules.groups())


def _plain(watch: str) -> dict[str, str]:
    return {
        "prometheus/prometheus.yml": _yaml(scraping.prometheus_config("rules/*.yml")),
        f"prometheus/rules/{RULE_NAME}.yml": rule_file(),
        f"prometheus/tests/{RULE_NAME}.test.yml": rule_tests.text(f"../rules/{RULE_NAME}.yml"),
        "alertmanager/alertmanager.yml": _yaml(alertmanager.config(watch=watch)),
        "grafana/dashboards/rag-overview.json": _json(dashboards.dashboard()),
        "grafana/provisioning/dashboards/ragprof.yml": _yaml(_provider()),
        "grafana/provisioning/datasources/ragprof.yml": _yaml(dashboards.datasource()),
        "fluentd/fluent.conf": fluentd.config(),
        "otel-collector/otelcol.yaml": _yaml(collector.config()),
        "rsyslog/rag-system.conf": rsyslog.config(),
        "slo/openslo.yml": _yaml(*objective_files.openslo()),
        "slo/sloth.yml": _yaml(objective_files.sloth()),
    }


def _kubernetes(watch: str) -> dict[str, str]:
    folder = {"grafana_dashboard": "1"}
    sloth = objective_files.sloth()
    return {
        "prometheus-rule.yml": _yaml(rules.prometheus_rule()),
        "service-monitor.yml": _yaml(scraping.service_monitor()),
        "alertmanager-secret.yml": _yaml(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "alertmanager-rag-system", "labels": {"app": NAMESPACE}},
                "stringData": {"alertmanager.yaml": _yaml(alertmanager.config(watch=watch))},
            }
        ),
        "grafana-dashboard.yml": _config_map(
            "rag-overview", {"rag-overview.json": _json(dashboards.dashboard())}, folder
        ),
        "grafana-datasource.yml": _config_map(
            "rag-datasources",
            {"ragprof.yml": _yaml(dashboards.datasource())},
            {"grafana_datasource": "1"},
        ),
        "fluentd-config.yml": _config_map("fluentd-rag-system", {"fluent.conf": fluentd.config()}),
        "otel-collector-config.yml": _config_map(
            "otel-collector-rag-system", {"otelcol.yaml": _yaml(collector.config())}
        ),
        "rsyslog-config.yml": _config_map(
            "rsyslog-rag-system", {"rag-system.conf": rsyslog.config()}
        ),
        "openslo.yml": _yaml(*objective_files.openslo()),
        "sloth-prometheus-service-level.yml": _yaml(
            {
                "apiVersion": "sloth.slok.dev/v1",
                "kind": "PrometheusServiceLevel",
                "metadata": {"name": "rag-system"},
                "spec": {
                    "service": sloth["service"],
                    "slos": [_camel(each) for each in sloth["slos"]],
                },
            }
        ),
    }


def _camel(value: Any) -> Any:
    """sloth's custom resource has the same fields with other spelling."""
    if isinstance(value, Mapping):
        return {
            (
                key
                if key == "severity"
                else "".join(p.title() if n else p for n, p in enumerate(key.split("_")))
            ): _camel(inner)
            for key, inner in value.items()
        }
    return value


def _provider() -> dict[str, Any]:
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "ragprof",
                "type": "file",
                "options": {"path": "/var/lib/grafana/dashboards"},
            }
        ],
    }


def _config_map(name: str, data: dict[str, str], labels: Mapping[str, str] | None = None) -> str:
    return _yaml(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"app": NAMESPACE, **(labels or {})}},
            "data": data,
        }
    )


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _yaml(*documents: Any) -> str:
    import yaml  # type: ignore[import-untyped]

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Texts of several lines as blocks; nothing shared by anchors."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, data: str) -> Any:
        style = "|" if "\n" in data else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    return str(
        yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, width=4096, allow_unicode=True)
    )
