"""Monitoring: what is generated from the catalogue, and what the real programs say to it."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from backends import servers
from hypothesis import given
from hypothesis import strategies as st

from ragprof.cli import main
from ragprof.monitoring import (
    alertmanager,
    collector,
    dashboards,
    export,
    index_template,
    names,
    promql,
    rule_tests,
    rules,
    shell,
)
from ragprof.monitoring.catalogue_alerts import ALERT_BY_NAME, ALERTS
from ragprof.monitoring.catalogue_panels import PANELS, Query


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    assert main(["monitoring", "export", str(folder), "--plain"]) == 0
    return folder


def said_by(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout if "routes" in command else done.stdout + done.stderr


def test_promtool_takes_rules_and_configuration(plain: Path) -> None:
    promtool = servers.find("promtool")
    rule_file = plain / "prometheus/rules/rag-system-alerts.yml"
    assert f"{len(ALERTS)} rules found" in said_by(promtool, "check", "rules", rule_file)
    said_by(promtool, "check", "config", plain / "prometheus/prometheus.yml")


def test_promtool_runs_a_firing_and_a_quiet_case_of_every_alert(plain: Path) -> None:
    assert not rule_tests.untested()
    test = plain / "prometheus/tests/rag-system-alerts.test.yml"
    assert "SUCCESS" in said_by(servers.find("promtool"), "test", "rules", test)


def test_the_unit_tests_notice_a_wrong_threshold(plain: Path) -> None:
    rule_file = plain / "prometheus/rules/rag-system-alerts.yml"
    folder = plain / "wrong"
    folder.mkdir(exist_ok=True)
    text = rule_file.read_text()
    assert "> 0.05" in text
    (folder / "rules.yml").write_text(text.replace("> 0.05", "> 0.2"))
    (folder / "test.yml").write_text(rule_tests.text("rules.yml"))
    done = subprocess.run(
        [servers.find("promtool"), "test", "rules", str(folder / "test.yml")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "HighErrorRate" in done.stdout + done.stderr


def test_the_table_of_alerts_is_as_required() -> None:
    waits = {"5m": 5, "10m": 10, "15m": 15}
    table = {
        "HighErrorRate": (0.05, "5m", "critical", "rag-api"),
        "HighLatency": (2, "5m", "warning", "rag-api"),
        "DatabaseConnectionPoolExhausted": (0.9, "5m", "warning", "database"),
        "LowCacheHitRate": (0.5, "10m", "warning", "cache"),
        "RetrievalPerformanceDegradation": (1, "10m", "warning", "retrieval"),
        "BackgroundJobQueueGrowing": (1000, "15m", "warning", "workers"),
        "DocumentProcessingFailures": (0.1, "10m", "critical", "document-processor"),
    }
    content = rules.groups()
    group = content["groups"][0]
    assert (group["name"], group["interval"]) == ("rag-api-alerts", "30s")
    made = {rule["alert"]: rule for rule in group["rules"]}
    assert set(made) == set(table)
    for name, (threshold, wait, severity, service) in table.items():
        assert promql.thresholds(made[name]["expr"])[0].value == threshold
        assert made[name]["for"] == wait
        assert wait in waits
        assert made[name]["labels"] == {"severity": severity, "service": service}
        assert set(made[name]["annotations"]) == {
            "summary",
            "description",
            "runbook_url",
            "investigate",
        }
    resource = rules.prometheus_rule()
    assert (resource["kind"], resource["metadata"]["name"]) == (
        "PrometheusRule",
        "rag-system-alerts",
    )
    assert resource["spec"] == content


def test_every_runbook_exists() -> None:
    page = (Path(__file__).parents[1] / "docs/alerts.md").read_text()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", head.lower()).strip().replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }
    assert {alert.runbook for alert in ALERTS} <= anchors


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("rate(rag_unheard_total[5m]) > 1", "rag_unheard_total"),
        ("sum by (user) (rate(rag_http_requests_total[5m])) > 1", "'user'"),
        ('rag_active_requests{path="/x"} > 1', "'path'"),
        ("sum(rate(rag_http_requests_total[5m])) by (strategy) > 1", "'strategy'"),
        ("rag_http_request_duration_seconds > 1", "rag_http_request_duration_seconds"),
    ],
)
def test_a_name_that_the_catalogue_lacks_fails_the_export(expression: str, problem: str) -> None:
    wrong = dataclasses.replace(ALERTS[0], query=expression.rpartition(" > ")[0], by=())
    with pytest.raises(names.UnknownName, match=problem):
        rules.groups([wrong])
    panel = dataclasses.replace(PANELS[0], queries=(Query(expression, ""),))
    with pytest.raises(names.UnknownName, match=problem):
        dashboards.dashboard([panel])


def test_a_label_that_no_metric_of_the_alert_has_fails_the_export() -> None:
    wrong = dataclasses.replace(ALERT_BY_NAME["BackgroundJobQueueGrowing"], by=("strategy",))
    with pytest.raises(names.UnknownName, match="strategy"):
        rules.groups([wrong])


@given(st.text(max_size=80))
def test_a_label_value_cannot_leave_its_quotes(value: str) -> None:
    line = shell.command("rec.ragprof", "HighLatency", 0.0, {"endpoint": value})
    words = shlex.split(line)
    assert words[:3] == ["ragprof", "investigate", "rec.ragprof"]
    assert len(words) == 7
    assert re.fullmatch(f"endpoint=[{shell.ALLOWED}]*", words[6])
    assert "\n" not in line


def test_prometheus_itself_lets_only_allowed_characters_through(tmp_path: Path) -> None:
    """The template of the annotation, with an endpoint that would leave its quotes."""
    rule = rules.rule(ALERT_BY_NAME["HighLatency"])
    rule |= {"expr": "rag_active_requests > 0", "for": "0s"}
    rule["annotations"] = {"investigate": rule["annotations"]["investigate"]}
    content = {"groups": [{"name": "g", "rules": [rule]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(content))
    evil = "/a'; rm -rf $(x) `y` \\n{id}"
    test = {
        "rule_files": ["rules.yml"],
        "tests": [
            {
                "interval": "30s",
                "input_series": [
                    {
                        "series": f"rag_active_requests{{endpoint={promql.quoted(evil)}}}",
                        "values": "1x4",
                    }
                ],
                "alert_rule_test": [
                    {
                        "eval_time": "1m",
                        "alertname": "HighLatency",
                        "exp_alerts": [
                            {
                                "exp_labels": {**rule["labels"], "endpoint": evil},
                                "exp_annotations": {
                                    "investigate": "ragprof investigate ragprof.toml --alert "
                                    "'HighLatency@1970-01-01T00:01:00Z' "
                                    f"--label 'endpoint={shell.plain(evil)}'"
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(json.dumps(test))
    said_by(servers.find("promtool"), "test", "rules", tmp_path / "test.yml")


def test_amtool_takes_the_configuration_and_routes_as_required(plain: Path) -> None:
    amtool, path = servers.find("amtool"), plain / "alertmanager/alertmanager.yml"
    assert "SUCCESS" in said_by(amtool, "check-config", path)

    def receivers(*labels: str) -> str:
        return said_by(amtool, "config", "routes", "test", f"--config.file={path}", *labels).strip()

    assert receivers("severity=critical", "service=rag-api") == "critical-alerts"
    assert receivers("severity=warning") == "warning-alerts"
    assert receivers("severity=info") == "default"
    config = yaml.safe_load(path.read_text())
    route = config["route"]
    assert route["group_by"] == ["alertname", "cluster", "service"]
    assert [route[key] for key in ("group_wait", "group_interval", "repeat_interval")] == [
        "10s",
        "10s",
        "12h",
    ]
    assert config["global"]["resolve_timeout"] == "5m"
    channels = {
        receiver["name"]: receiver["slack_configs"][0]["channel"]
        for receiver in config["receivers"]
    }
    assert channels == {
        "default": "#rag-alerts",
        "critical-alerts": "#rag-critical",
        "warning-alerts": "#rag-warnings",
    }
    assert not re.search(r"(api_url|routing_key|service_key|password|token):", path.read_text())


def test_a_watch_is_told_beside_the_others(tmp_path: Path) -> None:
    config = alertmanager.config(watch="http://127.0.0.1:9465/alerts")
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    for severity, receiver in (("critical", "critical-alerts"), ("info", "default")):
        told = said_by(
            servers.find("amtool"), "config", "routes", "test", f"--config.file={path}",
            f"severity={severity}",
        )  # fmt: skip
        assert set(told.strip().split(",")) == {"ragprof-watch", receiver}


def test_rsyslogd_takes_its_configuration(plain: Path) -> None:
    whole = plain / "rsyslog.conf"
    part = (plain / "rsyslog/rag-system.conf").read_text()
    whole.write_text(f'global(workDirectory="{plain}")\n{part}')
    said_by(servers.find("rsyslogd"), "-N1", "-f", whole)


def test_the_collector_names_only_components_that_it_has(plain: Path) -> None:
    config = yaml.safe_load((plain / "otel-collector/otelcol.yaml").read_text())
    assert collector.problems(config) == []
    config["service"]["pipelines"]["logs"]["exporters"].append("loki")
    del config["service"]["pipelines"]["traces"]
    said = " ".join(collector.problems(config))
    assert "'loki'" in said
    assert "'otlp' of receivers is not used" in said


def test_fluentd_sections_close_and_its_limits_are_as_required(plain: Path) -> None:
    text = (plain / "fluentd/fluent.conf").read_text()
    open_: list[str] = []
    for line in (each.strip() for each in text.splitlines()):
        if match := re.fullmatch(r"<(\w+)( [^<>]+)?>", line):
            open_.append(match[1])
        elif match := re.fullmatch(r"</(\w+)>", line):
            assert open_.pop() == match[1]
        elif line and not line.startswith("#"):
            assert open_, f"outside of every section: {line}"
            assert re.fullmatch(r"@?[a-z_]+( .+)", line), line
    assert open_ == []
    for wanted in (
        "path /var/log/containers/*rag-system*.log",
        "logstash_prefix rag-system",
        "flush_interval 10s",
        "chunk_limit_size 2MB",
        "queue_limit_length 32",
        "retry_max_interval 30",
        "emit_invalid_record_to_error true",
        "use_partial_cri_logtag true",
    ):
        assert wanted in text
    assert "type_name _doc" not in text
    cri = re.search(r"expression /(.*)/", text)
    assert cri is not None
    pattern = cri[1].replace("(?<", "(?P<")
    found = re.fullmatch(pattern, '2026-01-01T00:00:00.123456789Z stdout F {"event":"x"}')
    assert found is not None
    assert found["log"] == '{"event":"x"}'


def test_the_dashboard_is_as_required(plain: Path) -> None:
    board = json.loads((plain / "grafana/dashboards/rag-overview.json").read_text())
    assert (board["title"], board["uid"]) == ("RAG System Overview", "rag-overview")
    panels: list[dict[str, Any]] = [each for each in board["panels"] if each["type"] != "row"]
    assert len(panels) == len(PANELS)
    titles = {each["title"] for each in panels}
    assert {
        "Request rate by endpoint",
        "Error rate",
        "p95 response time by endpoint",
        "Active requests",
        "p95 retrieval by strategy",
        "Cache hit rate by type",
        "Documents processed by status",
    } <= titles
    assert {each["type"] for each in panels} == {"timeseries", "stat"}
    assert all(each["datasource"]["uid"] == "${datasource}" for each in panels)
    assert [each["type"] for each in board["templating"]["list"]] == ["datasource"]
    assert any(target.get("exemplar") for each in panels for target in each["targets"])
    spots = [each["gridPos"] for each in board["panels"]]
    cells = [
        (x, y)
        for spot in spots
        for x in range(spot["x"], spot["x"] + spot["w"])
        for y in range(spot["y"], spot["y"] + spot["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    source = yaml.safe_load((plain / "grafana/provisioning/datasources/ragprof.yml").read_text())
    targets = source["datasources"][0]["jsonData"]["exemplarTraceIdDestinations"]
    assert [each["name"] for each in targets] == ["trace_id", "trace_id"]


def test_kubernetes_resources_hold_the_same_texts(plain: Path, tmp_path: Path) -> None:
    assert main(["monitoring", "export", str(tmp_path), "--kubernetes"]) == 0
    resources = [
        document
        for path in sorted(tmp_path.glob("*.yml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    kinds = {each["kind"] for each in resources}
    assert {"PrometheusRule", "ServiceMonitor", "Secret", "ConfigMap", "SLO"} <= kinds
    assert all(each.get("apiVersion") and each["metadata"]["name"] for each in resources)
    [secret] = [each for each in resources if each["kind"] == "Secret"]
    config = yaml.safe_load(secret["stringData"]["alertmanager.yaml"])
    assert config == yaml.safe_load((plain / "alertmanager/alertmanager.yml").read_text())


def test_an_export_lists_its_files_and_leaves_others_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["monitoring", "export", str(tmp_path), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert all(Path(each).is_file() for each in files)
    assert {Path(each).relative_to(tmp_path).parts[0] for each in files} == {"plain", "kubernetes"}
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert main(["monitoring", "export", str(tmp_path / "mine.txt")]) == 1
    assert "choose another folder" in capsys.readouterr().err


def test_one_template_and_one_daily_name_for_all_shippers(plain: Path) -> None:
    template = json.loads((plain / "elasticsearch/index-template.json").read_text())
    assert template["index_patterns"] == ["rag-system-*"]
    fields = template["template"]["mappings"]["properties"]
    assert {fields[name]["type"] for name in ("trace_id", "span_id", "request_id")} == {"keyword"}
    assert {fields[name]["type"] for name in ("timestamp", "@timestamp")} == {"date_nanos"}
    for path in ("fluentd/fluent.conf", "otel-collector/otelcol.yaml", "rsyslog/rag-system.conf"):
        assert index_template.PREFIX in (plain / path).read_text()


def test_forms_are_written_alone_or_side_by_side(tmp_path: Path) -> None:
    both = export.export(tmp_path / "both")
    alone = export.export(tmp_path / "alone", (export.PLAIN,))
    assert tmp_path / "both/plain/rsyslog/rag-system.conf" in both
    assert tmp_path / "alone/rsyslog/rag-system.conf" in alone
