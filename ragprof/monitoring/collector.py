"""The OpenTelemetry Collector: logs into Elasticsearch, traces to Jaeger, metrics for Prometheus.

For the contrib distribution. The tests run the traces pipeline; logs and metrics are checked for
references and names.
"""

from __future__ import annotations

from typing import Any

from ragprof.monitoring.index_template import PREFIX
from ragprof.monitoring.scraping import JOB, SCRAPE_INTERVAL

FILES = "/var/log/pods/*rag-system*/*/*.log"
"""The container operator reads pod and container from such a path, not from /var/log/containers."""
_IDS = {"trace_id": "trace_id", "span_id": "span_id"}


def config(
    elasticsearch: str = "http://elasticsearch:9200", jaeger: str = "jaeger:4317"
) -> dict[str, Any]:
    """otelcol.yaml with three pipelines. A line that is not JSON is kept as it is, and marked."""
    return {
        "receivers": {
            "filelog": {
                "include": [FILES],
                "start_at": "beginning",
                "include_file_path": True,
                "storage": "file_storage",
                "operators": [
                    # CRI, CRI-O and Docker forms; parts are joined
                    {"type": "container", "id": "container"},
                    {
                        "type": "json_parser",
                        "id": "json",
                        "if": 'body matches "^[{]"',
                        "parse_from": "body",
                        "parse_to": "attributes",
                        "on_error": "send",
                        "timestamp": {
                            "parse_from": "attributes.timestamp",
                            "layout_type": "gotime",
                            "layout": "2006-01-02T15:04:05.999999999Z07:00",
                        },
                        "severity": {"parse_from": "attributes.level"},
                        "trace": {
                            name: {"parse_from": f"attributes.{key}"} for name, key in _IDS.items()
                        },
                    },
                    {
                        "type": "add",
                        "id": "unparsed",
                        "if": "attributes.event == nil",
                        "field": "attributes.unparsed",
                        "value": True,
                    },
                ],
            },
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": "0.0.0.0:4317"},
                    "http": {"endpoint": "0.0.0.0:4318"},
                }
            },
            "prometheus": {
                "config": {
                    "scrape_configs": [
                        {
                            "job_name": JOB,
                            "scrape_interval": SCRAPE_INTERVAL,
                            "static_configs": [{"targets": ["rag-api:8000"]}],
                        }
                    ]
                }
            },
        },
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_mib": 400, "spike_limit_mib": 100},
            "k8sattributes": {
                "extract": {"metadata": ["k8s.namespace.name", "k8s.pod.name", "k8s.node.name"]}
            },
            # The exporter's bodymap mode writes the body as the document.
            "transform/body": {
                "error_mode": "ignore",
                "log_statements": [
                    'set(log.attributes["message"], log.body) '
                    'where log.attributes["unparsed"] == true',
                    'set(log.attributes["@timestamp"], log.attributes["timestamp"])',
                    "set(log.body, log.attributes)",
                ],
            },
            "batch": {"timeout": "10s", "send_batch_size": 1000},
        },
        "exporters": {
            "elasticsearch": {
                "endpoints": [elasticsearch],
                # The fields of a line stand at the root of the document, as the template has them.
                "mapping": {"mode": "bodymap"},
                "logs_index": PREFIX,
                "logstash_format": {
                    "enabled": True,
                    "prefix_separator": "-",
                    "date_format": "%Y.%m.%d",
                },
                "retry": {"enabled": True, "max_retries": 10, "max_interval": "30s"},
                "sending_queue": {
                    "enabled": True,
                    "storage": "file_storage",
                    "queue_size": 10_000,
                },
            },
            "otlp/jaeger": {"endpoint": jaeger, "tls": {"insecure": True}},
            "prometheus": {"endpoint": "0.0.0.0:8889", "enable_open_metrics": True},
        },
        "extensions": {
            "file_storage": {"directory": "/var/lib/otelcol"},
            "health_check": {"endpoint": "0.0.0.0:13133"},
        },
        "service": {
            "extensions": ["file_storage", "health_check"],
            "pipelines": {
                "logs": {
                    "receivers": ["filelog"],
                    "processors": ["memory_limiter", "k8sattributes", "transform/body", "batch"],
                    "exporters": ["elasticsearch"],
                },
                "traces": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "batch"],
                    "exporters": ["otlp/jaeger"],
                },
                "metrics": {
                    "receivers": ["prometheus"],
                    "processors": ["memory_limiter", "batch"],
                    "exporters": ["prometheus"],
                },
            },
        },
    }


def problems(config: dict[str, Any]) -> list[str]:
    """Components that a pipeline names and the configuration lacks, or has and nobody uses."""
    found = []
    used: dict[str, set[str]] = {kind: set() for kind in ("receivers", "processors", "exporters")}
    for name, pipeline in config["service"]["pipelines"].items():
        for kind, names in used.items():
            names |= set(pipeline[kind])
            for each in pipeline[kind]:
                if each not in config[kind]:
                    found.append(f"pipeline {name} names {each!r}, which is not in {kind}")
    used["extensions"] = set(config["service"]["extensions"])
    for kind, names in used.items():
        found += [f"{each!r} of {kind} is not used" for each in config[kind] if each not in names]
    return found
